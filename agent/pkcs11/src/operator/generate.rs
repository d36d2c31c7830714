//! Making a key pair.

use cryptoki_sys::*;
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest, Sha256};
use token::operator::pkcs11::KeyReport;
use token::operator::{KeyType, PublicKeyInfo};
use token::{ObjectMatch, Pkcs11Uri, TokenError};

use super::place::Place;
use super::report::{self, Reporter};
use super::{public_key, remains};
use crate::error::{Failure, may_be_the_template};
use crate::find;
use crate::properties::{P256, P384, flag};
use crate::raw::{Attribute, KeyPair, Session};

/// Makes the pair, where there is none of that name yet; or leaves nothing behind.
pub(super) fn key_pair(
    place: &Place,
    wanted: &Pkcs11Uri,
    key_type: KeyType,
) -> Result<KeyReport, TokenError> {
    let label = label(wanted)?;
    check_free(place, wanted, label)?;
    let session = place.writing_session()?;
    let pair = match &wanted.object.id {
        Some(id) => generate(&session, key_type, label, Some(id)),
        None => generate_with_any_id(&session, key_type, label, &random_id()?),
    }
    .map_err(|failure| match is_about_the_kind(failure.code) {
        true if remains::none(&session, label) => cannot_make(place, key_type, failure),
        _ => remains::told_of(place, &session, wanted, label, failure),
    })?;
    finish(place, &session, wanted, &pair)
        .map_err(|error| remains::of_pair(&session, wanted, pair.keys, &error))
}

/// A key pair that was made.
struct Made {
    keys: KeyPair,
    /// Whether the token took a template by which the key is sensitive and not extractable.
    was_told_to_keep_it: bool,
}

fn is_about_the_kind(code: CK_RV) -> bool {
    matches!(
        code,
        CKR_MECHANISM_INVALID
            | CKR_CURVE_NOT_SUPPORTED
            | CKR_DOMAIN_PARAMS_INVALID
            | CKR_KEY_SIZE_RANGE
    )
}

fn cannot_make(place: &Place, key_type: KeyType, failure: Failure) -> TokenError {
    let no_mechanism = failure.code == CKR_MECHANISM_INVALID;
    let (kind, other) = match key_type {
        KeyType::EcP256 | KeyType::EcP384 if no_mechanism => ("EC".to_owned(), KeyType::Rsa2048),
        KeyType::EcP256 => (key_type.to_string(), KeyType::Rsa2048),
        KeyType::EcP384 => (key_type.to_string(), KeyType::EcP256),
        _ if no_mechanism => ("RSA".to_owned(), KeyType::EcP256),
        KeyType::Rsa2048 => (key_type.to_string(), KeyType::EcP256),
        _ => (key_type.to_string(), KeyType::Rsa2048),
    };
    TokenError::Unusable(format!(
        "{} makes no {kind} keys ({failure}): choose another type, such as --type {other}",
        place.token
    ))
}

fn label(wanted: &Pkcs11Uri) -> Result<&str, TokenError> {
    let fault = |what| Err(TokenError::Unusable(format!("{wanted} {what}")));
    match &wanted.object {
        ObjectMatch {
            class: Some(class), ..
        } if class != "private" => fault("does not name a private key: leave its type out"),
        ObjectMatch { id: Some(id), .. } if id.is_empty() => {
            fault("has an empty id: leave it out, and the key gets one made from its public key")
        }
        ObjectMatch {
            label: Some(label), ..
        } if !label.is_empty() => Ok(label),
        _ => fault("has no label for the new key: write object=LABEL"),
    }
}

/// Not a second key of the label, nor of the id if one is given; nor one beside the remains of another.
fn check_free(place: &Place, wanted: &Pkcs11Uri, label: &str) -> Result<(), TokenError> {
    let failed = |failure: Failure| failure.while_doing(format_args!("cannot search for {wanted}"));
    let by_label = ObjectMatch {
        label: Some(label.to_owned()),
        ..ObjectMatch::default()
    };
    let by_id = wanted.object.id.as_ref().map(|id| ObjectMatch {
        id: Some(id.clone()),
        ..ObjectMatch::default()
    });
    let names = [
        (CKO_PRIVATE_KEY, "private", Some(&by_label)),
        (CKO_PUBLIC_KEY, "public", Some(&by_label)),
        (CKO_PRIVATE_KEY, "private", by_id.as_ref()),
        (CKO_PUBLIC_KEY, "public", by_id.as_ref()),
        (CKO_CERTIFICATE, "cert", by_id.as_ref()),
    ];
    for (number, class, name) in names {
        let Some(name) = name else { continue };
        let found = find::objects(&place.session, number, name).map_err(failed)?;
        if let Some(object) = found.first() {
            let there =
                report::name(&place.session, &place.name, *object, class).map_err(failed)?;
            return Err(TokenError::Unusable(format!(
                "no key was made: {there} is there already; choose another label{}, or delete that first",
                if wanted.object.id.is_some() {
                    " and id"
                } else {
                    ""
                }
            )));
        }
    }
    Ok(())
}

