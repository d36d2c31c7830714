//! Reads the TPM's own encoding: numbers big-endian, buffers with their length in front.

/// What is left to read. `None` from a method: there is less than asked for.
pub(crate) struct Marshalled<'a>(pub(crate) &'a [u8]);

impl<'a> Marshalled<'a> {
    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// A TPM2B without its length.
    pub(crate) fn tpm2b(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// `Some` when everything was read.
    pub(crate) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// The content of a TPM2B with nothing behind it.
pub(crate) fn tpm2b(bytes: &[u8]) -> Option<&[u8]> {
    let mut reader = Marshalled(bytes);
    let content = reader.tpm2b()?;
    reader.end()?;
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_beyond_the_end() {
        let mut reader = Marshalled(&[0, 0, 0, 7, 0, 2, 8, 9, 1]);
        assert_eq!(reader.u32(), Some(7));
        assert_eq!(reader.tpm2b(), Some(&[8, 9][..]));
        assert_eq!(reader.end(), None);
        assert_eq!(reader.u16(), None);
        assert_eq!(reader.u8(), Some(1));
        assert_eq!(reader.end(), Some(()));
        for bytes in [&[][..], &[0], &[0, 1], &[0, 1, 2, 3], &[0xff, 0xff, 0]] {
            assert_eq!(tpm2b(bytes), None, "{bytes:?}");
        }
    }
}
