//! The certificate of a key, read from the token.

use cryptoki_sys::*;
use token::link::{CertificateOnToken, FoundCertificate, OpenKey};
use token::{ObjectMatch, Pkcs11Uri, TokenError};

use crate::error::Failure;
use crate::find;
use crate::issuers::Issuers;
use crate::properties::Properties;
use crate::slot::Token;

/// The certificate, and those that may have issued it. To be called after the login: certificates may be private
/// objects.
pub(crate) fn read(
    issuers: &Issuers,
    token: &Token,
    key: &OpenKey,
    certificate: &CertificateOnToken,
    properties: &Properties,
) -> Result<FoundCertificate, TokenError> {
    let session = issuers.session();
    let wanted = match certificate {
        CertificateOnToken::OfTheKey => of_the_key(&key.uri, properties)?,
        CertificateOnToken::Named(uri) => named(uri, token)?,
    };
    let failed =
        |failure: Failure| failure.while_doing(format_args!("cannot read certificate {wanted}"));
    let objects = find::certificates(session, &wanted.object).map_err(failed)?;
    let mut ders = Vec::new();
    for object in &objects {
        ders.extend(session.attribute(*object, CKA_VALUE).map_err(failed)?);
    }
    // Some middleware writes the same certificate twice.
    ders.sort_unstable();
    ders.dedup();
    match (ders.pop(), ders.is_empty()) {
        (Some(der), true) if !der.is_empty() => Ok(FoundCertificate {
            issuers: issuers.of(&der).map_err(failed)?,
            der,
        }),
        (Some(_), false) => Err(TokenError::Unusable(format!(
            "several certificates match {wanted}: write certificate = \"FILE\", or which one is meant: {}",
            find::list(&find::describe(session, &wanted, &objects).map_err(failed)?)
        ))),
        _ => Err(TokenError::Unusable(format!(
            "no certificate matches {wanted}: write certificate = \"FILE\", or store it on the token \
             (pkcs11-tool --write-object cert.der --type cert --id ID)"
        ))),
    }
}

fn of_the_key(key: &Pkcs11Uri, properties: &Properties) -> Result<Pkcs11Uri, TokenError> {
    if properties.id.is_none() {
        return Err(TokenError::Unusable(format!(
            "{key} has no CKA_ID by which to find its certificate: write certificate = \"FILE\""
        )));
    }
    Ok(Pkcs11Uri {
        token: key.token.clone(),
        object: ObjectMatch {
            label: None,
            id: properties.id.clone(),
            class: Some("cert".to_owned()),
        },
        module_path: key.module_path.clone(),
        pin: None,
    })
}

fn named(uri: &Pkcs11Uri, token: &Token) -> Result<Pkcs11Uri, TokenError> {
    if !token.matches(&uri.token) {
        return Err(TokenError::Unusable(format!(
            "certificate {uri} is on another token than its key ({token}): \
             export it and write certificate = \"FILE\""
        )));
    }
    match uri.object.class.as_deref() {
        None | Some("cert") => Ok(uri.clone()),
        Some(class) => Err(TokenError::Unusable(format!(
            "{uri} does not name a certificate: write type=cert, or leave type={class} out"
        ))),
    }
}