/// `CKA_ID`s have the length that RFC 7093 gives to key identifiers.
const ID_LENGTH: usize = 20;

/// For as long as the public key is not known.
fn random_id() -> Result<Vec<u8>, TokenError> {
    let mut id = vec![0; ID_LENGTH];
    getrandom(&mut id, GetRandomFlags::empty())
        .map_err(|error| TokenError::Broken(format!("no random bytes for an id: {error}")))?;
    Ok(id)
}

/// The key identifier of RFC 7093, method 1: the first 160 bits of SHA-256 of `subjectPublicKey`.
fn id_of(public: &PublicKeyInfo) -> Option<Vec<u8>> {
    let hash = Sha256::digest(public_key::bits(public)?);
    hash.get(..ID_LENGTH).map(<[u8]>::to_vec)
}

/// With this id; or with one that the token chooses, as YubiHSM must, which has no room for one of that length.
fn generate_with_any_id(
    session: &Session,
    key_type: KeyType,
    label: &str,
    id: &[u8],
) -> Result<Made, Failure> {
    let failure = match generate(session, key_type, label, Some(id)) {
        Err(failure) => failure,
        made => return made,
    };
    remains::destroy(session, label, id);
    match may_try_again(session, label, failure) {
        true => generate(session, key_type, label, None),
        false => Err(failure),
    }
}

fn generate(
    session: &Session,
    key_type: KeyType,
    label: &str,
    id: Option<&[u8]>,
) -> Result<Made, Failure> {
    let kind = Kind::of(key_type);
    let bits = kind.bits.to_ne_bytes();
    let parameters: &[Attribute] = match kind.curve {
        Some(curve) => &[(CKA_EC_PARAMS, curve)],
        None => &[(CKA_MODULUS_BITS, &bits), (CKA_PUBLIC_EXPONENT, F4)],
    };
    let mut name: Vec<Attribute> = vec![(CKA_TOKEN, YES), (CKA_LABEL, label.as_bytes())];
    name.extend(id.map(|id| (CKA_ID, id)));
    let mut last = None;
    let skipped = usize::from(session.module().manufacturer() == TPM2_PKCS11);
    // What it has no use for, some tokens do not even take for an answer of "no". What a token makes without being told
    // is looked at afterwards.
    for (public, private, was_told_to_keep_it) in [
        (
            &[PUBLIC, PUBLIC_OTHERS].concat()[..],
            &[PRIVATE, KEPT, PRIVATE_OTHERS].concat()[..],
            true,
        ),
        (PUBLIC, &[PRIVATE, KEPT].concat(), true),
        (PUBLIC, PRIVATE, false),
    ]
    .into_iter()
    .skip(skipped)
    {
        let public = [parameters, &name, public].concat();
        let private = [&name, private].concat();
        match session.generate_key_pair(kind.mechanism, &public, &private) {
            Err(failure) if may_try_again(session, label, failure) => last = Some(failure),
            Err(failure) => return Err(failure),
            Ok(keys) => {
                return Ok(Made {
                    keys,
                    was_told_to_keep_it,
                });
            }
        }
    }
    Err(last.unwrap_or(Failure {
        function: "C_GenerateKeyPair",
        code: CKR_FUNCTION_FAILED,
    }))
}

/// tpm2-pkcs11, which refuses `CKA_DECRYPT` and the like beside `CKA_SIGN`, and leaves a key loaded for each template that
/// it refuses: a TPM without a resource manager is full after two.
const TPM2_PKCS11: &str = "tpm2-software.github.io";

/// Not beside the remains of a try.
fn may_try_again(session: &Session, label: &str, failure: Failure) -> bool {
    may_be_the_template(failure.code) && remains::none(session, label)
}

/// What `C_GenerateKeyPair` is to make.
struct Kind {
    mechanism: CK_MECHANISM_TYPE,
    /// Of an EC key.
    curve: Option<&'static [u8]>,
    /// Of an RSA key's modulus.
    bits: CK_ULONG,
}

impl Kind {
    fn of(key_type: KeyType) -> Kind {
        let ec = |curve| Kind {
            mechanism: CKM_EC_KEY_PAIR_GEN,
            curve: Some(curve),
            bits: 0,
        };
        let rsa = |bits| Kind {
            mechanism: CKM_RSA_PKCS_KEY_PAIR_GEN,
            curve: None,
            bits,
        };
        match key_type {
            KeyType::EcP256 => ec(P256),
            KeyType::EcP384 => ec(P384),
            KeyType::Rsa2048 => rsa(2048),
            KeyType::Rsa3072 => rsa(3072),
            KeyType::Rsa4096 => rsa(4096),
        }
    }
}

const YES: &[u8] = &[CK_TRUE];
const NO: &[u8] = &[CK_FALSE];
/// The public exponent 65537, which FIPS 186 takes.
const F4: &[u8] = &[1, 0, 1];

