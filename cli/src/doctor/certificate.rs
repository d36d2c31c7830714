//! The identity's certificate: how long it is good for, and what AWS would have against it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::exit::Exit;
use jiff::{SignedDuration, Timestamp};
use rolesanywhere::certificate::{Certificate, Chain, Objection, Whose};
use wire::Identity;

use super::finding::{Check, Finding};
use crate::time_left::rough;

/// A certificate that ends sooner is due.
const DUE: SignedDuration = SignedDuration::from_hours(10 * 24);

/// Reads a certificate as the agent writes it.
pub(super) fn from_base64(text: &str) -> Result<Certificate, String> {
    let der = STANDARD.decode(text).map_err(|fault| fault.to_string())?;
    Certificate::from_der(der).map_err(|fault| fault.to_string())
}

/// What there is to say of it.
pub(super) fn judge(
    identity: &Identity,
    chain: &Result<Chain, String>,
    now: Timestamp,
) -> Vec<Finding> {
    let name = &identity.name;
    let chain = match chain {
        Ok(chain) => chain,
        Err(why) => {
            let why = format!("{name}: the agent does not tell it: {why}");
            return vec![Finding::skipped(Check::Certificate, why)];
        }
    };
    let objections = chain.objections(None, now);
    let (refusals, doubts): (Vec<_>, Vec<_>) = objections.iter().partition(|one| one.is_refusal());
    match refusals[..] {
        [] => vec![judge_end(name, chain, &doubts, now)],
        _ => refusals.iter().map(|one| refusal(name, one)).collect(),
    }
}

fn refusal(name: &str, objection: &Objection) -> Finding {
    let detail = format!("{name}: {}: {}", objection.whose, objection.what);
    let remedy = format!("To mend: {}.", objection.remedy);
    Finding::failed(Check::Certificate, Exit::TokenTrouble, detail, remedy)
}

/// The certificate that ends first counts, whichever it is.
fn judge_end(name: &str, chain: &Chain, doubts: &[&Objection], now: Timestamp) -> Finding {
    let leaf = chain.leaf();
    let first = chain.path(now).min_by_key(|one| one.not_after());
    let first = first.unwrap_or(leaf);
    let (subject, end) = (first.subject(), first.not_after());
    let left = end.duration_since(now);
    let chain_length = match chain.intermediates().len() {
        0 => "no intermediate".to_owned(),
        1 => "1 intermediate".to_owned(),
        several => format!("{several} intermediates"),
    };
    let mut detail = format!(
        "{name}: {} by {}, {chain_length}; {subject} is good until {end} ({})",
        leaf.subject(),
        leaf.issuer(),
        rough(left)
    );
    if !doubts.is_empty() {
        let doubts: Vec<_> = doubts.iter().map(|one| doubt(one)).collect();
        let doubts = doubts.join("; ");
        detail += &format!("\nroleseal inspect --identity {name} also says: {doubts}");
    }
    // What is issued for days is renewed within days.
    let life = leaf.not_after().duration_since(leaf.not_before());
    match left < DUE.min(life / 3) {
        true => Finding::warning(
            Check::Certificate,
            detail,
            "Have it renewed now: AWS refuses it from then on. The agent takes over a new file by itself.",
        ),
        false => Finding::ok(Check::Certificate, detail),
    }
}

