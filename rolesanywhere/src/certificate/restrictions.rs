//! What binds every reader of a path (RFC 5280, section 6.1): critical extensions, and the names that a CA may issue.

use super::violation::REISSUE;
use super::{Certificate, CertificateRef, Violation, extensions, name_constraints};

/// Returns what forbids `ca` to stand above the certificates `below`, the leaf first.
pub(super) fn objections(
    ca: &Certificate,
    whose: &CertificateRef,
    below: &[(CertificateRef, &Certificate)],
) -> Vec<Violation> {
    let mut objections = names(ca, whose, below);
    objections.extend(critical(ca, whose));
    objections
}

/// Returns the critical extension that makes a certificate unusable, if there is one.
pub(super) fn critical(certificate: &Certificate, whose: &CertificateRef) -> Option<Violation> {
    let extension = extensions::unknown_critical(certificate)?;
    Some(Violation::refused(
        whose,
        format!("its extension {extension} is critical and unknown (RFC 5280, 4.2)"),
        "have one issued without it, or with it not critical",
    ))
}

/// Returns the names `below` that `ca` may not issue.
pub(super) fn names(
    ca: &Certificate,
    whose: &CertificateRef,
    below: &[(CertificateRef, &Certificate)],
) -> Vec<Violation> {
    let unreadable = |whose: &CertificateRef, fault: &dyn ToString| {
        Violation::refused(whose, fault.to_string(), REISSUE)
    };
    let constraints = match name_constraints::of(ca) {
        Ok(None) => return Vec::new(),
        Ok(Some(constraints)) => constraints,
        Err(fault) => return vec![unreadable(whose, &fault)],
    };
    let faults = below.iter().filter_map(|(of, issued)| {
        match name_constraints::violation(&constraints, issued) {
            Ok(violation) => violation.map(|violation| {
                let what = format!("{violation} the name constraints of {}", ca.subject());
                Violation::refused(of, what, "have one issued for names that this CA may issue")
            }),
            Err(fault) => Some(unreadable(of, &fault)),
        }
    });
    faults.collect()
}

/// Returns why `ca` may not issue certificates for clients (RFC 5280, 4.2.1.12).
pub(super) fn purpose(ca: &Certificate, whose: &CertificateRef) -> Option<Violation> {
    let what = match extensions::issues_for_clients(ca) {
        Ok(Some(false)) => "its extendedKeyUsage lacks clientAuth".to_owned(),
        Ok(_) => return None,
        Err(fault) => fault.to_string(),
    };
    let remedy = "have the leaf issued by a CA for clients";
    Some(Violation::refused(whose, what, remedy))
}

/// Returns a warning about policies, which are not compared here.
pub(super) fn policies(ca: &Certificate, whose: &CertificateRef) -> Option<Violation> {
    extensions::has_policy_constraints(ca).then(|| {
        Violation::warning(
            whose,
            "its policyConstraints cannot be checked here",
            "check them with openssl verify -policy_check",
        )
    })
}

#[cfg(test)]
mod tests {
    use openssl::asn1::{Asn1Object, Asn1OctetString};
    use openssl::x509::X509Extension;
    use openssl::x509::extension as ext;

    use super::super::testing::{
        Issued, Pki, alternative, certificate_signing, constraints, objections, only, signing,
    };
    use super::super::{Chain, Severity};

    /// An extension with this content: of name constraints, a DNS name.
    fn extension(oid: &str, critical: bool, content: &[u8]) -> X509Extension {
        let oid = Asn1Object::from_str(oid).unwrap();
        let content = Asn1OctetString::new_from_bytes(content).unwrap();
        X509Extension::new_from_der(&oid, critical, &content).unwrap()
    }

    fn unknown(critical: bool) -> X509Extension {
        extension("1.2.3.4.5", critical, &[5, 0])
    }

    /// permittedSubtrees (0xa0) or excludedSubtrees (0xa1) of one DNS name.
    fn names(tag: u8, dns: &str) -> X509Extension {
        let wrap = |tag: u8, content: &[u8]| [&[tag, content.len() as u8], content].concat();
        let subtree = wrap(0x30, &wrap(0x82, dns.as_bytes()));
        extension("2.5.29.30", true, &wrap(0x30, &wrap(tag, &subtree)))
    }

