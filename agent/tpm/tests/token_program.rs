//! The token program as the agent runs it: the real binary, on a swtpm for each test, with keys made by
//! tpm2-tools and tpm2-openssl.

// clippy.toml allows these in tests, but does not count the helpers of an integration test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "token_program/auth_values.rs"]
mod auth_values;
#[path = "token_program/causes.rs"]
mod causes;
#[path = "token_program/confinement.rs"]
mod confinement;
#[path = "token_program/doubtful.rs"]
mod doubtful;
#[path = "token_program/foreign_files.rs"]
mod foreign_files;
#[path = "../../token/tests/harness/program.rs"]
mod harness;
#[path = "token_program/keys.rs"]
mod keys;
#[path = "token_program/loss.rs"]
mod loss;
#[path = "token_program/operator.rs"]
mod operator;
#[path = "token_program/program.rs"]
mod program;
#[path = "token_program/proxy.rs"]
mod proxy;
#[path = "token_program/replaced.rs"]
mod replaced;
#[path = "token_program/sessions.rs"]
mod sessions;
#[path = "token_program/swtpm.rs"]
mod swtpm;
#[path = "token_program/worker.rs"]
mod worker;

use std::collections::BTreeSet;
use std::process::Stdio;
use std::slice;

use token::TokenError;
use token::link::{FromToken, KeyReport, OpenTpmKey, OpenedKey, TpmKeySource};

use harness::{ECDSA, Program, RSA, unusable};
use keys::{PARENT, policy_or};
use program::{PROGRAM, key, pin};
use swtpm::{Swtpm, command};

const TPM2_SIGN: u32 = 0x15d;
const TPM2_POLICY_PCR: u32 = 0x17f;

fn is_fine(report: &KeyReport) -> bool {
    matches!(report, Ok(OpenedKey { warnings, .. }) if warnings.is_empty())
}

/// A row of a table: how the key is made, and what the agent is told of it.
type Row = (&'static str, &'static str, OpenTpmKey);

/// Each key of the table signs, and its signature verifies.
fn sign_with_all(tpm: &Swtpm, rows: Vec<Row>) {
    let keys = rows.iter().map(|(.., key)| key.clone()).collect();
    let (mut program, reports) = Program::open(tpm, keys);
    for (report, (name, ..)) in reports.iter().zip(&rows) {
        assert!(is_fine(report), "{name}: {report:?}");
    }
    // Twice around, so that each key was swapped out between.
    for _ in 0..2 {
        for (number, (name, text, _)) in rows.iter().enumerate() {
            let signature = program.sign(number, text);
            let signature = signature.unwrap_or_else(|error| panic!("{name}: {error:?}"));
            assert!(tpm.verifies(name, text, &signature), "{name}");
        }
    }
    assert!(program.end().success());
    assert_eq!(tpm.handles(), "");
}

#[test]
fn every_type_of_key_signs() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    let mut rows = Vec::new();
    for (name, kind, text) in [
        ("ecc256", "ecc256", ECDSA),
        ("ecc256-fixed", "ecc256:ecdsa-sha256", ECDSA),
        ("ecc384", "ecc384", ECDSA),
        ("ecc384-sha256", "ecc384:ecdsa-sha256", ECDSA),
        ("ecc384-sha384", "ecc384:ecdsa-sha384", ECDSA),
        ("ecc521", "ecc521", ECDSA),
        ("ecc521-sha512", "ecc521:ecdsa-sha512", ECDSA),
        ("rsa2048", "rsa2048", RSA),
        ("rsa2048-fixed", "rsa2048:rsassa-sha256", RSA),
        ("rsa3072", "rsa3072", RSA),
    ] {
        tpm.make(name, &format!("-G {kind}"));
        rows.push((name, text, tpm.file(name)));
    }
    sign_with_all(&tpm, rows);
}

