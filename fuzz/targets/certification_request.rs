//! What an operator's command wants signed: nothing but a request for the key's own public key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use token::operator::{PublicKeyInfo, check_certification_request};

/// P-256, the key of the seed.
const KEY: &[u8] = include_bytes!("../seeds/certification_request_key.der");

fuzz_target!(|info: &[u8]| {
    let key = PublicKeyInfo(KEY.to_vec());
    if check_certification_request(info, &key).is_ok() {
        // Version 0, a subject, this key and attributes; no SigV4 text and no certificate begins so.
        assert!(info.first() == Some(&0x30));
        assert!(info.windows(KEY.len()).any(|part| part == KEY));
    }
});
