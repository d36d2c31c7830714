//! Keys that are made, and the one thing that they sign.

use super::*;

#[test]
fn every_kind_of_key_is_made_for_signing_alone_and_signs_its_request() {
    let store = Store::new();
    let mut operator = Operator::new(&store);
    for key_type in KeyType::ALL {
        let name = key_type.name();
        let report = operator.generate(&format!("pkcs11:token=lab;object={name}"), key_type);
        assert_eq!(report.algorithm, algorithm(key_type));
        assert_eq!(report.warnings, Vec::<String>::new(), "{name}");
        assert_eq!(
            report.uri.to_string(),
            format!("pkcs11:token=lab;object={name}")
        );
        assert_eq!(operator.key(&report.uri.to_string()), report);

        // What others say of it.
        let request = operator.request(&report, name);
        fs::write(store.path("request.der"), &request).unwrap();
        let subject = store.openssl("req -inform DER -in request.der -verify -noout -subject");
        assert!(subject.contains(name), "{subject}");
        fs::write(
            store.path("spki.der"),
            &report.public_key.as_ref().unwrap().0,
        )
        .unwrap();
        // Byte for byte as openssl writes it: certificates have it so.
        store.openssl("pkey -pubin -inform DER -in spki.der -outform DER -out same.der");
        let same = fs::read(store.path("same.der")).unwrap();
        assert_eq!(
            hex::encode(&report.public_key.as_ref().unwrap().0),
            hex::encode(same)
        );
        let public = store.openssl("pkey -pubin -inform DER -in spki.der -text_pub -noout");
        let bits = name.rsplit(['-', 'p']).next().unwrap();
        assert!(public.contains(&format!("({bits} bit)")), "{public}");
        let objects = store.objects("privkey");
        let object = objects
            .split("Private Key Object")
            .find(|object| object.contains(name));
        let object = object.unwrap();
        assert_eq!(line(object, "Usage"), "sign", "{name}");
        assert_eq!(
            line(object, "Access"),
            "sensitive, always sensitive, never extractable, local",
            "{name}"
        );
        let objects = store.tool(&["--list-objects", "--type", "pubkey"]);
        let object = objects
            .split("Public Key Object")
            .find(|object| object.contains(name));
        let object = object.unwrap();
        assert_eq!(line(object, "Usage"), "verify", "{name}");
        // SHA-256 of the key's bits, as openssl sees them: what is left of the SPKI's BIT STRING.
        assert_eq!(line(object, "ID"), key_identifier(&report), "{name}");
    }
    assert!(operator.program.end().success());
}

fn algorithm(key_type: KeyType) -> &'static str {
    match key_type {
        KeyType::EcP256 => "EC-P-256",
        KeyType::EcP384 => "EC-P-384",
        KeyType::Rsa2048 => "RSA-2048",
        KeyType::Rsa3072 => "RSA-3072",
        KeyType::Rsa4096 => "RSA-4096",
    }
}

pub(super) fn line<'a>(object: &'a str, name: &str) -> &'a str {
    let value = |line: &'a str| line.trim().strip_prefix(name)?.strip_prefix(':');
    object.lines().find_map(value).unwrap().trim()
}

/// RFC 7093, method 1: all EC keys and RSA keys of ours end with the BIT STRING's content.
fn key_identifier(report: &KeyReport) -> String {
    use sha2::{Digest, Sha256};
    let length = match report.algorithm.as_str() {
        "EC-P-256" => 65,
        "EC-P-384" => 97,
        "RSA-2048" => 270,
        "RSA-3072" => 398,
        _ => 526,
    };
    let spki = &report.public_key.as_ref().unwrap().0;
    hex::encode(&Sha256::digest(&spki[spki.len() - length..])[..20])
}

#[test]
fn an_id_may_be_chosen() {
    let store = Store::new();
    let mut operator = Operator::new(&store);
    let report = operator.generate("pkcs11:token=lab;object=web;id=%07%FF", KeyType::EcP256);
    assert_eq!(report.warnings, Vec::<String>::new());
    for class in ["privkey", "pubkey"] {
        assert_eq!(line(&store.objects(class), "ID"), "07ff");
    }
    assert_eq!(operator.key("pkcs11:token=lab;id=%07%FF"), report);
}

