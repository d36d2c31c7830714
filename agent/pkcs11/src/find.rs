//! Which object a URI means, on the token that is open.

use cryptoki_sys::*;
use token::{ObjectMatch, Pkcs11Uri, TokenError};

use crate::error::Failure;
use crate::raw::{Attribute, Session};

/// The one private key that the URI names.
pub(crate) fn private_key(
    session: &Session,
    wanted: &Pkcs11Uri,
) -> Result<CK_OBJECT_HANDLE, TokenError> {
    if let Some(class) = &wanted.object.class
        && class != "private"
    {
        return Err(TokenError::Unusable(format!(
            "{wanted} does not name a private key: write type=private, or leave type={class} out"
        )));
    }
    let failed = |failure: Failure| failure.while_doing(format_args!("cannot search for {wanted}"));
    let found = objects(session, CKO_PRIVATE_KEY, &wanted.object).map_err(failed)?;
    match found.as_slice() {
        [key] => Ok(*key),
        [] => {
            let all = objects(session, CKO_PRIVATE_KEY, &ObjectMatch::default()).map_err(failed)?;
            let there = describe(session, wanted, &all).map_err(failed)?;
            Err(TokenError::Unusable(match there.as_slice() {
                [] if session.hides_private_objects() => format!(
                    "no private key matches {wanted}: the token shows none without a login, so give its PIN (pin in the \
                     agent's configuration, --pin-file for a command)"
                ),
                [] => format!(
                    "no private key matches {wanted}: the token shows none at all, so make one on it, \
                     or correct the URI's token"
                ),
                there => format!(
                    "no private key matches {wanted}; there are: {}",
                    list(there)
                ),
            }))
        }
        several => {
            let candidates = describe(session, wanted, several).map_err(failed)?;
            Err(TokenError::Unusable(format!(
                "several private keys match {wanted}: write which one is meant: {}",
                list(&candidates)
            )))
        }
    }
}

/// How many objects are looked at, and listed in an error.
pub(crate) const OBJECT_LIMIT: usize = 20;

/// The objects of this class that match; one more than [`OBJECT_LIMIT`] at the most.
pub(crate) fn objects(
    session: &Session,
    class: CK_OBJECT_CLASS,
    wanted: &ObjectMatch,
) -> Result<Vec<CK_OBJECT_HANDLE>, Failure> {
    objects_up_to(OBJECT_LIMIT + 1, session, class, wanted)
}

/// The objects of this class that match; no more than `limit`.
pub(crate) fn objects_up_to(
    limit: usize,
    session: &Session,
    class: CK_OBJECT_CLASS,
    wanted: &ObjectMatch,
) -> Result<Vec<CK_OBJECT_HANDLE>, Failure> {
    session.find(&template(&class.to_ne_bytes(), wanted), limit)
}

/// The certificates that match: those that are stored, and no others where there are any. A YubiKey's module
/// (libykcs11) also shows attestations, which the key makes itself, under its own id.
pub(crate) fn certificates(
    session: &Session,
    wanted: &ObjectMatch,
) -> Result<Vec<CK_OBJECT_HANDLE>, Failure> {
    let class = CKO_CERTIFICATE.to_ne_bytes();
    let mut stored = template(&class, wanted);
    stored.push((CKA_TOKEN, &[CK_TRUE]));
    match session.find(&stored, OBJECT_LIMIT + 1) {
        Ok(found) if !found.is_empty() => Ok(found),
        // There are none, or the token does not know that attribute.
        _ => objects(session, CKO_CERTIFICATE, wanted),
    }
}

fn template<'a>(class: &'a [u8], wanted: &'a ObjectMatch) -> Vec<Attribute<'a>> {
    let mut template = vec![(CKA_CLASS, class)];
    if let Some(label) = &wanted.label {
        template.push((CKA_LABEL, label.as_bytes()));
    }
    if let Some(id) = &wanted.id {
        template.push((CKA_ID, id));
    }
    template
}

/// A URI for each object: what `wanted` says of the token, and the object's own label and id.
pub(crate) fn describe(
    session: &Session,
    wanted: &Pkcs11Uri,
    objects: &[CK_OBJECT_HANDLE],
) -> Result<Vec<Pkcs11Uri>, Failure> {
    let uri = |object: &CK_OBJECT_HANDLE| {
        Ok(Pkcs11Uri {
            token: wanted.token.clone(),
            object: name(session, *object)?,
            module_path: wanted.module_path.clone(),
            pin: None,
        })
    };
    objects.iter().map(uri).collect()
}

/// The object's own label and id.
pub(crate) fn name(session: &Session, object: CK_OBJECT_HANDLE) -> Result<ObjectMatch, Failure> {
    let label = session.attribute(object, CKA_LABEL)?.unwrap_or_default();
    let label = String::from_utf8(label).ok();
    let id = session.attribute(object, CKA_ID)?;
    Ok(ObjectMatch {
        label: label.filter(|label| !label.is_empty()),
        id: id.filter(|id| !id.is_empty()),
        class: None,
    })
}

/// The URIs, to be read by a person: bounded, and with a hint where copying one would not help.
pub(crate) fn list(uris: &[Pkcs11Uri]) -> String {
    let shown = uris.iter().take(OBJECT_LIMIT);
    let mut text = shown
        .map(Pkcs11Uri::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    if uris.len() > OBJECT_LIMIT {
        text += " and more";
    }
    // A URI also means the objects that have more attributes than it says.
    let means = |uri: &Pkcs11Uri, other: &Pkcs11Uri| {
        (uri.object.label.is_none() || uri.object.label == other.object.label)
            && (uri.object.id.is_none() || uri.object.id == other.object.id)
    };
    let ambiguous = |uri: &&Pkcs11Uri| uris.iter().filter(|other| means(uri, other)).count() > 1;
    if let Some(uri) = uris.iter().find(ambiguous) {
        text += &format!(
            " (even {uri} names several of them: give each an id of its own, as with \
             pkcs11-tool --set-id)"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uris(texts: &[&str]) -> Vec<Pkcs11Uri> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_list_says_where_copying_does_not_help() {
        let text = list(&uris(&[
            "pkcs11:object=web;id=%01",
            "pkcs11:object=web;id=%02",
        ]));
        assert_eq!(text, "pkcs11:object=web;id=%01, pkcs11:object=web;id=%02");
        for twins in [
            ["pkcs11:object=web;id=%01", "pkcs11:object=web;id=%01"],
            ["pkcs11:object=web", "pkcs11:object=web;id=%01"],
        ] {
            let text = list(&uris(&twins));
            assert!(text.contains(&format!("even {}", twins[0])), "{text}");
        }
    }

    #[test]
    fn a_list_ends() {
        let all: Vec<Pkcs11Uri> = (0..=OBJECT_LIMIT)
            .map(|number| format!("pkcs11:object=k{number}").parse().unwrap())
            .collect();
        let text = list(&all);
        assert!(text.ends_with("pkcs11:object=k19 and more"), "{text}");
    }
}