fn doubt(objection: &Objection) -> String {
    match &objection.whose {
        Whose::Leaf | Whose::Chain => objection.what.clone(),
        other => format!("{other}: {}", objection.what),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
        KeyPair, KeyUsagePurpose,
    };
    use wire::State;

    use super::*;
    use crate::doctor::finding::Outcome;
    use crate::identities::tests::identity;

    /// A certificate and its key.
    pub(in crate::doctor) struct Made {
        pub(in crate::doctor) der: Vec<u8>,
        pub(in crate::doctor) key: KeyPair,
    }

    impl Made {
        /// As AWS wants it, by a CA of its own, for the year 2026.
        pub(in crate::doctor) fn leaf(cn: &str, serial: u64) -> Made {
            Made::with(cn, serial, |_| {})
        }

        fn with(cn: &str, serial: u64, change: impl FnOnce(&mut CertificateParams)) -> Made {
            let ca = Issuer::new(ca("ca", 2027), KeyPair::generate().unwrap());
            Made::by(&ca, cn, serial, change)
        }

        fn by(
            ca: &Issuer<KeyPair>,
            cn: &str,
            serial: u64,
            change: impl FnOnce(&mut CertificateParams),
        ) -> Made {
            let key = KeyPair::generate().unwrap();
            let mut leaf = CertificateParams::default();
            leaf.distinguished_name.push(DnType::CommonName, cn);
            leaf.serial_number = Some(serial.into());
            leaf.not_before = rcgen::date_time_ymd(2026, 1, 1);
            leaf.not_after = rcgen::date_time_ymd(2027, 1, 1);
            leaf.is_ca = IsCa::ExplicitNoCa;
            leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            change(&mut leaf);
            let der = leaf.signed_by(&key, ca).unwrap().der().to_vec();
            Made { der, key }
        }

        pub(in crate::doctor) fn chain(&self) -> Result<Chain, String> {
            Chain::new(vec![from_base64(&base64(&self.der))?]).map_err(|fault| fault.to_string())
        }
    }

    /// A CA from 2025 to the beginning of a year.
    fn ca(cn: &str, until: i32) -> CertificateParams {
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, cn);
        ca.not_before = rcgen::date_time_ymd(2025, 1, 1);
        ca.not_after = rcgen::date_time_ymd(until, 1, 1);
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        ca
    }

    pub(in crate::doctor) fn base64(der: &[u8]) -> String {
        STANDARD.encode(der)
    }

    fn judged(made: &Made, now: &str) -> Vec<Finding> {
        let now = now.parse().unwrap();
        judge(&identity("web", State::Ready), &made.chain(), now)
    }

    #[test]
    fn a_certificate_is_warned_of_before_its_end_and_fails_after_it() {
        let failed = Outcome::Failed(Exit::TokenTrouble);
        let web = Made::leaf("web", 1);
        for (now, expected) in [
            ("2025-12-31T23:59:59Z", failed),
            ("2026-06-01T00:00:00Z", Outcome::Ok),
            ("2026-12-21T23:59:59Z", Outcome::Ok),
            ("2026-12-22T00:00:01Z", Outcome::Warning),
            ("2027-01-01T00:00:01Z", failed),
        ] {
            let findings = judged(&web, now);
            assert_eq!(findings[0].outcome, expected, "{now}: {findings:?}");
            assert!(findings[0].remedy.is_some() || expected == Outcome::Ok);
        }
        // Issued for nine days: due in its last third.
        let short = Made::with("web", 1, |leaf| {
            leaf.not_after = rcgen::date_time_ymd(2026, 1, 10)
        });
        for (now, expected) in [
            ("2026-01-06T23:59:59Z", Outcome::Ok),
            ("2026-01-07T00:00:01Z", Outcome::Warning),
        ] {
            assert_eq!(judged(&short, now)[0].outcome, expected, "{now}");
        }
    }

    #[test]
    fn an_old_intermediate_beside_the_new_one_is_not_the_end() {
        let root = Issuer::new(ca("root", 2030), KeyPair::generate().unwrap());
        let lower = Issuer::new(ca("ca", 2030), KeyPair::generate().unwrap());
        let web = Made::by(&lower, "web", 1, |_| {});
        let judged = |years: &[i32]| {
            let of_lower = years.iter().map(|year| {
                let made = ca("ca", *year).signed_by(lower.key(), &root).unwrap();
                made.der().to_vec()
            });
            let ders = std::iter::once(web.der.clone()).chain(of_lower);
            let chain = ders.map(|der| Certificate::from_der(der).unwrap());
            let chain = Chain::new(chain.collect()).map_err(|fault| fault.to_string());
            let now = "2026-06-01T00:00:00Z".parse().unwrap();
            judge(&identity("web", State::Ready), &chain, now).remove(0)
        };
        let both = judged(&[2026, 2030]);
        assert_eq!(both.outcome, Outcome::Ok, "{both:?}");
        let detail = both.detail;
        assert!(detail.contains("CN=web is good until 2027"), "{detail}");
        let old =
            "intermediate 1 (CN=ca): it expired on 2026-01-01T00:00:00Z, and the path does not";
        assert!(detail.contains(old), "{detail}");
        let old = judged(&[2026]);
        assert_eq!(old.outcome, Outcome::Failed(Exit::TokenTrouble), "{old:?}");
    }

    #[test]
    fn what_aws_would_refuse_is_named_before_it_is_asked() {
        let now = "2026-06-01T00:00:00Z";
        let server = Made::with("web", 1, |leaf| {
            leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        });
        let findings = judged(&server, now);
        assert_eq!(findings[0].outcome, Outcome::Failed(Exit::TokenTrouble));
        assert!(findings[0].detail.contains("clientAuth"), "{findings:?}");
        let nothing = judge(
            &identity("web", State::Opening),
            &Err("it is being opened".into()),
            now.parse().unwrap(),
        );
        assert_eq!(nothing[0].outcome, Outcome::Skipped);
    }
}
