use jiff::SignedDuration;
use openssl::sha::sha256;

use super::super::arn::Arn;
use super::super::decision::Grant;
use super::super::test_client::amz_date;
use super::*;

const FORM: &str = "Action=GetCallerIdentity&Version=2011-06-15";

struct Desk {
    vault: Vault,
    session: Session,
    now: Timestamp,
}

impl Desk {
    fn new() -> Desk {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let grant = Grant {
            role: Arn::role("arn:aws:iam::123456789012:role/path/web").unwrap(),
            session_name: "ff01".to_owned(),
            source_identity: String::new(),
            allowed_by: String::new(),
            seconds: 900,
            subject_arn: String::new(),
        };
        let mut vault = Vault::default();
        let session = vault.vend(&grant, now).unwrap();
        Desk {
            vault,
            session,
            now,
        }
    }

    /// A POST signed as SDKs do it; the canonical request is written by hand.
    fn signed(&self, time: Timestamp, service: &str, body: &str) -> Received {
        let date = amz_date(time);
        let headers = [
            ("host", "localhost"),
            ("x-amz-date", &date),
            ("x-amz-security-token", &self.session.session_token),
        ];
        let lines: String = {
            let [host, date, token] = headers;
            [host, date, token]
                .iter()
                .map(|(name, value)| format!("{name}:{value}\n"))
                .collect()
        };
        let names = "host;x-amz-date;x-amz-security-token";
        let canonical = format!(
            "POST\n/\n\n{lines}\n{names}\n{}",
            hex::encode(sha256(body.as_bytes()))
        );
        let scope = format!("{}/eu-central-1/{service}/aws4_request", &date[..8]);
        let head = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}",
            self.session.access_key_id
        );
        let text = format!(
            "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
            hex::encode(sha256(canonical.as_bytes()))
        );
        let authorization = Authorization::parse(&format!("{head}, Signature=00")).unwrap();
        let signature = hex::encode(signature(&self.session, &authorization, &text).unwrap());
        let mut headers: Vec<(String, String)> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        headers.push((
            "authorization".to_owned(),
            format!("{head}, Signature={signature}"),
        ));
        Received {
            method: "POST".to_owned(),
            path: "/".to_owned(),
            query: String::new(),
            headers,
            body: body.as_bytes().to_vec(),
        }
    }

    fn code(&self, request: &Received, time: Timestamp) -> &'static str {
        caller_identity(&self.vault, request, time).map_or_else(|error| error.code, |_| "OK")
    }
}

/// From "Create a signed AWS API request" in the IAM user guide.
#[test]
fn the_chain_of_hmacs_agrees_with_the_published_example() {
    let session = Session {
        secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
        ..Desk::new().session
    };
    let authorization = Authorization::parse(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=00",
    );
    let text = "AWS4-HMAC-SHA256\n20150830T123600Z\n20150830/us-east-1/iam/aws4_request\n\
                f536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59";
    let signature = signature(&session, &authorization.unwrap(), text).unwrap();
    assert_eq!(
        hex::encode(signature),
        "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    );
}

#[test]
fn a_vended_session_is_told_who_it_is() {
    let desk = Desk::new();
    let request = desk.signed(desk.now, "sts", FORM);
    let caller = caller_identity(&desk.vault, &request, desk.now).unwrap();
    let body = answer(Ok(caller), "id-7").body;
    assert!(
        body.contains("<Arn>arn:aws:sts::123456789012:assumed-role/web/ff01</Arn>"),
        "{body}"
    );
    assert!(
        body.contains("<Account>123456789012</Account>")
            && body.contains("<RequestId>id-7</RequestId>"),
        "{body}"
    );
}

#[test]
fn each_refusal_has_its_own_code() {
    let desk = Desk::new();
    let good = desk.signed(desk.now, "sts", FORM);
    let change = |name: &str, from: &str, to: &str| {
        let mut request = good.clone();
        for (header, value) in &mut request.headers {
            if header == name {
                *value = value.replace(from, to);
            }
        }
        request
    };
    let without = |name: &str| {
        let mut request = good.clone();
        request.headers.retain(|(header, _)| header != name);
        request
    };
    assert_eq!(desk.code(&good, desk.now), "OK");
    assert_eq!(
        desk.code(&without("authorization"), desk.now),
        "MissingAuthenticationToken"
    );
    assert_eq!(
        desk.code(&change("authorization", "Signature=", "Sig="), desk.now),
        "IncompleteSignature"
    );
    assert_eq!(
        desk.code(&change("authorization", "HMAC", "X509-RSA"), desk.now),
        "IncompleteSignature"
    );
    assert_eq!(
        desk.code(&change("authorization", "ASIA", "AKIA"), desk.now),
        "InvalidClientTokenId"
    );
    assert_eq!(
        desk.code(&without("x-amz-security-token"), desk.now),
        "InvalidClientTokenId"
    );
    let token = &desk.session.session_token;
    assert_eq!(
        desk.code(&change("x-amz-security-token", token, "other"), desk.now),
        "InvalidClientTokenId"
    );
    assert_eq!(
        desk.code(&change("host", "localhost", "elsewhere"), desk.now),
        "SignatureDoesNotMatch"
    );
    assert_eq!(
        desk.code(&desk.signed(desk.now, "s3", FORM), desk.now),
        "SignatureDoesNotMatch"
    );
    let later = desk.now + SignedDuration::from_mins(6);
    assert_eq!(desk.code(&good, later), "SignatureDoesNotMatch");
    let over = desk.session.expires;
    assert_eq!(
        desk.code(&desk.signed(over, "sts", FORM), over),
        "ExpiredToken"
    );
    let body = |text: &str| desk.code(&desk.signed(desk.now, "sts", text), desk.now);
    assert_eq!(
        body("Action=GetSessionToken&Version=2011-06-15"),
        "InvalidAction"
    );
    assert_eq!(body("Action=GetCallerIdentity"), "InvalidAction");
    assert_eq!(body(""), "MissingAction");
}

#[test]
fn an_error_is_a_document_too() {
    let error = StsError {
        status: 403,
        code: "SignatureDoesNotMatch",
        message: "a < b & c".to_owned(),
    };
    let answer = answer(Err(&error), "id-7");
    assert_eq!((answer.status, answer.content_type), (403, "text/xml"));
    assert!(
        answer
            .body
            .contains("<Code>SignatureDoesNotMatch</Code><Message>a &lt; b &amp; c</Message>")
    );
}