#[test]
fn every_source_signs() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    let mut rows = Vec::new();

    tpm.make("tools", "-G ecc256");
    rows.push(("tools", ECDSA, tpm.file("tools")));

    tpm.make_openssl("openssl-ec", "EC -pkeyopt group:P-256", "");
    rows.push(("openssl-ec", ECDSA, tpm.file("openssl-ec")));
    tpm.make_openssl("openssl-rsa", "RSA -pkeyopt bits:2048", "");
    rows.push(("openssl-rsa", RSA, tpm.file("openssl-rsa")));
    tpm.make_openssl(
        "openssl-parent",
        "EC -pkeyopt group:P-384",
        "-pkeyopt parent:0x81000001",
    );
    rows.push(("openssl-parent", ECDSA, tpm.file("openssl-parent")));

    for (name, hierarchy, handle) in [
        ("endorsement", "e", 0x4000_000b),
        ("platform", "p", 0x4000_000c),
        ("null", "n", 0x4000_0007),
        ("owner", "o", 0x4000_0001),
    ] {
        tpm.make_under_primary(name, hierarchy, handle);
        rows.push((name, ECDSA, tpm.file(name)));
    }

    tpm.make("persistent", "-G ecc256");
    tpm.load("persistent", "");
    tpm.persist("persistent", 0x8100_0101, "");
    rows.push(("persistent", ECDSA, key(TpmKeySource::Handle(0x8100_0101))));
    sign_with_all(&tpm, rows);
}

#[test]
fn every_authorization_works() {
    let tpm = Swtpm::start();
    tpm.make_parent("-p parent-secret");
    tpm.change_owner_auth("owner-secret");
    let under = |mut key: OpenTpmKey| {
        key.parent_pin = pin("parent-secret");
        key
    };
    let mut rows = Vec::new();

    tpm.make("empty", "-G ecc256 -P parent-secret");
    rows.push(("empty", ECDSA, under(tpm.file("empty"))));

    tpm.make("auth", "-G ecc256 -p key-secret -P parent-secret");
    let mut auth = under(tpm.file("auth"));
    auth.pin = pin("key-secret");
    rows.push(("auth", ECDSA, auth));

    tpm.make("rsa-auth", "-G rsa2048 -p key-secret -P parent-secret");
    let mut auth = under(tpm.file("rsa-auth"));
    auth.pin = pin("key-secret");
    rows.push(("rsa-auth", RSA, auth));

    tpm.make_openssl(
        "owner",
        "EC -pkeyopt group:P-256",
        "-pkeyopt parent-auth:owner-secret -pkeyopt user-auth:key-secret",
    );
    let mut owner = tpm.file("owner");
    owner.owner_pin = pin("owner-secret");
    owner.pin = pin("key-secret");
    rows.push(("owner", ECDSA, owner));

    tpm.make("persistent", "-G ecc256 -p key-secret -P parent-secret");
    tpm.load("persistent", "-P parent-secret");
    tpm.persist("persistent", 0x8100_0101, "-P owner-secret");
    let mut persistent = key(TpmKeySource::Handle(0x8100_0101));
    persistent.pin = pin("key-secret");
    rows.push(("persistent", ECDSA, persistent));
    sign_with_all(&tpm, rows);
}

#[test]
fn it_is_confined_unless_told_otherwise() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.make("web", "-G ecc256");
    for (arguments, seccomp, log) in [(&[][..], "2", "confined"), (&["--unconfined"], "0", "free")]
    {
        // libtss2 writes its log wherever it is told to, and where it cannot, to standard error.
        let log = tpm.path(log);
        let mut command = command(PROGRAM);
        command
            .args(arguments)
            .env("TSS2_LOG", "all+TRACE")
            .env("TSS2_LOGFILE", &log)
            .stderr(Stdio::null());
        let mut program = Program::spawn(command);
        let reports = program.try_open(tpm.tcti(), vec![tpm.file("web")]).unwrap();
        assert!(is_fine(&reports[0]), "{reports:?}");
        program.sign(0, ECDSA).unwrap();
        let status = format!("/proc/{}/status", program.child.id());
        let status = std::fs::read_to_string(status).unwrap();
        assert!(
            status.contains(&format!("\nSeccomp:\t{seccomp}\n")),
            "{status}"
        );
        assert!(status.contains("\nNoNewPrivs:\t1\n"), "{status}");
        assert_eq!(log.exists(), !arguments.is_empty());
        assert!(program.end().success());
    }
    assert_eq!(tpm.handles(), "");
}

