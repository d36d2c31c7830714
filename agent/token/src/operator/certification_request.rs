//! The one kind of text that an operator's command may have signed.

use super::PublicKeyInfo;

/// Checks that `info` is the DER of a `CertificationRequestInfo` (RFC 2986, 4.1) for this public key, so that
/// nothing else is ever signed: no certificate, no statement, no text.
///
/// # Errors
///
/// What is wrong with it.
pub fn check_certification_request(info: &[u8], key: &PublicKeyInfo) -> Result<(), String> {
    let fault = |what: &str| Err(format!("not a certificate request for this key: {what}"));
    let Some((content, [])) = element(info, SEQUENCE) else {
        return fault("no single SEQUENCE");
    };
    let Some((version, rest)) = element(content, INTEGER) else {
        return fault("no version");
    };
    if version != [0] {
        return fault("a version other than 0");
    }
    let Some((_, rest)) = element(rest, SEQUENCE) else {
        return fault("no subject");
    };
    let Some((_, attributes)) = element(rest, SEQUENCE) else {
        return fault("no public key");
    };
    if rest
        .len()
        .checked_sub(attributes.len())
        .and_then(|length| rest.get(..length))
        != Some(&key.0)
    {
        return fault("another public key");
    }
    match element(attributes, ATTRIBUTES) {
        Some((_, [])) => Ok(()),
        _ => fault("no attributes, or something after them"),
    }
}

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
/// `[0] IMPLICIT SET OF`
const ATTRIBUTES: u8 = 0xa0;

/// Content and rest of an element with this tag, in DER: lengths as short as they can be.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = bytes.split_first_chunk()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = digits
                .iter()
                .fold(0, |length, digit| length << 8 | usize::from(*digit));
            let shortest = length >= 0x80 && digits.first() != Some(&0);
            (shortest.then_some(length)?, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPKI: [u8; 4] = [SEQUENCE, 2, 5, 0];

    fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let head: &[u8] = match length {
            0..0x80 => &[tag, length as u8],
            0x80..0x100 => &[tag, 0x81, length as u8],
            _ => &[tag, 0x82, (length >> 8) as u8, length as u8],
        };
        [head, content].concat()
    }

    fn info(parts: &[&[u8]]) -> Vec<u8> {
        tagged(SEQUENCE, &parts.concat())
    }

    fn check(info: &[u8]) -> Result<(), String> {
        check_certification_request(info, &PublicKeyInfo(SPKI.to_vec()))
    }

    #[test]
    fn a_request_for_this_key_is_taken_and_nothing_else() {
        let version = [INTEGER, 1, 0];
        let none = [ATTRIBUTES, 0];
        for length in [0, 127, 128, 255, 256, 70] {
            let subject = tagged(SEQUENCE, &vec![0; length]);
            assert_eq!(check(&info(&[&version, &subject, &SPKI, &none])), Ok(()));
        }
        let subject = [SEQUENCE, 0];
        let good = info(&[&version, &subject, &SPKI, &none]);
        for (bad, expected) in [
            (Vec::new(), "SEQUENCE"),
            (
                b"AWS4-X509-ECDSA-SHA256\n20260101T000000Z\n".to_vec(),
                "SEQUENCE",
            ),
            ([&good[..], &[0]].concat(), "SEQUENCE"),
            (good[..good.len() - 1].to_vec(), "SEQUENCE"),
            (tagged(0x31, &good[2..]), "SEQUENCE"),
            (
                [&[SEQUENCE, 0x81, good[1]], &good[2..]].concat(),
                "SEQUENCE",
            ),
            // A TBSCertificate begins with [0] or with a serial number.
            (
                info(&[&[0xa0, 3, INTEGER, 1, 2], &version, &subject, &SPKI]),
                "no version",
            ),
            (
                info(&[&[INTEGER, 1, 2], &subject, &SPKI, &none]),
                "other than 0",
            ),
            (info(&[&version, &SPKI, &none]), "public key"),
            (
                info(&[&version, &subject, &[SEQUENCE, 2, 5, 1], &none]),
                "another public key",
            ),
            (info(&[&version, &subject, &SPKI]), "attributes"),
            (
                info(&[&version, &subject, &SPKI, &none, &none]),
                "attributes",
            ),
        ] {
            let error = check(&bad).unwrap_err();
            assert!(error.contains(expected), "{error} ({expected})");
        }
    }
}
