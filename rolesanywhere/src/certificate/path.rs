//! The path from a leaf to its trust anchor: who issued whom.

mod way;

#[cfg(test)]
mod tests;

use jiff::Timestamp;

use super::link::Link;
use super::{Certificate, CertificateRef, Violation, ca, restrictions, rules, signature};
use way::Way;

/// What is wrong with the order, as far as leaf and intermediates tell.
pub(super) fn links(leaf: &Certificate, intermediates: &[Link], now: Timestamp) -> Vec<Violation> {
    let way = Way::upwards(leaf, intermediates, Some(now));
    let mut objections = objections(&way, now);
    objections.extend(self_signed(leaf));
    objections
}

/// The intermediates that lead up from the leaf.
pub(super) fn upwards<'c>(
    leaf: &'c Certificate,
    intermediates: &'c [Link],
    now: Timestamp,
) -> impl Iterator<Item = &'c Certificate> {
    let climbed = Way::upwards(leaf, intermediates, Some(now)).links();
    climbed.into_iter().map(|link| &link.certificate)
}

/// What the intermediates that lead up from the leaf forbid, at any time.
pub(super) fn forbidden(leaf: &Certificate, intermediates: &[Link]) -> Vec<Violation> {
    let way = Way::upwards(leaf, intermediates, None);
    let links = way.links().into_iter().enumerate();
    links
        .flat_map(|(at, link)| {
            let below = way.issued(at);
            restrictions::objections(&link.certificate, &link.whose(), &below)
        })
        .collect()
}

/// What is wrong with the order, and whether it ends at a trust anchor that may be one.
pub(super) fn to_anchor(
    leaf: &Certificate,
    intermediates: &[Link],
    anchors: &[Certificate],
    now: Timestamp,
) -> Vec<Violation> {
    let mut way = Way::from(leaf, intermediates, Some(now));
    way.lead_to(anchors);
    let mut faults = loop {
        if let Some(faults) = anchor_faults(&way, anchors, now) {
            break faults;
        }
        if !way.climb() {
            break vec![dead_end(&way, anchors)];
        }
    };
    faults.extend(objections(&way, now));
    faults
}

/// What there is against the best of the anchors that issued the top; `None` if none did.
fn anchor_faults(way: &Way, anchors: &[Certificate], now: Timestamp) -> Option<Vec<Violation>> {
    let top = way.top();
    let issuing = anchors
        .iter()
        .enumerate()
        .filter(|(_, anchor)| way::may_have_issued(anchor, top));
    let judged = issuing.map(|(at, anchor)| {
        let whose = CertificateRef::Anchor(at + 1, anchor.subject());
        let mut faults = ca::anchor_faults(anchor, &whose, way.length(), now);
        faults.extend(restrictions::names(anchor, &whose, &way.all_issued()));
        faults.extend(unchecked(anchor, &whose, top));
        faults
    });
    // Two certificates of one CA may be in a bundle while it changes its own.
    judged.min_by_key(|faults| faults.iter().filter(|one| one.is_refusal()).count())
}

/// What is wrong with each step, and with the order, and what is not needed.
fn objections(way: &Way, now: Timestamp) -> Vec<Violation> {
    let links = way.links();
    let mut objections = Vec::new();
    for (at, link) in links.iter().enumerate() {
        let below = way.issued(at);
        objections.extend(step(link, &below, now));
    }
    if !links.is_sorted_by_key(|link| link.number) {
        objections.push(Violation::warning(
            &CertificateRef::Chain,
            "the intermediates are not in order",
            "put each behind the certificate that it issued",
        ));
    }
    for link in way.intermediates() {
        if !links.contains(&link) {
            objections.push(stray(link, way, now));
        }
    }
    objections
}

/// What is wrong with an intermediate as the issuer of the last of those below it.
fn step(link: &Link, below: &[(CertificateRef, &Certificate)], now: Timestamp) -> Vec<Violation> {
    let (ca, whose) = (&link.certificate, link.whose());
    let mut objections = restrictions::objections(ca, &whose, below);
    if let Some((_, issued)) = below.last() {
        objections.extend(unchecked(ca, &whose, issued));
    }
    objections.extend(ca::path_length(ca, &whose, below.len().saturating_sub(1)));
    objections.extend(restrictions::purpose(ca, &whose));
    objections.extend(restrictions::policies(ca, &whose));
    objections.extend(rules::validity(ca, &whose, now));
    objections
}

/// Why the path goes no further, and not to an anchor.
fn dead_end(way: &Way, anchors: &[Certificate]) -> Violation {
    let top = way.top();
    if let Some(objection) = self_signed(top) {
        return objection;
    }
    let (issuer, subject) = (top.issuer(), top.subject());
    let names_it = |certificate: &Certificate| certificate.subject() == issuer;
    let links = way.intermediates().iter().map(|link| &link.certificate);
    if anchors.iter().chain(links).any(names_it) {
        return Violation::refused(
            &CertificateRef::Chain,
            format!("{subject} is not signed by the {issuer} that is here"),
            "get the certificate of the CA, or of the CA's key, that issued it",
        );
    }
    Violation::refused(
        &CertificateRef::Chain,
        format!(
            "it does not lead to the trust anchor: the issuer of {subject}, {issuer}, is missing"
        ),
        "add its certificate behind the leaf's, or name the trust anchor that has it",
    )
}

/// An intermediate that did not lead up from the leaf.
fn stray(link: &Link, way: &Way, now: Timestamp) -> Violation {
    let (whose, top) = (link.whose(), way.top());
    let twice = |other: &&Link| other.number < link.number && other.certificate == link.certificate;
    if way.intermediates().iter().any(|other| twice(&other)) {
        return Violation::warning(&whose, "it is there twice", "remove it");
    }
    // One that did sign it was not asked: the trust anchor is the same CA.
    let is_named = link.certificate.subject() == top.issuer();
    if is_named && signature::is_signed_by(top, &link.certificate) == Some(false) {
        return Violation::refused(
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
    Violation::warning(&whose, what, "remove it")
}

/// A leaf that ends the path itself: a trust anchor is a CA, and a leaf is none.
fn self_signed(leaf: &Certificate) -> Option<Violation> {
    let is_its_own = leaf.is_self_issued() && leaf.is_signed_by(leaf) == Some(true);
    is_its_own.then(|| {
        Violation::refused(
            &CertificateRef::Leaf,
            "it is self-signed, and a trust anchor must be a CA",
            "have one issued by the CA that is, or will be, the trust anchor",
        )
    })
}

fn unchecked(
    issuer: &Certificate,
    whose: &CertificateRef,
    issued: &Certificate,
) -> Option<Violation> {
    let is_unknown = signature::is_signed_by(issued, issuer).is_none();
    is_unknown.then(|| {
        Violation::warning(
            whose,
            format!(
                "it may have signed {}, which cannot be checked here ({})",
                issued.subject(),
                issued.signature_algorithm()
            ),
            "check it with openssl verify",
        )
    })
}
