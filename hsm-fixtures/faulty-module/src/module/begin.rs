//! What comes before each function.

use cryptoki_sys::*;

use crate::call::Call;
use crate::target::target;

pub(super) fn close(session: CK_SESSION_HANDLE) {
    target!(C_CloseSession(session));
}

pub(super) fn begin(function: &str, session: Option<CK_SESSION_HANDLE>) -> Result<Call, CK_RV> {
    Call::begin(function, session, close)
}
