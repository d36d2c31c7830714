//! What there is to say of keys and certificates.

use std::collections::BTreeSet;

use cryptoki_sys::*;
use token::operator::Der;
use token::operator::pkcs11::{CertificateReport, KeyAttributes, KeyReport};
use token::{ObjectMatch, Pkcs11Uri, TokenError, TokenMatch};

use super::inventory::Lookup;
use super::public_key;
use crate::error::Failure;
use crate::find;
use crate::properties::{Properties, algorithm, flag};
use crate::raw::Session;

/// What is asked of a token to tell of its objects.
pub(super) struct Reporter<'a> {
    pub(super) session: &'a Session,
    /// Where what belongs to an object is.
    pub(super) others: &'a dyn Lookup,
    /// How to name the token.
    pub(super) token: &'a TokenMatch,
}

impl Reporter<'_> {
    /// Of a private key and what belongs to it.
    pub(super) fn private_key(&self, key: CK_OBJECT_HANDLE) -> Result<KeyReport, Failure> {
        let own = find::name(self.session, key)?;
        let (object, alone) = self.shortest(CKO_PRIVATE_KEY, &own)?;
        let uri = uri(self.token, object);
        let (mut warnings, unusable) = match Properties::read(self.session, key, &uri) {
            Ok(properties) => (properties.warnings, None),
            Err(TokenError::Unusable(why)) => (vec![why.clone()], Some(why)),
            Err(error) => (vec![error.to_string()], None),
        };
        if !alone {
            warnings.push(format!(
                "{uri} names other keys too, and no URI names this one alone: give each an id of its own \
                 (pkcs11-tool --set-id)"
            ));
        }
        let certificates = self.certificates_of(own.id.as_ref())?;
        warnings.extend(ambiguities(&own, &certificates));
        let told = public_key::of_private_key(self.session, self.others, key, &own)?;
        let (public_key, by) = told.map(|told| (told.key, told.by)).unzip();
        let by = by.flatten();
        let public_key_from = by.map(|(object, class)| self.name(object, class));
        Ok(KeyReport {
            uri,
            algorithm: algorithm(self.session, key)?,
            attributes: attributes(self.session, key)?,
            public_key,
            public_key_from: public_key_from.transpose()?,
            unusable,
            certificates,
            warnings,
        })
    }

    /// Of a public key whose private key does not show.
    pub(super) fn public_key_alone(&self, key: CK_OBJECT_HANDLE) -> Result<KeyReport, Failure> {
        let own = find::name(self.session, key)?;
        let (object, _) = self.shortest(CKO_PUBLIC_KEY, &own)?;
        Ok(KeyReport {
            uri: uri(self.token, object),
            algorithm: algorithm(self.session, key)?,
            attributes: KeyAttributes::default(),
            public_key: public_key::of_object(self.session, key)?,
            public_key_from: None,
            unusable: None,
            certificates: self.certificates_of(own.id.as_ref())?,
            warnings: Vec::new(),
        })
    }

    /// Of a certificate.
    pub(super) fn certificate(
        &self,
        object: CK_OBJECT_HANDLE,
    ) -> Result<CertificateReport, Failure> {
        let value = self.session.attribute(object, CKA_VALUE)?;
        Ok(CertificateReport {
            uri: self.name(object, "cert")?,
            certificate: Der(value.unwrap_or_default()),
        })
    }

    fn name(&self, object: CK_OBJECT_HANDLE, class: &str) -> Result<Pkcs11Uri, Failure> {
        name(self.session, self.token, object, class)
    }

    /// The least by which the token finds this object alone; or all that it has, and `false`, where even that
    /// finds others.
    fn shortest(
        &self,
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
            if !empty && self.others.matching(class, &name)?.len() == 1 {
                return Ok((name, true));
            }
        }
        let alone = self.others.matching(class, own)?.len() == 1;
        Ok((own.clone(), alone))
    }

    fn certificates_of(&self, id: Option<&Vec<u8>>) -> Result<Vec<CertificateReport>, Failure> {
        let Some(id) = id else {
            return Ok(Vec::new());
        };
        let with_id = ObjectMatch {
            id: Some(id.clone()),
            ..ObjectMatch::default()
        };
        let found = self.others.matching(CKO_CERTIFICATE, &with_id)?;
        found
            .into_iter()
            .map(|object| self.certificate(object))
            .collect()
    }
}

/// Where the agent could not tell which certificate is the key's.
fn ambiguities(own: &ObjectMatch, certificates: &[CertificateReport]) -> Vec<String> {
    let mut warnings = Vec::new();
    if own.id.is_none() {
        warnings.push(
            "it has no CKA_ID, so that no certificate can be found by it: give it one (pkcs11-tool \
             --set-id), or name the certificate in the agent's configuration"
                .to_owned(),
        );
    }
    // Some middleware writes the same certificate twice.
    let contents: BTreeSet<&[u8]> = certificates
        .iter()
        .map(|one| one.certificate.0.as_slice())
        .collect();
    if contents.len() > 1 {
        warnings.push(
            "several certificates have its CKA_ID, and the agent cannot tell which one is meant: delete \
             the others, or name the certificate in the agent's configuration"
                .to_owned(),
        );
    }
    warnings
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
