//! Percent-encoding as SigV4 has it (RFC 3986, upper-case hex), both ways.

/// The pairs of a query string, decoded, in order of arrival.
///
/// A bare `+` is refused: forms read it as a space, RFC 3986 as itself, and a signature must not hang on that.
pub(crate) fn parse(query: &str) -> Result<Vec<(String, String)>, String> {
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((decode(name)?, decode(value)?))
        })
        .collect()
}

/// The pairs of an `application/x-www-form-urlencoded` body, where `+` is a space.
pub(crate) fn parse_form(body: &str) -> Result<Vec<(String, String)>, String> {
    parse(&body.replace('+', "%20"))
}

/// Encodes all but the unreserved characters of RFC 3986.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte))
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [
                    rest.next().unwrap_or_default(),
                    rest.next().unwrap_or_default(),
                ];
                let decoded =
                    hex::decode(digits).map_err(|_| format!("no percent-encoding: {text}"))?;
                bytes.extend(decoded);
            }
            b'+' => {
                return Err(format!(
                    "a bare + in the query: write %2B for a plus, %20 for a space: {text}"
                ));
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| format!("no UTF-8: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_all_but_unreserved() {
        assert_eq!(encode("AZaz09-._~"), "AZaz09-._~");
        assert_eq!(
            encode("arn:aws:iam::1:role/a b+c"),
            "arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fa%20b%2Bc"
        );
        assert_eq!(encode("ü*"), "%C3%BC%2A");
    }

    #[test]
    fn parses_pairs_in_order() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            parse("b=2&a=%31&c&b=").unwrap(),
            [pair("b", "2"), pair("a", "1"), pair("c", ""), pair("b", "")]
        );
        assert_eq!(parse("").unwrap(), []);
        assert_eq!(parse("a=b=c").unwrap(), [pair("a", "b=c")]);
        assert_eq!(parse_form("a=b+c").unwrap(), [pair("a", "b c")]);
    }

    #[test]
    fn refuses_what_can_be_read_in_two_ways() {
        for query in ["a=b+c", "a=%", "a=%4", "a=%zz", "a=%ff"] {
            assert!(parse(query).is_err(), "{query}");
        }
    }
}
