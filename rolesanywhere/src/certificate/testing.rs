//! Certificates for the tests, made by OpenSSL: good ones, to spoil field by field.

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension as ext;
use openssl::x509::{X509, X509Builder, X509Extension, X509Name, X509NameBuilder};

use super::{Certificate, Chain, Severity, Violation};

/// Noon of the day: inside the validity of the certificates below.
pub(super) const NOON: &str = "2026-11-23T12:00:00Z";

pub(super) type Key = PKey<Private>;

pub(super) fn ec(curve: Nid) -> Key {
    let group = EcGroup::from_curve_name(curve).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

pub(super) fn ec_p256() -> Key {
    ec(Nid::X9_62_PRIME256V1)
}

pub(super) fn rsa(bits: u32) -> Key {
    PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap()
}

/// What a certificate says.
pub(super) struct Issued<'k> {
    pub(super) key: &'k Key,
    pub(super) issuer_key: &'k Key,
    /// Attribute names and values.
    pub(super) subject: Vec<(&'static str, &'static str)>,
    pub(super) issuer: Vec<(&'static str, &'static str)>,
    pub(super) validity: (&'static str, &'static str),
    pub(super) serial: &'static str,
    pub(super) version: i32,
    pub(super) digest: MessageDigest,
    pub(super) extensions: Vec<X509Extension>,
}

impl<'k> Issued<'k> {
    /// A leaf that AWS takes, signed by its own key, as no rule here but the path's looks at that.
    pub(super) fn leaf(key: &'k Key) -> Issued<'k> {
        Issued {
            key,
            issuer_key: key,
            subject: vec![("CN", "web")],
            issuer: vec![("CN", "ca")],
            validity: ("20260101000000Z", "20270101000000Z"),
            serial: "123456789012345678901234567890",
            version: 3,
            digest: MessageDigest::sha256(),
            extensions: vec![constraints(false, None), signing(), alternative("web.test")],
        }
    }

    /// A CA's certificate, signed by `issuer_key`.
    pub(super) fn ca(
        key: &'k Key,
        subject: &'static str,
        issuer_key: &'k Key,
        issuer: &'static str,
    ) -> Issued<'k> {
        Issued {
            issuer_key,
            subject: vec![("CN", subject)],
            issuer: vec![("CN", issuer)],
            extensions: vec![constraints(true, None), certificate_signing()],
            ..Issued::leaf(key)
        }
    }

    pub(super) fn by(self, issuer_key: &'k Key, issuer: &'static str) -> Issued<'k> {
        Issued {
            issuer_key,
            issuer: vec![("CN", issuer)],
            ..self
        }
    }

    pub(super) fn with(self, extensions: Vec<X509Extension>) -> Issued<'k> {
        Issued { extensions, ..self }
    }

    pub(super) fn openssl(&self) -> X509 {
        let mut builder = X509::builder().unwrap();
        builder.set_version(self.version - 1).unwrap();
        let serial = BigNum::from_dec_str(self.serial).unwrap();
        let serial = Asn1Integer::from_bn(&serial).unwrap();
        builder.set_serial_number(&serial).unwrap();
        builder.set_subject_name(&name(&self.subject)).unwrap();
        builder.set_issuer_name(&name(&self.issuer)).unwrap();
        let time = |text| Asn1Time::from_str(text).unwrap();
        builder.set_not_before(&time(self.validity.0)).unwrap();
        builder.set_not_after(&time(self.validity.1)).unwrap();
        builder.set_pubkey(self.key).unwrap();
        self.extend(&mut builder);
        builder.sign(self.issuer_key, self.digest).unwrap();
        builder.build()
    }

    fn extend(&self, builder: &mut X509Builder) {
        for extension in self.extensions.iter().filter(|_| self.version == 3) {
            builder.append_extension2(extension).unwrap();
        }
    }

    pub(super) fn der(&self) -> Vec<u8> {
        self.openssl().to_der().unwrap()
    }

    pub(super) fn read(&self) -> Certificate {
        Certificate::from_der(self.der()).unwrap()
    }
}

fn name(attributes: &[(&str, &str)]) -> X509Name {
    let mut name = X509NameBuilder::new().unwrap();
    for (kind, value) in attributes {
        name.append_entry_by_text(kind, value).unwrap();
    }
    name.build()
}

pub(super) fn constraints(ca: bool, limit: Option<u32>) -> X509Extension {
    let mut constraints = ext::BasicConstraints::new();
    if ca {
        constraints.ca();
    }
    if let Some(limit) = limit {
        constraints.pathlen(limit);
    }
    constraints.critical().build().unwrap()
}

pub(super) fn signing() -> X509Extension {
    ext::KeyUsage::new().digital_signature().build().unwrap()
}

pub(super) fn certificate_signing() -> X509Extension {
    ext::KeyUsage::new().key_cert_sign().build().unwrap()
}

pub(super) fn alternative(dns: &str) -> X509Extension {
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let context = builder.x509v3_context(None, None);
    ext::SubjectAlternativeName::new()
        .dns(dns)
        .build(&context)
        .unwrap()
}

/// A root, two intermediates below it, and a leaf of the lower one, each with its own kind of key.
pub(super) struct Pki {
    pub(super) root: Key,
    pub(super) upper: Key,
    pub(super) lower: Key,
    pub(super) leaf: Key,
}

impl Pki {
    pub(super) fn new() -> Pki {
        Pki {
            root: rsa(2048),
            upper: ec(Nid::SECP521R1),
            lower: ec(Nid::SECP384R1),
            leaf: ec_p256(),
        }
    }

    pub(super) fn root(&self) -> Issued<'_> {
        Issued::ca(&self.root, "root", &self.root, "root")
    }

    pub(super) fn upper(&self) -> Issued<'_> {
        Issued::ca(&self.upper, "upper", &self.root, "root")
    }

    pub(super) fn lower(&self) -> Issued<'_> {
        Issued::ca(&self.lower, "lower", &self.upper, "upper")
    }

    pub(super) fn leaf(&self) -> Issued<'_> {
        Issued::leaf(&self.leaf).by(&self.lower, "lower")
    }
}

pub(super) fn objections(chain: &[&Issued], anchors: Option<&[&Issued]>) -> Vec<Violation> {
    let chain = Chain::new(chain.iter().map(|one| one.read()).collect()).unwrap();
    let anchors: Option<Vec<_>> =
        anchors.map(|anchors| anchors.iter().map(|one| one.read()).collect());
    chain.objections(anchors.as_deref(), NOON.parse().unwrap())
}

/// The only objection.
pub(super) fn only(severity: Severity, chain: &[&Issued], anchors: Option<&[&Issued]>) -> String {
    let objections = objections(chain, anchors);
    assert!(
        matches!(&objections[..], [one] if one.severity == severity),
        "{objections:?}"
    );
    objections[0].to_string()
}
