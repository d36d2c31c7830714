//! Files that a command reads, whole and bounded.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use crate::failure::Failure;

/// The largest file that is read, in bytes: a bundle of some hundred CAs.
const FILE_LIMIT: u64 = 1024 * 1024;

/// A file's bytes.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let fault = |what: String| Failure::failed(format!("cannot read {}: {what}", path.display()));
    let file = File::options()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed()) // a FIFO would hold us
        .open(path)
        .map_err(|error| fault(error.to_string()))?;
    let metadata = file.metadata().map_err(|error| fault(error.to_string()))?;
    if !metadata.is_file() || metadata.len() > FILE_LIMIT {
        return Err(fault(format!(
            "it is no file of at most {FILE_LIMIT} bytes"
        )));
    }
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT)
        .read_to_end(&mut bytes)
        .map_err(|error| fault(error.to_string()))?;
    Ok(bytes)
}

/// A file's text.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read_file(path)?)
        .map_err(|_| Failure::failed(format!("{} is no text (UTF-8)", path.display())))
}
