//! The way from a leaf to its trust anchor: who issued whom.

use jiff::Timestamp;

use super::chain::Link;
use super::{Certificate, Objection, Whose, extensions, rules, signature};

/// What is wrong with the order, as far as leaf and intermediates tell.
pub(super) fn links(leaf: &Certificate, intermediates: &[Link]) -> Vec<Objection> {
    let mut way = Way::from(leaf, intermediates);
    way.climb_to_the_end();
    way.objections()
}

/// The same, and whether it ends at a trust anchor that may be one.
pub(super) fn to_anchor(
    leaf: &Certificate,
    intermediates: &[Link],
    anchors: &[Certificate],
    now: Timestamp,
) -> Vec<Objection> {
    let mut way = Way::from(leaf, intermediates);
    way.leading = leading(intermediates, anchors);
    let mut objections = Vec::new();
    loop {
        let issuing = anchors
            .iter()
            .enumerate()
            .filter(|(_, anchor)| may_have_issued(anchor, way.top));
        let judged = issuing.map(|(at, anchor)| {
            let whose = Whose::Anchor(at + 1, anchor.subject());
            let faults = anchor_faults(anchor, &whose, way.below(), now);
            (anchor, whose, faults)
        });
        // Two certificates of one CA may be in a bundle while it changes its own.
        let best =
            judged.min_by_key(|(.., faults)| faults.iter().filter(|one| one.is_refusal()).count());
        if let Some((anchor, whose, faults)) = best {
            if way.top_is_signed_by(anchor).is_none() {
                objections.push(unchecked(&whose, way.top));
            }
            objections.extend(faults);
            break;
        }
        if !way.climb() {
            objections.push(way.dead_end(anchors));
            break;
        }
    }
    objections.extend(way.objections());
    objections
}

/// The places of the intermediates that lead to an anchor: a CA may have certificates of several others, of which
/// some lead elsewhere.
fn leading(intermediates: &[Link], anchors: &[Certificate]) -> Vec<usize> {
    let mut leading = Vec::new();
    let mut issuers: Vec<&Certificate> = anchors.iter().collect();
    while let Some(issuer) = issuers.pop() {
        for (at, link) in intermediates.iter().enumerate() {
            if !leading.contains(&at) && may_have_issued(issuer, &link.certificate) {
                leading.push(at);
                issuers.push(&link.certificate);
            }
        }
    }
    leading
}

fn may_have_issued(issuer: &Certificate, issued: &Certificate) -> bool {
    issuer.subject() == issued.issuer() && signature::is_signed_by(issued, issuer) != Some(false)
}

/// What AWS has against certificates as a trust anchor, the worst first.
pub fn anchor_objections(anchors: &[Certificate], now: Timestamp) -> Vec<Objection> {
    let mut objections: Vec<Objection> = anchors
        .iter()
        .enumerate()
        .flat_map(|(at, anchor)| {
            let whose = Whose::Anchor(at + 1, anchor.subject());
            anchor_faults(anchor, &whose, 0, now)
        })
        .collect();
    objections.sort_by_key(|objection| !objection.is_refusal());
    objections
}

fn anchor_faults(
    anchor: &Certificate,
    whose: &Whose,
    below: usize,
    now: Timestamp,
) -> Vec<Objection> {
    let mut faults = rules::ca(anchor, whose);
    faults.extend(rules::validity(anchor, whose, now));
    faults.extend(path_length(anchor, whose, below));
    faults
}

/// How far up the leaf's issuers were found.
struct Way<'c> {
    intermediates: &'c [Link],
    /// The certificate whose issuer is sought next.
    top: &'c Certificate,
    /// The places in `intermediates` of those that were climbed over, from the leaf upwards.
    climbed: Vec<usize>,
    /// The places of those that are to be preferred.
    leading: Vec<usize>,
    objections: Vec<Objection>,
}

