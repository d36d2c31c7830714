//! The identity's certificate: how long it is good for, and what AWS would have against it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use rolesanywhere::certificate::{Certificate, Chain, Objection};
use wire::Identity;

use super::finding::{Check, Finding};
use crate::exit::Exit;

/// A certificate that ends sooner is due.
const DUE: SignedDuration = SignedDuration::from_hours(10 * 24);

/// Reads a certificate as the agent writes it.
pub(super) fn from_base64(text: &str) -> Result<Certificate, String> {
    let der = STANDARD.decode(text).map_err(|fault| fault.to_string())?;
    Certificate::from_der(der).map_err(|fault| fault.to_string())
}

/// Reads the chain that the agent signs with, the leaf first.
pub(super) fn chain(certificates: &[String]) -> Result<Chain, String> {
    let certificates: Result<_, String> = certificates.iter().map(|one| from_base64(one)).collect();
    Chain::new(certificates?).map_err(|fault| fault.to_string())
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
    let mut findings: Vec<_> = objections.iter().map(|one| objection(name, one)).collect();
    if findings.iter().any(Finding::is_failure) {
        return findings;
    }
    findings.insert(0, judge_end(name, chain, now));
    findings
}

fn objection(name: &str, objection: &Objection) -> Finding {
    let detail = format!("{name}: {} {}", objection.whose, objection.what);
    match objection.is_refusal() {
        true => Finding::failed(
            Check::Certificate,
            Exit::TokenTrouble,
            detail,
            &objection.remedy,
        ),
        false => Finding::warning(Check::Certificate, detail, &objection.remedy),
    }
}

/// The certificate that ends first counts, whichever it is.
fn judge_end(name: &str, chain: &Chain, now: Timestamp) -> Finding {
    let leaf = chain.leaf();
    let (first, end) = chain
        .intermediates()
        .map(|one| (one.subject(), one.not_after()))
        .chain([(leaf.subject(), leaf.not_after())])
        .min_by_key(|(_, end)| *end)
        .unwrap_or_else(|| (leaf.subject(), leaf.not_after()));
    let left = end.duration_since(now);
    let chain_length = match chain.intermediates().len() {
        0 => "no intermediate".to_owned(),
        1 => "1 intermediate".to_owned(),
        several => format!("{several} intermediates"),
    };
    let detail = format!(
        "{name}: {} by {}, {chain_length}; {first} is good until {end} ({})",
        leaf.subject(),
        leaf.issuer(),
        rough(left)
    );
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

fn rough(left: SignedDuration) -> String {
    match left.as_hours() {
        ..1 => format!("{} min", left.as_mins()),
        hours @ 1..48 => format!("{hours} h"),
        hours => format!("{} days", hours / 24),
    }
}
