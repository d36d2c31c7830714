//! SigV4's canonical request and string to sign, rebuilt from what arrived.
//!
//! Written from AWS's "Create a signed AWS API request" (IAM user guide), independently of the agent's signer.

use openssl::sha::sha256;

use super::authorization_header::Authorization;
use super::query;
use super::received::Received;

/// The text that the client must have signed.
pub(crate) fn string_to_sign(
    request: &Received,
    authorization: &Authorization,
) -> Result<String, String> {
    let canonical = canonical_request(request, &authorization.signed_headers)?;
    Ok(format!(
        "{}\n{}\n{}\n{}",
        authorization.algorithm,
        request.header("x-amz-date")?,
        authorization.scope,
        hex::encode(sha256(canonical.as_bytes())),
    ))
}

/// Checks that the signature covers `host`, the names in `required` that the request has, and every `x-amz-*`.
pub(crate) fn check_coverage(
    request: &Received,
    signed: &[String],
    required: &[&str],
) -> Result<(), String> {
    for name in signed {
        if !request.headers.iter().any(|(header, _)| header == name) {
            return Err(format!(
                "SignedHeaders names {name}, which the request does not have"
            ));
        }
    }
    if !signed.iter().any(|name| name == "host") {
        return Err("the host header is not signed".to_owned());
    }
    for (header, _) in &request.headers {
        let needed = header.starts_with("x-amz-") || required.contains(&header.as_str());
        if needed && !signed.contains(header) {
            return Err(format!("the {header} header is not signed"));
        }
    }
    Ok(())
}

fn canonical_request(request: &Received, signed_headers: &[String]) -> Result<String, String> {
    let headers: String = signed_headers
        .iter()
        .map(|name| format!("{name}:{}\n", canonical_values(request, name)))
        .collect();
    Ok(format!(
        "{}\n{}\n{}\n{headers}\n{}\n{}",
        request.method,
        request.path,
        canonical_query(&request.query)?,
        signed_headers.join(";"),
        hex::encode(sha256(&request.body)),
    ))
}

/// Pairs are sorted after encoding, by name and then by value.
fn canonical_query(query: &str) -> Result<String, String> {
    let mut pairs: Vec<(String, String)> = query::parse(query)?
        .iter()
        .map(|(name, value)| (query::encode(name), query::encode(value)))
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    Ok(pairs.join("&"))
}

/// A repeated header's values are joined by commas; runs of spaces count as one.
fn canonical_values(request: &Received, name: &str) -> String {
    let values: Vec<String> = request
        .headers
        .iter()
        .filter(|(header, _)| header == name)
        .map(|(_, value)| value.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    values.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(query: &str, headers: &[(&str, &str)]) -> Received {
        Received {
            method: "GET".to_owned(),
            path: "/".to_owned(),
            query: query.to_owned(),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            body: Vec::new(),
        }
    }

    fn names(names: &str) -> Vec<String> {
        names.split(';').map(str::to_owned).collect()
    }

    const HOST: (&str, &str) = ("host", "example.amazonaws.com");
    const DATE: (&str, &str) = ("x-amz-date", "20150830T123600Z");

    /// get-vanilla of AWS's published SigV4 test suite.
    #[test]
    fn agrees_with_the_published_vanilla_request() {
        let request = get("", &[HOST, DATE]);
        assert_eq!(
            canonical_request(&request, &names("host;x-amz-date")).unwrap(),
            "GET\n/\n\nhost:example.amazonaws.com\nx-amz-date:20150830T123600Z\n\nhost;x-amz-date\n\
             e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        let authorization = Authorization::parse(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature=00",
        );
        assert_eq!(
            string_to_sign(&request, &authorization.unwrap()).unwrap(),
            "AWS4-HMAC-SHA256\n20150830T123600Z\n20150830/us-east-1/service/aws4_request\n\
             bb579772317eb040ac9ed261061d46c1f17a8133879d6129b6e1c25292927e63"
        );
    }

    #[test]
    fn queries_are_sorted_and_encoded_once() {
        let cases = [
            ("", ""),
            ("Param2=value2&Param1=value1", "Param1=value1&Param2=value2"),
            ("Param1=value2&Param1=Value1", "Param1=Value1&Param1=value2"),
            ("Param1", "Param1="),
            ("a=%2f&b=/", "a=%2F&b=%2F"),
            ("a=%7e~-._", "a=~~-._"),
            ("%E1%88%B4=bar", "%E1%88%B4=bar"),
            ("a=b%20c", "a=b%20c"),
            ("a=b%2Bc", "a=b%2Bc"),
            // Sorted as encoded: "%3A" comes before "A", though ":" comes after "9".
            ("A=1&:=2&9=3", "%3A=2&9=3&A=1"),
            ("B=1&a=2", "B=1&a=2"),
        ];
        for (query, expected) in cases {
            assert_eq!(canonical_query(query).unwrap(), expected, "{query}");
        }
    }

    /// get-header-value-trim and get-header-key-duplicate of the published suite.
    #[test]
    fn header_values_are_trimmed_and_joined() {
        let request = get(
            "",
            &[
                ("my-header1", " value1 "),
                ("my-header2", "\"a   b   c\""),
                ("x", "b"),
                ("x", "a"),
            ],
        );
        assert_eq!(canonical_values(&request, "my-header1"), "value1");
        assert_eq!(canonical_values(&request, "my-header2"), "\"a b c\"");
        assert_eq!(canonical_values(&request, "x"), "b,a");
    }

    #[test]
    fn the_signature_must_cover_what_matters() {
        let request = get(
            "",
            &[
                HOST,
                DATE,
                ("content-type", "application/json"),
                ("user-agent", "x"),
            ],
        );
        let check = |signed: &str| check_coverage(&request, &names(signed), &["content-type"]);
        assert_eq!(check("content-type;host;x-amz-date"), Ok(()));
        assert!(
            check("content-type;x-amz-date")
                .unwrap_err()
                .contains("host header is not signed")
        );
        assert!(
            check("host;x-amz-date")
                .unwrap_err()
                .contains("content-type header is not signed")
        );
        assert!(
            check("content-type;host")
                .unwrap_err()
                .contains("x-amz-date header is not signed")
        );
        assert!(
            check("content-type;host;x-amz-date;x-amz-x509")
                .unwrap_err()
                .contains("does not have")
        );
    }
}
