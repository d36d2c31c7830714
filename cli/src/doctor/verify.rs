//! The signature of a request, verified as AWS does it: from what is sent alone.

use std::collections::BTreeMap;

use rolesanywhere::certificate::Certificate;
use sha2::{Digest, Sha256};
use wire::UnsignedRequest;

use super::certificate::from_base64;

/// A signature that holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verified {
    /// Such as `AWS4-X509-ECDSA-SHA256`.
    pub(super) algorithm: String,
    /// The certificate's, decimal.
    pub(super) serial: String,
}

/// Verifies the headers that sign the request, or says what is wrong with them.
pub(super) fn verify(
    unsigned: &UnsignedRequest,
    headers: &BTreeMap<String, String>,
) -> Result<Verified, String> {
    let header = |name: &str| {
        let value = headers.get(name).map(String::as_str);
        value.ok_or_else(|| format!("there is no header {name}"))
    };
    let (date, leaf) = (header("X-Amz-Date")?, header("X-Amz-X509")?);
    let authorization = Authorization::parse(header("Authorization")?)
        .ok_or("the header Authorization is malformed")?;
    let leaf = from_base64(leaf).map_err(|fault| format!("X-Amz-X509: {fault}"))?;
    let serial = leaf.serial().decimal();
    let scope = scope(date, &unsigned.region);
    if authorization.credential != format!("{serial}/{scope}") {
        return Err(format!(
            "its credential {} is not the certificate's serial, {serial}, with the scope {scope}",
            authorization.credential
        ));
    }
    let (canonical, names) = canonical_request(unsigned, headers)?;
    if authorization.signed_headers != names {
        return Err(format!(
            "it covers the headers {}, not {names}",
            authorization.signed_headers
        ));
    }
    let text = format!(
        "{}\n{date}\n{scope}\n{}",
        authorization.algorithm,
        hex::encode(Sha256::digest(canonical))
    );
    match verifies(&leaf, &text, authorization.signature)? {
        true => Ok(Verified {
            algorithm: authorization.algorithm.to_owned(),
            serial,
        }),
        false => Err(format!(
            "it is not that of the certificate's key (serial {serial})"
        )),
    }
}

fn verifies(leaf: &Certificate, text: &str, signature: &str) -> Result<bool, String> {
    let signature = hex::decode(signature).map_err(|_| "it is not hexadecimal")?;
    let key = leaf.public_key().map_err(|fault| fault.to_string())?;
    Ok(key.verifies(text.as_bytes(), &signature))
}

fn scope(date: &str, region: &str) -> String {
    let day = date.split('T').next().unwrap_or_default();
    format!("{day}/{region}/rolesanywhere/aws4_request")
}

/// The canonical request, and the names of its headers. The query is canonical as the request has it: it
/// is sent so.
fn canonical_request(
    unsigned: &UnsignedRequest,
    headers: &BTreeMap<String, String>,
) -> Result<(String, String), String> {
    let mut all = BTreeMap::from([
        ("content-type".to_owned(), unsigned.content_type.as_str()),
        ("host".to_owned(), unsigned.host.as_str()),
    ]);
    for (name, value) in headers {
        let name = name.to_ascii_lowercase();
        if name != "authorization" {
            all.insert(name, value);
        }
    }
    let lines: String = all
        .iter()
        .map(|(name, value)| format!("{name}:{}\n", value.trim()))
        .collect();
    let names: Vec<_> = all.keys().map(String::as_str).collect();
    let names = names.join(";");
    let body = hex::encode(Sha256::digest(&unsigned.body));
    let query = &unsigned.query;
    Ok((
        format!("POST\n/sessions\n{query}\n{lines}\n{names}\n{body}"),
        names,
    ))
}

/// `ALGORITHM Credential=…, SignedHeaders=…, Signature=…`
struct Authorization<'h> {
    algorithm: &'h str,
    credential: &'h str,
    signed_headers: &'h str,
    signature: &'h str,
}

impl<'h> Authorization<'h> {
    fn parse(header: &'h str) -> Option<Authorization<'h>> {
        let (algorithm, rest) = header.split_once(' ')?;
        let mut members = rest.split(", ");
        let mut member = |name: &str| members.next()?.strip_prefix(name)?.strip_prefix('=');
        let credential = member("Credential")?;
        let signed_headers = member("SignedHeaders")?;
        let signature = member("Signature")?;
        members.next().is_none().then_some(Authorization {
            algorithm,
            credential,
            signed_headers,
            signature,
        })
    }
}
