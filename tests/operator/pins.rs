//! PINs and logins: where they come from, and that none is tried again.

use super::*;

#[test]
fn pins_come_from_where_the_line_says() {
    let desk = Desk::new();
    let own = desk.scene.dir().display().to_string();
    let pin = std::fs::read_to_string(desk.scene.pin_path(&desk.token)).unwrap();
    // Where no systemd runs, this stands in for its program. It is not to ask for ever.
    let asked = format!("#!/bin/sh\n[ \"${{1#--timeout=}}\" -gt 0 ] && printf '%s\\n' {pin}\n");
    let program = desk.scene.write("systemd-ask-password", &asked).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(program, executable).unwrap();
    for (number, uri, option) in [
        (1, format!("?pin-source={own}/lab.pin"), ""),
        (2, format!("?pin-value={pin}"), ""),
        (3, String::new(), "--pin-file lab.pin"),
        (4, String::new(), "--pin-credential lab.pin"),
        (5, String::new(), "--pin-ask-password"),
    ] {
        let line = format!(
            "key generate --uri pkcs11:token=lab;object=web-{number}{uri} {option} --module MODULE"
        );
        let mut command = desk.command(&line);
        let path = std::env::var("PATH").unwrap();
        command
            .env("CREDENTIALS_DIRECTORY", &own)
            .env("PATH", format!("{own}:{path}"));
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {stderr}");
        assert_eq!(
            stderr.contains("can read the URI's pin-value"),
            number == 2,
            "{stderr}"
        );
        let printed = [output.stdout, output.stderr].concat();
        assert!(!String::from_utf8_lossy(&printed).contains(&pin));
    }
    assert_eq!(desk.keys_on_token().len(), 5);
    let both = format!(
        "csr --uri pkcs11:token=lab;object=web-1?pin-source={own}/lab.pin --pin-file PIN --subject CN=web"
    );
    assert!(desk.failure(&both, 2).contains("leave one of them out"));
}

#[test]
fn a_wrong_pin_is_tried_once() {
    let desk = Desk::new();
    let faulty = FaultyModule::new(desk.scene.dir()).unwrap();
    desk.scene.write("wrong.pin", "00000000").unwrap();
    for line in [
        "key generate --uri pkcs11:token=lab;object=web",
        "csr --uri pkcs11:token=lab;object=web --subject CN=web",
        "key list --uri pkcs11:token=lab",
        "key delete --yes --uri pkcs11:token=lab;object=web",
    ] {
        let before = faulty.count("C_Login").unwrap();
        let mut command = desk.command(line);
        command
            .args(["--pin-file", "wrong.pin", "--module"])
            .arg(faulty.module());
        let output = command.envs(faulty.env()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(
            stderr.contains("PIN") && stderr.contains("wrong.pin"),
            "{stderr}"
        );
        assert!(!stderr.contains("00000000"), "{stderr}");
        assert_eq!(faulty.count("C_Login").unwrap() - before, 1, "{line}");
    }
}

/// SoftHSM's cannot be read while another process logs in.
#[test]
fn a_token_that_cannot_be_read_for_an_instant_is_found() {
    let desk = Desk::new();
    let faulty = FaultyModule::new(desk.scene.dir()).unwrap();
    for line in [
        "key generate --json --uri pkcs11:token=lab;object=web --type ec-p256",
        "key list --json --uri pkcs11:token=lab",
        "key list --json",
    ] {
        faulty
            .inject(&["C_GetTokenInfo return CKR_GENERAL_ERROR times 1"])
            .unwrap();
        let mut command = desk.command(line);
        command
            .args(["--pin-file"])
            .arg(desk.scene.pin_path(&desk.token));
        command.arg("--module").arg(faulty.module());
        let made = json_of(&command.envs(faulty.env()).output().unwrap());
        assert!(
            made.to_string().contains("pkcs11:token=lab;"),
            "{line}: {made}"
        );
        assert!(
            !made.to_string().contains("CKR_GENERAL_ERROR"),
            "{line}: {made}"
        );
    }
}

/// Whatever a login ends with, it is not made again, and nobody is asked again.
#[test]
fn a_login_that_fails_is_made_once() {
    let desk = Desk::new();
    let faulty = FaultyModule::new(desk.scene.dir()).unwrap();
    for code in ["CKR_DEVICE_REMOVED", "CKR_FUNCTION_FAILED"] {
        faulty.inject(&[&format!("C_Login return {code}")]).unwrap();
        for line in [
            "key list --uri pkcs11:token=lab --pin-file PIN --module",
            "key generate --uri pkcs11:token=lab;object=web --pin-file PIN --module",
        ] {
            let before = faulty.count("C_Login").unwrap();
            let mut command = desk.command(line);
            command.arg(faulty.module()).envs(faulty.env());
            let output = command.output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{stderr}");
            assert!(stderr.contains(code), "{stderr}");
            assert_eq!(faulty.count("C_Login").unwrap() - before, 1, "{line}");
        }
    }
}

#[test]
fn a_module_that_crashes_is_told_of() {
    let desk = Desk::new();
    let faulty = FaultyModule::new(desk.scene.dir()).unwrap();
    faulty.inject(&["C_GenerateKeyPair segfault"]).unwrap();
    let mut command =
        desk.command("key generate --uri pkcs11:token=lab;object=web --pin-file PIN --module");
    let output = command
        .arg(faulty.module())
        .envs(faulty.env())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("roleseal-pkcs11 ended") && stderr.contains("SIGSEGV"),
        "{stderr}"
    );
}
