//! Wrong auth values are tried once, and a TPM that is locked is not tried.

use super::*;

/// libtss2 has one object for a handle, and must not mix up who has which auth value.
#[test]
fn a_handle_may_be_named_with_and_without_its_auth_value() {
    for right in [0, 1] {
        let tpm = Swtpm::start();
        tpm.make_parent("");
        tpm.make("web", "-G ecc256 -p key-secret -a sign|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda");
        tpm.load("web", "");
        tpm.persist("web", 0x8100_0101, "");
        let before = tpm.log().len();
        let mut keys = vec![key(TpmKeySource::Handle(0x8100_0101)); 2];
        keys[right].pin = pin("key-secret");
        let (mut program, _) = Program::open(&tpm, keys);
        for _ in 0..2 {
            assert!(program.sign(right, ECDSA).is_ok());
            let refused = program.sign(1 - right, ECDSA);
            assert!(
                matches!(refused, Err(TokenError::PinRejected(_))),
                "{refused:?}"
            );
        }
        let dumps = tpm.log().split_off(before);
        let dumps = dumps.lines().filter(|line| !line.contains(':'));
        let bytes: String = dumps.flat_map(str::split_whitespace).collect();
        let secret: String = b"key-secret"
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect();
        assert!(!bytes.contains(&secret));
    }
}

#[test]
fn the_null_hierarchy_takes_no_auth_value() {
    let tpm = Swtpm::start();
    tpm.make_under_primary("null", "n", 0x4000_0007);
    let mut null = tpm.file("null");
    null.owner_pin = pin("owner-secret");
    let (_, reports) = Program::open(&tpm, vec![null]);
    let Err(TokenError::Unusable(text)) = &reports[0] else {
        panic!("{reports:?}");
    };
    assert!(text.contains("leave owner-pin out"), "{text}");
}

#[test]
fn a_wrong_auth_value_is_tried_once() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.make("right", "-G ecc256 -p key-secret");
    tpm.make("wrong", "-G ecc256 -p key-secret");
    let mut right = tpm.file("right");
    right.pin = pin("key-secret");
    let mut wrong = tpm.file("wrong");
    wrong.pin = pin("guess");
    let keys = vec![right, wrong.clone(), wrong];
    let (mut program, reports) = Program::open(&tpm, keys);
    assert!(reports.iter().all(Result::is_ok), "{reports:?}");
    for id in 0..100 {
        program.ask(id, 1 + id as usize % 2, ECDSA);
    }
    for _ in 0..100 {
        let FromToken::Signed { result, .. } = program.receive() else {
            panic!("not an answer");
        };
        let Err(TokenError::PinRejected(text)) = result else {
            panic!("{result:?}");
        };
        assert!(text.contains("its auth value (pin)"), "{text}");
        assert!(text.contains("1 failed authorizations of 3"), "{text}");
    }
    let signature = program.sign(0, ECDSA).unwrap();
    assert!(tpm.verifies("right", ECDSA, &signature));
    assert!(program.end().success());
    assert_eq!(tpm.lockout_counter(), 1);
}

/// No pin where there is an auth value, a wrong one in a policy, and a wrong one of a hierarchy.
#[test]
fn every_wrong_auth_value_is_refused_by_name() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.raise_lockout_limit();
    tpm.make("silent", "-G ecc256 -p key-secret");
    tpm.make_with_policy("policy", "-p key-secret", &[(0x16b, vec![])]);
    let mut policy = tpm.file("policy");
    policy.pin = pin("guess");
    tpm.make_under_primary("owner", "o", 0x4000_0001);
    tpm.change_owner_auth("owner-secret");
    let mut owner = tpm.file("owner");
    owner.owner_pin = pin("guess");
    let (mut program, reports) = Program::open(&tpm, vec![tpm.file("silent"), policy, owner]);
    for (number, expected) in [
        (0, "give pin, where it has one"),
        (1, "its auth value (pin)"),
    ] {
        let error = program.sign(number, ECDSA).unwrap_err();
        let again = program.sign(number, ECDSA).unwrap_err();
        assert_eq!(error, again);
        let TokenError::PinRejected(text) = error else {
            panic!("{error:?}");
        };
        assert!(text.contains(expected), "{text}");
    }
    let Err(TokenError::PinRejected(text)) = &reports[2] else {
        panic!("{reports:?}");
    };
    assert!(text.contains("(owner-pin)"), "{text}");
    assert!(program.end().success());
    assert_eq!(tpm.lockout_counter(), 2);
}