#[test]
fn a_signature_costs_one_command() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.make("empty", "-G ecc256");
    tpm.make("auth", "-G ecc256 -p key-secret");
    let mut auth = tpm.file("auth");
    auth.pin = pin("key-secret");
    let (mut program, reports) = Program::open(&tpm, vec![tpm.file("empty"), auth]);
    assert!(reports.iter().all(is_fine), "{reports:?}");
    // The first use of a key that counts for the lockout makes the TPM write that down, and ask for a retry.
    program.sign(0, ECDSA).unwrap();
    program.sign(1, ECDSA).unwrap();
    let opening = tpm.commands().len();
    for _ in 0..3 {
        program.sign(0, ECDSA).unwrap();
        program.sign(1, ECDSA).unwrap();
    }
    assert_eq!(tpm.commands()[opening..], [TPM2_SIGN; 6]);
    let opening = tpm.commands().len();
    let begin = std::time::Instant::now();
    for _ in 0..200 {
        program.sign(1, ECDSA).unwrap();
    }
    let rate = 200.0 / begin.elapsed().as_secs_f64();
    eprintln!("P-256 with an auth value: {rate:.0} signatures/s");
    assert_eq!(tpm.commands().len() - opening, 200);
    assert!(program.end().success());
}

/// No resource manager, three transient objects.
#[test]
fn twelve_keys_take_turns() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    let names: Vec<String> = (0..12).map(|number| format!("key{number}")).collect();
    let mut keys = Vec::new();
    for name in &names {
        tpm.make(name, "-G ecc256 -p key-secret");
        let mut key = tpm.file(name);
        key.pin = pin("key-secret");
        keys.push(key);
    }
    let (mut program, reports) = Program::open(&tpm, keys);
    assert!(reports.iter().all(is_fine), "{reports:?}");
    // In turn, all at once, each its own text.
    for id in 0..120 {
        program.ask(id, id as usize % 12, ECDSA);
    }
    let mut signed = BTreeSet::new();
    for _ in 0..120 {
        let FromToken::Signed { id, result } = program.receive() else {
            panic!("not a signature");
        };
        let name = &names[id as usize % 12];
        assert!(tpm.verifies(name, ECDSA, &result.unwrap().0), "{name}");
        signed.insert(id);
    }
    assert_eq!(signed.len(), 120);
    // A swapped key is never read from its file again.
    let opened = tpm.commands().len();
    for number in 0..12 {
        program.sign(number, ECDSA).unwrap();
    }
    let turn = tpm.commands().split_off(opened);
    let (save, load, flush) = (0x162, 0x161, 0x165);
    let allowed = [TPM2_SIGN, save, load, flush];
    assert!(turn.iter().all(|code| allowed.contains(code)), "{turn:x?}");
    assert!(turn.len() <= 36, "{turn:x?}");
    assert!(program.end().success());
    assert_eq!(tpm.handles(), "");
}

#[test]
fn a_pcr_policy_costs_two_commands_and_names_what_changed() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.make_with_policy("pcr", "", &[tpm.policy_pcr(&[7, 16])]);
    let (mut program, reports) = Program::open(&tpm, vec![tpm.file("pcr")]);
    assert!(is_fine(&reports[0]), "{reports:?}");
    program.sign(0, ECDSA).unwrap();
    let opening = tpm.commands().len();
    for _ in 0..2 {
        let signature = program.sign(0, ECDSA).unwrap();
        assert!(tpm.verifies("pcr", ECDSA, &signature));
    }
    let steady = [TPM2_POLICY_PCR, TPM2_SIGN, TPM2_POLICY_PCR, TPM2_SIGN];
    assert_eq!(tpm.commands()[opening..], steady);

    tpm.tool(
        "tpm2_pcrextend 16:sha256=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    );
    let result = program.sign(0, ECDSA);
    let text = unusable(&result);
    assert!(text.contains("PCR 16 (sha256) changed"), "{text}");
    assert!(!text.contains("PCR 7"), "{text}");
    assert!(program.end().success());

    // A new program knows no more than the file: one digest over both.
    let (program, reports) = Program::open(&tpm, vec![tpm.file("pcr")]);
    let text = unusable(&reports[0]);
    assert!(text.contains("PCR 7 (sha256), PCR 16 (sha256)"), "{text}");
    assert!(program.end().success());
    assert_eq!(tpm.handles(), "");
}

