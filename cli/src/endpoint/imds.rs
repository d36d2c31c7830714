//! EC2's instance metadata service, version 2: the documents that AWS tools read to get credentials and the
//! region. Version 1, without a session token, is refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::session::Session;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use secrecy::ExposeSecret;
use serde::Serialize;

use super::answer::{Answer, json, method_not_allowed, not_found, refusal, text, time};
use super::imds_token::Tokens;
use super::secret::NoRandom;
use super::served::Served;

/// The target that IMDS can have; its list of roles has one entry.
pub(crate) struct Imds {
    served: Arc<Served>,
    tokens: Tokens,
    /// The zero of the tokens' clock.
    begin: Instant,
}

const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN: &str = "x-aws-ec2-metadata-token";

/// Six hours, as on EC2.
const LONGEST_TTL: u64 = 21_600;

const CREDENTIALS: &str = "/latest/meta-data/iam/security-credentials";

impl Imds {
    pub(crate) fn new(served: Arc<Served>) -> Result<Imds, NoRandom> {
        Ok(Imds {
            served,
            tokens: Tokens::new()?,
            begin: Instant::now(),
        })
    }

    /// Slashes at the end of `path` have been taken off.
    pub(super) async fn answer(&self, request: &Parts, path: &str) -> Answer {
        if path == "/latest/api/token" {
            return self.token(request);
        }
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return method_not_allowed();
        }
        let mut shown = request.headers.get_all(TOKEN).iter();
        let valid = match (shown.next(), shown.next()) {
            (Some(token), None) => self.tokens.check(token.as_bytes(), self.begin.elapsed()),
            _ => false,
        };
        if !valid {
            let message =
                "a valid X-aws-ec2-metadata-token is missing: PUT /latest/api/token (IMDSv2)";
            return refusal(StatusCode::UNAUTHORIZED, message);
        }
        self.document(path).await
    }

    fn token(&self, request: &Parts) -> Answer {
        if request.method != Method::PUT {
            return method_not_allowed();
        }
        let mut asked = request.headers.get_all(TTL).iter();
        let ttl = match (asked.next(), asked.next()) {
            (Some(ttl), None) => seconds(ttl),
            _ => None,
        };
        let Some(ttl) = ttl else {
            let message = "X-aws-ec2-metadata-token-ttl-seconds may be 1 to 21600";
            return refusal(StatusCode::BAD_REQUEST, message);
        };
        let now = self.begin.elapsed();
        let mut answer = text(self.tokens.issue(Duration::from_secs(ttl), now));
        answer.headers_mut().insert(TTL, HeaderValue::from(ttl));
        answer
    }

    async fn document(&self, path: &str) -> Answer {
        let target = self.served.target().session.target;
        let region = target.region().to_string();
        match path {
            CREDENTIALS => text(role_name(target.role().as_ref())),
            "/latest/meta-data/placement/region" => text(region),
            "/latest/meta-data/placement/availability-zone" => text(zone(&region)),
            "/latest/dynamic/instance-identity/document" => {
                identity_document(&region, account(target.role().as_ref()))
            }
            path => match path.strip_prefix(CREDENTIALS) {
                Some(name) => self.credentials(name).await,
                None => not_found(),
            },
        }
    }

    /// `name` still has its slash.
    async fn credentials(&self, name: &str) -> Answer {
        let target = self.served.target().session.target;
        let asked = name.strip_prefix('/').unwrap_or_default();
        if !percent_decode_str(asked).eq(role_name(target.role().as_ref()).bytes()) {
            return not_found();
        }
        match self.served.session().await {
            Ok(session) => credentials(&session),
            Err(error) => refusal(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        }
    }
}

fn seconds(header: &HeaderValue) -> Option<u64> {
    let text = header.to_str().ok()?;
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None; // parse would take "+1"
    }
    let seconds = text.parse().ok()?;
    (1..=LONGEST_TTL).contains(&seconds).then_some(seconds)
}

/// `arn:PARTITION:iam::ACCOUNT:role/PATH/NAME`
fn role_name(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}

fn account(arn: &str) -> &str {
    arn.split(':').nth(4).unwrap_or_default()
}

/// There is none; but botocore learns the region by leaving out its last letter.
fn zone(region: &str) -> String {
    format!("{region}a")
}

fn credentials(session: &Session) -> Answer {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Credentials<'s> {
        code: &'s str,
        last_updated: String,
        r#type: &'s str,
        access_key_id: &'s str,
        secret_access_key: &'s str,
        token: &'s str,
        expiration: String,
    }
    let credentials = &session.credentials;
    json(
        StatusCode::OK,
        &Credentials {
            code: "Success",
            last_updated: time(session.issued),
            r#type: "AWS-HMAC",
            access_key_id: &credentials.access_key_id,
            secret_access_key: credentials.secret_access_key.expose_secret(),
            token: credentials.session_token.expose_secret(),
            expiration: time(credentials.expiration),
        },
    )
}

/// Without what only an instance has.
fn identity_document(region: &str, account: &str) -> Answer {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Document<'d> {
        version: &'d str,
        account_id: &'d str,
        region: &'d str,
        availability_zone: String,
    }
    json(
        StatusCode::OK,
        &Document {
            version: "2017-09-30",
            account_id: account,
            region,
            availability_zone: zone(region),
        },
    )
}
