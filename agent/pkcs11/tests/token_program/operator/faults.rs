//! What goes wrong in the middle of a task.

use std::os::unix::process::ExitStatusExt;

use super::super::faults::Lab;
use super::generation::line;
use super::*;

pub(super) fn operator(lab: &Lab) -> Operator {
    Operator::with(&lab.store, lab.module.to_str().unwrap(), &lab.environment())
}

const NEW: &str = "pkcs11:token=lab;object=new";

/// Some HSMs let no CKA_ID be changed: both halves keep the one that they were made with.
#[test]
fn a_token_whose_ids_stay_as_they_are_makes_keys_with_ids() {
    let lab = Lab::new();
    for (number, fault) in [
        // CKR_ATTRIBUTE_READ_ONLY, at once and for the second half alone
        "C_SetAttributeValue return 0x10",
        "C_SetAttributeValue return 0x10 after 1 times 1",
        "C_SetAttributeValue return CKR_FUNCTION_NOT_SUPPORTED",
    ]
    .into_iter()
    .enumerate()
    {
        lab.inject(fault);
        let name = format!("new{number}");
        let report =
            operator(&lab).generate(&format!("pkcs11:token=lab;object={name}"), KeyType::EcP256);
        assert_eq!(report.warnings, Vec::<String>::new(), "{fault}");
        let id = |class| {
            let objects = lab.store.objects(class);
            let object = objects
                .split(" Object;")
                .find(|object| object.contains(&name));
            line(object.unwrap(), "ID").to_owned()
        };
        assert_eq!(id("privkey"), id("pubkey"), "{fault}");
        assert_eq!(id("privkey").len(), 40, "{fault}");
    }
}

#[test]
fn what_fails_half_way_leaves_nothing_behind() {
    let lab = Lab::new();
    for fault in [
        "C_GenerateKeyPair return CKR_DEVICE_MEMORY",
        "C_SetAttributeValue return CKR_DEVICE_ERROR",
        "C_SetAttributeValue return CKR_DEVICE_ERROR after 1",
        // The public key cannot be had.
        "C_GetAttributeValue attribute CKA_EC_PARAMS 00",
    ] {
        lab.inject(fault);
        let text = operator(&lab).refusal(generate(NEW, KeyType::EcP256));
        assert!(text.contains("object=new"), "{text}");
        if !fault.starts_with("C_GenerateKeyPair") {
            assert!(text.contains("it was destroyed again"), "{text}");
        }
        for class in ["privkey", "pubkey"] {
            assert!(!lab.store.objects(class).contains("new"), "{fault}");
        }
    }
}

