//! ECDSA signatures: from PKCS#11's `r || s` to DER `SEQUENCE { r INTEGER, s INTEGER }`.

/// The DER of `r || s`, two halves of equal length; `None` where that is no ECDSA signature of a curve
/// that we know.
pub(crate) fn ecdsa_signature(halves: &[u8]) -> Option<Vec<u8>> {
    // P-256, P-384 and P-521
    if !matches!(halves.len(), 64 | 96 | 132) {
        return None;
    }
    let (r, s) = halves.split_at_checked(halves.len() / 2)?;
    let mut content = integer(r)?;
    content.extend(integer(s)?);
    tagged(SEQUENCE, content)
}

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;

/// A positive INTEGER: no leading zeros but one before a high bit. Zero is never part of a signature.
fn integer(unsigned: &[u8]) -> Option<Vec<u8>> {
    let first = unsigned.iter().position(|byte| *byte != 0)?;
    let digits = unsigned.get(first..)?;
    let mut content = Vec::with_capacity(digits.len() + 1);
    if digits.first()? & 0x80 != 0 {
        content.push(0);
    }
    content.extend_from_slice(digits);
    tagged(INTEGER, content)
}

fn tagged(tag: u8, content: Vec<u8>) -> Option<Vec<u8>> {
    let length = u8::try_from(content.len()).ok()?;
    let mut der = if length < 0x80 {
        vec![tag, length]
    } else {
        vec![tag, 0x81, length]
    };
    der.extend(content);
    Some(der)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn halves(half: usize, r: &[u8], s: &[u8]) -> Vec<u8> {
        let mut halves = vec![0; 2 * half];
        halves[half - r.len()..half].copy_from_slice(r);
        halves[2 * half - s.len()..].copy_from_slice(s);
        halves
    }

    #[test]
    fn leading_zeros_go_and_a_high_bit_gets_one() {
        for half in [32, 48, 66] {
            let der = ecdsa_signature(&halves(half, &[1], &[0x80])).unwrap();
            assert_eq!(der, [0x30, 7, 2, 1, 1, 2, 2, 0, 0x80]);
            let der = ecdsa_signature(&halves(half, &[0x7f, 0], &[0xff, 0, 0])).unwrap();
            assert_eq!(
                der,
                [0x30, 10, 2, 2, 0x7f, 0, 2, 4, 0, 0xff, 0, 0].as_slice()
            );
        }
    }

    #[test]
    fn full_halves() {
        let der = ecdsa_signature(&[0xff; 64]).unwrap();
        assert_eq!(der[..5], [0x30, 70, 2, 33, 0]);
        assert_eq!(der.len(), 72);
        // The order of P-521 has nine bits in its first two bytes: 01 ff …
        let mut half = vec![0x01];
        half.extend([0xff; 65]);
        let der = ecdsa_signature(&halves(66, &half, &half)).unwrap();
        assert_eq!(der[..6], [0x30, 0x81, 136, 2, 66, 1]);
        assert_eq!(der.len(), 139);
        // From 128 bytes of content on, the length takes two bytes.
        let r = [0x7f; 61];
        let short = ecdsa_signature(&halves(66, &r, &[0x7f; 62])).unwrap();
        assert_eq!(short[..2], [0x30, 127]);
        let long = ecdsa_signature(&halves(66, &r, &[0x7f; 63])).unwrap();
        assert_eq!(long[..3], [0x30, 0x81, 128]);
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        for halves in [
            halves(32, &[], &[1]),
            halves(32, &[1], &[]),
            vec![1; 63],
            vec![1; 66],
            vec![1; 128],
            vec![1; 256],
            vec![],
        ] {
            assert_eq!(ecdsa_signature(&halves), None, "{halves:?}");
        }
    }
}
