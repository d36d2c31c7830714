//! Which key is meant where a URI names several: the one that belongs to the certificate.

use cryptoki_sys::*;
use token::TokenError;
use token::link::{CertificateOnToken, OpenKey};
use token::operator::PublicKeyInfo;

use crate::error::Failure;
use crate::find;
use crate::operator::public_key;
use crate::raw::Session;

/// So many keys of one name are looked at.
const CANDIDATES: usize = 1000;

/// The one private key that the URI and the certificate name together.
pub(crate) fn private_key(
    session: &Session,
    wanted: &OpenKey,
) -> Result<CK_OBJECT_HANDLE, TokenError> {
    let ambiguous = match find::private_key(session, &wanted.uri) {
        Err(error @ TokenError::Unusable(_)) => error,
        result => return result,
    };
    let failed = |failure: Failure| {
        failure.while_doing(format_args!("cannot search for the key of {}", wanted.uri))
    };
    let object = &wanted.uri.object;
    if !matches!(object.class.as_deref(), None | Some("private")) {
        return Err(ambiguous);
    }
    let candidates = find::objects_up_to(CANDIDATES, session, CKO_PRIVATE_KEY, object);
    let candidates = candidates.map_err(failed)?;
    let certified = match candidates.len() {
        0 | 1 => return Err(ambiguous),
        _ => certified(session, wanted).map_err(failed)?,
    };
    let mut belonging = Vec::new();
    for key in candidates {
        if belongs(session, key, certified.as_ref()).map_err(failed)? {
            belonging.push(key);
        }
    }
    match belonging.as_slice() {
        [key] => Ok(*key),
        _ => Err(ambiguous),
    }
}

/// The public keys of the certificate; `None` where the key's own certificate is wanted.
fn certified(session: &Session, wanted: &OpenKey) -> Result<Option<Vec<PublicKeyInfo>>, Failure> {
    match &wanted.certificate {
        None => {
            let public_key = wanted.public_key.clone().map(PublicKeyInfo);
            Ok(Some(public_key.into_iter().collect()))
        }
        Some(CertificateOnToken::OfTheKey) => Ok(None),
        Some(CertificateOnToken::Named(uri)) => {
            let mut keys: Vec<PublicKeyInfo> = Vec::new();
            for object in find::certificates(session, &uri.object)? {
                keys.extend(public_key::of_certificate(session, object)?);
            }
            Ok(Some(keys))
        }
    }
}

fn belongs(
    session: &Session,
    key: CK_OBJECT_HANDLE,
    certified: Option<&Vec<PublicKeyInfo>>,
) -> Result<bool, Failure> {
    let name = find::name(session, key)?;
    let own;
    let certified = match (certified, &name.id) {
        (Some(certified), _) => certified,
        (None, None) => return Ok(false),
        (None, Some(_)) => {
            let with_id = token::ObjectMatch {
                id: name.id.clone(),
                ..token::ObjectMatch::default()
            };
            let mut keys: Vec<PublicKeyInfo> = Vec::new();
            for object in find::certificates(session, &with_id)? {
                keys.extend(public_key::of_certificate(session, object)?);
            }
            own = keys;
            &own
        }
    };
    if certified.is_empty() {
        return Ok(false);
    }
    let told = public_key::of_private_key(session, session, key, &name)?;
    Ok(told.is_some_and(|told| {
        let same = |other: &PublicKeyInfo| public_key::same(&told.key, other);
        certified.iter().any(same)
    }))
}
