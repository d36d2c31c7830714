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

#[cfg(test)]
mod tests {
    use rcgen::SigningKey;

    use super::*;
    use crate::doctor::certificate::tests::{Made, base64};

    fn unsigned() -> UnsignedRequest {
        UnsignedRequest {
            identity: None,
            region: "eu-central-1".into(),
            host: "localhost:8443".into(),
            query: "profileArn=p&roleArn=r&trustAnchorArn=t".into(),
            content_type: "application/json".into(),
            body: r#"{"durationSeconds":900}"#.into(),
        }
    }

    /// Signed by another hand: each text written out.
    fn signed(made: &Made, chain: Option<&str>) -> BTreeMap<String, String> {
        let leaf = base64(&made.der);
        let (chain_line, names) = match chain {
            Some(chain) => (format!("x-amz-x509-chain:{chain}\n"), ";x-amz-x509-chain"),
            None => (String::new(), ""),
        };
        let body = hex::encode(Sha256::digest(r#"{"durationSeconds":900}"#));
        let names = format!("content-type;host;x-amz-date;x-amz-x509{names}");
        let canonical = format!(
            "POST\n/sessions\nprofileArn=p&roleArn=r&trustAnchorArn=t\ncontent-type:application/json\n\
             host:localhost:8443\nx-amz-date:20260101T120000Z\nx-amz-x509:{leaf}\n{chain_line}\n{names}\n{body}"
        );
        let scope = "20260101/eu-central-1/rolesanywhere/aws4_request";
        let text = format!(
            "AWS4-X509-ECDSA-SHA256\n20260101T120000Z\n{scope}\n{}",
            hex::encode(Sha256::digest(canonical))
        );
        let signature = hex::encode(made.key.sign(text.as_bytes()).unwrap());
        let authorization = format!(
            "AWS4-X509-ECDSA-SHA256 Credential=258/{scope}, SignedHeaders={names}, Signature={signature}"
        );
        let mut headers = BTreeMap::from([
            ("X-Amz-Date".to_owned(), "20260101T120000Z".to_owned()),
            ("X-Amz-X509".to_owned(), leaf),
            ("Authorization".to_owned(), authorization),
        ]);
        if let Some(chain) = chain {
            headers.insert("X-Amz-X509-Chain".to_owned(), chain.to_owned());
        }
        headers
    }

    #[test]
    fn a_signature_holds_for_what_was_signed_and_nothing_else() {
        let made = Made::leaf("web", 258);
        for chain in [None, Some("QUJD,REVG")] {
            let verified = verify(&unsigned(), &signed(&made, chain)).unwrap();
            assert_eq!(verified.algorithm, "AWS4-X509-ECDSA-SHA256");
            assert_eq!(verified.serial, "258");
        }
        let other = Made::leaf("web", 258);
        type Change = (
            fn(&mut UnsignedRequest, &mut BTreeMap<String, String>),
            &'static str,
        );
        let changes: [Change; 8] = [
            (|request, _| request.body.push(' '), "not that of"),
            (|request, _| request.query.push('x'), "not that of"),
            (|request, _| request.host.push('x'), "not that of"),
            (|request, _| request.region.push('x'), "with the scope"),
            (
                |_, headers| drop(headers.insert("X-Amz-Date".into(), "20260101T120001Z".into())),
                "not that of",
            ),
            (
                |_, headers| drop(headers.insert("X-Amz-More".into(), "1".into())),
                "covers the headers",
            ),
            (|_, headers| drop(headers.remove("X-Amz-X509")), "no header"),
            (
                |_, headers| drop(headers.insert("Authorization".into(), "x".into())),
                "malformed",
            ),
        ];
        for (change, expected) in changes {
            let (mut request, mut headers) = (unsigned(), signed(&made, None));
            change(&mut request, &mut headers);
            let fault = verify(&request, &headers).unwrap_err();
            assert!(fault.contains(expected), "{fault}");
        }
        let mut headers = signed(&made, None);
        headers.insert("X-Amz-X509".into(), base64(&other.der));
        assert!(
            verify(&unsigned(), &headers)
                .unwrap_err()
                .contains("not that of")
        );
    }
}
