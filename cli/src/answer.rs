//! An HTTP answer, before anybody judged it.

use secrecy::SecretSlice;

/// What came back, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `x-amzn-ErrorType`
    pub(crate) error_type: Option<String>,
    /// `Date`
    pub(crate) date: Option<String>,
    /// Credentials, where all went well.
    pub(crate) body: SecretSlice<u8>,
}
