//! The lengths of RSA keys that IAM Roles Anywhere accepts for a leaf.

/// The lengths, for messages and pages.
pub const RSA_LENGTHS: &str = "2048 to 4096 bits in steps of 8";

/// Returns whether a leaf's RSA key may have a modulus of `bits` bits.
pub const fn is_rsa_length(bits: usize) -> bool {
    2048 <= bits && bits <= 4096 && bits.is_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_bytes_from_2048_to_4096_bits() {
        for bits in [2048, 2056, 2560, 3072, 3584, 4088, 4096] {
            assert!(is_rsa_length(bits), "{bits}");
        }
        for bits in [
            0, 1024, 2040, 2047, 2049, 2052, 3071, 4095, 4097, 4104, 8192,
        ] {
            assert!(!is_rsa_length(bits), "{bits}");
        }
    }
}
