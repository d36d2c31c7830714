//! The DER of a key file: bare, or in PEM whose lines may have any length, blanks and empty lines between them, as
//! OpenSSL and Go read it.

use std::borrow::Cow;

const BEGIN: &str = "-----BEGIN TSS2 PRIVATE KEY-----";
const END: &str = "-----END TSS2 PRIVATE KEY-----";

/// The first byte of a DER SEQUENCE.
const SEQUENCE: u8 = 0x30;

/// A line of strict PEM (RFC 7468, section 2), in characters.
const LINE: usize = 64;

/// Returns the DER of the one key in a file; certificates may stand beside it in PEM.
pub(super) fn der(content: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    let text = String::from_utf8_lossy(content);
    let Some((_, rest)) = text.split_once(BEGIN) else {
        if content.first() == Some(&SEQUENCE) {
            return Ok(Cow::Borrowed(content));
        }
        return Err(format!(
            "there is no \"{BEGIN}\" in it: `roleseal-admin key generate --tpm` makes such a \
             file, as do `openssl genpkey -provider tpm2` and tpm2_encodeobject"
        ));
    };
    let (body, rest) = rest.split_once(END).ok_or("it is cut off")?;
    if rest.contains(BEGIN) {
        return Err("there are several keys in it: keep one to a file".to_owned());
    }
    let (_, der) =
        der::pem::decode_vec(&strict(body)).map_err(|error| format!("not PEM: {error}"))?;
    Ok(Cow::Owned(der))
}

/// The same PEM in lines of the usual length.
fn strict(body: &str) -> Vec<u8> {
    let digits: String = body.split_whitespace().collect();
    let mut pem = format!("{BEGIN}\n").into_bytes();
    for line in digits.as_bytes().chunks(LINE) {
        pem.extend_from_slice(line);
        pem.push(b'\n');
    }
    pem.extend_from_slice(END.as_bytes());
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_may_have_any_length() {
        let body = "QUJD".repeat(40);
        let split = |length: usize, end: &str| {
            let lines = body.as_bytes().chunks(length);
            lines.fold(String::new(), |text, line| {
                text + std::str::from_utf8(line).unwrap() + end
            })
        };
        for lines in [
            split(64, "\n"),
            split(76, "\n"),
            split(1000, "\n"),
            split(64, " \r\n"),
            split(7, "\n\n\t"),
            format!("\n\n{}", split(64, "\n")),
            split(1000, ""),
        ] {
            let text = format!("a key\n{BEGIN}{lines}{END}");
            assert_eq!(der(text.as_bytes()).unwrap(), "ABC".repeat(40).as_bytes());
        }
        assert_eq!(
            der(&[0x30, 0x80, 0xff]).unwrap().as_ref(),
            [0x30, 0x80, 0xff]
        );
        for text in [
            format!("{BEGIN}\n\n{END}\n"),
            format!("{BEGIN}\nQUJ\n{END}\n"),
            format!("{BEGIN}\nQU?D\n{END}\n"),
            format!("{BEGIN}\nQUJD\n"),
            String::new(),
        ] {
            assert!(!der(text.as_bytes()).is_ok_and(|der| !der.is_empty()));
        }
    }
}
