//! The areas of a key file, which its TPM has marshalled: TPM2B_PUBLIC and TPM2B_PRIVATE.

use token::TokenError;
use tss_esapi::structures::{Private, Public, PublicBuffer};
use tss_esapi::traits::{Marshall, UnMarshall};

use crate::key_file::KeyFile;
use crate::marshalled::tpm2b;
use crate::policy::Policy;

/// Reads what is marshalled in a key file; whether its TPM takes it is another question.
pub fn read_areas(file: &KeyFile) -> Result<(), TokenError> {
    public(file)?;
    private(file)?;
    Policy::read(file)
}

pub(crate) fn public(file: &KeyFile) -> Result<Public, TokenError> {
    tpm2b(&file.public).ok_or_else(malformed)?;
    PublicBuffer::unmarshall(&file.public)
        .and_then(Public::try_from)
        .map_err(|_| malformed())
}

pub(crate) fn private(file: &KeyFile) -> Result<Private, TokenError> {
    tpm2b(&file.private)
        .and_then(|private| Private::try_from(private).ok())
        .ok_or_else(malformed)
}

pub(crate) fn malformed() -> TokenError {
    TokenError::Unusable("public or private area are malformed: make the file again".to_owned())
}

/// Both as a key file has them.
pub(crate) fn marshal(public: &Public, private: &Private) -> tss_esapi::Result<(Vec<u8>, Vec<u8>)> {
    let public = PublicBuffer::try_from(public.clone())?.marshall()?;
    let length = u16::try_from(private.len()).unwrap_or(u16::MAX); // a TPM2B holds no more
    let private = [&length.to_be_bytes()[..], private].concat();
    Ok((public, private))
}
