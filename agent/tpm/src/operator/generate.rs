//! A new key: made in the TPM, for signing alone, and unable to leave it.

use token::TokenError;
use token::link::{OpenTpmKey, TpmKeySource};
use token::operator::tpm::{KeyReport, NewKey};
use token::operator::{KeyType, Outcome};
use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::structures::{
    Auth, CreateKeyResult, EccPoint, EccScheme, KeyDerivationFunctionScheme, Public, PublicBuilder,
    PublicEccParameters, PublicKeyRsa, PublicParameters, PublicRsaParameters, RsaExponent,
    RsaScheme, SymmetricDefinitionObject,
};

use super::{pcr_policy, persistent, report};
use crate::areas;
use crate::auth_value;
use crate::error::Failure;
use crate::key_file::{KeyFile, OWNER};
use crate::open::load_file;
use crate::parent::{Parent, Parents};
use crate::tpm::Tpm;

/// The name algorithm of the keys that we make. An auth value is no longer than its digest.
const NAME_ALGORITHM: HashingAlgorithm = HashingAlgorithm::Sha256;
const AUTH_LIMIT: usize = 32;

/// What can be said without a TPM, and without asking for a PIN.
pub(super) fn check(new: &NewKey) -> Outcome<()> {
    pcr_policy::check(&new.pcrs)?;
    if let Some(handle) = new.persist {
        persistent::check(handle)?;
        if !new.pcrs.is_empty() {
            return Err(TokenError::Unusable(
                "a key at a persistent handle has no place for its policy, which the agent needs before \
                 each signature: keep a key with PCRs in a key file, or make it without PCRs"
                    .to_owned(),
            ));
        }
    }
    Ok(())
}

/// Makes it, and opens it as the daemon will: no key leaves here that could not be used.
pub(super) fn generate(tpm: &mut Tpm, new: &NewKey) -> Outcome<KeyReport> {
    let auth = new_auth(new)?;
    check_type(tpm, new.key_type)?;
    if let Some(handle) = new.persist {
        persistent::check_free(tpm, handle)?;
    }
    let policy = pcr_policy::commands(tpm, &new.pcrs, !auth.is_empty())?;
    let key = as_opened(new);
    let parent_handle = new.parent.unwrap_or(OWNER);
    let mut parents = Parents::default();
    let parent = parents.open(tpm, parent_handle, &key)?;
    let template = template(new.key_type, &auth, pcr_policy::digest(&policy));
    let template = template.map_err(|error| failed(Failure::new(CREATE, error)))?;
    let doing = match new.parent {
        Some(handle) => {
            format!("cannot make the key under {handle:#010x}, which has to be a storage key")
        }
        None => "cannot make the key".to_owned(),
    };
    let made = create(tpm, &parent, &template, &auth, &doing)?;
    let (public, private) = areas::marshal(&made.out_public, &made.out_private)
        .map_err(|error| failed(Failure::new(CREATE, error)))?;
    let file = KeyFile {
        secret: None,
        empty_auth: auth.is_empty(),
        policy,
        signed_policies: Vec::new(),
        parent: parent_handle,
        public,
        private,
    };
    let pem = file.to_pem().map_err(TokenError::Broken)?;
    let file = KeyFile::parse(pem.as_bytes()).map_err(TokenError::Broken)?;
    let found = load_file(tpm, &mut parents, &key, &file)?;
    parents.forget(tpm).map_err(failed)?;
    let object = found.object;
    let mut report = report::of_found(&key, found);
    match new.persist {
        None => report.key_file = Some(pem),
        Some(handle) => {
            persistent::store(tpm, object, handle, new.owner_pin.as_ref())?;
            report.handle = Some(handle);
        }
    }
    Ok(report)
}

const CREATE: &str = "TPM2_Create";

fn failed(failure: Failure) -> TokenError {
    failure.while_doing("cannot make the key")
}

/// As a configuration would name it.
fn as_opened(new: &NewKey) -> OpenTpmKey {
    OpenTpmKey {
        source: TpmKeySource::File("the new key".into()),
        pin: new.pin.clone(),
        parent_pin: new.parent_pin.clone(),
        owner_pin: match new.parent {
            None => new.owner_pin.clone(),
            Some(_) => None, // the hierarchy's, for TPM2_EvictControl alone
        },
    }
}

