//! `roleseal-pkcs11`, the token program for PKCS#11: `roleseal-agent` starts one for each token, over a
//! socketpair that is its standard input. The only program of ours that loads a PKCS#11 module.
//!
//! A library as well, so that its calls can be measured without what is around them.

mod certificate;
mod checked_request;
mod der;
mod error;
mod find;
mod issuers;
mod key;
mod key_choice;
mod login;
mod mechanism_name;
mod module;
mod network;
mod open;
mod operator;
mod p11_kit;
mod properties;
pub mod raw;
mod sandbox;
mod slot;
mod softhsm_store;
mod unbroken;

pub use error::Failure;

/// The program. Exits by `_exit`, once `C_Finalize` was called: at a normal exit the destructors of modules run, in no
/// order with those of the libraries that they use. With SoftHSM 2.6 on a busy machine some ends were a SIGABRT
/// (`double free or corruption`).
pub fn run() -> ! {
    let status = status();
    signal_hook::low_level::exit(status.into())
}

/// Does the work and returns the exit status; every module is finalized by then.
fn status() -> u8 {
    let about = "signs with keys on a PKCS#11 token";
    let mut library = None;
    let open = |request, pins: &token::host::PinGuard| open::open(request, pins, &mut library);
    let mut operator = operator::Operator::default();
    let name = env!("CARGO_PKG_NAME");
    token::program::run(name, about, sandbox::confine, open, |request, tell| {
        operator.work(request, tell)
    })
}
