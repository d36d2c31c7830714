//! An operator at a terminal.

use std::process::Stdio;

use hsm_fixtures::{FaultyModule, PIN, SoftHsm, programs};
use serde_json::{Value, json};

use super::{Desk, verified};
use crate::agent::json_of;

/// What comes of a line when these answers are typed.
fn typed(desk: &Desk, line: &str, steps: &[(&str, &str)]) -> Value {
    let mut arguments = vec![programs::admin().unwrap().display().to_string()];
    arguments.extend(desk.arguments(line));
    let spec = json!({ "command": arguments, "steps": steps });
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/terminal.py");
    let mut python = desk.scene.command("python3");
    python
        .arg(script)
        .arg(spec.to_string())
        .current_dir(desk.scene.dir());
    let faulty = FaultyModule::new(desk.scene.dir()).unwrap();
    let output = python
        .envs(faulty.env())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let outcome = json_of(&output);
    assert_eq!(outcome["echoes"], true, "{outcome}");
    assert_eq!(outcome["left"], 0, "{outcome}");
    outcome
}

fn shown(outcome: &Value) -> &str {
    outcome["shown"].as_str().unwrap()
}

const GENERATE: &str = "key generate --uri pkcs11:token=lab;object=web --module MODULE --json";
const ASKED: &str = "PIN of pkcs11:token=lab: ";

#[test]
fn a_pin_is_asked_for_and_not_shown() {
    let desk = Desk::new();
    let line = format!("{PIN}\n");
    let outcome = typed(&desk, GENERATE, &[(ASKED, &line)]);
    assert_eq!(outcome["code"], 0, "{outcome}");
    assert!(!shown(&outcome).contains(PIN), "{outcome}");
    assert_eq!(desk.keys_on_token(), ["pkcs11:token=lab;object=web"]);

    // Asked once, for all that a command does.
    let csr =
        "csr --uri pkcs11:token=lab;object=web --module MODULE --subject CN=web --out web.csr";
    let outcome = typed(&desk, csr, &[(ASKED, &line)]);
    assert_eq!(outcome["code"], 0, "{outcome}");
    assert_eq!(shown(&outcome).matches("PIN of").count(), 1, "{outcome}");
    let listed = desk.json("key list --module MODULE --uri pkcs11:token=lab --pin-file PIN --json");
    verified(&desk.path("web.csr"), &listed["tokens"][0]["keys"][0]);

    let outcome = typed(&desk, GENERATE, &[(ASKED, "00000000\n")]);
    assert_eq!(outcome["code"], 1, "{outcome}");
    assert_eq!(shown(&outcome).matches("PIN of").count(), 1, "{outcome}");
}

#[test]
fn a_key_that_is_no_character_costs_no_try() {
    let desk = Desk::new();
    let arrow = format!("\u{1b}[D{PIN}\n");
    let outcome = typed(&desk, GENERATE, &[(ASKED, &arrow)]);
    assert_eq!(outcome["code"], 1, "{outcome}");
    assert!(shown(&outcome).contains("no PIN was tried"), "{outcome}");
    assert!(!shown(&outcome).contains(PIN), "{outcome}");
    let listed = desk.json("key list --module MODULE --uri pkcs11:token=lab --json");
    assert_eq!(listed["tokens"][0]["warnings"], json!([]), "{listed}");
}

#[test]
fn a_new_auth_value_is_asked_for_twice() {
    let desk = Desk::new();
    let line = "key generate --tpm TCTI --out web.tss --pin-prompt";
    let asked = "New auth value of ";
    let outcome = typed(
        &desk,
        line,
        &[(asked, "horse\n"), ("once more: ", "house\n")],
    );
    assert_eq!(outcome["code"], 1, "{outcome}");
    assert!(shown(&outcome).contains("two different"), "{outcome}");
    assert!(!desk.path("web.tss").exists());

    let outcome = typed(
        &desk,
        line,
        &[(asked, "horse\n"), ("once more: ", "horse\n")],
    );
    assert_eq!(outcome["code"], 0, "{outcome}");
    let csr =
        "csr --key web.tss --tpm TCTI --subject CN=web --pin-prompt --attest web --out web.csr";
    let outcome = typed(&desk, csr, &[("Auth value of ", "horse\n")]);
    assert_eq!(outcome["code"], 0, "{outcome}");
    assert_eq!(
        shown(&outcome).matches("Auth value").count(),
        1,
        "{outcome}"
    );
    desk.text("attest verify --csr web.csr --attestation web.json");
    assert_eq!(desk.tpm.lockout_counter().unwrap(), 0);
}

#[test]
fn a_command_that_is_ended_leaves_neither_child_nor_silence() {
    let desk = Desk::new();
    let outcome = typed(&desk, GENERATE, &[(ASKED, "12\u{3}")]);
    assert_eq!(outcome["code"], -2, "{outcome}");
    let outcome = typed(&desk, GENERATE, &[(ASKED, "12\u{4}")]);
    assert_eq!(outcome["code"], 1, "{outcome}");
    assert!(shown(&outcome).contains("no PIN was given"), "{outcome}");

    let outcome = typed(&desk, GENERATE, &[(ASKED, "signal:SIGTERM")]);
    assert_eq!(outcome["code"], -15, "{outcome}");

    // While the module hangs, which is known by what is told after two seconds.
    let faulty = FaultyModule::new(desk.scene.dir()).unwrap();
    faulty.inject(&["C_GenerateKeyPair hang forever"]).unwrap();
    let module = faulty.module().display().to_string();
    let line = GENERATE.replace("MODULE", &module);
    let pin = format!("{PIN}\n");
    let steps = [(ASKED, pin.as_str()), ("making the key", "\u{3}")];
    let outcome = typed(&desk, &line, &steps);
    assert_eq!(outcome["code"], -2, "{outcome}");
    faulty.clear().unwrap();
    assert_eq!(desk.keys_on_token(), [""; 0]);
    assert!(SoftHsm::module().is_ok());
}

#[test]
fn only_yes_is_yes() {
    let desk = Desk::new();
    desk.text("key generate --uri pkcs11:token=lab;object=web --module MODULE --pin-file PIN");
    let line = "key delete --uri pkcs11:token=lab;object=web --module MODULE --pin-file PIN";
    for answer in ["\n", "y\n", "YES\n", "yes please\n", "\u{4}"] {
        let outcome = typed(&desk, line, &[("Type yes: ", answer)]);
        assert_eq!(outcome["code"], 1, "{outcome}");
        assert!(
            shown(&outcome).contains("key pkcs11:token=lab;object=web"),
            "{outcome}"
        );
        assert!(shown(&outcome).contains("nothing was deleted"), "{outcome}");
    }
    let outcome = typed(&desk, line, &[("Type yes: ", "\u{3}")]);
    assert_eq!(outcome["code"], -2, "{outcome}");
    assert_eq!(desk.keys_on_token().len(), 1);
    let outcome = typed(&desk, line, &[("Type yes: ", "yes\n")]);
    assert_eq!(outcome["code"], 0, "{outcome}");
    assert_eq!(desk.keys_on_token(), [""; 0]);
}
