//! PEM files of certificates.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roleseal_agent::certificate::{Certificate, parse_pem};

fuzz_target!(|text: &str| {
    let _ = parse_pem(text).and_then(Certificate::new);
});
