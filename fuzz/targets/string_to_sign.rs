//! What the agent has signed: whatever a token program takes is the text of a Roles Anywhere request.
#![no_main]

use libfuzzer_sys::fuzz_target;
use token::StringToSign;

fuzz_target!(|text: &str| {
    if let Ok(parsed) = text.parse::<StringToSign>() {
        assert_eq!(parsed.to_string(), text);
        let scope = text.split('\n').nth(2).unwrap();
        assert!(scope.ends_with("/rolesanywhere/aws4_request"));
    }
});