fn new_auth(new: &NewKey) -> Outcome<Auth> {
    let auth = auth_value::read(new.pin.as_ref())?;
    if auth.len() > AUTH_LIMIT {
        return Err(TokenError::Unusable(format!(
            "the new PIN has {} bytes, and the TPM takes no more than {AUTH_LIMIT}, the length of the \
             key's name hash (SHA-256): choose a shorter one",
            auth.len()
        )));
    }
    Ok(auth)
}

/// TPM2_TestParms: whether the TPM has such keys.
fn check_type(tpm: &mut Tpm, key_type: KeyType) -> Outcome<()> {
    let parameters = match parameters(key_type) {
        Parameters::Ecc(ecc) => PublicParameters::Ecc(ecc),
        Parameters::Rsa(rsa) => PublicParameters::Rsa(rsa),
    };
    let tested = tpm.run("TPM2_TestParms", |context| context.test_parms(parameters));
    match tested {
        Err(failure) if failure.is_unknown_kind() => Err(TokenError::Unusable(format!(
            "the TPM does not make {key_type} keys ({failure}): take another type, such as ec-p256 or \
             rsa-2048, which every TPM 2.0 makes"
        ))),
        tested => tested.map_err(failed),
    }
}

enum Parameters {
    Ecc(PublicEccParameters),
    Rsa(PublicRsaParameters),
}

/// Without a scheme, so that SHA-256 goes with every curve and each signature says what it is.
fn parameters(key_type: KeyType) -> Parameters {
    let none = SymmetricDefinitionObject::Null;
    let ecc = |curve| {
        let no_derivation = KeyDerivationFunctionScheme::Null;
        Parameters::Ecc(PublicEccParameters::new(
            none,
            EccScheme::Null,
            curve,
            no_derivation,
        ))
    };
    let rsa = |bits| {
        let exponent = RsaExponent::default(); // 65537
        Parameters::Rsa(PublicRsaParameters::new(
            none,
            RsaScheme::Null,
            bits,
            exponent,
        ))
    };
    match key_type {
        KeyType::EcP256 => ecc(EccCurve::NistP256),
        KeyType::EcP384 => ecc(EccCurve::NistP384),
        KeyType::Rsa2048 => rsa(RsaKeyBits::Rsa2048),
        KeyType::Rsa3072 => rsa(RsaKeyBits::Rsa3072),
        KeyType::Rsa4096 => rsa(RsaKeyBits::Rsa4096),
    }
}

/// With a policy, the policy alone decides who signs: userWithAuth would let the auth value pass it by.
/// adminWithPolicy stays clear, so that the key can be attested by its auth value: what that leaves to do
/// beside (TPM2_ObjectChangeAuth) changes nothing of the policy.
///
/// noDA where nothing is to be guessed: otherwise another key's wrong auth values would lock this one too.
fn template(key_type: KeyType, auth: &Auth, policy: Vec<u8>) -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(policy.is_empty())
        .with_no_da(auth.is_empty())
        .with_sign_encrypt(true)
        .build()?;
    let builder = PublicBuilder::new()
        .with_name_hashing_algorithm(NAME_ALGORITHM)
        .with_object_attributes(attributes)
        .with_auth_policy(policy.try_into()?);
    match parameters(key_type) {
        Parameters::Ecc(parameters) => builder
            .with_public_algorithm(PublicAlgorithm::Ecc)
            .with_ecc_parameters(parameters)
            .with_ecc_unique_identifier(EccPoint::default()),
        Parameters::Rsa(parameters) => builder
            .with_public_algorithm(PublicAlgorithm::Rsa)
            .with_rsa_parameters(parameters)
            .with_rsa_unique_identifier(PublicKeyRsa::default()),
    }
    .build()
}

/// The new auth value is the command's parameter: it goes encrypted, in the HMAC session.
fn create(
    tpm: &mut Tpm,
    parent: &Parent,
    template: &Public,
    auth: &Auth,
    doing: &str,
) -> Outcome<CreateKeyResult> {
    let session = match auth.is_empty() {
        true => tpm.session_for(&parent.proof)?,
        false => tpm.hmac_session().map_err(failed)?,
    };
    tpm.run_proving(&parent.proof, doing, session, |tpm, session| {
        let handle = tpm.handle(parent.object)?;
        tpm.run_in_room(session, CREATE, Some(parent.object), |context| {
            let auth = Some(auth.clone()).filter(|auth| !auth.is_empty());
            context.create(handle, template.clone(), auth, None, None, None)
        })
    })
}