    fn ca_with(ca: Issued<'_>, one: X509Extension) -> Issued<'_> {
        ca.with(vec![constraints(true, None), certificate_signing(), one])
    }

    fn check(chain: &[&Issued]) -> Result<(), super::super::CertificateError> {
        Chain::new(chain.iter().map(|one| one.read()).collect())
            .unwrap()
            .check()
    }

    #[test]
    fn an_unknown_critical_extension_is_refused_anywhere_on_the_path() {
        let pki = Pki::new();
        let leaf_with = |one| {
            let extensions = vec![constraints(false, None), signing(), alternative("a"), one];
            pki.leaf().with(extensions)
        };
        for (critical, severity) in [(true, Some(Severity::Refused)), (false, None)] {
            let leaf = leaf_with(unknown(critical));
            let lower = ca_with(pki.lower(), unknown(critical));
            let root = ca_with(pki.root(), unknown(critical));
            let (good_leaf, good_lower) = (pki.leaf(), pki.lower());
            let (upper, good_root) = (pki.upper(), pki.root());
            for (chain, anchor, seen_by_agent) in [
                ([&leaf, &good_lower, &upper], &good_root, true),
                ([&good_leaf, &lower, &upper], &good_root, true),
                ([&good_leaf, &good_lower, &upper], &root, false),
            ] {
                let said = objections(&chain, Some(&[anchor]));
                let severities: Vec<_> = said.iter().map(|one| one.severity).collect();
                assert_eq!(
                    severities,
                    severity.into_iter().collect::<Vec<_>>(),
                    "{said:?}"
                );
                assert_eq!(check(&chain).is_err(), critical && seen_by_agent);
            }
        }
        let usage = ext::KeyUsage::new().critical().digital_signature().build();
        let known = pki.leaf().with(vec![
            constraints(false, None),
            usage.unwrap(),
            alternative("a"),
            extension("2.5.29.32", true, &[0x30, 6, 0x30, 4, 6, 2, 0x2a, 3]),
        ]);
        assert_eq!(objections(&[&known, &pki.lower()], None), []);
    }

    #[test]
    fn names_that_a_ca_may_not_issue_are_refused_wherever_the_ca_is() {
        let pki = Pki::new();
        let (leaf, lower, upper, root) = (pki.leaf(), pki.lower(), pki.upper(), pki.root());
        const PERMITTED: u8 = 0xa0;
        const EXCLUDED: u8 = 0xa1;
        for (tag, dns, fine) in [
            (PERMITTED, "other.test", false),
            (PERMITTED, "web.test", true),
            (EXCLUDED, "test", false),
            (EXCLUDED, "other.test", true),
        ] {
            let limited = |ca| ca_with(ca, names(tag, dns));
            let (new_lower, new_upper) = (limited(pki.lower()), limited(pki.upper()));
            let new_root = limited(pki.root());
            for (chain, anchor, seen_by_agent) in [
                ([&leaf, &new_lower, &upper], &root, true),
                ([&leaf, &lower, &new_upper], &root, true),
                ([&leaf, &lower, &upper], &new_root, false),
            ] {
                let said = objections(&chain, Some(&[anchor]));
                assert_eq!(said.is_empty(), fine, "{said:?}");
                assert!(said.iter().all(|one| one.is_refusal()), "{said:?}");
                assert_eq!(check(&chain).is_err(), !fine && seen_by_agent);
            }
        }
    }

    #[test]
    fn of_two_certificates_of_a_ca_the_one_that_permits_the_names_counts() {
        let pki = Pki::new();
        let (leaf, upper, root) = (pki.leaf(), pki.upper(), pki.root());
        let by_root = Issued::ca(&pki.lower, "lower", &pki.root, "root");
        let limited = Issued {
            validity: ("20260101000000Z", "20280101000000Z"),
            ..ca_with(pki.lower(), names(0xa0, "other.test"))
        };
        for chain in [
            [&leaf, &limited, &upper, &by_root],
            [&leaf, &by_root, &limited, &upper],
        ] {
            for anchors in [None, Some(&[&root][..])] {
                let said = objections(&chain, anchors);
                assert!(said.iter().all(|one| !one.is_refusal()), "{said:?}");
            }
            assert_eq!(check(&chain), Ok(()));
        }
    }

    #[test]
    fn constraints_and_names_that_cannot_be_read_are_refused() {
        let pki = Pki::new();
        let (leaf, root) = (pki.leaf(), pki.root());
        let garbled = ca_with(pki.lower(), extension("2.5.29.30", true, &[0x30, 1]));
        let said = objections(&[&leaf, &garbled], None);
        assert!(said.iter().any(|one| one.is_refusal()), "{said:?}");
        assert!(check(&[&leaf, &garbled]).is_err());
        let nameless = pki.leaf().with(vec![
            constraints(false, None),
            signing(),
            extension("2.5.29.17", false, &[0x30, 1]),
        ]);
        let said = objections(&[&nameless, &pki.lower(), &pki.upper()], Some(&[&root]));
        assert!(said[0].is_refusal(), "{said:?}");
        assert!(check(&[&nameless]).is_err());
    }

    #[test]
    fn a_ca_issues_for_clients_and_its_policies_are_a_doubt() {
        let pki = Pki::new();
        let leaf = pki.leaf();
        let usage = |usage: &mut ext::ExtendedKeyUsage| usage.build().unwrap();
        let server = usage(ext::ExtendedKeyUsage::new().server_auth());
        let policies = extension("2.5.29.36", true, &[0x30, 3, 0x80, 1, 0]);
        for (one, severity) in [(server, Severity::Refused), (policies, Severity::Warning)] {
            let lower = ca_with(pki.lower(), one);
            only(severity, &[&leaf, &lower], None);
            // The agent leaves that to AWS.
            assert_eq!(check(&[&leaf, &lower]), Ok(()));
        }
        for purposes in [
            ext::ExtendedKeyUsage::new().client_auth(),
            ext::ExtendedKeyUsage::new().other("2.5.29.37.0"),
        ] {
            let lower = ca_with(pki.lower(), usage(purposes));
            assert_eq!(objections(&[&leaf, &lower], None), []);
        }
    }

    #[test]
    fn a_ca_has_a_name() {
        let pki = Pki::new();
        let nameless = Issued {
            subject: vec![],
            ..pki.lower()
        };
        let leaf = Issued {
            issuer: vec![],
            ..pki.leaf()
        };
        only(Severity::Refused, &[&leaf, &nameless], None);
    }
}
