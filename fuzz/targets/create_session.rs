//! Unsigned requests: region, host, query and body, a line each. What was read, written anew, is the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roleseal_agent::create_session::{CONTENT_TYPE, CreateSession};
use wire::UnsignedRequest;

fuzz_target!(|text: &str| {
    let mut lines = text.splitn(4, '\n').map(str::to_owned);
    let mut line = || lines.next().unwrap_or_default();
    let mut unsigned = UnsignedRequest {
        identity: None,
        region: line(),
        host: line(),
        query: line(),
        content_type: CONTENT_TYPE.to_owned(),
        body: line(),
    };
    let endpoints = ["https://localhost:8443".parse().unwrap()];
    let Ok(request) = CreateSession::parse(unsigned.clone(), &endpoints) else {
        return;
    };
    assert_eq!(request.body(), unsigned.body);
    let target = request.target();
    unsigned.query = format!(
        "trustAnchorArn={}&roleArn={}&profileArn={}",
        target.trust_anchor().to_string().replace('+', "%2B"),
        target.role().to_string().replace('+', "%2B"),
        target.profile().to_string().replace('+', "%2B"),
    );
    assert_eq!(CreateSession::parse(unsigned, &endpoints), Ok(request));
});
