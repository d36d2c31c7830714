//! Keys that are destroyed, with what belongs to them and nothing else.

use super::*;

#[test]
fn a_key_goes_with_its_public_key_and_certificates_alone() {
    let store = Store::new();
    store.generate("EC:prime256v1", "01", "web", &[]);
    store.generate("EC:prime256v1", "02", "api", &[]);
    store.certificate("any");
    store.write_certificate("any.der", "01", "old cert", &[]);
    store.write_certificate("any.der", "02", "api", &[]);
    let mut operator = Operator::new(&store);
    let key = uri("pkcs11:token=lab;object=web");
    let deletion = operator.deletion(&key);
    assert_eq!(
        operator.done(deletion.clone()),
        [
            "pkcs11:token=lab;object=web;type=private;id=%01",
            "pkcs11:token=lab;object=web;type=public;id=%01",
            "pkcs11:token=lab;object=old%20cert;type=cert;id=%01",
        ]
    );
    for class in ["privkey", "pubkey", "cert"] {
        let objects = store.objects(class);
        assert_eq!(objects.matches("label:").count(), 1, "{objects}");
        assert!(objects.contains("label:      api"), "{objects}");
    }
    let text = operator.refusal(deletion);
    assert!(text.contains("no private key matches"), "{text}");
}

/// While a person thinks about it.
#[test]
fn what_is_not_as_it_was_shown_stays() {
    let store = Store::new();
    store.generate("EC:prime256v1", "01", "web", &[]);
    let mut operator = Operator::new(&store);
    let key = uri("pkcs11:token=lab;object=web");
    let deletion = operator.deletion(&key);
    store.certificate("any");
    store.write_certificate("any.der", "01", "web", &[]);
    let text = operator.refusal(deletion);
    assert!(text.contains("nothing was destroyed"), "{text}");

    let deletion = operator.deletion(&key);
    Operator::new(&store).delete(&key);
    store.generate("EC:prime256v1", "01", "web", &[]);
    store.write_certificate("any.der", "01", "web", &[]);
    let text = operator.refusal(deletion);
    assert!(text.contains("not those that were shown"), "{text}");
    assert_eq!(operator.delete(&key).len(), 3);
}

#[test]
fn one_key_must_be_meant() {
    let store = Store::new();
    store.generate("EC:prime256v1", "01", "web", &[]);
    store.generate("EC:prime256v1", "02", "web", &[]);
    let mut operator = Operator::new(&store);
    let key = uri("pkcs11:token=lab;object=web");
    let one = operator.deletion(&uri("pkcs11:token=lab;id=%01"));
    let Task::Delete { shown, .. } = one else {
        panic!("{one:?}")
    };
    let delete = |key| Task::Delete {
        key,
        shown: shown.clone(),
    };
    let text = operator.refusal(delete(key));
    assert!(text.contains("several private keys match"), "{text}");
    let key = uri("pkcs11:token=lab;object=web;type=public");
    let text = operator.refusal(delete(key));
    assert!(text.contains("type=private"), "{text}");
    assert_eq!(store.objects("privkey").matches("label:").count(), 2);
}

#[test]
fn what_another_key_of_the_same_id_has_stays() {
    let store = Store::new();
    store.generate("EC:prime256v1", "01", "web", &[]);
    store.generate("EC:prime256v1", "01", "api", &[]);
    store.certificate("any");
    store.write_certificate("any.der", "01", "api", &[]);
    store.write_certificate("any.der", "01", "nobody", &[]);
    let mut operator = Operator::new(&store);
    let key = uri("pkcs11:token=lab;object=web");
    assert_eq!(
        operator.delete(&key),
        [
            "pkcs11:token=lab;object=web;type=private;id=%01",
            "pkcs11:token=lab;object=web;type=public;id=%01",
        ]
    );
    assert_eq!(store.objects("cert").matches("label:").count(), 2);
    assert!(store.objects("pubkey").contains("label:      api"));
}

/// Nothing tells what belongs to it: above all not that everything does.
#[test]
fn a_key_without_an_id_goes_alone() {
    let store = Store::new();
    store.generate_without_id("web");
    store.certificate("any");
    store.write_certificate("any.der", "01", "api", &[]);
    let key = uri("pkcs11:token=lab;object=web");
    assert_eq!(
        Operator::new(&store).delete(&key),
        ["pkcs11:token=lab;object=web;type=private"]
    );
    assert_eq!(store.objects("privkey"), "");
    for class in ["pubkey", "cert"] {
        assert_eq!(store.objects(class).matches("label:").count(), 1, "{class}");
    }
}
