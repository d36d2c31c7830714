//! The rules of a leaf, and of the time that any certificate is valid, each with its objection.

use jiff::{SignedDuration, Timestamp};
use x509_cert::certificate::Version;

use super::session_facts::SessionFacts;
use super::violation::REISSUE;
use super::{
    Certificate, CertificateError, CertificateRef, Violation, extensions, restrictions, signature,
};

/// A leaf is renewed while there is this much left, or a fifth of its life where that is less.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// STS: a source identity has 2 to 64 characters of these.
const IDENTITY_LIMIT: usize = 64;

/// What AWS demands of an end-entity certificate.
pub(super) fn leaf(leaf: &Certificate) -> Vec<Violation> {
    let refused =
        |what: String, remedy: &str| Violation::refused(&CertificateRef::Leaf, what, remedy);
    let mut objections = Vec::new();
    if leaf.tbs().version() != Version::V3 {
        let what = "it is not an X.509 v3 certificate".to_owned();
        let remedy = "AWS takes no other; have the CA put the extensions in that the request asks for \
                      (`openssl x509 -req` does with -copy_extensions copy)";
        return vec![refused(what, remedy)];
    }
    match extensions::basic_constraints(leaf) {
        Ok(Some((true, _))) => objections.push(refused(
            "it is a CA certificate".to_owned(),
            "the first certificate must be the key's own",
        )),
        Ok(Some((false, _)) | None) => {}
        Err(fault) => objections.push(refused(fault.to_string(), REISSUE)),
    }
    match extensions::key_usage(leaf) {
        Ok(Some(usage)) if usage.digital_signature() => {}
        Ok(_) => objections.push(refused(
            "its keyUsage lacks digitalSignature, which AWS wants".to_owned(),
            "have one issued for signing",
        )),
        Err(fault) => objections.push(refused(fault.to_string(), REISSUE)),
    }
    match extensions::client_auth(leaf) {
        Ok(Some(false)) => objections.push(refused(
            "its extendedKeyUsage lacks clientAuth, which AWS wants".to_owned(),
            "have one issued for clients",
        )),
        Ok(_) => {}
        Err(fault) => objections.push(refused(fault.to_string(), REISSUE)),
    }
    if leaf.tbs().subject().is_empty() {
        objections.push(refused(
            "its subject is empty".to_owned(),
            "AWS does not support that: have one issued with a common name",
        ));
    }
    if let Err(fault) = extensions::general_names(leaf) {
        objections.push(refused(fault.to_string(), REISSUE));
    }
    objections.extend(restrictions::critical(leaf, &CertificateRef::Leaf));
    objections.extend(weak_signature(leaf, &CertificateRef::Leaf));
    if let Err(fault) = leaf.public_key() {
        let remedy = match fault.remedy {
            "" => "use such a key",
            remedy => remedy,
        };
        objections.push(refused(fault.fault, remedy));
    }
    objections
}

/// What AWS takes of a leaf, and is seldom meant.
pub(super) fn leaf_doubts(leaf: &Certificate) -> Vec<Violation> {
    let warning =
        |what: String, remedy: &str| Violation::warning(&CertificateRef::Leaf, what, remedy);
    let mut objections = Vec::new();
    let facts = SessionFacts::of(leaf);
    let identity = &facts.source_identity;
    if let Ok(None) = extensions::basic_constraints(leaf) {
        objections.push(warning(
            "it has no basicConstraints".to_owned(),
            "AWS's guide once demanded CA:FALSE, and now does where there is one: have the CA add it",
        ));
    }
    match leaf.common_name() {
        None => objections.push(warning(
            "its subject has no common name".to_owned(),
            "the source identity is its serial number, which changes with each renewal",
        )),
        Some(_) if !is_source_identity(identity) => objections.push(warning(
            format!(
                "its common name makes {identity:?} the source identity, which STS does not take"
            ),
            "use 1 to 64 letters, digits and any of _+=,.@-",
        )),
        Some(_) => {}
    }
    if leaf.alternative_names().is_empty() {
        objections.push(warning(
            "it has no subject alternative name".to_owned(),
            "have one issued if policies are to name a host (DNS) or a workload (URI)",
        ));
    }
    if leaf.serial().is_negative() {
        objections.push(warning(
            format!(
                "its serial number is negative ({})",
                leaf.serial().decimal()
            ),
            "RFC 5280 forbids that: have a new certificate issued",
        ));
    }
    for (tag, why) in facts.left_out {
        objections.push(warning(
            format!("AWS sets no tag {tag}"),
            &format!("{why}, so no policy should rely on it"),
        ));
    }
    objections
}

