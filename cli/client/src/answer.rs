//! An HTTP answer, before anybody judged it.

use secrecy::SecretSlice;

/// What came back, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// Of HTTP.
    pub status: u16,
    /// `x-amzn-ErrorType`
    pub error_type: Option<String>,
    /// `Date`
    pub date: Option<String>,
    /// `Retry-After`
    pub retry_after: Option<String>,
    /// Credentials, where all went well.
    pub body: SecretSlice<u8>,
}