#[test]
fn no_key_is_made_beside_one_of_the_same_name() {
    let store = Store::new();
    store.generate("EC:prime256v1", "01", "web", &[]);
    store.certificate("other");
    store.write_certificate("other.der", "02", "other", &[]);
    store.generate("EC:prime256v1", "03", "half", &[]);
    store.tool(&[
        "--login",
        "--pin",
        PIN,
        "--delete-object",
        "--type",
        "privkey",
        "--id",
        "03",
    ]);
    let spy = Spy::new(&store);
    let mut operator = Operator::with(&store, &spy.module, &spy.environment);
    for (key, there) in [
        ("object=web", "object=web;type=private;id=%01"),
        ("object=new;id=%01", "object=web;type=private;id=%01"),
        ("object=new;id=%02", "object=other;type=cert;id=%02"),
        ("object=half", "object=half;type=public;id=%03"),
        ("object=new;id=%03", "object=half;type=public;id=%03"),
    ] {
        let text = operator.refusal(generate(
            &format!("pkcs11:token=lab;{key}"),
            KeyType::EcP256,
        ));
        assert!(
            text.contains(&format!("pkcs11:token=lab;{there}")),
            "{text}"
        );
        assert!(text.contains("no key was made"), "{text}");
    }
    for (key, expected) in [
        ("pkcs11:token=lab", "object=LABEL"),
        ("pkcs11:token=lab;id=%07", "object=LABEL"),
        ("pkcs11:token=lab;object=new;id=", "empty id"),
        (
            "pkcs11:token=lab;object=new;type=public",
            "leave its type out",
        ),
        ("pkcs11:token=elsewhere;object=new", "no token matches"),
    ] {
        let text = operator.refusal(generate(key, KeyType::EcP256));
        assert!(text.contains(expected), "{text}");
    }
    assert_eq!(count(&spy.calls(), "C_GenerateKeyPair"), 0);
}

/// Where a token does not take the whole template, the key is made all the same, and what it may do is said.
#[test]
fn what_a_token_adds_of_its_own_accord_is_said() {
    let lab = super::super::faults::Lab::new();
    lab.inject("C_GenerateKeyPair return CKR_TEMPLATE_INCONSISTENT times 1");
    let mut operator = super::faults::operator(&lab);
    let report = operator.generate("pkcs11:token=lab;object=new", KeyType::Rsa2048);
    assert_eq!(lab.count("C_GenerateKeyPair"), 2);
    let usage = lab.store.objects("privkey");
    let usage = line(usage.split("label:      new").nth(1).unwrap(), "Usage").to_owned();
    assert!(usage.contains("decrypt"), "{usage}");
    let [warning] = report.warnings.as_slice() else {
        panic!("{:?}", report.warnings)
    };
    assert!(
        warning.contains("more than signing (CKA_DECRYPT"),
        "{warning}"
    );

    // But not again and again.
    lab.inject("C_GenerateKeyPair return CKR_TEMPLATE_INCONSISTENT");
    let text = operator.refusal(generate("pkcs11:token=lab;object=newer", KeyType::Rsa2048));
    assert!(text.contains("CKR_TEMPLATE_INCONSISTENT"), "{text}");
    assert_eq!(lab.count("C_GenerateKeyPair"), 2 + 6);
}

/// As on YubiHSM, where an id has two bytes: it is made without one of ours.
#[test]
fn a_token_may_choose_the_id() {
    let lab = super::super::faults::Lab::new();
    lab.inject_all(&[
        "C_GenerateKeyPair return CKR_ATTRIBUTE_VALUE_INVALID times 3".to_owned(),
        "C_SetAttributeValue return CKR_ATTRIBUTE_VALUE_INVALID".to_owned(),
    ]);
    let mut operator = super::faults::operator(&lab);
    let report = operator.generate("pkcs11:token=lab;object=new", KeyType::EcP256);
    assert_eq!(lab.count("C_GenerateKeyPair"), 4);
    // SoftHSM does not choose any.
    assert!(report.warnings[0].contains("has no CKA_ID"), "{report:?}");
    assert_eq!(report.warnings.len(), 1, "{report:?}");

    // An id that was asked for is not left away.
    lab.inject("C_GenerateKeyPair return CKR_ATTRIBUTE_VALUE_INVALID");
    let key = "pkcs11:token=lab;object=newer;id=%07";
    operator.refusal(generate(key, KeyType::EcP256));
    assert_eq!(lab.count("C_GenerateKeyPair"), 4 + 3);
}

/// As tpm2-pkcs11, which has a general code for a template that it does not take.
#[test]
fn a_shorter_template_is_tried_after_every_code_that_may_mean_it() {
    let lab = super::super::faults::Lab::new();
    let mut operator = super::faults::operator(&lab);
    for (number, code) in [
        "CKR_GENERAL_ERROR",
        "CKR_FUNCTION_FAILED",
        "CKR_ARGUMENTS_BAD",
        "0x80000042",
    ]
    .into_iter()
    .enumerate()
    {
        lab.inject(&format!("C_GenerateKeyPair return {code} times 1"));
        let key = format!("pkcs11:token=lab;object=new{number}");
        let report = operator.generate(&key, KeyType::EcP256);
        let said = report.attributes;
        assert_eq!(
            (said.sensitive, said.extractable),
            (Some(true), Some(false)),
            "{code}"
        );
    }
    let before = lab.count("C_GenerateKeyPair");
    lab.inject("C_GenerateKeyPair return CKR_DEVICE_REMOVED");
    operator.refusal(generate("pkcs11:token=lab;object=newer", KeyType::EcP256));
    assert_eq!(lab.count("C_GenerateKeyPair"), before + 1);
}

