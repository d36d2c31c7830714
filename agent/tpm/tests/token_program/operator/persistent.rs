//! Keys at persistent handles.

use token::link::TpmKeySource;
use token::operator::KeyType;
use token::operator::tpm::{Answer, Task};

use super::{Operator, fault, new_key, refused_pin};
use crate::harness::ECDSA;
use crate::program::{key, pin};
use crate::sign_with_all;
use crate::swtpm::Swtpm;

const HANDLE: u32 = 0x8100_0101;

#[test]
fn a_key_is_kept_used_and_deleted() {
    let tpm = Swtpm::start();
    tpm.make_parent("");
    tpm.change_owner_auth("owner-secret");
    let mut operator = Operator::on(&tpm);
    let mut new = new_key(KeyType::EcP256);
    (new.parent, new.persist) = (Some(0x8100_0001), Some(HANDLE));
    new.owner_pin = pin("guess");
    for _ in 0..2 {
        let text = refused_pin(operator.generate(new.clone()));
        assert!(text.contains("(--owner-pin-file)"), "{text}");
    }
    new.owner_pin = pin("owner-secret");
    new.pin = pin("key-secret");
    let report = operator.generate(new.clone()).unwrap();
    assert_eq!((report.handle, &report.key_file), (Some(HANDLE), &None));
    let seen = tpm.tool("tpm2_readpublic -c 0x81000101");
    let expected = "value: fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign\n";
    assert!(seen.contains(expected), "{seen}");

    let text = fault(operator.generate(new));
    assert!(text.contains("handle 0x81000101 is taken"), "{text}");
    assert!(text.contains("EC-P-256"), "{text}");

    tpm.keep("kept", &report);
    let mut kept = key(TpmKeySource::Handle(HANDLE));
    kept.pin = pin("key-secret");
    assert_eq!(operator.key(&kept).unwrap().public_key, report.public_key);
    sign_with_all(&tpm, vec![("kept", ECDSA, kept)]);

    let shown = Box::new(operator.shown(HANDLE));
    let delete = |owner: &str| Task::Delete {
        handle: HANDLE,
        shown: shown.clone(),
        owner_pin: pin(owner),
    };
    let evictions = || tpm.commands().iter().filter(|code| **code == 0x120).count();
    let before = evictions();
    for _ in 0..2 {
        let text = refused_pin(operator.ask(delete("another guess")));
        assert!(text.contains("(--owner-pin-file)"), "{text}");
    }
    assert_eq!(evictions() - before, 1);
    assert_eq!(operator.ask(delete("owner-secret")), Ok(Answer::Done));
    let text = fault(operator.ask(delete("owner-secret")));
    assert!(text.contains("no key at handle 0x81000101"), "{text}");
    operator.end();
    assert_eq!(tpm.tool("tpm2_getcap handles-persistent"), "- 0x81000001\n");
    assert_eq!(tpm.handles(), "");
}

/// While a person thinks about it.
#[test]
fn a_key_that_is_not_the_one_that_was_shown_stays() {
    let tpm = Swtpm::start();
    let mut operator = Operator::on(&tpm);
    let mut new = new_key(KeyType::EcP256);
    new.persist = Some(HANDLE);
    operator.generate(new.clone()).unwrap();
    let delete = |shown| Task::Delete {
        handle: HANDLE,
        shown: Box::new(shown),
        owner_pin: None,
    };
    let first = operator.shown(HANDLE);
    let done = operator.ask(delete(first.clone()));
    assert_eq!(done, Ok(Answer::Done));
    operator.generate(new).unwrap();
    let text = fault(operator.ask(delete(first)));
    assert!(text.contains("not the one that was shown"), "{text}");
    let second = operator.shown(HANDLE);
    assert_eq!(operator.ask(delete(second)), Ok(Answer::Done));
    operator.end();
}
