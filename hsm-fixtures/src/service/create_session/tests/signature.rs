//! What is signed, by whom, when and in which form.

use super::*;

#[test]
fn the_credential_is_the_certificates() {
    let court = Court::new();
    refused(
        court.with(|draft| draft.serial = "ff01".into()),
        Kind::AccessDenied,
        "the serial 65281",
    );
    refused(
        court.with(|draft| draft.serial = "065281".into()),
        Kind::AccessDenied,
        "the serial 65281",
    );
    let algorithm = |name: &str| court.with(|draft| draft.algorithm = name.into());
    refused(
        algorithm("AWS4-X509-RSA-SHA256"),
        Kind::Validation,
        "AWS4-X509-ECDSA-SHA256",
    );
    refused(
        algorithm("AWS4-HMAC-SHA256"),
        Kind::Validation,
        "AWS4-X509-ECDSA-SHA256",
    );
    let rsa = Court::with_key(rsa(2048), Issuer::Root);
    let wrong = rsa.with(|draft| draft.algorithm = "AWS4-X509-ECDSA-SHA256".into());
    refused(wrong, Kind::Validation, "AWS4-X509-RSA-SHA256");
}

#[test]
fn the_scope_is_of_the_anchors_region_the_service_and_the_day() {
    let court = Court::new();
    let scope =
        |from: &str, to: &str| court.with(|draft| draft.scope = draft.scope.replace(from, to));
    refused(
        scope("eu-central-1", "us-east-1"),
        Kind::AccessDenied,
        "the trust anchor is in eu-central-1",
    );
    refused(
        scope("rolesanywhere", "sts"),
        Kind::AccessDenied,
        "service sts",
    );
    refused(
        scope("aws4_request", "aws4"),
        Kind::Validation,
        "Credential is not",
    );
    let yesterday = amz_date(court.now - SignedDuration::from_hours(24));
    let today = amz_date(court.now);
    refused(
        scope(&today[..8], &yesterday[..8]),
        Kind::AccessDenied,
        "scoped to",
    );
}

#[test]
fn the_date_is_near_the_services_clock() {
    let court = Court::new();
    for minutes in [-6, 6] {
        let date = amz_date(court.now + SignedDuration::from_mins(minutes));
        let outcome = court.with(|draft| {
            draft.scope = draft.scope.replace(&draft.scope.clone()[..8], &date[..8]);
            draft.set("x-amz-date", &date);
        });
        refused(outcome, Kind::AccessDenied, "from our clock");
    }
    refused(
        court.with(|draft| draft.set("x-amz-date", "today")),
        Kind::AccessDenied,
        "YYYYMMDD",
    );
    refused(
        court.with(|draft| draft.remove("x-amz-date")),
        Kind::Validation,
        "no x-amz-date",
    );
}

#[test]
fn every_header_that_matters_is_signed() {
    let court = Court::new();
    for name in [
        "host",
        "content-type",
        "x-amz-date",
        "x-amz-x509",
        "x-amz-x509-chain",
    ] {
        let outcome = court.with(|draft| draft.unsigned.push(name.to_owned()));
        refused(
            outcome,
            Kind::AccessDenied,
            &format!("the {name} header is not signed"),
        );
    }
    let extra = |request: &mut Received| {
        request
            .headers
            .push(("x-amz-target".to_owned(), "x".to_owned()))
    };
    refused(
        court.tampered(extra),
        Kind::AccessDenied,
        "the x-amz-target header is not signed",
    );
    court
        .tampered(|request| {
            request
                .headers
                .push(("user-agent".to_owned(), "x".to_owned()))
        })
        .unwrap();
}

#[test]
fn the_signature_covers_all_that_arrived() {
    let court = Court::new();
    let unfit = "does not fit";
    refused(
        court.tampered(|request| request.body.push(b' ')),
        Kind::AccessDenied,
        unfit,
    );
    let query =
        |request: &mut Received| request.query = request.query.replace("path%2Fweb", "other");
    refused(court.tampered(query), Kind::AccessDenied, unfit);
    let host = |request: &mut Received| {
        for (name, value) in &mut request.headers {
            if name == "host" {
                *value = "elsewhere".to_owned();
            }
        }
    };
    refused(court.tampered(host), Kind::AccessDenied, unfit);
    // The order of a query's pairs and of headers means nothing.
    court.tampered(|request| request.headers.reverse()).unwrap();
    let reversed = |request: &mut Received| {
        request.query = request.query.split('&').rev().collect::<Vec<_>>().join("&");
    };
    court.tampered(reversed).unwrap();
}

#[test]
fn the_signature_is_of_this_key_this_hash_and_this_encoding() {
    let court = Court::new();
    refused(
        court.judge(&court.draft().sign(&p256())),
        Kind::AccessDenied,
        "does not fit",
    );
    let sha384 = court.draft().sign_with(&court.key, MessageDigest::sha384());
    refused(court.judge(&sha384), Kind::AccessDenied, "does not fit");
    // A raw r‖s, as tokens make it, is no DER.
    let raw = court.tampered(|request| {
        for (name, value) in &mut request.headers {
            if name == "authorization" {
                let head = value.split("Signature=").next().unwrap_or_default();
                *value = format!("{head}Signature={}", "5a".repeat(64));
            }
        }
    });
    refused(raw, Kind::AccessDenied, "does not fit");
}

#[test]
fn authorization_is_there_once_and_in_its_form() {
    let court = Court::new();
    let without =
        court.tampered(|request| request.headers.retain(|(name, _)| name != "authorization"));
    refused(without, Kind::AccessDenied, "no authorization header");
    let twice = court.tampered(|request| {
        request
            .headers
            .push(("authorization".to_owned(), "x".to_owned()))
    });
    refused(twice, Kind::AccessDenied, "more than one authorization");
    let form = court.tampered(|request| {
        request.headers.retain(|(name, _)| name != "authorization");
        request
            .headers
            .push(("authorization".to_owned(), "Bearer token".to_owned()));
    });
    refused(form, Kind::Validation, "no Credential");
}
