//! The one thing that is signed for an operator.

use token::TokenError;
use token::operator::{Der, PublicKeyInfo, check_certification_request};

/// The DER of a `CertificationRequestInfo` for one key: the only thing that is signed for an operator.
pub(crate) struct CheckedRequest<'a>(&'a [u8]);

impl CheckedRequest<'_> {
    pub(crate) fn check<'a>(
        info: &'a Der,
        key: &PublicKeyInfo,
    ) -> Result<CheckedRequest<'a>, TokenError> {
        check_certification_request(&info.0, key).map_err(TokenError::Broken)?;
        Ok(CheckedRequest(&info.0))
    }

    /// The DER.
    pub(crate) fn info(&self) -> &[u8] {
        self.0
    }
}
