//! The way from a leaf to its trust anchor: who issued whom.

use jiff::Timestamp;

use super::link::Link;
use super::{Certificate, Objection, Whose, ca, rules, signature};

/// What is wrong with the order, as far as leaf and intermediates tell.
pub(super) fn links(leaf: &Certificate, intermediates: &[Link], now: Timestamp) -> Vec<Objection> {
    let mut way = Way::from(leaf, intermediates, now);
    while way.climb() {}
    let mut objections = way.objections();
    objections.extend(self_signed(leaf));
    objections
}

/// The intermediates that lead up from the leaf.
pub(super) fn upwards<'c>(
    leaf: &'c Certificate,
    intermediates: &'c [Link],
    now: Timestamp,
) -> impl Iterator<Item = &'c Certificate> {
    let mut way = Way::from(leaf, intermediates, now);
    std::iter::from_fn(move || way.climb().then_some(way.top))
}

/// What is wrong with the order, and whether it ends at a trust anchor that may be one.
pub(super) fn to_anchor(
    leaf: &Certificate,
    intermediates: &[Link],
    anchors: &[Certificate],
    now: Timestamp,
) -> Vec<Objection> {
    let mut way = Way::from(leaf, intermediates, now);
    way.leading = leading(intermediates, anchors, |_| true);
    way.leading_validly = leading(intermediates, anchors, |one| {
        rules::invalid(one, now).is_none()
    });
    let mut objections = Vec::new();
    loop {
        let issuing = anchors
            .iter()
            .enumerate()
            .filter(|(_, anchor)| may_have_issued(anchor, way.top));
        let judged = issuing.map(|(at, anchor)| {
            let whose = Whose::Anchor(at + 1, anchor.subject());
            let faults = ca::anchor_faults(anchor, &whose, way.below(), now);
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

/// The places of the intermediates that lead to an anchor over those that count: a CA may have certificates of
/// several others, of which some lead elsewhere.
fn leading(
    intermediates: &[Link],
    anchors: &[Certificate],
    counts: impl Fn(&Certificate) -> bool,
) -> Vec<usize> {
    let mut leading = Vec::new();
    let mut issuers: Vec<&Certificate> = anchors.iter().collect();
    while let Some(issuer) = issuers.pop() {
        for (at, link) in intermediates.iter().enumerate() {
            let certificate = &link.certificate;
            let is_new = counts(certificate) && !leading.contains(&at);
            if is_new && may_have_issued(issuer, certificate) {
                leading.push(at);
                issuers.push(certificate);
            }
        }
    }
    leading
}

fn may_have_issued(issuer: &Certificate, issued: &Certificate) -> bool {
    issuer.subject() == issued.issuer() && signature::is_signed_by(issued, issuer) != Some(false)
}

/// How far up the leaf's issuers were found.
struct Way<'c> {
    intermediates: &'c [Link],
    now: Timestamp,
    /// The certificate whose issuer is sought next.
    top: &'c Certificate,
    /// The places in `intermediates` of those that were climbed over, from the leaf upwards.
    climbed: Vec<usize>,
    /// The places of those that lead to an anchor, which are to be preferred.
    leading: Vec<usize>,
    /// The places of those that do so over valid ones only, which are to be preferred to these.
    leading_validly: Vec<usize>,
    objections: Vec<Objection>,
}

impl<'c> Way<'c> {
    fn from(leaf: &'c Certificate, intermediates: &'c [Link], now: Timestamp) -> Way<'c> {
        Way {
            intermediates,
            now,
            top: leaf,
            climbed: Vec::new(),
            leading: Vec::new(),
            leading_validly: Vec::new(),
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

    /// One step up, if an intermediate leads there.
    fn climb(&mut self) -> bool {
        let named = |(at, link): &(usize, &'c Link)| {
            !self.climbed.contains(at) && link.certificate.subject() == self.top.issuer()
        };
        let candidates = self.intermediates.iter().enumerate().filter(named);
        let candidate = candidates
            .map(|(at, link)| (at, link, self.top_is_signed_by(&link.certificate)))
            .filter(|(.., signed)| *signed != Some(false))
            .max_by_key(|(at, link, signed)| self.preference(*at, &link.certificate, *signed));
        let Some((at, link, signed)) = candidate else {
            return false;
        };
        let whose = link.whose();
        if signed.is_none() {
            self.objections.push(unchecked(&whose, self.top));
        }
        let path_length = ca::path_length(&link.certificate, &whose, self.below());
        self.objections.extend(path_length);
        let validity = rules::validity(&link.certificate, &whose, self.now);
        self.objections.extend(validity);
        self.top = &link.certificate;
        self.climbed.push(at);
        true
    }

    /// How good a step it is. A CA that renews its certificate keeps its name and key: the one that ends last is the
    /// new one.
    fn preference(
        &self,
        at: usize,
        issuer: &Certificate,
        signed: Option<bool>,
    ) -> impl Ord + use<> {
        (
            self.leading_validly.contains(&at),
            self.leading.contains(&at),
            rules::invalid(issuer, self.now).is_none(),
            signed,
            issuer.not_after(),
            std::cmp::Reverse(at),
        )
    }

    /// Why it goes no further, and not to an anchor.
    fn dead_end(&self, anchors: &[Certificate]) -> Objection {
        if let Some(objection) = self_signed(self.top) {
            return objection;
        }
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
                    .push(stray(link, self.intermediates, self.top, self.now));
            }
        }
        self.objections
    }
}

/// An intermediate that did not lead up from the leaf.
fn stray(link: &Link, all: &[Link], top: &Certificate, now: Timestamp) -> Objection {
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
    let what = match rules::invalid(&link.certificate, now) {
        Some((fault, _)) => format!("{fault}, and the path does not need it"),
        None => "it is not between the leaf and its trust anchor".to_owned(),
    };
    Objection::warning(&whose, what, "remove it")
}

/// A leaf that ends the path itself: a trust anchor is a CA, and a leaf is none.
fn self_signed(leaf: &Certificate) -> Option<Objection> {
    let is_its_own = leaf.is_self_issued() && leaf.is_signed_by(leaf) == Some(true);
    is_its_own.then(|| {
        Objection::refused(
            &Whose::Leaf,
            "it is self-signed, and a trust anchor must be a CA",
            "have one issued by the CA that is, or will be, the trust anchor",
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

    use super::super::testing::{Issued, NOON, Pki, ec_p256, objections, only};
    use super::super::{Chain, Severity};

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
    fn an_intermediate_that_is_not_valid_counts_where_the_path_needs_it() {
        let pki = Pki::new();
        let (leaf, lower, upper, root) = (pki.leaf(), pki.lower(), pki.upper(), pki.root());
        let past = ("20250101000000Z", "20260101000000Z");
        let expired = |ca| Issued {
            validity: past,
            ..ca
        };
        let (old_lower, old_upper) = (expired(pki.lower()), expired(pki.upper()));
        let next = Issued {
            validity: ("20261201000000Z", "20280101000000Z"),
            ..pki.lower()
        };
        for anchors in [None, Some(&[&root][..])] {
            for (chain, what) in [
                ([&leaf, &old_lower, &lower, &upper], "1 (CN=lower): it exp"),
                ([&leaf, &lower, &old_lower, &upper], "2 (CN=lower): it exp"),
                ([&leaf, &lower, &upper, &old_upper], "3 (CN=upper): it exp"),
                ([&leaf, &next, &lower, &upper], "1 (CN=lower): it is not va"),
            ] {
                let said = only(Severity::Warning, &chain, anchors);
                assert!(said.contains(what), "{said}");
                assert!(
                    said.ends_with(", and the path does not need it: remove it"),
                    "{said}"
                );
            }
            let other = expired(Issued::ca(&pki.leaf, "other", &pki.leaf, "elsewhere"));
            let said = only(Severity::Warning, &[&leaf, &lower, &upper, &other], anchors);
            assert!(said.contains("does not need it"), "{said}");
            for chain in [[&leaf, &old_lower, &upper], [&leaf, &lower, &old_upper]] {
                let said = only(Severity::Refused, &chain, anchors);
                assert!(said.ends_with("it expired on 2026-01-01T00:00:00Z: install a new one"));
            }
        }
        // The path ends below it.
        let said = only(
            Severity::Warning,
            &[&leaf, &lower, &old_upper],
            Some(&[&upper]),
        );
        assert!(said.contains("2 (CN=upper): it expired"), "{said}");
        // Of two, one is needed.
        let said = objections(&[&leaf, &old_lower, &old_lower, &upper], None);
        let refusals = said.iter().filter(|one| one.is_refusal()).count();
        assert_eq!((refusals, said.len()), (1, 2), "{said:?}");
    }

    #[test]
    fn of_several_paths_to_the_anchor_a_valid_one_counts() {
        let pki = Pki::new();
        let (leaf, lower, upper, root) = (pki.leaf(), pki.lower(), pki.upper(), pki.root());
        let short_cut = Issued {
            validity: ("20250101000000Z", "20260101000000Z"),
            ..Issued::ca(&pki.lower, "lower", &pki.root, "root")
        };
        for chain in [
            [&leaf, &short_cut, &lower, &upper],
            [&leaf, &lower, &upper, &short_cut],
        ] {
            let said = only(Severity::Warning, &chain, Some(&[&root]));
            assert!(said.contains("does not need it"), "{said}");
        }
        // The valid one leads elsewhere.
        let said = objections(&[&leaf, &lower, &short_cut], Some(&[&root]));
        assert!(said[0].is_refusal(), "{said:?}");
        assert!(said[0].to_string().contains("2 (CN=lower): it expired"));
        let expired_upper = Issued {
            validity: short_cut.validity,
            ..pki.upper()
        };
        let valid = Issued::ca(&pki.lower, "lower", &pki.root, "root");
        for chain in [
            [&leaf, &lower, &expired_upper, &valid],
            [&leaf, &valid, &lower, &expired_upper],
        ] {
            let said = objections(&chain, Some(&[&root]));
            assert!(said.iter().all(|one| !one.is_refusal()), "{said:?}");
        }
    }

    #[test]
    fn of_two_certificates_of_a_ca_the_one_that_ends_last_counts() {
        let pki = Pki::new();
        let (leaf, lower) = (pki.leaf(), pki.lower());
        let ending = Issued {
            validity: ("20260101000000Z", "20261124000000Z"),
            ..pki.lower()
        };
        for (chain, number) in [([&leaf, &ending, &lower], 1), ([&leaf, &lower, &ending], 2)] {
            let said = only(Severity::Warning, &chain, None);
            assert!(
                said.contains(&format!(
                    "intermediate {number} (CN=lower): it is not between"
                )),
                "{said}"
            );
        }
        let said = only(Severity::Warning, &[&leaf, &ending], None);
        assert!(said.contains("expires soon"), "{said}");
    }

    #[test]
    fn a_leaf_does_not_vouch_for_itself() {
        let pki = Pki::new();
        let root = pki.root();
        let own = Issued::leaf(&pki.leaf).by(&pki.leaf, "web");
        for anchors in [None, Some(&[&root][..])] {
            let said = only(Severity::Refused, &[&own], anchors);
            assert!(said.starts_with("it is self-signed"), "{said}");
        }
        let said = objections(&[&own], Some(&[&own]));
        assert!(
            said[0]
                .to_string()
                .contains("trust anchor 1 (CN=web): it is not a CA")
        );
        // Of a CA that has its name.
        let issued = Issued::leaf(&pki.leaf).by(&pki.root, "web");
        let ca = Issued::ca(&pki.root, "web", &pki.root, "web");
        assert_eq!(objections(&[&issued], None), []);
        assert_eq!(objections(&[&issued], Some(&[&ca])), []);
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