#[test]
fn policies_of_every_kind_hold() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    let pcr = tpm.policy_pcr(&[0, 7]);
    let auth_value = (0x16b, vec![]);
    let password = (0x18c, vec![]);
    let command_code = (0x16c, vec![0, 0, 1, 0x5d]);
    let mut rows = Vec::new();
    let with_pin = |name: &str| {
        let mut key = tpm.file(name);
        key.pin = pin("key-secret");
        key
    };

    tpm.make_with_policy("pcr", "", slice::from_ref(&pcr));
    rows.push(("pcr", ECDSA, tpm.file("pcr")));
    tpm.make_with_policy("authvalue", "-p key-secret", slice::from_ref(&auth_value));
    rows.push(("authvalue", ECDSA, with_pin("authvalue")));
    tpm.make_with_policy("password", "-p key-secret", &[password]);
    rows.push(("password", ECDSA, with_pin("password")));
    tpm.make_with_policy("code", "", slice::from_ref(&command_code));
    rows.push(("code", ECDSA, tpm.file("code")));
    let all = [pcr.clone(), auth_value, command_code];
    tpm.make_with_policy("all", "-p key-secret", &all);
    rows.push(("all", ECDSA, with_pin("all")));
    let or = policy_or(slice::from_ref(&pcr), &[7; 32]);
    tpm.make_with_policy("or", "", &[pcr.clone(), or]);
    rows.push(("or", ECDSA, tpm.file("or")));
    tpm.make_with_signed_policy("signed", &[pcr]);
    rows.push(("signed", ECDSA, tpm.file("signed")));
    sign_with_all(&tpm, rows);
}

#[test]
fn importable_keys_sign_with_a_warning() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.make_importable("imported");
    let (mut program, reports) = Program::open(&tpm, vec![tpm.file("imported")]);
    let Ok(OpenedKey { warnings, .. }) = &reports[0] else {
        panic!("{reports:?}");
    };
    let warnings = warnings.join("; ");
    assert!(warnings.contains("outside of the TPM"), "{warnings}");
    assert!(warnings.contains("can leave its TPM"), "{warnings}");
    let signature = program.sign(0, ECDSA).unwrap();
    assert!(tpm.verifies("imported", ECDSA, &signature));
    assert!(program.end().success());
}

#[test]
fn what_cannot_sign_is_refused_with_a_remedy() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    let other = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth";
    tpm.make("decrypts", &format!("-G rsa2048 -a {other}|decrypt"));
    tpm.make(
        "restricted",
        &format!("-G ecc256:ecdsa-sha256:null -a {other}|sign|restricted"),
    );
    tpm.make(
        "pss",
        &format!("-G rsa2048:rsapss-sha256:null -a {other}|sign"),
    );
    tpm.make("sha384", "-G ecc256:ecdsa-sha384");
    tpm.make("fine", "-G ecc256");
    std::fs::write(tpm.path("empty.tss"), "").unwrap();
    let names = ["decrypts", "restricted", "pss", "sha384", "empty", "absent"];
    let mut keys: Vec<_> = names.iter().map(|name| tpm.file(name)).collect();
    keys.push(key(TpmKeySource::Handle(0x8100_0999)));
    keys.push(tpm.file("fine"));
    let (mut program, reports) = Program::open(&tpm, keys);
    for (report, expected) in reports.iter().zip([
        "its attribute sign is not set",
        "it is restricted",
        "rsassa-sha256",
        "ecdsa-sha256",
        "BEGIN TSS2 PRIVATE KEY",
        "cannot read it",
        "no key at handle 0x81000999",
    ]) {
        let text = unusable(report);
        assert!(text.contains(expected), "{text}");
    }
    assert!(program.sign(names.len() + 1, ECDSA).is_ok());
    // The other algorithm is not this key's.
    let error = program.sign(names.len() + 1, RSA).unwrap_err();
    assert!(matches!(error, TokenError::Broken(_)), "{error:?}");
    assert!(program.end().success());
}

#[test]
fn another_tpms_key_is_refused() {
    let (one, other) = (Swtpm::start(), Swtpm::start());
    one.make_parent("");
    other.make_parent("");
    one.make("web", "-G ecc256");
    let (program, reports) = Program::open(&other, vec![one.file("web")]);
    let text = unusable(&reports[0]);
    assert!(text.contains("another TPM"), "{text}");
    assert!(program.end().success());
}
