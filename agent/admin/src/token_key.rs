//! One key, behind a token program of its own.

use std::fmt;
use std::path::PathBuf;

use token::account::Account;
use token::link::OpenTpmKey;
use token::operator::{Der, PublicKeyInfo, pkcs11, tpm};
use token::{PinSource, Pkcs11Uri, Signature, Tcti};

use crate::failure::Failure;
use crate::token_program::{Patience, Program};

/// Where a key is, and where its PINs are.
#[derive(Debug, Clone)]
pub(crate) enum KeyPlace {
    /// On a PKCS#11 token.
    Pkcs11 {
        /// The PKCS#11 module.
        module: PathBuf,
        /// Which key on which token; without module and PIN.
        uri: Pkcs11Uri,
        /// The user PIN.
        pin: Option<PinSource>,
        /// Whose the token's files are to be, if not this user's.
        user: Option<Box<Account>>,
    },
    /// Of a TPM.
    Tpm {
        /// How to reach it.
        tcti: Tcti,
        /// Which key, with its auth values.
        key: OpenTpmKey,
    },
}

/// A key that was found.
#[derive(Debug)]
pub(crate) struct TokenKey {
    place: KeyPlace,
    program: Program,
    report: Report,
}

/// What the token says of it.
#[derive(Debug)]
pub(crate) enum Report {
    /// A PKCS#11 token.
    Pkcs11(Box<pkcs11::KeyReport>),
    /// A TPM.
    Tpm(Box<tpm::KeyReport>),
}

impl TokenKey {
    /// Finds it.
    pub(crate) fn open(place: KeyPlace) -> Result<TokenKey, Failure> {
        let mut program = Program::start(place.program())?;
        let patience = Patience::usual("finding the key", place.pins());
        let report = match place.task(|uri| pkcs11::Task::Key { key: uri }, tpm::Task::Key) {
            Request::Pkcs11(request) => match program.ask(&request, patience)? {
                pkcs11::Answer::Key(report) => Report::Pkcs11(report),
                _ => return Err(other_answer()),
            },
            Request::Tpm(request) => match program.ask(&request, patience)? {
                tpm::Answer::Key(report) => Report::Tpm(Box::new(report)),
                _ => return Err(other_answer()),
            },
        };
        Ok(TokenKey {
            place,
            program,
            report,
        })
    }

    /// Where it is.
    pub(crate) fn place(&self) -> &KeyPlace {
        &self.place
    }

    /// What the token says of it.
    pub(crate) fn report(&self) -> &Report {
        &self.report
    }

    /// The object beside a private key that told its public key.
    pub(crate) fn public_key_from(&self) -> Option<&Pkcs11Uri> {
        match &self.report {
            Report::Pkcs11(report) => report.public_key_from.as_ref(),
            Report::Tpm(_) => None,
        }
    }

    /// Its public key.
    pub(crate) fn public_key(&self) -> Result<&PublicKeyInfo, Failure> {
        if let Report::Pkcs11(report) = &self.report
            && let Some(why) = &report.unusable
        {
            return Err(Failure::failed(why.clone()));
        }
        let key = match &self.report {
            Report::Pkcs11(report) => report.public_key.as_ref(),
            Report::Tpm(report) => report.public_key.as_ref(),
        };
        key.ok_or_else(|| {
            Failure::failed(format!(
                "cannot read the public key of {}: it is not on the token",
                self.place
            ))
            .hint("store the public key or a certificate beside it, with the same CKA_ID")
        })
    }

    /// Signs the DER of a `CertificationRequestInfo` for this key. The token program refuses everything else.
    pub(crate) fn sign_request(&mut self, info: Vec<u8>) -> Result<Signature, Failure> {
        let patience = Patience::usual("signing", self.place.pins());
        let info = Der(info);
        let request = self.place.task(
            |key| pkcs11::Task::SignRequest {
                key,
                info: info.clone(),
            },
            |key| tpm::Task::SignRequest {
                key,
                info: info.clone(),
            },
        );
        match request {
            Request::Pkcs11(request) => match self.program.ask(&request, patience)? {
                pkcs11::Answer::Signature(signature) => Ok(signature),
                _ => Err(other_answer()),
            },
            Request::Tpm(request) => match self.program.ask(&request, patience)? {
                tpm::Answer::Signature(signature) => Ok(signature),
                _ => Err(other_answer()),
            },
        }
    }

