//! Refusals name their true cause.

use token::TokenError;
use token::link::TpmKeySource;

use crate::harness::Program;
use crate::operator::Operator;
use crate::program::key;
use crate::swtpm::Swtpm;

fn refusal(tpm: &Swtpm, name: &str) -> String {
    let (program, reports) = Program::open(tpm, vec![tpm.file(name)]);
    assert!(program.end().success());
    match &reports[0] {
        Err(TokenError::Unusable(text)) => text.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hierarchy_that_is_switched_off_is_named() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.make("web", "-G ecc256");
    tpm.tool("tpm2_hierarchycontrol -C o shEnable clear");
    let text = refusal(&tpm, "web");
    assert!(text.contains("hierarchy"), "{text}");
    let (_, reports) = Program::open(&tpm, vec![key(TpmKeySource::Handle(0x8100_0102))]);
    let missing = format!("{reports:?}");
    assert!(!missing.contains("hierarchy"), "{missing}");
}

#[test]
fn a_bank_that_is_switched_off_is_named() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.make_with_policy("web", "", &[tpm.policy_pcr(&[16])]);
    tpm.tool("tpm2_pcrallocate -Q sha1:all+sha256:none");
    tpm.reset();
    tpm.tool("tpm2_startup -c");
    let text = refusal(&tpm, "web");
    assert!(text.contains("bank"), "{text}");
}

/// AWS takes no RSA key of less than 2048 bits.
#[test]
fn a_short_rsa_key_has_a_warning_in_the_list() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.make("short", "-G rsa1024");
    tpm.load("short", "");
    tpm.persist("short", 0x8100_0110, "");
    let report = Operator::on(&tpm).list();
    let short = report
        .keys
        .iter()
        .find(|key| key.handle == Some(0x8100_0110));
    let warnings = &short.unwrap().warnings;
    assert!(
        warnings.iter().any(|text| text.contains("2048")),
        "{warnings:?}"
    );
    let text = refusal(&tpm, "short");
    assert!(text.contains("2048"), "{text}");
}
