//! One table, asked twice: of this module, and of OpenSSL's verification of real certificates.

use std::str::FromStr;

use der::Encode;
use der::asn1::{Any, OctetString, Utf8StringRef};
use openssl::asn1::{Asn1Object, Asn1OctetString};
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::{X509CheckFlags, X509VerifyFlags, X509VerifyParam};
use openssl::x509::{X509, X509Extension, X509StoreContext};
use x509_cert::ext::pkix::name::OtherName;
use x509_cert::ext::pkix::{NameConstraints, SubjectAltName};

use super::super::testing::{
    Issued, Key, NOON, certificate_signing, constraints, ec_p256, signing,
};
use super::*;

/// `DNS:`, `email:`, `URI:`, `IP:` with a mask, `dir:`, `RID:` or `UPN:`, and text.
fn general_name(text: &str) -> GeneralName {
    let (kind, text) = text.split_once(':').unwrap();
    let ia5 = || Ia5String::new(text).unwrap();
    match kind {
        "DNS" => GeneralName::DnsName(ia5()),
        "email" => GeneralName::Rfc822Name(ia5()),
        "URI" => GeneralName::UniformResourceIdentifier(ia5()),
        "IP" => GeneralName::IpAddress(OctetString::new(octets(text)).unwrap()),
        "dir" => GeneralName::DirectoryName(Name::from_str(text).unwrap()),
        "RID" => GeneralName::RegisteredId(ObjectIdentifier::new(text).unwrap()),
        "UPN" => GeneralName::OtherName(OtherName {
            type_id: ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.20.2.3"),
            value: Any::from(Utf8StringRef::new(text).unwrap()),
        }),
        other => panic!("{other}"),
    }
}

fn octets(text: &str) -> Vec<u8> {
    let octets = |part: &str| match part.parse().unwrap() {
        std::net::IpAddr::V4(four) => four.octets().to_vec(),
        std::net::IpAddr::V6(six) => six.octets().to_vec(),
    };
    text.split('/').flat_map(octets).collect()
}

/// Words that begin with `+` are permitted, those with `-` excluded.
fn name_constraints(words: &str) -> NameConstraints {
    let subtrees = |sign| {
        let bases = words.split(' ').filter_map(|word| word.strip_prefix(sign));
        let subtrees: Vec<_> = bases.map(subtree).collect();
        (!subtrees.is_empty()).then_some(subtrees)
    };
    NameConstraints {
        permitted_subtrees: subtrees('+'),
        excluded_subtrees: subtrees('-'),
    }
}

fn subtree(base: &str) -> GeneralSubtree {
    GeneralSubtree {
        base: general_name(base),
        minimum: 0,
        maximum: None,
    }
}

fn extension(oid: &str, critical: bool, der: &[u8]) -> X509Extension {
    let oid = Asn1Object::from_str(oid).unwrap();
    let der = Asn1OctetString::new_from_bytes(der).unwrap();
    X509Extension::new_from_der(&oid, critical, &der).unwrap()
}

/// A CA and a leaf of it.
struct Pair {
    ca: X509,
    leaf: X509,
}

impl Pair {
    fn new(
        keys: &[Key; 2],
        constraining: &NameConstraints,
        subject: &[(&'static str, &'static str)],
        names: &[GeneralName],
    ) -> Pair {
        let [ca_key, key] = keys;
        let constraining = constraining.to_der().unwrap();
        let mut leaf = Issued {
            subject: subject.to_vec(),
            ..Issued::leaf(key)
                .by(ca_key, "ca")
                .with(vec![constraints(false, None), signing()])
        };
        if !names.is_empty() {
            let names = SubjectAltName(names.to_vec()).to_der().unwrap();
            leaf.extensions.push(extension("2.5.29.17", false, &names));
        }
        let ca = Issued::ca(ca_key, "ca", ca_key, "ca").with(vec![
            constraints(true, None),
            certificate_signing(),
            extension("2.5.29.30", true, &constraining),
        ]);
        Pair {
            ca: ca.openssl(),
            leaf: leaf.openssl(),
        }
    }

    fn is_fine_here(&self) -> bool {
        let read = |x509: &X509| Certificate::from_der(x509.to_der().unwrap()).unwrap();
        let constraints = of(&read(&self.ca)).unwrap().unwrap();
        violation(&constraints, &read(&self.leaf))
            .unwrap()
            .is_none()
    }

