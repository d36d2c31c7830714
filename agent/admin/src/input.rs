//! Files that a command reads, whole and bounded.

use std::path::Path;

use crate::failure::Failure;

/// The largest file that is read, in bytes: a bundle of some hundred CAs.
const FILE_LIMIT: u64 = 1024 * 1024;

/// A file's bytes.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    files::read(path, FILE_LIMIT)
        .map_err(|error| Failure::failed(format!("cannot read {}: {error}", path.display())))
}

/// A file's text.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read_file(path)?)
        .map_err(|_| Failure::failed(format!("cannot read {}: not UTF-8 text", path.display())))
}
