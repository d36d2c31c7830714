//! The Authorization header of SigV4, in the one form that AWS's own clients write.

use std::fmt;

/// `ALGORITHM Credential=ID/DATE/REGION/SERVICE/aws4_request, SignedHeaders=a;b, Signature=hex`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authorization {
    pub(crate) algorithm: String,
    /// An access key id, or a certificate's serial in decimal.
    pub(crate) credential_id: String,
    pub(crate) scope: Scope,
    pub(crate) signed_headers: Vec<String>,
    pub(crate) signature: Vec<u8>,
}

/// `DATE/REGION/SERVICE/aws4_request`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    /// `YYYYMMDD`.
    pub(crate) date: String,
    pub(crate) region: String,
    pub(crate) service: String,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}/aws4_request",
            self.date, self.region, self.service
        )
    }
}

impl Authorization {
    /// Reads a header's value; the error names the part that is wrong.
    pub(crate) fn parse(value: &str) -> Result<Authorization, String> {
        let (algorithm, rest) = value
            .split_once(' ')
            .ok_or("Authorization has no algorithm")?;
        let mut parts = rest.split(", ");
        let mut part = |name: &str| {
            parts
                .next()
                .and_then(|part| part.strip_prefix(name)?.strip_prefix('='))
                .filter(|value| !value.is_empty())
                .ok_or_else(|| format!("Authorization has no {name} in its place"))
        };
        let credential = part("Credential")?;
        let signed_headers = part("SignedHeaders")?;
        let signature = part("Signature")?;
        if parts.next().is_some() {
            return Err("Authorization goes on after Signature".to_owned());
        }
        let (credential_id, scope) = parse_credential(credential)?;
        Ok(Authorization {
            algorithm: algorithm.to_owned(),
            credential_id,
            scope,
            signed_headers: parse_signed_headers(signed_headers)?,
            signature: parse_signature(signature)?,
        })
    }
}

fn parse_credential(text: &str) -> Result<(String, Scope), String> {
    let fields: Vec<&str> = text.split('/').collect();
    let [id, date, region, service, "aws4_request"] = fields[..] else {
        return Err("Credential is not ID/DATE/REGION/SERVICE/aws4_request".to_owned());
    };
    if [id, date, region, service].contains(&"") {
        return Err("Credential has an empty part".to_owned());
    }
    let scope = Scope {
        date: date.to_owned(),
        region: region.to_owned(),
        service: service.to_owned(),
    };
    Ok((id.to_owned(), scope))
}

fn parse_signed_headers(text: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = text.split(';').map(str::to_owned).collect();
    if text.chars().any(|c| c.is_ascii_uppercase()) {
        return Err("SignedHeaders are not in lower case".to_owned());
    }
    if !names.is_sorted_by(|a, b| a < b) {
        return Err("SignedHeaders are not sorted, or one is named twice".to_owned());
    }
    Ok(names)
}

fn parse_signature(text: &str) -> Result<Vec<u8>, String> {
    if text.chars().any(|c| c.is_ascii_uppercase()) {
        return Err("Signature is not in lower-case hex".to_owned());
    }
    hex::decode(text).map_err(|_| "Signature is not in lower-case hex".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "AWS4-X509-RSA-SHA256 Credential=257/20260102/eu-central-1/rolesanywhere/aws4_request, \
                        SignedHeaders=content-type;host;x-amz-date;x-amz-x509, Signature=00ff";

    #[test]
    fn reads_the_form_that_aws_clients_write() {
        let authorization = Authorization::parse(GOOD).unwrap();
        assert_eq!(authorization.algorithm, "AWS4-X509-RSA-SHA256");
        assert_eq!(authorization.credential_id, "257");
        assert_eq!(
            authorization.scope.to_string(),
            "20260102/eu-central-1/rolesanywhere/aws4_request"
        );
        assert_eq!(
            authorization.signed_headers,
            ["content-type", "host", "x-amz-date", "x-amz-x509"]
        );
        assert_eq!(authorization.signature, [0x00, 0xff]);
    }

    #[test]
    fn refuses_every_other_form_and_names_the_part() {
        assert!(
            Authorization::parse("AWS4-X509-RSA-SHA256")
                .unwrap_err()
                .contains("no algorithm")
        );
        let cases = [
            ("257/2", "2", "Credential is not"),
            ("257/", "/", "empty part"),
            ("aws4_request", "aws4", "Credential is not"),
            ("Credential=", "credential=", "no Credential"),
            (", SignedHeaders", ",SignedHeaders", "no SignedHeaders"),
            ("content-type;host", "host;content-type", "not sorted"),
            ("content-type;host", "host;host", "not sorted"),
            ("host;", "Host;", "lower case"),
            (
                "=content-type;host;x-amz-date;x-amz-x509",
                "=",
                "no SignedHeaders",
            ),
            ("00ff", "00FF", "lower-case hex"),
            ("00ff", "00f", "lower-case hex"),
            ("00ff", "zz", "lower-case hex"),
            ("Signature=00ff", "Signature=", "no Signature"),
            ("00ff", "00ff, More=1", "goes on"),
            ("Signature", "SignedHeaders=host, Signature", "no Signature"),
        ];
        for (from, to, message) in cases {
            let value = GOOD.replacen(from, to, 1);
            let error = Authorization::parse(&value).unwrap_err();
            assert!(error.contains(message), "{value}: {error}");
        }
    }
}