    /// Has the TPM certify the key.
    pub(crate) fn attest(
        &mut self,
        endorsement_pin: Option<PinSource>,
        qualifying_data: Vec<u8>,
    ) -> Result<tpm::Attestation, Failure> {
        let KeyPlace::Tpm { tcti, key } = &self.place else {
            return Err(Failure::usage(format!(
                "cannot attest {}: it is not in a TPM",
                self.place
            )));
        };
        let mut pins = self.place.pins();
        pins.extend(&endorsement_pin);
        let patience = Patience::usual("attesting the key", pins);
        let request = tpm::Request {
            tcti: tcti.clone(),
            task: tpm::Task::Attest {
                key: key.clone(),
                endorsement_pin: endorsement_pin.clone(),
                qualifying_data: Der(qualifying_data),
            },
        };
        match self.program.ask(&request, patience)? {
            tpm::Answer::Attestation(attestation) => Ok(attestation),
            _ => Err(other_answer()),
        }
    }

    /// Stores a certificate beside the key on its PKCS#11 token. Says what was written, and what that
    /// replaces.
    pub(crate) fn import_certificate(&mut self, der: Vec<u8>) -> Result<Vec<Pkcs11Uri>, Failure> {
        self.change("storing the certificate", |key| {
            pkcs11::Task::ImportCertificate {
                key,
                certificate: Der(der),
            }
        })
    }

    /// Destroys the key with its public key and certificates on its PKCS#11 token, if they are as reported. Says what has gone.
    pub(crate) fn delete(&mut self) -> Result<Vec<Pkcs11Uri>, Failure> {
        let Report::Pkcs11(shown) = &self.report else {
            return Err(other_answer());
        };
        let shown = shown.clone();
        self.change("deleting", |key| pkcs11::Task::Delete { key, shown })
    }

    fn change(
        &mut self,
        what: &'static str,
        task: impl FnOnce(Pkcs11Uri) -> pkcs11::Task,
    ) -> Result<Vec<Pkcs11Uri>, Failure> {
        let patience = Patience::usual(what, self.place.pins());
        let Request::Pkcs11(request) = self.place.task(task, tpm::Task::Key) else {
            return Err(Failure::usage(format!(
                "cannot change {}: it is not on a PKCS#11 token",
                self.place
            )));
        };
        match self.program.ask(&request, patience)? {
            pkcs11::Answer::Done(uris) => Ok(uris),
            _ => Err(other_answer()),
        }
    }
}

/// To one of the two token programs.
enum Request {
    Pkcs11(pkcs11::Request),
    Tpm(tpm::Request),
}

impl KeyPlace {
    /// The PIN of the token, or the key's auth value.
    pub(crate) fn pin(&self) -> Option<&PinSource> {
        match self {
            KeyPlace::Pkcs11 { pin, .. } => pin.as_ref(),
            KeyPlace::Tpm { key, .. } => key.pin.as_ref(),
        }
    }

    fn program(&self) -> token::Program {
        match self {
            KeyPlace::Pkcs11 { .. } => token::Program::Pkcs11,
            KeyPlace::Tpm { .. } => token::Program::Tpm,
        }
    }

    pub(crate) fn pins(&self) -> Vec<&PinSource> {
        match self {
            KeyPlace::Pkcs11 { pin, .. } => pin.iter().collect(),
            KeyPlace::Tpm { key, .. } => key.pins().collect(),
        }
    }

    fn task(
        &self,
        pkcs11: impl FnOnce(Pkcs11Uri) -> pkcs11::Task,
        tpm: impl FnOnce(OpenTpmKey) -> tpm::Task,
    ) -> Request {
        match self {
            KeyPlace::Pkcs11 {
                module,
                uri,
                pin,
                user,
            } => Request::Pkcs11(pkcs11::Request {
                module: module.clone(),
                pin: pin.clone(),
                user: user.as_deref().cloned(),
                task: pkcs11(uri.clone()),
            }),
            KeyPlace::Tpm { tcti, key } => Request::Tpm(tpm::Request {
                tcti: tcti.clone(),
                task: tpm(key.clone()),
            }),
        }
    }
}

/// As the configuration writes it, without PINs.
impl fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            KeyPlace::Pkcs11 { uri, .. } => uri.fmt(f),
            KeyPlace::Tpm { key, .. } => key.source.fmt(f),
        }
    }
}

pub(super) fn other_answer() -> Failure {
    Failure::failed("cannot use the token program: it answers another request")
        .hint("install it in the same version as roleseal-agent")
}
