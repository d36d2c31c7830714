//! Auth values: hidden on the bus, tried once, and not at all when the TPM is locked.

use super::*;

/// swtpm's log shows every byte on the bus.
#[test]
fn an_auth_value_never_crosses_the_bus() {
    let mut chip = Chip::new();
    chip.add("file", &with_auth(ec()));
    let handle = TpmKeySpec {
        form: persistent(0x8100_0101),
        ..ec()
    };
    chip.add("handle", &with_auth(handle));
    let bytes = |log: &str| -> String {
        let dumps = log.lines().filter(|line| !line.contains(':'));
        dumps.flat_map(str::split_whitespace).collect()
    };
    let before = chip.tpm.log().len();
    let auth: String = AUTH.bytes().map(|byte| format!("{byte:02X}")).collect();
    assert!(bytes(&chip.tpm.log()).contains(&auth)); // by tpm2_create
    chip.start();
    chip.sign("file");
    chip.sign("handle");
    assert!(!bytes(&chip.tpm.log()[before..]).contains(&auth));
}

#[test]
fn a_wrong_auth_value_is_tried_once_however_many_ask() {
    let mut chip = Chip::new();
    chip.add("web", &with_auth(ec()));
    chip.add("batch", &with_auth(TpmKeySpec::new(KeyKind::Rsa2048)));
    chip.scene.write("web.pin", "wrong").unwrap();
    chip.start();
    for output in chip.ask_at_once("web", 100) {
        refused(&output);
    }
    chip.sign("batch");
    let states = chip.states();
    assert_eq!(states["web"]["state"], "pinRejected", "{}", states["web"]);
    assert_eq!(states["batch"]["state"], "ready", "{}", states["batch"]);
    chip.sign("batch");
    assert_eq!(chip.tpm.lockout_counter().unwrap(), 1);
    chip.stop();
    chip.assert_left_nothing();
    // Nor when the agent starts again.
    for _ in 0..3 {
        chip.start();
        refused(&chip.ask("web"));
        chip.sign("batch");
        chip.stop();
    }
    assert_eq!(chip.tpm.lockout_counter().unwrap(), 1);

    // The operator mends it.
    chip.scene.write("web.pin", AUTH).unwrap();
    chip.start();
    chip.sign("web");
    assert_eq!(chip.tpm.lockout_counter().unwrap(), 1);
}

/// It is one key, whatever file it is in.
#[test]
fn a_wrong_auth_value_is_tried_once_under_all_names_of_a_key() {
    let mut chip = Chip::new();
    chip.add("web", &with_auth(ec()));
    chip.scene.write("web.pin", "wrong").unwrap();
    let mut copy = chip.identities[0].clone();
    copy.name = "copy".to_owned();
    copy.key = chip.scene.path("copy.tss").display().to_string();
    std::fs::copy(&chip.identities[0].key, &copy.key).unwrap();
    for more in [None, Some(copy)] {
        chip.identities.extend(more);
        chip.start();
        for (name, identity) in chip.states() {
            assert_eq!(identity["state"], "pinRejected", "{name}");
        }
        chip.stop();
    }
    assert_eq!(chip.tpm.lockout_counter().unwrap(), 1);
}

/// An identity that never comes to try the PIN that it shares does not have the refusal forgotten.
#[test]
fn an_unfit_certificate_of_the_same_key_is_no_second_try() {
    let mut chip = Chip::new();
    chip.add("web", &with_auth(ec()));
    chip.add("other", &TpmKeySpec::new(KeyKind::Rsa2048));
    chip.scene.write("web.pin", "wrong").unwrap();
    let mut copy = chip.identities[0].clone();
    copy.name = "copy".to_owned();
    copy.key = chip.scene.path("copy.tss").display().to_string();
    copy.certificate = chip.identities[1].certificate.clone();
    std::fs::copy(&chip.identities[0].key, &copy.key).unwrap();
    chip.identities.push(copy);
    for _ in 0..3 {
        chip.start();
        assert_eq!(chip.states()["web"]["state"], "pinRejected");
        chip.stop();
    }
    assert_eq!(chip.tpm.lockout_counter().unwrap(), 1);
}

#[test]
fn an_operator_has_an_auth_value_tried_once_more() {
    let mut chip = Chip::new();
    chip.add("web", &with_auth(ec()));
    chip.scene.write("web.pin", "wrong").unwrap();
    chip.start();
    refused(&chip.ask("web"));
    let mut retry = chip.scene.command(programs::admin().unwrap());
    retry.args(["pin", "retry", "web", "--config"]);
    retry.arg(chip.scene.path("agent.toml"));
    assert_eq!(retry.output().unwrap().status.code(), Some(1));
    assert_eq!(chip.tpm.lockout_counter().unwrap(), 2);
    chip.stop();
    chip.start();
    refused(&chip.ask("web"));
    assert_eq!(chip.tpm.lockout_counter().unwrap(), 2);
}

#[test]
fn a_tpm_that_is_locked_out_is_not_tried() {
    let mut chip = Chip::new();
    let spec = with_auth(TpmKeySpec {
        form: persistent(0x8100_0101),
        ..ec()
    });
    chip.add("web", &spec);
    let unprotected = TpmKeySpec {
        attributes: format!("{}|noda", ec().attributes),
        ..with_auth(ec())
    };
    chip.add("unprotected", &unprotected);
    chip.tpm.set_max_tries(1).unwrap();
    let text = chip.scene.write("text", "text").unwrap();
    let mut wrong = chip.tpm.tool("tpm2_sign");
    wrong.args([
        "-Q",
        "-g",
        "sha256",
        "-c",
        "0x81000101",
        "-p",
        "wrong",
        "-o",
    ]);
    wrong.arg(chip.scene.path("signature")).arg(text);
    assert!(command::output(&mut wrong).is_err());
    assert_eq!(chip.tpm.lockout_counter().unwrap(), 1);

    chip.start();
    for output in chip.ask_at_once("web", 20) {
        let message = refused(&output);
        assert!(message.contains("lock"), "{message}");
    }
    let states = chip.states();
    assert_eq!(states["web"]["state"], "unavailable", "{}", states["web"]);
    let before = chip.tpm.commands().len();
    refused(&chip.ask("web"));
    let commands = chip.tpm.commands().split_off(before);
    assert!(!commands.contains(&"TPM2_Sign".to_owned()), "{commands:?}");
    assert_eq!(chip.tpm.lockout_counter().unwrap(), 1);
    // The lock is none of the business of keys that are not protected.
    chip.sign("unprotected");
}
