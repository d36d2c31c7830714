//! Tokens of pods, before anything of them is verified, and the keys of a cluster.
#![no_main]

use libfuzzer_sys::fuzz_target;
use service_account::{Expected, KeySet};

const KEYS: &[u8] = include_bytes!("../seeds/service_account_token/jwks.json");

fuzz_target!(|data: &[u8]| {
    let _ = KeySet::parse(data);
    let expected = Expected {
        issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
        audience: "roleseal".to_owned(),
        node: "node-1".to_owned(),
    };
    if let (Ok(token), Ok(keys)) = (expected.read(data, 0), KeySet::parse(KEYS)) {
        assert!(token.verify(&keys).is_err(), "nobody has signed it");
    }
});
