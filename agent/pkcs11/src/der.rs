//! From what PKCS#11 has to DER: signatures of ECDSA, public keys, and numbers in them.

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

/// The `SubjectPublicKeyInfo` of an RSA key (RFC 8017, A.1.1); `None` where one of its numbers is zero.
pub(crate) fn rsa_public_key(modulus: &[u8], exponent: &[u8]) -> Option<Vec<u8>> {
    let numbers = [integer(modulus)?, integer(exponent)?].concat();
    public_key(RSA_ENCRYPTION.to_vec(), &tagged(SEQUENCE, numbers)?)
}

/// The `SubjectPublicKeyInfo` of an EC key (RFC 5480, 2) on the curve with this OID, in DER.
pub(crate) fn ec_public_key(curve: &[u8], point: &[u8]) -> Option<Vec<u8>> {
    public_key([EC_PUBLIC_KEY, curve].concat(), point)
}

/// The content of the one OCTET STRING that these bytes are.
pub(crate) fn octet_string(bytes: &[u8]) -> Option<&[u8]> {
    let (head, content) = match bytes {
        [OCTET_STRING, 0x81, ..] => bytes.split_at_checked(3)?,
        _ => bytes.split_at_checked(2)?,
    };
    (tagged(OCTET_STRING, content.to_vec())? == [head, content].concat()).then_some(content)
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

/// rsaEncryption with its NULL (RFC 3279, 2.3.1).
const RSA_ENCRYPTION: &[u8] = &[
    0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0,
];
/// id-ecPublicKey (RFC 5480, 2.1.1).
const EC_PUBLIC_KEY: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];

fn public_key(algorithm: Vec<u8>, bits: &[u8]) -> Option<Vec<u8>> {
    let all_bits_used = [&[0], bits].concat();
    let parts = [
        tagged(SEQUENCE, algorithm)?,
        tagged(BIT_STRING, all_bits_used)?,
    ];
    tagged(SEQUENCE, parts.concat())
}

/// A positive INTEGER: no leading zeros but one before a high bit. Zero is no part of a signature or a key.
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
    let length = u16::try_from(content.len()).ok()?;
    let [high, low] = length.to_be_bytes();
    let mut der = match length {
        0..0x80 => vec![tag, low],
        0x80..0x100 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
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
    fn public_keys_are_in_der() {
        // Of a modulus with a high bit, as all are: it gets a zero. The algorithm has its NULL (RFC 3279).
        let rsa = rsa_public_key(&[0, 0xc1, 0x07], &[1, 0, 1]).unwrap();
        let expected = "301e300d06092a864886f70d0101010500030d00300a020300c1070203010001";
        assert_eq!(hex::encode(&rsa), expected);
        assert_eq!(rsa_public_key(&[0, 0], &[3]), None);
        let ec = ec_public_key(&[0x06, 1, 0x29], &[4, 7, 7]).unwrap();
        let expected = "3014300c06072a8648ce3d0201060129030400040707";
        assert_eq!(hex::encode(ec), expected);
        for (length, head) in [(0x70, 0x70), (0xf0, 0x81), (0x200, 0x82)] {
            assert_eq!(tagged(SEQUENCE, vec![0; length]).unwrap()[1], head);
        }
        assert_eq!(tagged(SEQUENCE, vec![0; 0x1_0000]), None);
    }

    #[test]
    fn octet_strings_are_unwrapped_whole() {
        assert_eq!(octet_string(&[4, 2, 7, 8]), Some(&[7, 8][..]));
        let long = [&[4, 0x81, 0x85][..], &[7; 0x85]].concat();
        assert_eq!(octet_string(&long), Some(&[7; 0x85][..]));
        for bad in [
            &[][..],
            &[4],
            &[4, 2, 7],
            &[4, 2, 7, 8, 9],
            &[5, 1, 7],
            &[4, 0x81, 1, 7],
            &[4, 0x80, 7, 0, 0],
        ] {
            assert_eq!(octet_string(bad), None, "{bad:02x?}");
        }
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
