//! Destroying a key with what belongs to it.

use cryptoki_sys::*;
use token::operator::pkcs11::KeyReport;
use token::{ObjectMatch, Pkcs11Uri, TokenError};

use super::place::Place;
use super::report;
use crate::error::Failure;
use crate::find;

/// Destroys the one private key that the URI names, then its public key and certificates. In that order: as
/// long as the key works, so does its certificate.
pub(super) fn key(
    place: &Place,
    key: &Pkcs11Uri,
    shown: &KeyReport,
) -> Result<Vec<Pkcs11Uri>, TokenError> {
    let failed = |failure: Failure| failure.while_doing(format_args!("cannot read {key}"));
    let private = find::private_key(&place.session, key)?;
    let found = place.reporter().private_key(private).map_err(failed)?;
    if found != *shown {
        return Err(TokenError::Unusable(format!(
            "{key}: the key or its certificates are not those that were shown any more: nothing was destroyed; \
             run the command again, and look at what is there now"
        )));
    }
    let uri = |object, class| report::name(&place.session, &place.name, object, class);
    let mut doomed = vec![(private, uri(private, "private").map_err(failed)?)];
    if let Some(belongings) = belongings(place, private).map_err(failed)? {
        let session = &place.session;
        let public = find::objects(session, CKO_PUBLIC_KEY, &belongings).map_err(failed)?;
        let certificates = find::certificates(session, &belongings).map_err(failed)?;
        for (objects, class) in [(public, "public"), (certificates, "cert")] {
            for object in objects {
                doomed.push((object, uri(object, class).map_err(failed)?));
            }
        }
    }
    let session = place.writing_session()?;
    let mut destroyed = Vec::new();
    for (object, uri) in doomed {
        session.destroy_object(object).map_err(|failure| {
            failure.while_doing(format_args!(
                "{}, but not {uri}: destroy it by hand (pkcs11-tool --delete-object). It cannot be destroyed here",
                said(&destroyed)
            ))
        })?;
        destroyed.push(uri);
    }
    Ok(destroyed)
}

fn said(destroyed: &[Pkcs11Uri]) -> String {
    let uris: Vec<String> = destroyed.iter().map(Pkcs11Uri::to_string).collect();
    match uris.as_slice() {
        [] => "nothing was destroyed".to_owned(),
        uris => format!("destroyed {}", uris.join(", ")),
    }
}

/// What public key and certificates of this private key have: its id; and its label, where another private
/// key has that id, too. `None` where nothing tells whose they are.
fn belongings(place: &Place, private: CK_OBJECT_HANDLE) -> Result<Option<ObjectMatch>, Failure> {
    let own = find::name(&place.session, private)?;
    if own.id.is_none() {
        return Ok(None);
    }
    let by_id = ObjectMatch {
        label: None,
        ..own.clone()
    };
    for name in [by_id, own] {
        if find::objects(&place.session, CKO_PRIVATE_KEY, &name)?.len() == 1 {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
