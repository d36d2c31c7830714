//! Steps from a leaf up to its issuers.

use jiff::Timestamp;

use super::super::link::Link;
use super::super::{Certificate, CertificateRef, restrictions, rules, signature};

/// How far up the leaf's issuers were found.
pub(super) struct Way<'c> {
    leaf: &'c Certificate,
    intermediates: &'c [Link],
    /// Without it, validity does not matter.
    now: Option<Timestamp>,
    /// The places in `intermediates` of those that were climbed over, from the leaf upwards.
    climbed: Vec<usize>,
    /// The places of those that lead to an anchor, which are to be preferred.
    leading: Vec<usize>,
    /// The places of those that do so over usable ones only, which are to be preferred to these.
    leading_usably: Vec<usize>,
}

pub(super) fn may_have_issued(issuer: &Certificate, issued: &Certificate) -> bool {
    issuer.subject() == issued.issuer() && signature::is_signed_by(issued, issuer) != Some(false)
}

impl<'c> Way<'c> {
    pub(super) fn from(
        leaf: &'c Certificate,
        intermediates: &'c [Link],
        now: Option<Timestamp>,
    ) -> Way<'c> {
        Way {
            leaf,
            intermediates,
            now,
            climbed: Vec::new(),
            leading: Vec::new(),
            leading_usably: Vec::new(),
        }
    }

    /// As far as the intermediates lead.
    pub(super) fn upwards(
        leaf: &'c Certificate,
        intermediates: &'c [Link],
        now: Option<Timestamp>,
    ) -> Way<'c> {
        let mut way = Way::from(leaf, intermediates, now);
        while way.climb() {}
        way
    }

    /// Prefers steps that lead to one of `anchors`.
    pub(super) fn lead_to(&mut self, anchors: &[Certificate]) {
        let leaf = [(CertificateRef::Leaf, self.leaf)];
        self.leading = leading(self.intermediates, anchors, |_| true);
        self.leading_usably = leading(self.intermediates, anchors, |link| {
            self.is_valid(link) && may_be_above(link, &leaf)
        });
    }

    pub(super) fn intermediates(&self) -> &'c [Link] {
        self.intermediates
    }

    /// The certificate whose issuer is sought next.
    pub(super) fn top(&self) -> &'c Certificate {
        self.links()
            .last()
            .map_or(self.leaf, |link| &link.certificate)
    }

    /// So many CAs are between here and the leaf.
    pub(super) fn length(&self) -> usize {
        self.climbed.len()
    }

    /// The intermediates that were climbed over, from the leaf upwards.
    pub(super) fn links(&self) -> Vec<&'c Link> {
        let climbed = self.climbed.iter();
        climbed
            .filter_map(|at| self.intermediates.get(*at))
            .collect()
    }

    /// The certificates below the link at this place of [`links`](Way::links), the leaf first.
    pub(super) fn issued(&self, at: usize) -> Vec<(CertificateRef, &'c Certificate)> {
        let links = self.links().into_iter().take(at);
        std::iter::once((CertificateRef::Leaf, self.leaf))
            .chain(links.map(|link| (link.whose(), &link.certificate)))
            .collect()
    }

    /// The certificates up to the top, the leaf first.
    pub(super) fn all_issued(&self) -> Vec<(CertificateRef, &'c Certificate)> {
        self.issued(self.length())
    }

    /// One step up, if an intermediate leads there.
    pub(super) fn climb(&mut self) -> bool {
        let (top, below) = (self.top(), self.all_issued());
        let named = |(at, link): &(usize, &'c Link)| {
            !self.climbed.contains(at) && link.certificate.subject() == top.issuer()
        };
        let candidates = self.intermediates.iter().enumerate().filter(named);
        let best = candidates
            .map(|(at, link)| (at, link, signature::is_signed_by(top, &link.certificate)))
            .filter(|(.., signed)| *signed != Some(false))
            .max_by_key(|(at, link, signed)| self.preference(*at, link, *signed, &below));
        let Some((at, ..)) = best else {
            return false;
        };
        self.climbed.push(at);
        true
    }

    /// How good a step it is. A CA that renews its certificate keeps its name and key: the one that ends last is the
    /// new one.
    fn preference(
        &self,
        at: usize,
        link: &Link,
        signed: Option<bool>,
        below: &[(CertificateRef, &Certificate)],
    ) -> impl Ord + use<> {
        (
            self.leading_usably.contains(&at),
            self.leading.contains(&at),
            may_be_above(link, below),
            self.is_valid(link),
            signed,
            link.certificate.not_after(),
            std::cmp::Reverse(at),
        )
    }

    fn is_valid(&self, link: &Link) -> bool {
        self.now
            .is_none_or(|now| rules::invalid(&link.certificate, now).is_none())
    }
}

fn may_be_above(link: &Link, below: &[(CertificateRef, &Certificate)]) -> bool {
    let (ca, whose) = (&link.certificate, link.whose());
    let forbidden = restrictions::objections(ca, &whose, below);
    forbidden.is_empty() && restrictions::purpose(ca, &whose).is_none()
}

/// The places of the intermediates that lead to an anchor over those that count: a CA may have certificates of
/// several others, of which some lead elsewhere.
fn leading(
    intermediates: &[Link],
    anchors: &[Certificate],
    counts: impl Fn(&Link) -> bool,
) -> Vec<usize> {
    let mut leading = Vec::new();
    let mut issuers: Vec<&Certificate> = anchors.iter().collect();
    while let Some(issuer) = issuers.pop() {
        for (at, link) in intermediates.iter().enumerate() {
            let certificate = &link.certificate;
            let is_new = counts(link) && !leading.contains(&at);
            if is_new && may_have_issued(issuer, certificate) {
                leading.push(at);
                issuers.push(certificate);
            }
        }
    }
    leading
}
