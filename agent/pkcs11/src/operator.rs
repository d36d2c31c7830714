//! An operator's tasks.

use token::TokenError;
use token::operator::Outcome;
use token::operator::pkcs11::{Answer, Request};

/// Does one task.
pub(crate) fn work(_request: Request) -> Outcome<Answer> {
    Err(TokenError::Unusable("not built yet".to_owned()))
}
