//! What AWS demands of a CA's certificate: an intermediate's, or a trust anchor's.

use jiff::Timestamp;

use super::violation::REISSUE;
use super::{Certificate, CertificateRef, Violation, extensions, restrictions, rules};

/// What makes a certificate a CA's.
pub(super) fn is_ca(certificate: &Certificate, whose: &CertificateRef) -> Option<Violation> {
    let what = match extensions::basic_constraints(certificate) {
        Ok(Some((true, _))) => return None,
        Ok(_) => "it is not a CA certificate".to_owned(),
        Err(fault) => fault.to_string(),
    };
    Some(Violation::refused(whose, what, "remove it"))
}

/// What PKIX, and so AWS, demands of a CA's certificate.
pub(super) fn objections(certificate: &Certificate, whose: &CertificateRef) -> Vec<Violation> {
    let mut objections: Vec<Violation> = is_ca(certificate, whose).into_iter().collect();
    match extensions::key_usage(certificate) {
        Ok(Some(usage)) if usage.key_cert_sign() => {}
        Ok(_) => objections.push(Violation::refused(
            whose,
            "its keyUsage lacks keyCertSign",
            "have the CA's certificate issued anew",
        )),
        Err(fault) => objections.push(Violation::refused(whose, fault.to_string(), REISSUE)),
    }
    if certificate.tbs().subject().is_empty() {
        objections.push(Violation::refused(
            whose,
            "its subject is empty, and RFC 5280 (4.1.2.6) demands one of a CA",
            "have the CA's certificate issued again, with a name",
        ));
    }
    objections.extend(rules::weak_signature(certificate, whose));
    objections
}

pub(super) fn path_length(
    ca: &Certificate,
    whose: &CertificateRef,
    below: usize,
) -> Option<Violation> {
    let (_, limit) = extensions::basic_constraints(ca).ok().flatten()?;
    let limit = usize::from(limit?);
    (below > limit).then(|| {
        let what = format!(
            "its pathLenConstraint is {limit}, less than the number of CAs below it, {below}"
        );
        Violation::refused(
            whose,
            what,
            "have the leaf issued by a CA that is nearer to it",
        )
    })
}

/// What AWS has against certificates as a trust anchor, the worst first.
pub fn anchor_objections(anchors: &[Certificate], now: Timestamp) -> Vec<Violation> {
    let mut objections: Vec<Violation> = anchors
        .iter()
        .enumerate()
        .flat_map(|(at, anchor)| {
            let whose = CertificateRef::Anchor(at + 1, anchor.subject());
            anchor_faults(anchor, &whose, 0, now)
        })
        .collect();
    objections.sort_by_key(|objection| !objection.is_refusal());
    objections
}

pub(super) fn anchor_faults(
    anchor: &Certificate,
    whose: &CertificateRef,
    below: usize,
    now: Timestamp,
) -> Vec<Violation> {
    let mut faults = objections(anchor, whose);
    faults.extend(restrictions::critical(anchor, whose));
    faults.extend(restrictions::purpose(anchor, whose));
    faults.extend(rules::validity(anchor, whose, now));
    faults.extend(path_length(anchor, whose, below));
    faults
}

#[cfg(test)]
mod tests {
    use openssl::hash::MessageDigest;

    use super::super::testing::{
        Issued, NOON, Pki, certificate_signing, constraints, ec_p256, objections, only, signing,
    };
    use super::super::{Chain, Severity};

    #[test]
    fn each_rule_of_a_ca_is_broken_alone() {
        let (key, ca_key) = (ec_p256(), ec_p256());
        let ca = || Issued::ca(&ca_key, "ca", &ca_key, "root");
        let plain = || constraints(true, None);
        let leaf = Issued::leaf(&key).by(&ca_key, "ca");
        let cases = [
            (ca(), None),
            (
                ca().with(vec![constraints(false, None), certificate_signing()]),
                Some("not a CA"),
            ),
            (ca().with(vec![certificate_signing()]), Some("not a CA")),
            (ca().with(vec![plain(), signing()]), Some("keyCertSign")),
            (ca().with(vec![plain()]), Some("keyCertSign")),
            (
                Issued {
                    digest: MessageDigest::sha1(),
                    ..ca()
                },
                Some("SHA-1"),
            ),
            (
                Issued {
                    validity: ("20250101000000Z", "20260101000000Z"),
                    ..ca()
                },
                Some("expired"),
            ),
        ];
        for (ca, fault) in cases {
            let chain = Chain::new(vec![leaf.read(), ca.read()]).unwrap();
            let objections = chain.objections(None, NOON.parse().unwrap());
            let said: Vec<String> = objections.iter().map(ToString::to_string).collect();
            match fault {
                None => assert!(said.is_empty(), "{said:?}"),
                Some(fault) => assert!(
                    said.len() == 1
                        && said[0].starts_with("intermediate 1 (CN=ca): it")
                        && said[0].contains(fault)
                        && objections[0].is_refusal(),
                    "{fault}: {said:?}"
                ),
            }
        }
    }

    #[test]
    fn an_anchor_must_be_a_valid_ca() {
        let pki = Pki::new();
        let (leaf, lower, upper) = (pki.leaf(), pki.lower(), pki.upper());
        let sha1 = MessageDigest::sha1();
        for (anchor, fault) in [
            (
                Issued {
                    validity: ("20200101000000Z", "20260101000000Z"),
                    ..pki.root()
                },
                "expired",
            ),
            (
                Issued {
                    digest: sha1,
                    ..pki.root()
                },
                "SHA-1",
            ),
            (
                pki.root()
                    .with(vec![constraints(false, None), certificate_signing()]),
                "not a CA",
            ),
            (
                pki.root().with(vec![constraints(true, None)]),
                "keyCertSign",
            ),
            (
                pki.root()
                    .with(vec![constraints(true, Some(1)), certificate_signing()]),
                "pathLenConstraint is 1, less",
            ),
        ] {
            let said = only(
                Severity::Refused,
                &[&leaf, &lower, &upper],
                Some(&[&anchor]),
            );
            assert!(said.contains("trust anchor 1 (CN=root): it"), "{said}");
            assert!(said.contains(fault), "{said}");
            // The old certificate does not matter where the new one is there, too.
            assert_eq!(
                objections(&[&leaf, &lower, &upper], Some(&[&anchor, &pki.root()])),
                []
            );
        }
        let narrow = pki
            .upper()
            .with(vec![constraints(true, Some(0)), certificate_signing()]);
        let said = only(
            Severity::Refused,
            &[&leaf, &lower, &narrow],
            Some(&[&pki.root()]),
        );
        assert!(said.contains("pathLenConstraint is 0, less"), "{said}");
        let wide = pki
            .lower()
            .with(vec![constraints(true, Some(0)), certificate_signing()]);
        assert_eq!(
            objections(&[&leaf, &wide, &upper], Some(&[&pki.root()])),
            []
        );
    }
}
