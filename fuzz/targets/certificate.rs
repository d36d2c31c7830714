//! Certificates in DER, of a file or from a token: as the leaf, and as an intermediate behind a good one.
#![no_main]

use config::certificate::Certificate;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use rolesanywhere::certificate::{self, Chain, SessionFacts};
use token::Signature;

const LEAF: &[u8] = include_bytes!("../seeds/certificate/leaf-p256.der");

fuzz_target!(|der: &[u8]| {
    if let Ok(read) = certificate::Certificate::from_der(der.to_vec()) {
        let _ = SessionFacts::of(&read);
        let anchor = certificate::Certificate::from_der(LEAF.to_vec()).into_iter();
        let anchors: Vec<_> = anchor.collect();
        let now = Timestamp::UNIX_EPOCH;
        let _ = Chain::new(vec![read]).map(|chain| chain.objections(Some(&anchors), now));
    }
    let _ = Certificate::new(vec![LEAF.to_vec(), der.to_vec()]);
    if let Ok(leaf) = Certificate::new(vec![der.to_vec()]) {
        let _ = leaf.check_validity(Timestamp::UNIX_EPOCH);
        // Whatever its key is, a piece of the certificate is no signature.
        let piece = der.get(der.len().saturating_sub(256)..).unwrap_or_default();
        assert!(!leaf.verifies("text", &Signature(piece.to_vec())));
    }
});
