//! PEM files of certificates.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rolesanywhere::certificate::parse_pem;
use config::certificate::Certificate;

fuzz_target!(|text: &str| {
    let _ = parse_pem(text).and_then(Certificate::new);
});