fn is_source_identity(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
    (2..=IDENTITY_LIMIT).contains(&text.len()) && text.chars().all(plain)
}

/// Whether it is valid at `now`, and for how long.
pub(super) fn validity(
    certificate: &Certificate,
    whose: &CertificateRef,
    now: Timestamp,
) -> Option<Violation> {
    if let Some((what, remedy)) = invalid(certificate, now) {
        return Some(Violation::refused(whose, what, remedy));
    }
    let (from, until) = (certificate.not_before(), certificate.not_after());
    let soon = SOON.min(from.duration_until(until) / 5);
    (now.duration_until(until) < soon).then(|| {
        let what = format!("it expires soon, on {until}");
        Violation::warning(whose, what, "renew it")
    })
}

/// Whether something is valid from the one until the other.
pub fn check_validity(
    from: Timestamp,
    until: Timestamp,
    now: Timestamp,
) -> Result<(), CertificateError> {
    match outside(from, until, now) {
        None => Ok(()),
        Some((what, remedy)) => Err(CertificateError::new(format!("{what}: {remedy}"))),
    }
}

/// Why it is not valid at `now`, and what to do.
pub(super) fn invalid(certificate: &Certificate, now: Timestamp) -> Option<(String, &'static str)> {
    outside(certificate.not_before(), certificate.not_after(), now)
}

fn outside(from: Timestamp, until: Timestamp, now: Timestamp) -> Option<(String, &'static str)> {
    if now > until {
        return Some((format!("it expired on {until}"), "install a new one"));
    }
    (now < from).then(|| {
        let what = format!("it is not valid before {from}, and here it is {now:.0}");
        (what, "wait, or set the clock")
    })
}

pub(super) fn weak_signature(
    certificate: &Certificate,
    whose: &CertificateRef,
) -> Option<Violation> {
    let hash = signature::scheme(certificate.parsed.signature_algorithm()).err()?;
    let what = format!("it is signed with {hash}");
    Some(Violation::refused(
        whose,
        what,
        "AWS wants SHA-256 or stronger",
    ))
}

#[cfg(test)]
mod tests {
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::x509::extension as ext;

    use super::super::testing::{
        Issued, NOON, alternative, constraints, ec, ec_p256, rsa, signing,
    };
    use super::super::{Chain, Severity};

    /// What is said of a leaf at noon, each objection in a line.
    fn said(leaf: &Issued) -> Vec<(Severity, String)> {
        let chain = Chain::new(vec![leaf.read()]).unwrap();
        let objections = chain.objections(None, NOON.parse().unwrap());
        let said: Vec<_> = objections
            .into_iter()
            .map(|objection| (objection.severity, objection.to_string()))
            .collect();
        // What is refused whatever the time, and only that, keeps the agent from using it.
        let lasting = said.iter().any(|(severity, text)| {
            *severity == Severity::Refused && !text.contains("expired") && !text.contains("before")
        });
        assert_eq!(chain.check().is_err(), lasting, "{said:?}");
        said
    }

    #[test]
    fn a_good_leaf_has_nothing_against_it() {
        for key in [ec_p256(), ec(Nid::SECP384R1), ec(Nid::SECP521R1), rsa(2048)] {
            assert_eq!(said(&Issued::leaf(&key)), []);
            let client = ext::ExtendedKeyUsage::new().client_auth().build().unwrap();
            let extensions = vec![
                constraints(false, None),
                signing(),
                alternative("a"),
                client,
            ];
            assert_eq!(said(&Issued::leaf(&key).with(extensions)), []);
        }
    }

