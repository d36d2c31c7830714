//! A whole path, verified by OpenSSL: the names that its CAs may issue, and the policies that they demand (RFC 5280,
//! sections 4.2.1.10 and 6).

use jiff::Timestamp;
use openssl::error::ErrorStack;
use openssl::stack::Stack;
use openssl::x509::store::{X509Store, X509StoreBuilder};
use openssl::x509::verify::{X509CheckFlags, X509VerifyFlags, X509VerifyParam};
use openssl::x509::{X509StoreContext, X509StoreContextRef};

use super::certificate::Certificate;

/// Verifies the path from the first of `lower`, the leaf, over the others to `anchor`.
pub(super) fn verify(
    lower: &[&Certificate],
    anchor: &Certificate,
    now: Timestamp,
) -> Result<(), String> {
    let Some((leaf, intermediates)) = lower.split_first() else {
        return Err("there is no leaf".to_owned());
    };
    let verify = || {
        let store = store(anchor, now)?;
        let mut chain = Stack::new()?;
        for intermediate in intermediates {
            chain.push(intermediate.x509().clone())?;
        }
        let mut context = X509StoreContext::new()?;
        context.init(&store, leaf.x509(), &chain, |context| {
            Ok(match context.verify_cert()? {
                true => Ok(()),
                false => Err(fault(context)),
            })
        })
    };
    verify().unwrap_or_else(|error| Err(format!("cannot verify the path: {error}")))
}

/// One trust anchor, which may be an intermediate itself.
fn store(anchor: &Certificate, now: Timestamp) -> Result<X509Store, ErrorStack> {
    let mut rules = X509VerifyParam::new()?;
    rules.set_flags(X509VerifyFlags::PARTIAL_CHAIN | X509VerifyFlags::POLICY_CHECK)?;
    rules.set_time(now.as_second());
    // RFC 5280 does not take the common name for a DNS name, as OpenSSL does without this.
    rules.set_hostflags(X509CheckFlags::NEVER_CHECK_SUBJECT);
    let mut store = X509StoreBuilder::new()?;
    store.add_cert(anchor.x509().clone())?;
    store.set_param(&rules)?;
    Ok(store.build())
}

fn fault(context: &X509StoreContextRef) -> String {
    let subject = context
        .current_cert()
        .map(|certificate| format!("{:?}", certificate.subject_name()));
    let subject = subject.unwrap_or_default();
    format!("OpenSSL on {subject}: {}", context.error().error_string())
}
