//! The canonical request: the one text of a request that both sides hash.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};
use token::AmzDate;

use crate::certificate::Certificate;
use crate::create_session::CONTENT_TYPE;
use crate::policy::Authorised;

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
        authorised: &'a Authorised,
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
