//! `roleseal-tpm`, the token program for TPM 2.0: `roleseal-agent` starts one for each TPM, over a socketpair
//! that is its standard input. The only program of ours that is linked to libtss2.
//!
//! A library as well, so that what reads key files can be fuzzed.

mod areas;
mod asn1;
mod attestation_key;
mod auth;
mod auth_value;
mod caller;
mod connection;
mod error;
mod key;
pub mod key_file;
mod lockout;
mod marshalled;
mod open;
mod operator;
mod parent;
mod pcr;
mod policy;
mod primary_template;
mod sandbox;
mod scheme;
mod spki;
mod storage_primary;
mod tpm;

use std::process::ExitCode;

pub use areas::read_areas;

use operator::Operator;

/// The program.
pub fn run() -> ExitCode {
    let about = "signs with keys of a TPM 2.0";
    let name = env!("CARGO_PKG_NAME");
    let mut operator = Operator::default();
    let status = token::program::run(name, about, sandbox::confine, open::open, |request, _| {
        operator.work(request)
    });
    ExitCode::from(status)
}
