//! What there is to say of keys and certificates.

use cryptoki_sys::*;
use token::operator::Der;
use token::operator::pkcs11::{CertificateReport, KeyAttributes, KeyReport};
use token::{ObjectMatch, Pkcs11Uri, TokenError, TokenMatch};

use super::public_key;
use crate::error::Failure;
use crate::find;
use crate::properties::{Properties, algorithm, flag};
use crate::raw::Session;

/// Of a private key and what belongs to it. `token` is how to name the token.
pub(super) fn private_key(
    session: &Session,
    token: &TokenMatch,
    key: CK_OBJECT_HANDLE,
) -> Result<KeyReport, Failure> {
    let own = find::name(session, key)?;
    let (object, alone) = shortest(session, CKO_PRIVATE_KEY, &own)?;
    let uri = uri(token, object);
    let mut warnings = match Properties::read(session, key, &uri) {
        Ok(properties) => properties.warnings,
        Err(TokenError::Unusable(why)) => vec![why],
        Err(error) => vec![error.to_string()],
    };
    if !alone {
        warnings.push(format!(
            "{uri} names other keys too, and no URI names this one alone: give each an id of its own \
             (pkcs11-tool --set-id)"
        ));
    }
    let certificates = certificates_of(session, token, own.id.as_ref())?;
    if own.id.is_none() {
        warnings.push(
            "it has no CKA_ID, so that no certificate can be found by it: give it one (pkcs11-tool \
             --set-id), or name the certificate in the agent's configuration"
                .to_owned(),
        );
    }
    if certificates.len() > 1 {
        warnings.push(
            "several certificates have its CKA_ID, and the agent cannot tell which one is meant: delete \
             the others, or name the certificate in the agent's configuration"
                .to_owned(),
        );
    }
    Ok(KeyReport {
        uri,
        algorithm: algorithm(session, key)?,
        attributes: attributes(session, key)?,
        public_key: public_key::of_private_key(session, key, own.id.as_deref())?,
        certificates,
        warnings,
    })
}

/// Of a public key whose private key does not show.
pub(super) fn public_key_alone(
    session: &Session,
    token: &TokenMatch,
    key: CK_OBJECT_HANDLE,
) -> Result<KeyReport, Failure> {
    let own = find::name(session, key)?;
    let (object, _) = shortest(session, CKO_PUBLIC_KEY, &own)?;
    Ok(KeyReport {
        uri: uri(token, object),
        algorithm: algorithm(session, key)?,
        attributes: KeyAttributes::default(),
        public_key: public_key::of_object(session, key)?,
        certificates: certificates_of(session, token, own.id.as_ref())?,
        warnings: Vec::new(),
    })
}

/// Of a certificate.
pub(super) fn certificate(
    session: &Session,
    token: &TokenMatch,
    object: CK_OBJECT_HANDLE,
) -> Result<CertificateReport, Failure> {
    let value = session.attribute(object, CKA_VALUE)?;
    Ok(CertificateReport {
        uri: name(session, token, object, "cert")?,
        certificate: Der(value.unwrap_or_default()),
    })
}

/// An object's URI with all that it has: label, id, and what it is.
pub(super) fn name(
    session: &Session,
    token: &TokenMatch,
    object: CK_OBJECT_HANDLE,
    class: &str,
) -> Result<Pkcs11Uri, Failure> {
    let own = ObjectMatch {
        class: Some(class.to_owned()),
        ..find::name(session, object)?
    };
    Ok(uri(token, own))
}

fn uri(token: &TokenMatch, object: ObjectMatch) -> Pkcs11Uri {
    Pkcs11Uri {
        token: token.clone(),
        object,
        module_path: None,
        pin: None,
    }
}

/// The least by which the token finds this object alone; or all that it has, and `false`, where even that
/// finds others.
fn shortest(
    session: &Session,
    class: CK_OBJECT_CLASS,
    own: &ObjectMatch,
) -> Result<(ObjectMatch, bool), Failure> {
    let by_label = ObjectMatch {
        id: None,
        ..own.clone()
    };
    let by_id = ObjectMatch {
        label: None,
        ..own.clone()
    };
    for name in [by_label, by_id] {
        let empty = name == ObjectMatch::default();
        if !empty && find::objects(session, class, &name)?.len() == 1 {
            return Ok((name, true));
        }
    }
    let alone = find::objects(session, class, own)?.len() == 1;
    Ok((own.clone(), alone))
}

fn certificates_of(
    session: &Session,
    token: &TokenMatch,
    id: Option<&Vec<u8>>,
) -> Result<Vec<CertificateReport>, Failure> {
    let Some(id) = id else {
        return Ok(Vec::new());
    };
    let with_id = ObjectMatch {
        id: Some(id.clone()),
        ..ObjectMatch::default()
    };
    let found = find::certificates(session, &with_id)?;
    let report = |object: &CK_OBJECT_HANDLE| certificate(session, token, *object);
    found.iter().map(report).collect()
}

fn attributes(session: &Session, key: CK_OBJECT_HANDLE) -> Result<KeyAttributes, Failure> {
    let flag = |attribute| flag(session, key, attribute);
    Ok(KeyAttributes {
        private_key: true,
        sign: flag(CKA_SIGN)?,
        sensitive: flag(CKA_SENSITIVE)?,
        extractable: flag(CKA_EXTRACTABLE)?,
        always_sensitive: flag(CKA_ALWAYS_SENSITIVE)?,
        never_extractable: flag(CKA_NEVER_EXTRACTABLE)?,
        local: flag(CKA_LOCAL)?,
        always_authenticate: flag(CKA_ALWAYS_AUTHENTICATE)?,
    })
}
