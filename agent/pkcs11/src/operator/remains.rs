//! What is left of a key that could not be made as asked for: a token may fail when the key is there already, as
//! YubiHSM does where it cannot store an id that is not of its own kind.

use cryptoki_sys::*;
use token::{ObjectMatch, Pkcs11Uri, TokenError};

use super::place::Place;
use super::report;
use crate::error::{Failure, is_about_the_template};
use crate::find::objects;
use crate::raw::{KeyPair, Session};

/// Whether there is nothing of that label, as before the try. What cannot be known is not so.
pub(super) fn none(session: &Session, label: &str) -> bool {
    find(session, label).is_ok_and(|remains| remains.is_empty())
}

/// Destroys what has that random id, and so is this try's own: with its label alone, it could be somebody else's.
/// What cannot be destroyed is there still, and will be told of.
pub(super) fn destroy(session: &Session, label: &str, id: &[u8]) {
    for (object, _) in find(session, label).unwrap_or_default() {
        if session.attribute(object, CKA_ID) == Ok(Some(id.to_owned())) {
            let _ = session.destroy_object(object);
        }
    }
}

/// Why there is no key; or what there is all the same.
pub(super) fn told_of(
    place: &Place,
    session: &Session,
    wanted: &Pkcs11Uri,
    label: &str,
    failure: Failure,
) -> TokenError {
    let name = |(object, class)| {
        let name = report::name(session, &place.name, object, class);
        name.map(|uri| uri.to_string())
    };
    let left = find(session, label)
        .and_then(|remains| remains.into_iter().map(name).collect::<Result<Vec<_>, _>>());
    let advice =
        "some tokens take ids of their own kind alone: write one, as id=%00%64 for a YubiHSM";
    match left {
        Ok(left) if left.is_empty() && is_about_the_template(failure.code) => {
            failure.while_doing(format_args!("cannot make {wanted} ({advice})"))
        }
        Ok(left) if left.is_empty() => failure.while_doing(format_args!("cannot make {wanted}")),
        Ok(left) => failure.while_doing(format_args!(
            "cannot make {wanted} as asked for, but now there is {} (unless somebody else made that, destroy \
             it: pkcs11-tool --delete-object; {advice})",
            left.join(", ")
        )),
        Err(unknown) => failure.while_doing(format_args!(
            "cannot make {wanted}, nor see whether something of that label was made ({unknown}): look before \
             another try"
        )),
    }
}

/// Destroys what was made. Says what came of it.
pub(super) fn of_pair(
    session: &Session,
    wanted: &Pkcs11Uri,
    pair: KeyPair,
    error: &TokenError,
) -> TokenError {
    let halves = [("private", pair.private), ("public", pair.public)];
    let left = halves.into_iter().filter_map(|(half, key)| {
        let failure = session.destroy_object(key).err()?;
        Some(format!("the {half} key is still there ({failure})"))
    });
    let left: Vec<String> = left.collect();
    let after = match left.is_empty() {
        true => "it was destroyed again".to_owned(),
        false => format!(
            "{}: look for it by its label, and destroy it (pkcs11-tool --delete-object)",
            left.join(", ")
        ),
    };
    let whole = format!("a key {wanted} was made, but then: {error}; {after}");
    match error {
        TokenError::Gone(_) => TokenError::Gone(whole),
        TokenError::Unusable(_) => TokenError::Unusable(whole),
        _ => TokenError::Broken(whole),
    }
}

/// What there is of a label that no key had before.
fn find(session: &Session, label: &str) -> Result<Vec<(CK_OBJECT_HANDLE, &'static str)>, Failure> {
    let by_label = ObjectMatch {
        label: Some(label.to_owned()),
        ..ObjectMatch::default()
    };
    let mut remains = Vec::new();
    for (number, class) in [(CKO_PRIVATE_KEY, "private"), (CKO_PUBLIC_KEY, "public")] {
        let found = objects(session, number, &by_label)?;
        remains.extend(found.into_iter().map(|object| (object, class)));
    }
    Ok(remains)
}
