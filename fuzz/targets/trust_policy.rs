//! Trust policies, in the eyes of a session that IAM Roles Anywhere asks for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trust_policy::{Context, TrustPolicy};

fuzz_target!(|json: &str| {
    let Ok(policy) = TrustPolicy::parse(json) else {
        return;
    };
    let context = Context::new()
        .with("aws:PrincipalTag/x509Subject/CN", "web")
        .with("aws:SourceAccount", "123456789012");
    let decision = policy.for_roles_anywhere(&context);
    assert_eq!(decision.allowed(), decision.failing().next().is_none());
    let _ = decision.reason();
});
