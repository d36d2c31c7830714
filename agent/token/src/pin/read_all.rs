//! Reading a PIN into the memory that is its own.

use std::io::{self, Read};

/// Straight to where the PIN stays: there is no copy of it to wipe. Says how much there is, up to the
/// size of `buffer`.
pub(super) fn read_all(mut file: impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
