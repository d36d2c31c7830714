//! The canonical request: the one text of a request that both sides hash.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};
use token::AmzDate;

use crate::create_session::CONTENT_TYPE;
use crate::policy::Authorized;
use config::certificate::Certificate;

/// Everything of the request that is signed. `Display` is the canonical request.
pub(super) struct CanonicalRequest<'a> {
    /// Sorted by name.
    query: [(&'static str, &'a str); 3],
    /// Sorted by name, in lower case.
    headers: Vec<(&'static str, String)>,
    body: &'a str,
}

/// RFC 3986, section 2.3: what is not percent-encoded.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

impl<'a> CanonicalRequest<'a> {
    pub(super) fn new(
        authorised: &'a Authorized,
        certificate: &Certificate,
        date: AmzDate,
    ) -> CanonicalRequest<'a> {
        let request = authorised.request();
        let target = request.target();
        let mut headers = vec![
            ("content-type", CONTENT_TYPE.to_owned()),
            ("host", request.host().to_owned()),
            ("x-amz-date", date.to_string()),
            ("x-amz-x509", certificate.x509.clone()),
        ];
        if let Some(chain) = &certificate.x509_chain {
            headers.push(("x-amz-x509-chain", chain.clone()));
        }
        CanonicalRequest {
            query: [
                ("profileArn", target.profile().as_ref()),
                ("roleArn", target.role().as_ref()),
                ("trustAnchorArn", target.trust_anchor().as_ref()),
            ],
            headers,
            body: request.body(),
        }
    }

    /// The names of the signed headers, with semicolons.
    pub(super) fn signed_headers(&self) -> String {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        names.join(";")
    }
}

impl fmt::Display for CanonicalRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("POST\n/sessions\n")?;
        for (at, (name, value)) in self.query.iter().enumerate() {
            let separator = if at == 0 { "" } else { "&" };
            write!(
                f,
                "{separator}{name}={}",
                utf8_percent_encode(value, RESERVED)
            )?;
        }
        f.write_str("\n")?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}:{value}")?;
        }
        let body_hash = hex::encode(Sha256::digest(self.body));
        write!(f, "\n{}\n{body_hash}", self.signed_headers())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create_session::CreateSession;
    use crate::create_session::tests::{QUERY, unsigned};
    use crate::policy::tests::permitted;
    use config::certificate::test_support::{NOON, certificate, ec};
    use jiff::Timestamp;
    use openssl::nid::Nid;
    use proptest::prelude::*;

    const ROLE: &str = "arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fweb-1";

    /// RFC 3986 by hand.
    fn encoded(text: &str) -> String {
        let one = |byte: u8| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        };
        text.bytes().map(one).collect()
    }

    /// As a caller may write it: the least or the most of the value encoded.
    fn otherwise(pair: &str, least: bool) -> String {
        let (name, value) = pair.split_once('=').unwrap();
        let value = percent_encoding::percent_decode_str(value)
            .decode_utf8()
            .unwrap();
        let value = match least {
            true => value.replace('+', "%2b"),
            false => value.bytes().map(|byte| format!("%{byte:02x}")).collect(),
        };
        format!("{name}={value}")
    }

    proptest! {
        /// However the query was encoded and ordered, and whatever is in the body: one text is hashed.
        #[test]
        fn there_is_one_canonical_request(
            role in "[A-Za-z0-9_+=,.@/-]{1,80}",
            session_name in "[A-Za-z0-9_=,.@-]{2,64}",
            order in Just([0, 1, 2]).prop_shuffle(),
            least: [bool; 3],
        ) {
            let role = format!("arn:aws:iam::123456789012:role/{role}");
            let query = QUERY.replace(ROLE, &encoded(&role));
            let pairs: Vec<&str> = query.split('&').collect();
            let body = format!(r#"{{"roleSessionName":"{session_name}"}}"#);
            let mut request = unsigned(&body);
            request.query = order.map(|at| otherwise(pairs[at], least[at])).join("&");

            let authorised = permitted(CreateSession::parse(request, &[]).unwrap());
            let certificate = certificate(&ec(Nid::X9_62_PRIME256V1), 0);
            let date = AmzDate::from(NOON.parse::<Timestamp>().unwrap());
            let text = CanonicalRequest::new(&authorised, &certificate, date).to_string();
            let lines: Vec<&str> = text.split('\n').collect();
            prop_assert_eq!(&lines[..3], ["POST", "/sessions", &*query]);
            prop_assert_eq!(lines.len(), 10);
            prop_assert_eq!(lines[9], hex::encode(openssl::sha::sha256(body.as_bytes())));
        }
    }
}
