//! Files of certificate requests, PEM or DER: what is read is written as PEM that says the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rolesanywhere::certificate::CertificationRequest;

fuzz_target!(|file: &[u8]| {
    if let Ok(request) = CertificationRequest::parse(file) {
        let pem = request
            .to_pem()
            .expect("a request that was read is written");
        assert_eq!(CertificationRequest::from_pem(&pem), Ok(request));
    }
});
