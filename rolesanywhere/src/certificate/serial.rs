//! Serial numbers, in the forms that AWS writes them.

use std::fmt::Write as _;

/// A serial number: a big-endian number in two's complement, as DER has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serial<'c>(pub(super) &'c [u8]);

impl Serial<'_> {
    /// As the credential of SigV4-X509 has it.
    pub fn decimal(self) -> String {
        let (sign, magnitude) = self.magnitude();
        let mut digits = vec![0u8]; // least significant first
        for byte in &magnitude {
            let mut carry = u32::from(*byte);
            for digit in &mut digits {
                carry += u32::from(*digit) << 8;
                *digit = (carry % 10) as u8;
                carry /= 10;
            }
            while carry > 0 {
                digits.push((carry % 10) as u8);
                carry /= 10;
            }
        }
        let digits = digits.iter().rev().map(|digit| char::from(b'0' + digit));
        sign.chars().chain(digits).collect()
    }

    /// As the default role session name has it: lower case, an even number of digits.
    pub fn hex(self) -> String {
        let (sign, magnitude) = self.magnitude();
        let mut text = sign.to_owned();
        let significant = magnitude.iter().skip_while(|byte| **byte == 0);
        for byte in significant {
            let _ = write!(text, "{byte:02x}"); // a String takes any text
        }
        match text.as_str() {
            "" => "00".to_owned(),
            _ => text,
        }
    }

    /// RFC 5280 forbids it.
    pub fn is_negative(self) -> bool {
        self.0.first().is_some_and(|byte| *byte >= 0x80)
    }

    fn magnitude(self) -> (&'static str, Vec<u8>) {
        if !self.is_negative() {
            return ("", self.0.to_vec());
        }
        let mut bytes: Vec<u8> = self.0.iter().map(|byte| !byte).collect();
        for byte in bytes.iter_mut().rev() {
            let (sum, overflowed) = byte.overflowing_add(1);
            *byte = sum;
            if !overflowed {
                break;
            }
        }
        ("-", bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_have_two_texts() {
        for (bytes, decimal, hex) in [
            (&[0][..], "0", "00"),
            (&[], "0", "00"),
            (&[1, 0x23], "291", "0123"),
            (&[0, 1, 0], "256", "0100"),
            (&[0, 0xff], "255", "ff"),
            (&[0xff], "-1", "-01"),
            (&[0x80], "-128", "-80"),
            (&[0xff, 0x00], "-256", "-0100"),
            (
                &[&[0][..], &[0xff; 20]].concat(),
                "1461501637330902918203684832716283019655932542975",
                "ffffffffffffffffffffffffffffffffffffffff",
            ),
        ] {
            assert_eq!(Serial(bytes).decimal(), decimal);
            assert_eq!(Serial(bytes).hex(), hex);
        }
    }
}