impl<'c> Way<'c> {
    fn from(leaf: &'c Certificate, intermediates: &'c [Link]) -> Way<'c> {
        Way {
            intermediates,
            top: leaf,
            climbed: Vec::new(),
            leading: Vec::new(),
            objections: Vec::new(),
        }
    }

    /// So many CAs are between here and the leaf.
    fn below(&self) -> usize {
        self.climbed.len()
    }

    fn top_is_signed_by(&self, issuer: &Certificate) -> Option<bool> {
        signature::is_signed_by(self.top, issuer)
    }

    fn climb_to_the_end(&mut self) {
        while self.climb() {}
    }

    /// One step up, if an intermediate leads there.
    fn climb(&mut self) -> bool {
        let named = |(at, link): &(usize, &'c Link)| {
            !self.climbed.contains(at) && link.certificate.subject() == self.top.issuer()
        };
        let candidates = self.intermediates.iter().enumerate().filter(named);
        let candidate = candidates
            .map(|(at, link)| (at, link, self.top_is_signed_by(&link.certificate)))
            .filter(|(.., signed)| *signed != Some(false))
            .min_by_key(|(at, _, signed)| (!self.leading.contains(at), std::cmp::Reverse(*signed)));
        let Some((at, link, signed)) = candidate else {
            return false;
        };
        if signed.is_none() {
            self.objections.push(unchecked(&link.whose(), self.top));
        }
        let (whose, below) = (link.whose(), self.below());
        self.objections
            .extend(path_length(&link.certificate, &whose, below));
        self.top = &link.certificate;
        self.climbed.push(at);
        true
    }

    /// Why it goes no further, and not to an anchor.
    fn dead_end(&self, anchors: &[Certificate]) -> Objection {
        let issuer = self.top.issuer();
        let subject = self.top.subject();
        let names_it = |certificate: &Certificate| certificate.subject() == issuer;
        let links = self.intermediates.iter().map(|link| &link.certificate);
        if anchors.iter().chain(links).any(names_it) {
            return Objection::refused(
                &Whose::Chain,
                format!("{subject} is not signed by the {issuer} that is here"),
                "get the certificate of the CA, or of the CA's key, that issued it",
            );
        }
        Objection::refused(
            &Whose::Chain,
            format!(
                "it does not lead to the trust anchor: the issuer of {subject}, {issuer}, is missing"
            ),
            "add its certificate behind the leaf's, or name the trust anchor that has it",
        )
    }

    /// With what is wrong about the order, and what is not needed.
    fn objections(mut self) -> Vec<Objection> {
        if !self.climbed.is_sorted() {
            self.objections.push(Objection::warning(
                &Whose::Chain,
                "the intermediates are not in order",
                "put each behind the certificate that it issued",
            ));
        }
        for (at, link) in self.intermediates.iter().enumerate() {
            if !self.climbed.contains(&at) {
                self.objections
                    .push(stray(link, self.intermediates, self.top));
            }
        }
        self.objections
    }
}

/// An intermediate that did not lead up from the leaf.
fn stray(link: &Link, all: &[Link], top: &Certificate) -> Objection {
    let whose = link.whose();
    let twice = |other: &&Link| other.number < link.number && other.certificate == link.certificate;
    if all.iter().any(|other| twice(&other)) {
        return Objection::warning(&whose, "it is there twice", "remove it");
    }
    // One that did sign it was not asked: the trust anchor is the same CA.
    let is_named = link.certificate.subject() == top.issuer();
    if is_named && signature::is_signed_by(top, &link.certificate) == Some(false) {
        return Objection::refused(
            &whose,
            format!(
                "it did not sign {}, though it has its issuer's name",
                top.subject()
            ),
            "get the certificate of the CA's key that did",
        );
    }
    Objection::warning(
        &whose,
        "it is not between the leaf and its trust anchor",
        "remove it",
    )
}

fn path_length(ca: &Certificate, whose: &Whose, below: usize) -> Option<Objection> {
    let (_, limit) = extensions::basic_constraints(ca).ok().flatten()?;
    let limit = usize::from(limit?);
    (below > limit).then(|| {
        let what =
            format!("it allows {limit} CAs below it (pathLenConstraint), and there are {below}");
        Objection::refused(
            whose,
            what,
            "have the leaf issued by a CA that is nearer to it",
        )
    })
}

fn unchecked(whose: &Whose, issued: &Certificate) -> Objection {
    Objection::warning(
        whose,
        format!(
            "it may have signed {}, which cannot be checked here ({})",
            issued.subject(),
            issued.signature_algorithm()
        ),
        "check it with openssl verify",
    )
}

#[cfg(test)]
mod tests {
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;

    use super::super::testing::{
        Issued, Key, NOON, certificate_signing, constraints, ec, ec_p256, rsa,
    };
    use super::super::{Chain, Severity};
    use super::*;