    fn is_fine_for_openssl(&self) -> bool {
        let mut parameters = X509VerifyParam::new().unwrap();
        let noon: jiff::Timestamp = NOON.parse().unwrap();
        parameters.set_time(noon.as_second());
        parameters
            .set_flags(X509VerifyFlags::PARTIAL_CHAIN)
            .unwrap();
        // OpenSSL alone takes the common name for a DNS name.
        parameters.set_hostflags(X509CheckFlags::NEVER_CHECK_SUBJECT);
        let mut store = X509StoreBuilder::new().unwrap();
        store.add_cert(self.ca.clone()).unwrap();
        store.set_param(&parameters).unwrap();
        let none = Stack::new().unwrap();
        let mut context = X509StoreContext::new().unwrap();
        context
            .init(&store.build(), &self.leaf, &none, |context| {
                context.verify_cert()
            })
            .unwrap()
    }
}

#[test]
fn names_are_compared_as_rfc_5280_and_openssl_do() {
    let keys = [ec_p256(), ec_p256()];
    for (words, name, fine) in [
        ("+DNS:lab.test", "DNS:lab.test", true),
        ("+DNS:lab.test", "DNS:web.lab.test", true),
        ("+DNS:lab.test", "DNS:a.b.LAB.Test", true),
        ("+DNS:lab.test", "DNS:*.lab.test", true),
        ("+DNS:lab.test", "DNS:weblab.test", false),
        ("+DNS:lab.test", "DNS:lab.test.evil", false),
        ("+DNS:lab.test", "DNS:test", false),
        ("+DNS:.lab.test", "DNS:web.lab.test", true),
        ("+DNS:.lab.test", "DNS:lab.test", false),
        ("+DNS:", "DNS:web.lab.test", true),
        ("-DNS:", "DNS:web.lab.test", false),
        ("-DNS:lab.test", "DNS:web.lab.test", false),
        ("-DNS:lab.test", "DNS:web.other.test", true),
        ("+DNS:lab.test -DNS:web.lab.test", "DNS:web.lab.test", false),
        ("+DNS:lab.test -DNS:web.lab.test", "DNS:app.lab.test", true),
        ("+DNS:other.test +DNS:lab.test", "DNS:web.lab.test", true),
        ("+DNS:lab.test", "email:a@other.test", true),
        ("+email:lab.test", "email:a@lab.test", true),
        ("+email:lab.test", "email:a@LAB.test", true),
        ("+email:lab.test", "email:a@web.lab.test", false),
        ("+email:.lab.test", "email:a@web.lab.test", true),
        ("+email:.lab.test", "email:a@lab.test", false),
        ("+email:a@lab.test", "email:a@lab.test", true),
        ("+email:a@lab.test", "email:A@lab.test", false),
        ("+email:a@lab.test", "email:b@lab.test", false),
        ("-email:a@lab.test", "email:a@lab.test", false),
        ("+email:lab.test", "email:lab.test", false),
        ("-email:lab.test", "email:lab.test", false),
        ("+URI:bank.test", "URI:spiffe://bank.test/web", true),
        ("+URI:bank.test", "URI:spiffe://web.bank.test/web", false),
        ("+URI:.bank.test", "URI:https://WEB.bank.test:443/x", true),
        ("+URI:.bank.test", "URI:https://bank.test", false),
        ("-URI:bank.test", "URI:spiffe://bank.test/web", false),
        ("-URI:bank.test", "URI:spiffe://other.test/web", true),
        ("+URI:bank.test", "URI:urn:bank:web", false),
        ("-URI:bank.test", "URI:urn:bank:web", false),
        ("+IP:10.0.0.0/255.0.0.0", "IP:10.1.2.3", true),
        ("+IP:10.0.0.0/255.0.0.0", "IP:11.1.2.3", false),
        ("+IP:10.0.0.0/255.0.0.0", "IP:::1", false),
        ("-IP:10.0.0.0/255.0.0.0", "IP:::1", true),
        ("-IP:10.0.0.0/255.0.0.0", "IP:10.1.2.3", false),
        ("+IP:2001:db8::/ffff:ffff::", "IP:2001:db8::7", true),
        ("+IP:2001:db8::/ffff:ffff::", "IP:2001:db9::7", false),
        ("-IP:0.0.0.0/0.0.0.0", "IP:192.0.2.1", false),
        ("+dir:O=Bank", "dir:CN=web,O=bank", true),
        ("+dir:O=Bank", "dir:CN=web,O=Other", false),
        ("+dir:O=Bank", "dir:O=Bank,CN=web", false),
        ("-dir:O=Bank", "dir:CN=web,O=BANK", false),
        ("+RID:1.2.3", "DNS:web.lab.test", true),
        ("+RID:1.2.3", "RID:1.2.3", false),
        ("-RID:1.2.3", "RID:1.2.4", false),
        ("+UPN:web", "UPN:web", false),
        ("+UPN:web", "DNS:web.lab.test", true),
    ] {
        // The subject is a directory name, too.
        let subject = match name.strip_prefix("dir:") {
            Some(_) => &[][..],
            None => &[("O", "Bank"), ("CN", "web")],
        };
        let constraints = name_constraints(words);
        let pair = Pair::new(&keys, &constraints, subject, &[general_name(name)]);
        assert_eq!(pair.is_fine_here(), fine, "{words} {name}");
        assert_eq!(pair.is_fine_for_openssl(), fine, "{words} {name}: OpenSSL");
    }
}

