//! A leaf and the certificates between it and the trust anchor.

use jiff::Timestamp;

use super::link::Link;
use super::{Certificate, CertificateError, CertificateRef, Violation, ca, path, rules};

/// A leaf with its intermediates, as they are sent to AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    leaf: Certificate,
    intermediates: Vec<Link>,
}

/// AWS accepts this many intermediates.
pub const CHAIN_LIMIT: usize = 5;

/// To find the way among more, each of which may have signed each, could take minutes.
const SEARCH_LIMIT: usize = 10 * CHAIN_LIMIT;

impl Chain {
    /// The leaf first. The leaf once more and self-signed roots are left out of the intermediates: bundles
    /// often have them.
    pub fn new(certificates: Vec<Certificate>) -> Result<Chain, CertificateError> {
        let mut certificates = certificates.into_iter();
        let leaf = certificates
            .next()
            .ok_or_else(|| CertificateError::new("there is no certificate in it"))?;
        let intermediates: Vec<Link> = certificates
            .enumerate()
            .filter(|(_, certificate)| *certificate != leaf && !certificate.is_self_issued())
            .map(|(at, certificate)| Link {
                certificate,
                number: at + 1,
            })
            .collect();
        let count = intermediates.len();
        if count > SEARCH_LIMIT {
            return Err(CertificateError::new(format!(
                "there are {count} intermediates, and AWS takes at most {CHAIN_LIMIT}: remove those not \
                 between leaf and trust anchor"
            )));
        }
        Ok(Chain {
            leaf,
            intermediates,
        })
    }

    /// The certificate whose key signs.
    pub fn leaf(&self) -> &Certificate {
        &self.leaf
    }

    /// The certificates between leaf and trust anchor, in the order of the file.
    pub fn intermediates(&self) -> impl ExactSizeIterator<Item = &Certificate> {
        self.intermediates.iter().map(|link| &link.certificate)
    }

    /// The leaf and the intermediates that lead up from it, of which AWS wants each to be valid.
    pub fn path(&self, now: Timestamp) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.leaf).chain(path::upwards(&self.leaf, &self.intermediates, now))
    }

    /// Whether AWS could ever accept it: what to know before a key is used with it, whatever the time.
    pub fn check(&self) -> Result<(), CertificateError> {
        let mut objections: Vec<Violation> = self.misplaced_leaf().into_iter().collect();
        objections.extend(rules::leaf(&self.leaf));
        for link in &self.intermediates {
            objections.extend(ca::is_ca(&link.certificate, &link.whose()));
        }
        objections.extend(path::forbidden(&self.leaf, &self.intermediates));
        objections.extend(self.length());
        match objections.iter().find(|objection| objection.is_refusal()) {
            None => Ok(()),
            Some(objection) => Err(CertificateError::new(objection.to_string())),
        }
    }

    /// All that speaks against it at `now`, the worst first. With the certificates of a trust anchor, also
    /// whether it leads to one of them.
    pub fn objections(&self, anchors: Option<&[Certificate]>, now: Timestamp) -> Vec<Violation> {
        if let Some(misplaced) = self.misplaced_leaf() {
            return vec![misplaced]; // all else would be said of the wrong certificates
        }
        let mut objections = rules::leaf(&self.leaf);
        objections.extend(rules::leaf_doubts(&self.leaf));
        objections.extend(rules::validity(&self.leaf, &CertificateRef::Leaf, now));
        for link in &self.intermediates {
            let whose = link.whose();
            objections.extend(ca::objections(&link.certificate, &whose));
        }
        objections.extend(self.length());
        objections.extend(match anchors {
            None => path::links(&self.leaf, &self.intermediates, now),
            Some(anchors) => path::to_anchor(&self.leaf, &self.intermediates, anchors, now),
        });
        objections.sort_by_key(|objection| !objection.is_refusal());
        objections
    }

    /// Where a CA's certificate is first, and the only one that is none comes behind it.
    fn misplaced_leaf(&self) -> Option<Violation> {
        let is_ca = |certificate| ca::is_ca(certificate, &CertificateRef::Chain).is_none();
        let mut others = self.intermediates().filter(|one| !is_ca(one));
        let (Some(leaf), None) = (others.next(), others.next()) else {
            return None;
        };
        let (first, leaf) = (self.leaf.subject(), leaf.subject());
        is_ca(&self.leaf).then(|| {
            Violation::refused(
                &CertificateRef::Chain,
                format!("the order is wrong: {first}, a CA, comes before {leaf}"),
                "put the key's own certificate first, and each CA's behind the one that it issued",
            )
        })
    }

    fn length(&self) -> Option<Violation> {
        let count = self.intermediates.len();
        let what = format!("there are {count} intermediates, and AWS takes at most {CHAIN_LIMIT}");
        (count > CHAIN_LIMIT).then(|| {
            Violation::refused(
                &CertificateRef::Chain,
                what,
                "remove those not between leaf and trust anchor",
            )
        })
    }
}