/// Without this a key is not made.
const PRIVATE: &[Attribute] = &[(CKA_SIGN, YES)];

/// Its counterpart.
const PUBLIC: &[Attribute] = &[(CKA_VERIFY, YES)];

/// The key stays on its token.
const KEPT: &[Attribute] = &[
    (CKA_PRIVATE, YES),
    (CKA_SENSITIVE, YES),
    (CKA_EXTRACTABLE, NO),
];

/// For signing alone.
const PRIVATE_OTHERS: &[Attribute] = &[
    (CKA_DECRYPT, NO),
    (CKA_UNWRAP, NO),
    (CKA_DERIVE, NO),
    (CKA_SIGN_RECOVER, NO),
];

/// The same, and to be seen without a login.
const PUBLIC_OTHERS: &[Attribute] = &[
    (CKA_PRIVATE, NO),
    (CKA_ENCRYPT, NO),
    (CKA_WRAP, NO),
    (CKA_VERIFY_RECOVER, NO),
];

/// Gives the pair its id, and reads back what was made.
fn finish(
    place: &Place,
    session: &Session,
    wanted: &Pkcs11Uri,
    made: &Made,
) -> Result<KeyReport, TokenError> {
    let pair = made.keys;
    let failed = |failure: Failure| failure.while_doing("cannot read what was made");
    check_kept(session, made)?;
    let public = public_key::of_object(session, pair.public).map_err(failed)?;
    let Some(public) = public else {
        return Err(TokenError::Broken(
            "the token does not tell the new public key".to_owned(),
        ));
    };
    if let (None, Some(id)) = (&wanted.object.id, id_of(&public)) {
        set_id(session, pair, &id)
            .map_err(|failure| failure.while_doing("cannot set the new key's CKA_ID"))?;
    }
    let reporter = Reporter {
        session,
        others: session,
        token: &place.name,
    };
    let mut report = reporter.private_key(pair.private).map_err(failed)?;
    report.public_key = Some(public);
    report
        .warnings
        .extend(other_uses(session, pair).map_err(failed)?);
    Ok(report)
}

/// Whether the private key is sensitive and not extractable. A token that was told so may keep silent about it.
fn check_kept(session: &Session, made: &Made) -> Result<(), TokenError> {
    for (attribute, name, wanted) in [
        (CKA_SENSITIVE, "CKA_SENSITIVE", true),
        (CKA_EXTRACTABLE, "CKA_EXTRACTABLE", false),
    ] {
        let value = flag(session, made.keys.private, attribute)
            .map_err(|failure| failure.while_doing("cannot read what was made"))?;
        let said = match value {
            None if made.was_told_to_keep_it => continue,
            Some(value) if value == wanted => continue,
            Some(value) => format!("{name} is {value}"),
            None => format!("it does not tell {name}"),
        };
        return Err(TokenError::Unusable(format!(
            "the token makes keys that can be read out of it ({said})"
        )));
    }
    Ok(())
}

/// Both halves have the same id, whatever happens: this one, or that of before where the token lets no id be
/// changed.
fn set_id(session: &Session, pair: KeyPair, id: &[u8]) -> Result<(), Failure> {
    let before = session.attribute(pair.private, CKA_ID)?.unwrap_or_default();
    let set = |key, id| session.set_attribute(key, (CKA_ID, id));
    match set(pair.private, id) {
        Ok(()) => {}
        Err(failure) if cannot_be_changed(failure.code) => return Ok(()),
        Err(failure) => return Err(failure),
    }
    match set(pair.public, id) {
        Err(failure) if cannot_be_changed(failure.code) => set(pair.private, &before),
        result => result,
    }
}

fn cannot_be_changed(code: CK_RV) -> bool {
    matches!(
        code,
        CKR_ATTRIBUTE_READ_ONLY
            | CKR_ATTRIBUTE_TYPE_INVALID
            | CKR_ATTRIBUTE_VALUE_INVALID
            | CKR_ACTION_PROHIBITED
            | CKR_FUNCTION_NOT_SUPPORTED
    )
}

/// What else the token lets the private key do, where it did not take the whole template.
fn other_uses(session: &Session, pair: KeyPair) -> Result<Option<String>, Failure> {
    let mut uses = Vec::new();
    for (attribute, name) in [
        (CKA_DECRYPT, "CKA_DECRYPT"),
        (CKA_UNWRAP, "CKA_UNWRAP"),
        (CKA_DERIVE, "CKA_DERIVE"),
        (CKA_SIGN_RECOVER, "CKA_SIGN_RECOVER"),
    ] {
        if flag(session, pair.private, attribute)? == Some(true) {
            uses.push(name);
        }
    }
    Ok((!uses.is_empty()).then(|| {
        format!(
            "the token has made it for more than signing ({}): that is its own choice, and was not asked for",
            uses.join(", ")
        )
    }))
}
