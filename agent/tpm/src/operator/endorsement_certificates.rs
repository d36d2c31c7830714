//! The certificates that the TPM's maker has put into it, for its endorsement keys.

use der::{Reader, SliceReader};
use token::operator::Der;
use tss_esapi::handles::{NvIndexHandle, TpmHandle};
use tss_esapi::interface_types::resource_handles::NvAuth;
use tss_esapi::interface_types::session_handles::AuthSession;

use crate::error::Failure;
use crate::tpm::Tpm;

/// TCG EK Credential Profile 2.5, 2.2.1.4 and 2.2.1.5: RSA 2048 and P-256 of the low range; RSA 2048, P-256, P-384,
/// P-521, SM2, RSA 3072 and RSA 4096 of the high one.
const INDICES: [u32; 9] = [
    FIRST,
    0x01c0_000a,
    0x01c0_0012,
    0x01c0_0014,
    0x01c0_0016,
    0x01c0_0018,
    0x01c0_001a,
    0x01c0_001c,
    0x01c0_001e,
];

const FIRST: u32 = 0x01c0_0002;

/// More indices than the profile has in that range.
const INDEX_LIMIT: u32 = 64;

/// A certificate is not larger, in bytes; these have one or two KiB.
const SIZE_LIMIT: usize = 8192;

/// Read at once, in bytes: far less than the TPM_PT_NV_BUFFER_MAX of TPMs, which begins at 512.
const PIECE: u16 = 256;

/// Each that is there and that everybody may read.
pub(super) fn read(tpm: &mut Tpm) -> Result<Vec<Der>, Failure> {
    let (handles, _) = tpm.handles_from(FIRST, INDEX_LIMIT)?;
    let mut certificates = Vec::new();
    for handle in handles {
        if INDICES.contains(&u32::from(handle))
            && let Some(area) = read_area(tpm, handle)?
        {
            certificates.extend(first_element(&area).map(Der));
        }
    }
    Ok(certificates)
}

/// `None` where it may not be read by its empty auth value, which is tried only where it cannot count.
fn read_area(tpm: &mut Tpm, handle: TpmHandle) -> Result<Option<Vec<u8>>, Failure> {
    const READ_PUBLIC: &str = "TPM2_NV_ReadPublic";
    let index = tpm.run(READ_PUBLIC, |context| {
        context.tr_from_tpm_public(handle).map(NvIndexHandle::from)
    })?;
    let (public, _) = tpm.run(READ_PUBLIC, |context| context.nv_read_public(index))?;
    let attributes = public.attributes();
    let readable = attributes.written() && attributes.auth_read() && attributes.no_da();
    let size = u16::try_from(public.data_size().min(SIZE_LIMIT)).unwrap_or(u16::MAX);
    let mut area = Vec::new();
    let mut offset = 0;
    while readable && offset < size {
        let length = PIECE.min(size - offset);
        let session = Some(AuthSession::Password);
        let read = tpm.run_with(session, "TPM2_NV_Read", |context| {
            context.nv_read(NvAuth::NvIndex(index), index, length, offset)
        });
        match read {
            Ok(bytes) if !bytes.is_empty() => area.extend_from_slice(&bytes),
            Err(failure) if failure.is_without_answer() => return Err(failure),
            _ => return Ok(None),
        }
        offset += length;
    }
    Ok(readable.then_some(area))
}

/// The certificate itself: some indices are longer, and filled up.
fn first_element(area: &[u8]) -> Option<Vec<u8>> {
    const SEQUENCE: u8 = 0x30;
    let element = SliceReader::new(area).and_then(|mut reader| reader.tlv_bytes());
    element
        .ok()
        .filter(|element| element.first() == Some(&SEQUENCE))
        .map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fills_an_index_up_is_left_out() {
        let certificate = [0x30, 3, 2, 1, 7];
        for rest in [&[][..], &[0; 9], &[0xff; 9]] {
            let area = [&certificate[..], rest].concat();
            assert_eq!(first_element(&area).as_deref(), Some(&certificate[..]));
        }
        for area in [&[][..], &[0; 9], &[0xff; 9], &certificate[..4], &[2, 1, 7]] {
            assert_eq!(first_element(area), None, "{area:?}");
        }
    }
}
