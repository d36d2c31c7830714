//! What people get wrong, and what they are told.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;

use hsm_fixtures::PIN;
use rustix::process::Signal;

use super::{Desk, certify, hex};

const ON_TOKEN: &str = "--uri pkcs11:token=lab;object=web --module MODULE --pin-file PIN";

/// A line that prints to a full disk.
fn with_full_output(desk: &Desk, line: &str) -> String {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = desk.command(line).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{line}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn what_was_done_is_said_where_it_cannot_be_printed() {
    let desk = Desk::new();
    for line in ["key generate", "key generate --json"] {
        let uri = format!("pkcs11:token=lab;object=web-{}", line.len());
        let line = format!("{line} --uri {uri} --module MODULE --pin-file PIN");
        let told = with_full_output(&desk, &line);
        assert!(
            told.contains(&format!("key {uri}, but cannot write")),
            "{told}"
        );
        assert!(desk.keys_on_token().contains(&uri));
    }
    desk.text(&format!("key generate {ON_TOKEN}"));
    let made = desk.json(&format!("key list {ON_TOKEN} --json"));
    let pem = made["tokens"][0]["keys"][0]["publicKey"].as_str().unwrap();
    let key = openssl::pkey::PKey::public_key_from_pem(pem.as_bytes()).unwrap();
    certify(&desk, &key.public_key_to_der().unwrap());
    let told = with_full_output(&desk, &format!("cert import {ON_TOKEN} --cert web.pem"));
    assert!(
        told.contains("stored pkcs11:token=lab;object=web;type=cert"),
        "{told}"
    );
    let told = with_full_output(&desk, &format!("key delete {ON_TOKEN} --yes"));
    for class in ["private", "public", "cert"] {
        let gone = format!("deleted pkcs11:token=lab;object=web;type={class}");
        assert!(told.contains(&gone), "{told}");
    }
}

/// Not that the token does not tell its public key.
#[test]
fn a_key_that_cannot_be_certified_is_refused_for_its_own_fault() {
    let desk = Desk::new();
    let tool = |arguments: &[&str]| {
        let mut tool = desk.scene.command("pkcs11-tool");
        tool.args([
            "--module",
            "/usr/lib/softhsm/libsofthsm2.so",
            "--token-label",
            "lab",
        ]);
        tool.args(["--login", "--pin", PIN]).args(arguments);
        hsm_fixtures::command::output(&mut tool).unwrap();
    };
    let csr = |name: &str| {
        let line = format!(
            "csr --uri pkcs11:token=lab;object={name} --module MODULE --pin-file PIN --subject CN=web"
        );
        desk.failure(&line, 1)
    };
    for (curve, named) in [("edwards25519", "0x40"), ("secp256k1", "06052b8104000a")] {
        tool(&[
            "--keypairgen",
            "--key-type",
            &format!("EC:{curve}"),
            "--label",
            curve,
            "--id",
            "01",
        ]);
        let told = csr(curve);
        assert!(told.contains(named), "{told}");
        tool(&["--delete-object", "--type", "privkey", "--id", "01"]);
        tool(&["--delete-object", "--type", "pubkey", "--id", "01"]);
    }
    // A certificate of another key has its id, and nothing else tells its public key.
    tool(&[
        "--keypairgen",
        "--key-type",
        "EC:prime256v1",
        "--label",
        "web",
        "--id",
        "03",
    ]);
    tool(&["--delete-object", "--type", "pubkey", "--id", "03"]);
    let mut openssl = desk.scene.command("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ]);
    openssl.args([
        "-keyout",
        "/dev/null",
        "-outform",
        "DER",
        "-subj",
        "/CN=other",
        "-out",
    ]);
    let certificate = desk.path("other.der");
    hsm_fixtures::command::output(openssl.arg(&certificate)).unwrap();
    let certificate = certificate.display().to_string();
    tool(&[
        "--write-object",
        &certificate,
        "--type",
        "cert",
        "--label",
        "other",
        "--id",
        "03",
    ]);
    let told = csr("web");
    assert!(told.contains("object=other;type=cert;id=%03"), "{told}");
}

/// A line whose reader has gone.
fn without_reader(desk: &Desk, line: &str) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = desk.command(line).stdout(writer).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    (output.status.signal(), told)
}

#[test]
fn a_reader_that_has_gone_has_seen_enough_but_hears_of_what_was_done() {
    let desk = Desk::new();
    let made = "key generate --tpm TCTI --out web.tss";
    let (signal, told) = without_reader(&desk, made);
    assert_eq!(signal, None);
    assert!(told.contains("web.tss, but cannot write"), "{told}");
    desk.text("csr --key web.tss --tpm TCTI --subject CN=web --out web.csr --attest web");
    for line in [
        "key list --tpm TCTI",
        "key list --tpm TCTI --json",
        "csr --key web.tss --tpm TCTI --subject CN=web",
        "attest verify --csr web.csr --attestation web.json",
    ] {
        let ended = without_reader(&desk, line);
        assert_eq!(
            ended,
            (Some(Signal::PIPE.as_raw()), String::new()),
            "{line}"
        );
    }
}

#[test]
fn an_attestation_is_written_where_the_line_says() {
    let desk = Desk::new();
    desk.text("key generate --tpm TCTI --out web.tss");
    for (name, file) in [
        ("one", "one.json"),
        ("two.json", "two.json"),
        ("three.csr", "three.csr.json"),
    ] {
        let request = "csr --key web.tss --tpm TCTI --subject CN=web";
        desk.text(&format!("{request} --attest {name}"));
        assert!(desk.path(file).exists(), "{file}");
    }
    assert!(!desk.path("two.json.json").exists());
}

#[test]
fn a_proof_that_a_token_cannot_give_is_refused_before_a_pin_is_tried() {
    let desk = Desk::new();
    desk.text(&format!("key generate {ON_TOKEN}"));
    desk.scene.write("wrong", "wrong-pin").unwrap();
    let private = Permissions::from_mode(0o600);
    std::fs::set_permissions(desk.path("wrong"), private).unwrap();
    let key = ON_TOKEN.replace("PIN", "wrong");
    let line = format!("csr {key} --subject CN=web --out web.csr --attest web.json");
    let told = desk.failure(&line, 2);
    assert!(told.contains("--attest is for keys in a TPM"), "{told}");
    assert!(told.contains("key list --login"), "{told}");
    assert!(!desk.path("web.csr").exists() && !desk.path("web.json").exists());
    let listed = desk.json("key list --module MODULE --uri pkcs11:token=lab --json");
    assert_eq!(listed["tokens"][0]["warnings"], serde_json::json!([]));
}

#[test]
fn a_key_is_followed_by_the_place_that_enroll_and_renewal_have_for_its_certificate() {
    let desk = Desk::new();
    let told = desk.text(&format!("key generate {ON_TOKEN}"));
    let line = "certificate = \"/var/lib/roleseal/web.pem\"";
    assert!(told.contains(line), "{told}");
}

#[test]
fn a_refused_auth_value_is_told_with_the_commands_own_option() {
    let desk = Desk::new();
    desk.scene.write("pin", PIN).unwrap();
    let private = Permissions::from_mode(0o600);
    std::fs::set_permissions(desk.path("pin"), private).unwrap();
    desk.text("key generate --tpm TCTI --out web.tss --pin-file pin");
    let told = desk.failure("csr --key web.tss --tpm TCTI --subject CN=web", 1);
    assert!(told.contains("give --pin-file"), "{told}");
}

#[test]
fn a_pin_file_with_what_nobody_sees_is_told_of() {
    let desk = Desk::new();
    let generate = |content: String| {
        desk.scene.write("pin", &content).unwrap();
        let private = Permissions::from_mode(0o600);
        std::fs::set_permissions(desk.path("pin"), private).unwrap();
        let line = "key generate --uri pkcs11:token=lab;object=web --module MODULE --pin-file pin";
        desk.failure(line, 1)
    };
    let told = generate(format!("\u{feff}{PIN}\n"));
    assert!(told.contains("byte order mark"), "{told}");
    // It was not tried.
    let listed = desk.json("key list --module MODULE --uri pkcs11:token=lab --json");
    assert_eq!(listed["tokens"][0]["warnings"].as_array().unwrap().len(), 0);
    let told = generate(format!("{PIN} \n"));
    assert!(
        told.contains("has a blank at its beginning or end"),
        "{told}"
    );
}

#[test]
fn a_pin_file_in_the_place_of_an_attestation_is_not_shown() {
    let desk = Desk::new();
    desk.text(&format!("key generate {ON_TOKEN}"));
    desk.text(&format!("csr {ON_TOKEN} --subject CN=web --out web.csr"));
    desk.scene.write("pin", PIN).unwrap();
    let told = desk.failure("attest verify --csr web.csr --attestation pin", 1);
    assert!(told.contains("csr --attest"), "{told}");
    assert!(!told.contains(PIN), "{told}");
}

#[test]
fn a_minus_is_standard_output_or_refused() {
    let desk = Desk::new();
    desk.text(&format!("key generate {ON_TOKEN}"));
    let request = desk.text(&format!("csr {ON_TOKEN} --subject CN=web --out -"));
    assert!(
        request.starts_with("-----BEGIN CERTIFICATE REQUEST"),
        "{request}"
    );
    let told = desk.failure("key generate --tpm TCTI --out -", 1);
    assert!(told.contains("./-"), "{told}");
    assert!(!desk.path("-").exists());
}

#[test]
fn a_listing_has_what_its_uri_names() {
    let desk = Desk::new();
    desk.text(&format!("key generate {ON_TOKEN}"));
    desk.text(&format!(
        "key generate {}",
        ON_TOKEN.replace("web", "other")
    ));
    assert_eq!(desk.keys_on_token().len(), 2);
    let keys = |uri: &str| {
        let line = format!("key list --uri {uri} --module MODULE --pin-file PIN --json");
        super::keys(&desk.json(&line)["tokens"][0])
    };
    assert_eq!(
        keys("pkcs11:token=lab;object=web"),
        ["pkcs11:token=lab;object=web"]
    );
    assert_eq!(keys("pkcs11:token=lab;object=neither"), [""; 0]);
    assert_eq!(keys("pkcs11:token=lab;type=cert"), [""; 0]);
    assert_eq!(keys("pkcs11:token=lab;type=private").len(), 2);
    assert_eq!(
        keys(&format!("pkcs11:token=lab;id=%{}", hex(&[0]))),
        [""; 0]
    );
}

#[test]
fn what_stands_wrong_is_told_with_what_is_right() {
    let desk = Desk::new();
    desk.scene.write("web.tss", "no key").unwrap();
    desk.text("key generate --tpm TCTI --persist 0x81000101");
    for (line, code, expected) in [
        (
            "key list --uri pkcs11:token=b\u{fc}ro#1 --module MODULE",
            2,
            "write %C3%BC for it",
        ),
        ("key list --module /nowhere/p11.so", 1, "--module"),
        (
            "key generate --tpm TCTI --out new.tss --parent 0x81000101",
            1,
            "under 0x81000101, which has to be a storage key",
        ),
        (
            "csr --key web.tss --tpm TCTI --subject CN=web",
            1,
            "roleseal-admin key generate --tpm",
        ),
    ] {
        let told = desk.failure(line, code);
        assert!(told.contains(expected), "{line}: {told}");
    }
}
