//! PEM files of certificates.
#![no_main]

use config::certificate::Certificate;
use libfuzzer_sys::fuzz_target;
use rolesanywhere::certificate::parse_pem;

fuzz_target!(|text: &str| {
    let _ = parse_pem(text).and_then(Certificate::new);
});
