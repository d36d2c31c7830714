//! An inspection for people.

use rolesanywhere::certificate::{Certificate, Violation};

use super::Inspection;

pub(super) fn render(inspection: &Inspection) -> String {
    let leaf = inspection.chain.leaf();
    let names: Vec<String> = leaf
        .alternative_names()
        .iter()
        .map(ToString::to_string)
        .collect();
    let serial = leaf.serial();
    let key = match leaf.public_key() {
        Ok(key) => key.kind().to_string(),
        Err(_) => "of a kind that AWS does not take".to_owned(),
    };
    let mut text = section(
        "Certificate",
        &[
            ("subject", leaf.subject()),
            ("issuer", leaf.issuer()),
            (
                "serial",
                format!("{} (hex {})", serial.decimal(), serial.hex()),
            ),
            (
                "valid",
                format!("{} to {}", leaf.not_before(), leaf.not_after()),
            ),
            ("key", key),
            ("signature", leaf.signature_algorithm()),
            ("names", or_none(names.join(", "))),
        ],
    );
    text += &intermediates(inspection);
    text += &session(inspection);
    text += &verdict(inspection);
    text
}

fn intermediates(inspection: &Inspection) -> String {
    let links: Vec<String> = inspection.chain.intermediates().map(link).collect();
    let numbers: Vec<String> = (1..=links.len()).map(|number| number.to_string()).collect();
    let rows: Vec<(&str, String)> = numbers.iter().map(String::as_str).zip(links).collect();
    match rows.is_empty() {
        true => "Intermediates: none\n".to_owned(),
        false => section("Intermediates", &rows),
    }
}

fn link(certificate: &Certificate) -> String {
    let until = certificate.not_after();
    format!(
        "{}, issued by {}, valid to {until}",
        certificate.subject(),
        certificate.issuer()
    )
}

fn session(inspection: &Inspection) -> String {
    let facts = &inspection.facts;
    let named: Vec<(String, &String)> = facts
        .tags
        .iter()
        .map(|tag| (format!("aws:PrincipalTag/{}", tag.name), &tag.value))
        .collect();
    let mut rows = vec![
        ("role session name", facts.session_name.clone()),
        ("sts:SourceIdentity", facts.source_identity.clone()),
    ];
    rows.extend(
        named
            .iter()
            .map(|(name, value)| (name.as_str(), (*value).clone())),
    );
    section(
        "A session made with it, unless the profile says otherwise",
        &rows,
    )
}

fn verdict(inspection: &Inspection) -> String {
    let lines = |refusal: bool| -> String {
        let of_kind = inspection
            .objections
            .iter()
            .filter(|objection| objection.is_refusal() == refusal);
        of_kind
            .map(|objection| format!("  {}\n", one_line(&objection.to_string())))
            .collect()
    };
    let refused = inspection.objections.iter().any(Violation::is_refusal);
    let mut text = match (refused, inspection.anchored) {
        (true, _) => format!("AWS would refuse it\n{}", lines(true)),
        (false, true) => {
            "AWS has nothing against it, and it leads to the trust anchor\n".to_owned()
        }
        (false, false) => {
            "AWS has nothing against it; --trust-anchor FILE checks that it leads there\n"
                .to_owned()
        }
    };
    let warnings = lines(false);
    if !warnings.is_empty() {
        text += &format!("To think about\n{warnings}");
    }
    text
}

fn section(title: &str, rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = rows
        .iter()
        .map(|(name, value)| format!("  {name:width$}  {}\n", one_line(value)));
    format!("{title}\n{}", lines.collect::<String>())
}

/// What is in a certificate forges no line.
fn one_line(value: &str) -> String {
    value.replace('\n', "\\u000a")
}

fn or_none(text: String) -> String {
    match text.is_empty() {
        true => "none".to_owned(),
        false => text,
    }
}