/// Those of `others` that lead up from the leaf, by issuer and signature, from the leaf upwards: valid ones at `now`
/// before others, and no more than AWS accepts. A root is not among them.
pub fn issuers(leaf: &Certificate, others: Vec<Certificate>, now: Timestamp) -> Vec<Certificate> {
    let mut links: Vec<Link> = Vec::new();
    for certificate in others {
        let known = links.iter().any(|link| link.certificate == certificate);
        let may_issue =
            certificate != *leaf && certificate.is_ca() && !certificate.is_self_issued();
        if may_issue && !known && links.len() < SEARCH_LIMIT {
            let number = links.len() + 1;
            links.push(Link {
                certificate,
                number,
            });
        }
    }
    let path = path::upwards(leaf, &links, now);
    path.take(CHAIN_LIMIT).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Issued, NOON, ec_p256};
    use super::*;

    #[test]
    fn the_leaf_once_more_and_roots_are_no_intermediates() {
        let (key, ca_key) = (ec_p256(), ec_p256());
        let leaf = Issued::leaf(&key).by(&ca_key, "ca").read();
        let ca = Issued::ca(&ca_key, "ca", &key, "root").read();
        let root = Issued::ca(&key, "root", &key, "root").read();
        let chain = Chain::new(vec![leaf.clone(), leaf.clone(), root, ca.clone()]).unwrap();
        assert_eq!(chain.leaf(), &leaf);
        assert_eq!(chain.intermediates().collect::<Vec<_>>(), [&ca]);
        assert_eq!(chain.objections(None, NOON.parse().unwrap()), []);
        assert!(Chain::new(vec![]).is_err());
    }

    #[test]
    fn issuers_are_found_among_others_by_name_and_signature() {
        let now = NOON.parse().unwrap();
        let [key, one, two, root] = [(); 4].map(|()| ec_p256());
        let leaf = Issued::leaf(&key).by(&one, "one").read();
        let ca_one = Issued::ca(&one, "one", &two, "two").read();
        let ca_two = Issued::ca(&two, "two", &root, "root").read();
        let namesake = Issued::ca(&root, "one", &two, "two").read();
        let stranger = Issued::ca(&root, "stranger", &two, "two").read();
        let self_signed = Issued::ca(&root, "root", &root, "root").read();
        let others = vec![
            self_signed,
            stranger,
            leaf.clone(),
            ca_two.clone(),
            namesake,
            ca_one.clone(),
            ca_one.clone(),
        ];
        assert_eq!(issuers(&leaf, others, now), [ca_one, ca_two]);
        // A longer way is cut off.
        let mut others = Vec::new();
        let names = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];
        for pair in names.windows(2) {
            others.push(Issued::ca(&key, pair[0], &key, pair[1]).read());
        }
        let leaf = Issued::leaf(&key).by(&key, "c0").read();
        let path = issuers(&leaf, others.clone(), now);
        assert_eq!(path, others[..CHAIN_LIMIT]);
        assert_eq!(issuers(&leaf, vec![], now), []);
    }

    #[test]
    fn a_leaf_that_is_not_first_is_named() {
        let (key, ca_key) = (ec_p256(), ec_p256());
        let leaf = Issued::leaf(&key).by(&ca_key, "ca").read();
        let ca = Issued::ca(&ca_key, "ca", &key, "root").read();
        let root = Issued::ca(&key, "root", &key, "root").read();
        for wrong in [vec![ca.clone(), leaf.clone()], vec![root, ca, leaf]] {
            let chain = Chain::new(wrong).unwrap();
            let [only] = &chain.objections(None, NOON.parse().unwrap())[..] else {
                panic!("not one objection");
            };
            assert!(only.is_refusal());
            let said = only.to_string();
            assert!(said.contains("comes before CN=web"), "{said}");
            assert!(
                said.contains("put the key's own certificate first"),
                "{said}"
            );
            assert_eq!(chain.check().unwrap_err().to_string(), said);
        }
    }

    #[test]
    fn no_way_is_sought_among_hundreds() {
        let key = ec_p256();
        let ca = Issued::ca(&key, "one", &key, "other").read();
        let certificates = |count| {
            let leaf = std::iter::once(Issued::leaf(&key).read());
            leaf.chain(std::iter::repeat_n(ca.clone(), count)).collect()
        };
        assert!(Chain::new(certificates(SEARCH_LIMIT)).is_ok());
        let error = Chain::new(certificates(SEARCH_LIMIT + 1)).unwrap_err();
        assert!(error.to_string().contains("51 intermediates"), "{error}");
    }

    #[test]
    fn five_intermediates_are_the_limit() {
        let key = ec_p256();
        let ca = |_| Issued::ca(&key, "one", &key, "other").read();
        for (count, fits) in [(5, true), (6, false)] {
            let leaf = std::iter::once(Issued::leaf(&key).read());
            let chain = Chain::new(leaf.chain((0..count).map(ca)).collect()).unwrap();
            assert_eq!(chain.check().is_ok(), fits);
            let objections = chain.objections(None, NOON.parse().unwrap());
            let refused = objections.first().is_some_and(Violation::is_refusal);
            assert_eq!(refused, !fits, "{objections:?}");
        }
    }
}