/// A token may fail when it has made the key.
#[test]
fn a_key_that_was_made_all_the_same_is_destroyed_or_told_of() {
    let lab = Lab::new();
    for code in ["CKR_DEVICE_ERROR", "CKR_ATTRIBUTE_VALUE_INVALID"] {
        lab.inject(&format!("C_GenerateKeyPair made {code} times 1"));
        let answer = operator(&lab).ask(generate(NEW, KeyType::EcP256));
        // Where the token chooses the id, there is one key, and not two.
        let keys = usize::from(code == "CKR_ATTRIBUTE_VALUE_INVALID");
        assert_eq!(answer.is_ok(), keys == 1, "{answer:?}");
        for class in ["privkey", "pubkey"] {
            let there = lab.store.objects(class);
            assert_eq!(there.matches("label:      new").count(), keys, "{there}");
        }
    }

    // As YubiHSM, which has ids of two bytes: it may be anybody's.
    lab.inject_all(&[
        "C_GenerateKeyPair made CKR_ATTRIBUTE_VALUE_INVALID".to_owned(),
        "C_GetAttributeValue attribute CKA_ID 0064".to_owned(),
    ]);
    let before = lab.count("C_GenerateKeyPair");
    let text = operator(&lab).refusal(generate("pkcs11:token=lab;object=yubi", KeyType::EcP256));
    for part in [
        "there is pkcs11:token=lab;object=yubi;type=private;id=%00%64, pkcs11:token=lab;object=yubi;type=public;id=%00%64 (",
        "--delete-object",
        "write one, as id=",
        "CKR_ATTRIBUTE_VALUE_INVALID",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(lab.count("C_GenerateKeyPair"), before + 1);
    let there = lab.store.objects("privkey");
    assert_eq!(there.matches("label:      yubi").count(), 1, "{there}");
}

/// AWS CloudHSM, in some versions.
#[test]
fn a_token_without_read_only_sessions_makes_keys() {
    let lab = Lab::new();
    lab.inject("C_OpenSession read-only CKR_FUNCTION_FAILED");
    let mut operator = operator(&lab);
    let report = operator.generate(NEW, KeyType::EcP256);
    operator.request(&report, "new");
}

/// As libykcs11 shows attestations beside certificates.
#[test]
fn a_certificate_that_is_not_stored_is_none_of_the_keys() {
    let lab = Lab::new();
    let web = lab.store.certificate("web");
    lab.store.certificate("attestation");
    lab.store.write_certificate("web.der", "01", "web", &[]);
    lab.store
        .write_certificate("attestation.der", "09", "attestation", &[]);
    lab.inject("C_OpenSession copy attestation 01");
    let report = operator(&lab).key("pkcs11:token=lab;object=web");
    assert_eq!(report.warnings, Vec::<String>::new());
    assert_eq!(report.certificates.len(), 1, "{report:?}");
    assert_eq!(report.certificates[0].certificate.0, web);
}

#[test]
fn what_cannot_be_destroyed_again_is_named() {
    let lab = Lab::new();
    let attempts = ["C_SetAttributeValue", "C_DestroyObject"];
    lab.inject_all(&attempts.map(|function| format!("{function} return CKR_DEVICE_ERROR")));
    let text = operator(&lab).refusal(generate(NEW, KeyType::EcP256));
    for part in [
        "the private key is still there",
        "the public key is still there",
        "by its label",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let objects = lab.store.objects("privkey");
    assert!(objects.contains("label:      new"), "{objects}");
    // The next attempt does not make a second one.
    lab.inject("");
    let text = operator(&lab).refusal(generate(NEW, KeyType::EcP256));
    assert!(text.contains("is there already"), "{text}");
}

/// The key is there then, whole and with an id, and can be found and deleted.
#[test]
fn a_crash_in_the_middle_ends_the_link_and_leaves_a_whole_key() {
    let lab = Lab::new();
    lab.inject("C_SetAttributeValue segfault");
    let mut crashing = operator(&lab);
    let heard = crashing.try_ask(generate(NEW, KeyType::EcP256));
    assert!(!matches!(heard, Ok(Some(_))), "{heard:?}");
    assert_eq!(crashing.program.end().signal(), Some(11));
    lab.inject("");
    let mut operator = operator(&lab);
    let report = operator.key(NEW);
    assert_eq!(report.warnings, Vec::<String>::new());
    operator.request(&report, "new");
    let destroyed = operator.delete(&report.uri);
    assert_eq!(destroyed.len(), 2, "{destroyed:?}");
}

#[test]
fn a_certificate_that_is_not_kept_as_it_was_is_destroyed_again() {
    let lab = Lab::new();
    let mut operator = operator(&lab);
    let report = operator.key("pkcs11:token=lab;object=web");
    let request = operator.request(&report, "web");
    let certificate = Der(lab.store.certify(&request, "web"));
    let import = Task::ImportCertificate {
        key: report.uri,
        certificate,
    };
    lab.inject("C_GetAttributeValue attribute CKA_VALUE 3000");
    let text = operator.refusal(import.clone());
    assert!(text.contains("destroyed again"), "{text}");
    lab.inject("C_CreateObject return CKR_DEVICE_MEMORY");
    let text = operator.refusal(import.clone());
    assert!(text.contains("CKR_DEVICE_MEMORY"), "{text}");
    assert_eq!(lab.store.objects("cert"), "");
    lab.inject("");
    assert_eq!(operator.done(import).len(), 1);
}

/// A certificate that is replaced is there until the new one is.
#[test]
fn a_certificate_stays_until_its_successor_is_there() {
    let lab = Lab::new();
    let mut operator = operator(&lab);
    let report = operator.key("pkcs11:token=lab;object=web");
    let request = operator.request(&report, "web");
    let import = |certificate| Task::ImportCertificate {
        key: report.uri.clone(),
        certificate: Der(certificate),
    };
    let old = lab.store.certify(&request, "old");
    let new = lab.store.certify(&request, "new");
    operator.done(import(old.clone()));
    lab.inject("C_CreateObject return CKR_DEVICE_MEMORY");
    operator.refusal(import(new.clone()));
    let there = operator.key("pkcs11:token=lab;object=web").certificates;
    assert!(matches!(there.as_slice(), [one] if one.certificate.0 == old));
    lab.inject("C_DestroyObject return 0x1b");
    let text = operator.refusal(import(new.clone()));
    assert!(
        text.contains("still there, pkcs11:token=lab;object=web;type=cert;id=%01"),
        "{text}"
    );
    let report = operator.key("pkcs11:token=lab;object=web");
    assert_eq!(report.certificates.len(), 2);
    assert!(
        report.warnings[0].contains("several certificates"),
        "{:?}",
        report.warnings
    );
    // Once it can be destroyed, the same command again puts that right.
    lab.inject("");
    assert_eq!(operator.done(import(new.clone())).len(), 2);
    let there = operator.key("pkcs11:token=lab;object=web").certificates;
    assert!(matches!(there.as_slice(), [one] if one.certificate.0 == new));
}

#[test]
fn a_deletion_that_fails_says_how_far_it_came() {
    let lab = Lab::new();
    let key = uri("pkcs11:token=lab;object=web");
    let deletion = operator(&lab).deletion(&key);
    lab.inject("C_DestroyObject return CKR_DEVICE_ERROR");
    let text = operator(&lab).refusal(deletion.clone());
    assert!(text.contains("nothing was destroyed"), "{text}");
    assert!(lab.store.objects("privkey").contains("web"));
    lab.inject("C_DestroyObject return CKR_DEVICE_ERROR after 1");
    let text = operator(&lab).refusal(deletion);
    for part in [
        "destroyed pkcs11:token=lab;object=web;type=private;id=%01,",
        "not pkcs11:token=lab;object=web;type=public;id=%01",
        "--delete-object",
    ] {
        assert!(text.contains(part), "{text}");
    }
}