    /// A root, two intermediates below it, and a leaf of the lower one, each with its own kind of key.
    struct Pki {
        root: Key,
        upper: Key,
        lower: Key,
        leaf: Key,
    }

    impl Pki {
        fn new() -> Pki {
            Pki {
                root: rsa(2048),
                upper: ec(Nid::SECP521R1),
                lower: ec(Nid::SECP384R1),
                leaf: ec_p256(),
            }
        }

        fn root(&self) -> Issued<'_> {
            Issued::ca(&self.root, "root", &self.root, "root")
        }

        fn upper(&self) -> Issued<'_> {
            Issued::ca(&self.upper, "upper", &self.root, "root")
        }

        fn lower(&self) -> Issued<'_> {
            Issued::ca(&self.lower, "lower", &self.upper, "upper")
        }

        fn leaf(&self) -> Issued<'_> {
            Issued::leaf(&self.leaf).by(&self.lower, "lower")
        }
    }

    fn objections(chain: &[&Issued], anchors: Option<&[&Issued]>) -> Vec<Objection> {
        let chain = Chain::new(chain.iter().map(|one| one.read()).collect()).unwrap();
        let anchors: Option<Vec<_>> =
            anchors.map(|anchors| anchors.iter().map(|one| one.read()).collect());
        chain.objections(anchors.as_deref(), NOON.parse().unwrap())
    }

    /// The only objection.
    fn only(severity: Severity, chain: &[&Issued], anchors: Option<&[&Issued]>) -> String {
        let objections = objections(chain, anchors);
        assert!(
            matches!(&objections[..], [one] if one.severity == severity),
            "{objections:?}"
        );
        objections[0].to_string()
    }

    #[test]
    fn a_whole_path_is_found_with_keys_of_every_kind() {
        let pki = Pki::new();
        let (leaf, lower, upper, root) = (pki.leaf(), pki.lower(), pki.upper(), pki.root());
        assert_eq!(objections(&[&leaf, &lower, &upper], Some(&[&root])), []);
        assert_eq!(
            objections(&[&leaf, &lower, &upper, &root], Some(&[&root])),
            []
        );
        // A trust anchor need not be a root, nor be first in its bundle.
        assert_eq!(objections(&[&leaf, &lower], Some(&[&root, &upper])), []);
        assert_eq!(objections(&[&leaf], Some(&[&lower])), []);
        // To send the anchor, too, is of no use, and does no harm.
        for chain in [&[&leaf, &lower][..], &[&leaf, &lower, &upper]] {
            let said = objections(chain, Some(&[&lower]));
            assert!(said.iter().all(|one| !one.is_refusal()), "{said:?}");
            let of_lower = &said[0].to_string();
            assert!(of_lower.contains("is not between"), "{of_lower}");
        }
        // Without an anchor, an end is as good as any other.
        assert_eq!(objections(&[&leaf, &lower], None), []);
        assert_eq!(objections(&[&leaf], None), []);
    }

    #[test]
    fn of_a_ca_that_two_have_certified_the_certificate_that_leads_to_the_anchor_counts() {
        let pki = Pki::new();
        let (leaf, elsewhere, root) = (pki.leaf(), pki.lower(), pki.root());
        let by_root = Issued::ca(&pki.lower, "lower", &pki.root, "root");
        for chain in [[&leaf, &elsewhere, &by_root], [&leaf, &by_root, &elsewhere]] {
            let text = only(Severity::Warning, &chain, Some(&[&root]));
            assert!(text.contains("not between the leaf"), "{text}");
        }
    }

    #[test]
    fn every_scheme_of_a_certificate_is_checked() {
        let (rsa_key, p256, p384, p521) =
            (rsa(2048), ec_p256(), ec(Nid::SECP384R1), ec(Nid::SECP521R1));
        let key = ec_p256();
        let (sha256, sha384, sha512) = (
            MessageDigest::sha256(),
            MessageDigest::sha384(),
            MessageDigest::sha512(),
        );
        for (issuer, digest, known) in [
            (&rsa_key, sha256, true),
            (&rsa_key, sha384, true),
            (&rsa_key, sha512, true),
            (&p256, sha256, true),
            (&p256, sha384, true),
            (&p256, sha512, false),
            (&p384, sha256, true),
            (&p384, sha384, true),
            (&p384, sha512, false),
            (&p521, sha256, true),
            (&p521, sha384, true),
            (&p521, sha512, true),
        ] {
            let leaf = Issued {
                digest,
                ..Issued::leaf(&key).by(issuer, "ca")
            }
            .read();
            let ca = Issued::ca(issuer, "ca", issuer, "ca").read();
            assert_eq!(signature::is_signed_by(&leaf, &ca), known.then_some(true));
            let other = Issued::ca(&key, "ca", &key, "ca").read();
            assert_ne!(signature::is_signed_by(&leaf, &other), Some(true));
        }
    }

    #[test]
    fn a_path_that_ends_too_early_names_what_is_missing() {
        let pki = Pki::new();
        let (leaf, lower, upper, root) = (pki.leaf(), pki.lower(), pki.upper(), pki.root());
        let said = only(Severity::Refused, &[&leaf, &lower], Some(&[&root]));
        assert!(
            said.contains("the issuer of CN=lower, CN=upper, is missing"),
            "{said}"
        );
        let said = objections(&[&leaf, &upper], Some(&[&root]));
        assert!(
            said[0].to_string().contains("CN=lower, is missing"),
            "{said:?}"
        );
        assert!(
            said[1]
                .to_string()
                .contains("intermediate 1 (CN=upper): it is not between")
        );
    }

    #[test]
    fn a_name_is_not_a_signature() {
        let pki = Pki::new();
        let (leaf, lower, upper, root) = (pki.leaf(), pki.lower(), pki.upper(), pki.root());
        let forged_root = Issued::ca(&pki.leaf, "root", &pki.leaf, "root");
        let said = only(
            Severity::Refused,
            &[&leaf, &lower, &upper],
            Some(&[&forged_root]),
        );
        assert!(
            said.contains("CN=upper is not signed by the CN=root"),
            "{said}"
        );
        // While a CA changes its key, both certificates are in the bundle.
        assert_eq!(
            objections(&[&leaf, &lower, &upper], Some(&[&forged_root, &root])),
            []
        );
        let forged = Issued::ca(&pki.leaf, "lower", &pki.upper, "upper");
        let said = only(Severity::Refused, &[&leaf, &forged], None);
        assert!(said.contains("it did not sign CN=web"), "{said}");
        assert!(objections(&[&leaf, &forged, &upper], Some(&[&root]))[0].is_refusal());
    }

    #[test]
    fn order_and_what_is_not_needed_are_doubts() {
        let pki = Pki::new();
        let (leaf, lower, upper, root) = (pki.leaf(), pki.lower(), pki.upper(), pki.root());
        for anchors in [None, Some(&[&root][..])] {
            let said = only(Severity::Warning, &[&leaf, &upper, &lower], anchors);
            assert!(said.contains("not in order"), "{said}");
            let other = Issued::ca(&pki.leaf, "other", &pki.leaf, "elsewhere");
            let said = only(Severity::Warning, &[&leaf, &lower, &upper, &other], anchors);
            assert!(
                said.contains("intermediate 3 (CN=other): it is not between"),
                "{said}"
            );
        }
    }

    #[test]
    fn an_intermediate_is_there_once() {
        let pki = Pki::new();
        let (leaf, lower) = (pki.leaf().read(), pki.lower().read());
        let chain = Chain::new(vec![leaf, lower.clone(), lower]).unwrap();
        let objections = chain.objections(None, NOON.parse().unwrap());
        let said: Vec<String> = objections.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            ["intermediate 2 (CN=lower): it is there twice: remove it"]
        );
        assert!(!objections[0].is_refusal());
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
                "allows 1 CAs",
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
        assert!(said.contains("allows 0 CAs below it"), "{said}");
        let wide = pki
            .lower()
            .with(vec![constraints(true, Some(0)), certificate_signing()]);
        assert_eq!(
            objections(&[&leaf, &wide, &upper], Some(&[&pki.root()])),
            []
        );
    }

    #[test]
    fn what_cannot_be_checked_is_said() {
        let pki = Pki::new();
        let p256 = ec_p256();
        let sha512 = MessageDigest::sha512();
        let leaf = Issued {
            digest: sha512,
            ..pki.leaf().by(&p256, "root")
        };
        let anchor = Issued::ca(&p256, "root", &p256, "root");
        let said = only(Severity::Warning, &[&leaf], Some(&[&anchor]));
        assert!(
            said.contains("cannot be checked here (ecdsa-with-SHA512)"),
            "{said}"
        );
    }
}
