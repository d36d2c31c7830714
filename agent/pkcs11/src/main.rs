//! The token program for PKCS#11: `roleseal-agent` starts one for each token, over a socketpair that is
//! its standard input. The only program of ours that loads a PKCS#11 module.

mod certificate;
mod der;
mod error;
mod find;
mod key;
mod login;
mod open;
mod properties;
mod raw;
mod slot;

use std::process::ExitCode;

fn main() -> ExitCode {
    let about = "signs with keys on a PKCS#11 token";
    let mut library = None;
    token::program::run(env!("CARGO_PKG_NAME"), about, |request, pins| {
        open::open(request, pins, &mut library)
    })
}