#[test]
fn a_wrong_parent_pin_is_tried_once() {
    let tpm = Swtpm::start();
    tpm.make_counting_parent("parent-secret");
    let mut keys = Vec::new();
    for name in ["one", "two", "three"] {
        tpm.make(name, "-G ecc256 -P parent-secret");
        let mut key = tpm.file(name);
        key.parent_pin = pin("guess");
        keys.push(key);
    }
    let (program, reports) = Program::open(&tpm, keys);
    for report in &reports {
        let Err(TokenError::PinRejected(text)) = report else {
            panic!("{report:?}");
        };
        assert!(text.contains("(parent-pin)"), "{text}");
    }
    assert!(program.end().success());
    assert_eq!(tpm.lockout_counter(), 1);
}

#[test]
fn a_locked_tpm_is_not_tried() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.make("web", "-G ecc256 -p key-secret");
    tpm.load("web", "");
    let mut web = tpm.file("web");
    web.pin = pin("key-secret");
    for failures in 1..=3 {
        // Fails, and leaves the key behind.
        tpm.output(
            "tpm2_sign",
            &["-c", "web.ctx", "-p", "guess", "-o", "s", "web.tss"],
        );
        tpm.flush();
        assert_eq!(tpm.lockout_counter(), failures);
        let before = tpm.commands().len();
        let (program, reports) = Program::open(&tpm, vec![web.clone()]);
        match (failures, &reports[0]) {
            (1, Ok(OpenedKey { warnings, .. })) => {
                assert!(warnings[0].contains("1 failed authorizations of 3"));
            }
            (
                2,
                Err(TokenError::Wait {
                    text,
                    seconds: 1000,
                }),
            ) => {
                assert!(text.contains("one more failure"), "{text}");
            }
            (
                3,
                Err(TokenError::Wait {
                    text,
                    seconds: 2000,
                }),
            ) => {
                assert!(text.contains("in lockout"), "{text}");
                assert!(text.contains("wait 2000 s"), "{text}");
            }
            (_, report) => panic!("{failures}: {report:?}"),
        }
        assert!(!tpm.commands()[before..].contains(&TPM2_SIGN));
        assert!(program.end().success());
        assert_eq!(tpm.lockout_counter(), failures);
    }
}

/// The TPM locks while the key is open: the TPM's own refusal says how long to wait, and is not provoked
/// again.
#[test]
fn a_lockout_while_open_is_waited_for() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.make("right", "-G ecc256 -p key-secret");
    let mut keys = vec![tpm.file("right")];
    keys[0].pin = pin("key-secret");
    for name in ["one", "two", "three"] {
        tpm.make(name, "-G ecc256 -p key-secret");
        let mut key = tpm.file(name);
        key.pin = pin("guess");
        keys.push(key);
    }
    let (mut program, _) = Program::open(&tpm, keys);
    program.sign(0, ECDSA).unwrap();
    for number in 1..=3 {
        let error = program.sign(number, ECDSA).unwrap_err();
        assert!(matches!(error, TokenError::PinRejected(_)), "{error:?}");
    }
    let error = program.sign(0, ECDSA).unwrap_err();
    assert!(
        matches!(&error, TokenError::Wait { seconds: 2000, .. }),
        "{error:?}"
    );
    let before = tpm.commands().len();
    let error = program.sign(0, ECDSA).unwrap_err();
    assert!(matches!(&error, TokenError::Wait { .. }), "{error:?}");
    assert_eq!(tpm.commands().len(), before);
}
