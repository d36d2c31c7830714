//! The identity's certificate: why AWS would refuse it, and when it expires.

use client::exit::Exit;
use jiff::{SignedDuration, Timestamp};
use rolesanywhere::certificate::Chain;

use super::finding::{Check, Finding};
use crate::time_left::rough;

/// A certificate that expires sooner is due, or one in the last third of its lifetime.
const DUE: SignedDuration = SignedDuration::from_hours(10 * 24);

/// Returns a failure for each reason to refuse it; otherwise its state.
pub(super) fn findings(
    identity: &str,
    chain: &Result<Chain, String>,
    now: Timestamp,
) -> Vec<Finding> {
    let chain = match chain {
        Ok(chain) => chain,
        Err(why) => {
            let why = format!("{identity}: the agent returns no certificate: {why}");
            return vec![Finding::skipped(Check::Certificate, why)];
        }
    };
    let (refusals, doubts): (Vec<_>, Vec<_>) = chain
        .objections(None, now)
        .into_iter()
        .partition(|one| one.is_refusal());
    if !refusals.is_empty() {
        let refusals = refusals.into_iter().map(|one| {
            let detail = format!("{identity}: {}: {}", one.whose, one.what);
            Finding::failed(Check::Certificate, Exit::TokenTrouble, detail, one.remedy)
        });
        return refusals.collect();
    }
    let mut detail = describe(identity, chain, now);
    for doubt in doubts {
        detail += &format!("\nsee also roleseal inspect --identity {identity}: {doubt}");
    }
    vec![match is_due(chain, now) {
        true => Finding::warning(Check::Certificate, detail, RENEW),
        false => Finding::ok(Check::Certificate, detail),
    }]
}

const RENEW: &str = "renew it now: with renew in agent.toml, sudo roleseal-admin renew; otherwise replace the \
                     identity's certificate file, which the agent reads again by itself";

fn describe(identity: &str, chain: &Chain, now: Timestamp) -> String {
    let (leaf, end) = (chain.leaf(), end(chain, now));
    format!(
        "{identity}: {} by {}, intermediates: {}, valid until {end} ({})",
        leaf.subject(),
        leaf.issuer(),
        chain.intermediates().len(),
        rough(end.duration_since(now))
    )
}

/// The first end of leaf and intermediates.
fn end(chain: &Chain, now: Timestamp) -> Timestamp {
    let ends = chain.path(now).map(|one| one.not_after());
    ends.min().unwrap_or_else(|| chain.leaf().not_after())
}

fn is_due(chain: &Chain, now: Timestamp) -> bool {
    let leaf = chain.leaf();
    let lifetime = leaf.not_after().duration_since(leaf.not_before());
    end(chain, now).duration_since(now) < DUE.min(lifetime / 3)
}

#[cfg(test)]
pub(super) mod tests {
    use rcgen::{
        CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    };
    use rolesanywhere::certificate::Certificate;

    use super::*;
    use crate::doctor::finding::Outcome;

    /// A certificate as AWS accepts it, valid until that day of 2026.
    pub(in crate::doctor) fn chain(cn: &str, month: u8, day: u8) -> Result<Chain, String> {
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, "ca");
        let ca = Issuer::new(ca, KeyPair::generate().unwrap());
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::default();
        leaf.distinguished_name.push(DnType::CommonName, cn);
        leaf.not_before = rcgen::date_time_ymd(2026, 1, 1);
        leaf.not_after = rcgen::date_time_ymd(2026, month, day);
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let der = leaf.signed_by(&key, &ca).unwrap().der().to_vec();
        Chain::new(vec![Certificate::from_der(der).unwrap()]).map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_certificate_is_due_before_it_expires() {
        let outcome = |chain: &Result<Chain, String>, now: &str| {
            let finding = findings("web", chain, now.parse().unwrap()).remove(0);
            assert_eq!(finding.remedy.is_some(), finding.outcome != Outcome::Ok);
            finding.outcome
        };
        let failed = Outcome::Failed(Exit::TokenTrouble);
        let year = chain("web", 12, 31);
        assert_eq!(outcome(&year, "2025-12-31T23:59:59Z"), failed);
        assert_eq!(outcome(&year, "2026-06-01T00:00:00Z"), Outcome::Ok);
        assert_eq!(outcome(&year, "2026-12-20T23:59:59Z"), Outcome::Ok);
        assert_eq!(outcome(&year, "2026-12-21T00:00:01Z"), Outcome::Warning);
        assert_eq!(outcome(&year, "2026-12-31T00:00:01Z"), failed);
        let nine_days = chain("web", 1, 10);
        assert_eq!(outcome(&nine_days, "2026-01-06T23:59:59Z"), Outcome::Ok);
        assert_eq!(
            outcome(&nine_days, "2026-01-07T00:00:01Z"),
            Outcome::Warning
        );
    }
}