    #[test]
    fn each_rule_of_a_leaf_is_broken_alone() {
        let key = ec_p256();
        let (small, bitcoin, short) = (rsa(1024), ec(Nid::SECP256K1), rsa(2040));
        let good = || Issued::leaf(&key);
        let server = || ext::ExtendedKeyUsage::new().server_auth().build().unwrap();
        let encipherment = || ext::KeyUsage::new().key_encipherment().build().unwrap();
        let (plain, san) = (|| constraints(false, None), || alternative("a"));
        let digest = |digest| Issued { digest, ..good() };
        let with_key = |key| Issued { key, ..good() };
        let cases = [
            (
                good().with(vec![constraints(true, None), signing(), san()]),
                "CA certificate",
            ),
            (good().with(vec![plain(), san()]), "digitalSignature"),
            (
                good().with(vec![plain(), encipherment(), san()]),
                "digitalSignature",
            ),
            (
                good().with(vec![plain(), signing(), san(), server()]),
                "clientAuth",
            ),
            (digest(MessageDigest::sha1()), "SHA-1"),
            (digest(MessageDigest::sha224()), "SHA-224"),
            (
                Issued {
                    subject: vec![],
                    ..good()
                },
                "subject is empty",
            ),
            (with_key(&small), "1024 bits"),
            (with_key(&short), "2040 bits"),
            (with_key(&bitcoin), "none of RSA"),
            (
                Issued {
                    validity: ("20260101000000Z", "20261123115959Z"),
                    ..good()
                },
                "expired on",
            ),
            (
                Issued {
                    validity: ("20261123120001Z", "20270101000000Z"),
                    ..good()
                },
                "not valid before",
            ),
        ];
        for (leaf, fault) in cases {
            let refused: Vec<String> = said(&leaf)
                .into_iter()
                .filter_map(|(severity, text)| (severity == Severity::Refused).then_some(text))
                .collect();
            assert!(
                refused.len() == 1 && refused[0].contains(fault) && refused[0].contains(": "),
                "{fault}: {refused:?}"
            );
        }
        let rsa_key = rsa(2048);
        let md5 = Issued {
            digest: MessageDigest::md5(),
            ..Issued::leaf(&rsa_key)
        };
        assert!(said(&md5)[0].1.contains("MD5"));
        // Without extensions there is nothing more to say.
        let first = said(&Issued {
            version: 1,
            ..good()
        });
        assert!(
            first[0].1.contains("v3")
                && first[0].1.contains("-copy_extensions")
                && first[1].0 == Severity::Warning,
            "{first:?}"
        );
    }

    #[test]
    fn each_doubt_about_a_leaf_is_raised_alone() {
        let key = ec_p256();
        let good = || Issued::leaf(&key);
        let subject = |subject| Issued { subject, ..good() };
        let organization: &'static str = Box::leak("o".repeat(64).into_boxed_str());
        let cases = [
            (
                good().with(vec![signing(), alternative("a")]),
                "no basicConstraints",
            ),
            (subject(vec![("O", "bank")]), "no common name"),
            (subject(vec![("CN", "web server")]), "\"CN=web server\""),
            (
                good().with(vec![constraints(false, None), signing()]),
                "no subject alternative name",
            ),
            (
                Issued {
                    serial: "-5",
                    ..good()
                },
                "negative (-5)",
            ),
            (
                Issued {
                    validity: ("20260101000000Z", "20261206000000Z"),
                    ..good()
                },
                "expires soon",
            ),
            (
                Issued {
                    validity: ("20261123000000Z", "20261123140000Z"),
                    ..good()
                },
                "expires soon",
            ),
            (
                subject(vec![("CN", "web"), ("O", "A*")]),
                "no tag x509Subject/O",
            ),
            (
                subject(vec![("CN", "web"), ("serialNumber", "7")]),
                "no tag x509Subject/serialNumber",
            ),
            (
                subject(
                    [("CN", "web")]
                        .into_iter()
                        .chain([("OU", organization); 4])
                        .collect(),
                ),
                "longer",
            ),
        ];
        for (leaf, doubt) in cases {
            let said = said(&leaf);
            assert!(
                said.len() == 1 && said[0].0 == Severity::Warning && said[0].1.contains(doubt),
                "{doubt}: {said:?}"
            );
        }
        // A day of a certificate that lives for one is nothing to be warned of until it is nearly over.
        let young = Issued {
            validity: ("20261123000000Z", "20261124000000Z"),
            ..good()
        };
        assert_eq!(said(&young), []);
    }
}
