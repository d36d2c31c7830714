//! A TPM's persistent handle on the command line.

use std::fmt;
use std::str::FromStr;

/// A persistent handle (`TPM_HT_PERSISTENT`), such as `0x81000101`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handle(pub u32);

/// TPM 2.0 library, part 2: the persistent handles have this as their first byte.
const PERSISTENT: u32 = 0x81;

impl FromStr for Handle {
    type Err = String;

    fn from_str(text: &str) -> Result<Handle, String> {
        let digits = text.strip_prefix("handle:").unwrap_or(text); // as the configuration writes it
        let prefixed = digits
            .strip_prefix("0x")
            .or_else(|| digits.strip_prefix("0X"));
        let digits = prefixed.unwrap_or(digits);
        match u32::from_str_radix(digits, 16) {
            Ok(handle) if handle >> 24 == PERSISTENT && !digits.starts_with('+') => {
                Ok(Handle(handle))
            }
            _ => Err("not a persistent handle: write one from 0x81000000 to 0x81ffffff".to_owned()),
        }
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "0x{:08X}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_persistent_handles_are_taken() {
        for text in [
            "0x81000101",
            "handle:0x81000101",
            "0X81000101",
            "81000101",
            "handle:81000101",
        ] {
            assert_eq!(text.parse(), Ok(Handle(0x8100_0101)));
        }
        assert_eq!(Handle(0x8100_010a).to_string(), "0x8100010A");
        for text in [
            "",
            "0x",
            "80000000",
            "+81000101",
            "0x80000000",
            "0x+1000101",
            "0x8100010100",
            "0x8100010g",
        ] {
            assert!(text.parse::<Handle>().is_err(), "{text}");
        }
    }
}
