//! What any local program may send to the agent's socket.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::codec::{decode_reply, decode_request, encode_reply, encode_request};
use wire::{Call, MESSAGE_LIMIT, Reply};

fuzz_target!(|frame: &[u8]| match decode_request(frame) {
    Ok(request) => assert_eq!(decode_request(&encode_request(&request)), Ok(request)),
    Err(refusal) => {
        let answer = encode_reply(&Reply::Refused(refusal.clone()));
        assert!(answer.len() < MESSAGE_LIMIT);
        assert_eq!(
            decode_reply(&Call::GetInfo, &answer),
            Ok(Reply::Refused(refusal))
        );
    }
});
