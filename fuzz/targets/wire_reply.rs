//! What the CLI reads from the agent's socket, as the answer to each call.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::codec::{decode_reply, encode_reply};
use wire::{Call, UnsignedRequest};

fuzz_target!(|frame: &[u8]| {
    let text = String::new;
    let unsigned = UnsignedRequest {
        identity: None,
        region: text(),
        host: text(),
        query: text(),
        content_type: text(),
        body: text(),
    };
    for call in [
        Call::GetInfo,
        Call::GetInterfaceDescription { interface: text() },
        Call::ListIdentities,
        Call::GetCertificate { identity: None },
        Call::SignCreateSession(unsigned.clone()),
        Call::MayCreateSession(unsigned),
    ] {
        if let Ok(reply) = decode_reply(&call, frame) {
            assert_eq!(decode_reply(&call, &encode_reply(&reply)), Ok(reply));
        }
    }
});
