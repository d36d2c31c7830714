//! Storing a certificate beside its key.

use cryptoki_sys::*;
use token::{ObjectMatch, Pkcs11Uri, TokenError};
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

use super::place::Place;
use super::{public_key, report, request};
use crate::error::Failure;
use crate::find;
use crate::raw::{ATTRIBUTE_LIMIT, Attribute, Session};

/// Stores it in place of those of the same key. First comes the URI of what was written, then those of what it
/// replaces.
pub(super) fn import(
    place: &Place,
    key: &Pkcs11Uri,
    der: &[u8],
) -> Result<Vec<Pkcs11Uri>, TokenError> {
    let failed = |failure: Failure| {
        failure.while_doing(format_args!("cannot store the certificate of {key}"))
    };
    let owner = owner(place, key, der)?;
    let session = place.writing_session()?;
    let (mut same, mut older) = (Vec::new(), Vec::new());
    for object in &owner.certificates {
        match session.attribute(*object, CKA_VALUE).map_err(failed)? {
            Some(value) if value == der => same.push(*object),
            _ => older.push(*object),
        }
    }
    let kept = match same.pop() {
        Some(there) => there,
        None => create(&session, key, &owner, der)?,
    };
    older.append(&mut same);
    let uri = |object| report::name(&session, &place.name, object, "cert").map_err(failed);
    let mut uris = vec![uri(kept)?];
    for object in older {
        let old = uri(object)?;
        session.destroy_object(object).map_err(|failure| {
            failure.while_doing(format_args!(
                "the certificate is stored, but the one that it replaces is still there, {old}, and the agent \
                 cannot tell which one is meant: destroy that by hand. It cannot be destroyed here"
            ))
        })?;
        uris.push(old);
    }
    Ok(uris)
}

/// The key that a certificate is for, and what is stored beside it.
struct Owner {
    certificate: Certificate,
    name: ObjectMatch,
    /// The certificates with its id that are its own.
    certificates: Vec<CK_OBJECT_HANDLE>,
}

fn owner(place: &Place, key: &Pkcs11Uri, der: &[u8]) -> Result<Owner, TokenError> {
    let unusable = |why: String| Err(TokenError::Unusable(format!("nothing was stored: {why}")));
    let failed = |failure: Failure| failure.while_doing(format_args!("cannot read {key}"));
    let session = &place.session;
    let handle = find::private_key(session, key)?;
    let name = find::name(session, handle).map_err(failed)?;
    if der.len() > ATTRIBUTE_LIMIT {
        return unusable(format!("a certificate has at most {ATTRIBUTE_LIMIT} bytes"));
    }
    let certificate = match Certificate::from_der(der) {
        Ok(certificate) => certificate,
        Err(fault) => return unusable(format!("that is no X.509 certificate in DER: {fault}")),
    };
    let Some(id) = &name.id else {
        return unusable(format!(
            "{key} has no CKA_ID, by which a certificate is its own: give it one (pkcs11-tool --set-id)"
        ));
    };
    let with_id = ObjectMatch {
        id: Some(id.clone()),
        ..ObjectMatch::default()
    };
    let keys = find::objects(session, CKO_PRIVATE_KEY, &with_id).map_err(failed)?;
    if keys.len() > 1 {
        return unusable(format!(
            "several private keys have the CKA_ID of {key}, and the certificate would be that of each: give \
             each an id of its own (pkcs11-tool --set-id)"
        ));
    }
    let public = public_key::of_private_key(session, session.as_ref(), handle, &name)
        .map_err(failed)?
        .ok_or_else(|| request::untold(key))?
        .key;
    let is_own = |other| public_key::same(&public, &other);
    if !public_key::certified(&certificate).is_some_and(is_own) {
        return unusable(format!(
            "the certificate has another public key than {key}: it is another key's"
        ));
    }
    let mut certificates = find::certificates(session, &with_id).map_err(failed)?;
    let mut own = Vec::new();
    for object in certificates.drain(..) {
        let certified = public_key::of_certificate(session, object).map_err(failed)?;
        if certified.is_some_and(is_own) {
            own.push(object);
        }
    }
    Ok(Owner {
        certificate,
        name,
        certificates: own,
    })
}

fn create(
    session: &Session,
    key: &Pkcs11Uri,
    owner: &Owner,
    der: &[u8],
) -> Result<CK_OBJECT_HANDLE, TokenError> {
    let failed = |what: &dyn std::fmt::Display| {
        TokenError::Unusable(format!(
            "nothing was stored: the certificate's names: {what}"
        ))
    };
    let certificate = owner.certificate.tbs_certificate();
    let subject = certificate
        .subject()
        .to_der()
        .map_err(|fault| failed(&fault))?;
    let issuer = certificate
        .issuer()
        .to_der()
        .map_err(|fault| failed(&fault))?;
    let serial = certificate
        .serial_number()
        .to_der()
        .map_err(|fault| failed(&fault))?;
    let class = CKO_CERTIFICATE.to_ne_bytes();
    let kind = CKC_X_509.to_ne_bytes();
    let mut template: Vec<Attribute> = vec![
        (CKA_CLASS, &class),
        (CKA_CERTIFICATE_TYPE, &kind),
        (CKA_TOKEN, &[CK_TRUE]),
        (CKA_PRIVATE, &[CK_FALSE]),
        (CKA_SUBJECT, &subject),
        (CKA_ISSUER, &issuer),
        (CKA_SERIAL_NUMBER, &serial),
        (CKA_VALUE, der),
    ];
    if let Some(id) = &owner.name.id {
        template.push((CKA_ID, id));
    }
    if let Some(label) = &owner.name.label {
        template.push((CKA_LABEL, label.as_bytes()));
    }
    let object = session.create_object(&template).map_err(|failure| {
        failure.while_doing(format_args!("cannot store the certificate of {key}"))
    })?;
    if session.attribute(object, CKA_VALUE) == Ok(Some(der.to_owned())) {
        return Ok(object);
    }
    let after = match session.destroy_object(object) {
        Ok(()) => "it was destroyed again".to_owned(),
        Err(failure) => format!("it is still there ({failure})"),
    };
    Err(TokenError::Broken(format!(
        "the token does not give the certificate of {key} back as it was stored; {after}"
    )))
}
