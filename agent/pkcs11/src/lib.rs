//! `roleseal-pkcs11`, the token program for PKCS#11: `roleseal-agent` starts one for each token, over a
//! socketpair that is its standard input. The only program of ours that loads a PKCS#11 module.
//!
//! A library as well, so that its calls can be measured without what is around them.

mod certificate;
mod der;
mod error;
mod find;
mod key;
mod login;
mod open;
mod operator;
mod properties;
pub mod raw;
mod sandbox;
mod slot;

use std::process::ExitCode;

pub use error::Failure;

/// The program.
pub fn run() -> ExitCode {
    let about = "signs with keys on a PKCS#11 token";
    let mut library = None;
    let open = |request, pins: &token::host::PinGuard| open::open(request, pins, &mut library);
    let mut operator = operator::Operator::default();
    let work = |request| operator.work(request);
    let name = env!("CARGO_PKG_NAME");
    token::program::run(name, about, sandbox::confine, open, work)
}