#[test]
fn the_subject_and_its_mailboxes_count() {
    let keys = [ec_p256(), ec_p256()];
    let bank = &[("O", "Bank"), ("CN", "web")][..];
    let mail = &[("CN", "web"), ("emailAddress", "a@lab.test")][..];
    let host = &[("CN", "web.lab.test")][..];
    let dns = &[general_name("DNS:web.lab.test")][..];
    for (words, subject, names, fine) in [
        ("+dir:O=Bank", bank, dns, true),
        ("+dir:O=Bank", bank, &[], true),
        ("+dir:O=Bank", mail, dns, false),
        ("-dir:O=Bank", bank, dns, false),
        ("+dir:O=Bank", &[], dns, true),
        ("+email:lab.test", mail, &[], true),
        ("+email:other.test", mail, &[], false),
        ("+email:other.test", mail, dns, false),
        ("-email:lab.test", mail, dns, false),
        ("+email:lab.test", host, &[], true),
        // A common name is not a DNS name.
        ("+DNS:other.test", host, &[], true),
        ("+DNS:other.test", host, dns, false),
    ] {
        let pair = Pair::new(&keys, &name_constraints(words), subject, names);
        assert_eq!(pair.is_fine_here(), fine, "{words} {subject:?}");
        assert_eq!(
            pair.is_fine_for_openssl(),
            fine,
            "{words} {subject:?}: OpenSSL"
        );
    }
}

#[test]
fn every_name_must_be_fine() {
    let keys = [ec_p256(), ec_p256()];
    let names = ["DNS:web.lab.test", "DNS:web.other.test"].map(general_name);
    let pair = Pair::new(
        &keys,
        &name_constraints("+DNS:lab.test"),
        &[("CN", "web")],
        &names,
    );
    assert!(!pair.is_fine_here() && !pair.is_fine_for_openssl());
}

#[test]
fn distances_are_not_comparable_where_the_form_is_the_names() {
    let keys = [ec_p256(), ec_p256()];
    for (name, fine) in [("DNS:web.lab.test", false), ("email:a@lab.test", true)] {
        for (minimum, maximum) in [(1, None), (0, Some(1))] {
            let mut constraints = name_constraints("+DNS:lab.test");
            for subtree in constraints.permitted_subtrees.iter_mut().flatten() {
                (subtree.minimum, subtree.maximum) = (minimum, maximum);
            }
            let pair = Pair::new(&keys, &constraints, &[("CN", "web")], &[general_name(name)]);
            assert_eq!(pair.is_fine_here(), fine, "{name}");
            assert_eq!(pair.is_fine_for_openssl(), fine, "{name}: OpenSSL");
        }
    }
}

#[test]
fn hosts_of_uris() {
    for (uri, expected) in [
        ("spiffe://bank.test/web", Some("bank.test")),
        ("https://user:word@bank.test:8443?x=@y", Some("bank.test")),
        ("https://bank.test#a@b", Some("bank.test")),
        ("https:///web", None),
        ("https://192.0.2.1/", None),
        ("https://[2001:db8::1]/", None),
        ("urn:x://bank.test", None),
        ("bank.test", None),
        ("", None),
    ] {
        assert_eq!(host(uri), expected, "{uri}");
    }
}

#[test]
fn attributes_are_compared_without_case_surplus_spaces_and_order_within_a_set() {
    let inside = |base: &str, name: &str| {
        directory(
            &Name::from_str(base).unwrap(),
            &Name::from_str(name).unwrap(),
        )
    };
    assert!(inside("O=the  bank", "CN=web,O=The Bank"));
    assert!(inside("OU=a+O=Bank", "CN=web,O=bank+OU=A"));
    assert!(!inside("OU=a+O=Bank", "CN=web,O=bank"));
    assert!(!inside("CN=web,O=Bank", "O=Bank"));
}
