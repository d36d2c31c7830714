//! What a token program, with a vendor's library in it, sends to the agent.
#![no_main]

use libfuzzer_sys::fuzz_target;
use token::link::{FromToken, receive, send};

fuzz_target!(|bytes: &[u8]| {
    let mut from = bytes;
    while let Ok(Some(message)) = receive::<FromToken>(&mut from) {
        let mut again = Vec::new();
        send(&mut again, &message).unwrap();
        assert_eq!(receive(&mut &*again).unwrap(), Some(message));
    }
});