#[test]
fn a_token_that_makes_no_such_keys_is_said_to_be_so() {
    let lab = super::super::faults::Lab::new();
    let mut operator = super::faults::operator(&lab);
    for (code, key_type, other) in [
        ("CKR_MECHANISM_INVALID", KeyType::EcP256, "--type rsa-2048"),
        ("CKR_MECHANISM_INVALID", KeyType::Rsa4096, "--type ec-p256"),
        ("CKR_KEY_SIZE_RANGE", KeyType::Rsa4096, "--type rsa-2048"),
    ] {
        lab.inject(&format!("C_GenerateKeyPair return {code}"));
        let text = operator.refusal(generate("pkcs11:token=lab;object=new", key_type));
        assert!(text.contains(other), "{text}");
    }
}

#[test]
fn a_key_that_came_out_exposed_is_destroyed_again() {
    let lab = super::super::faults::Lab::new();
    let mut operator = super::faults::operator(&lab);
    for attribute in ["CKA_SENSITIVE 00", "CKA_EXTRACTABLE 01"] {
        lab.inject(&format!("C_GetAttributeValue attribute {attribute}"));
        let error = operator.ask(generate("pkcs11:token=lab;object=new", KeyType::EcP256));
        assert!(matches!(error, Err(TokenError::Unusable(_))), "{error:?}");
        for class in ["privkey", "pubkey"] {
            assert!(!lab.store.objects(class).contains("new"), "{attribute}");
        }
    }
}

#[test]
fn nothing_is_signed_but_a_request_for_the_key() {
    let store = Store::new();
    let spy = Spy::new(&store);
    let mut operator = Operator::with(&store, &spy.module, &spy.environment);
    let report = operator.generate("pkcs11:token=lab;object=web", KeyType::EcP256);
    let other = operator.generate("pkcs11:token=lab;object=other", KeyType::EcP256);
    let good = request_info(report.public_key.as_ref().unwrap(), "web");
    let of_another = request_info(other.public_key.as_ref().unwrap(), "web");
    let longer = [good.as_slice(), &[0]].concat();
    for bad in [
        of_another.as_slice(),
        &longer,
        &good[..good.len() - 1],
        ECDSA.as_bytes(),
        &[7; 32],
        &[],
    ] {
        let text = operator.refusal(Task::SignRequest {
            key: report.uri.clone(),
            info: Der(bad.to_vec()),
        });
        assert!(
            text.contains("not a certificate request for this key"),
            "{text}"
        );
    }
    assert_eq!(count(&spy.calls(), "C_SignInit"), 0);
    operator.request(&report, "web");
    assert_eq!(count(&spy.calls(), "C_SignInit"), 1);
}

/// P-521 is not made here, but what others have made signs its request; so does a key that its certificate
/// alone tells of, and one that asks for the PIN each time.
#[test]
fn keys_that_others_have_made_sign_their_requests() {
    let store = Store::new();
    store.import("EC -pkeyopt ec_paramgen_curve:P-521", "01", &[]);
    store.generate("EC:prime256v1", "02", "piv", &["--always-auth"]);
    store.generate("EC:secp384r1", "03", "bare", &[]);
    let mut operator = Operator::new(&store);
    let bare = operator.key("pkcs11:token=lab;id=%03");
    let request = operator.request(&bare, "bare");
    store.certify(&request, "bare");
    store.write_certificate("bare.der", "03", "bare", &[]);
    store.tool(&[
        "--login",
        "--pin",
        PIN,
        "--delete-object",
        "--type",
        "pubkey",
        "--id",
        "03",
    ]);
    for (id, algorithm) in [("01", "EC-P-521"), ("02", "EC-P-256"), ("03", "EC-P-384")] {
        let report = operator.key(&format!("pkcs11:token=lab;id=%{id}"));
        assert_eq!(report.algorithm, algorithm);
        let request = operator.request(&report, algorithm);
        fs::write(store.path("request.der"), &request).unwrap();
        store.openssl("req -inform DER -in request.der -verify -noout");
    }
    store.tool(&[
        "--login",
        "--pin",
        PIN,
        "--delete-object",
        "--type",
        "cert",
        "--id",
        "03",
    ]);
    let untold = operator.key("pkcs11:token=lab;id=%03");
    assert_eq!(untold.public_key, None);
    let text = operator.refusal(Task::SignRequest {
        key: untold.uri,
        info: Der(request_info(bare.public_key.as_ref().unwrap(), "bare")),
    });
    assert!(text.contains("does not tell the public key"), "{text}");
}
