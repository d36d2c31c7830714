//! PKCS#11 URIs, of the configuration and of the link. One that is shown reads back, but for its PIN.
#![no_main]

use libfuzzer_sys::fuzz_target;
use token::Pkcs11Uri;

fuzz_target!(|text: &str| {
    if let Ok(uri) = text.parse::<Pkcs11Uri>() {
        let shown = Pkcs11Uri { pin: None, ..uri };
        assert_eq!(shown.to_string().parse(), Ok(shown));
    }
});
