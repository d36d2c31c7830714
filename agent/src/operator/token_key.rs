//! One key, behind a token program of its own.

use std::fmt;
use std::path::PathBuf;

use token::link::OpenTpmKey;
use token::operator::{Der, PublicKeyInfo, pkcs11, tpm};
use token::{PinSource, Pkcs11Uri, Signature, Tcti};

use super::Failure;
use super::program::{Patience, Program};
use crate::launcher;

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
        let patience = Patience::usual("looking for the key", &place.pins());
        let report = match &place {
            KeyPlace::Pkcs11 { uri, .. } => {
                let task = pkcs11::Task::Key { key: uri.clone() };
                match program.ask(&place.pkcs11_request(task)?, patience)? {
                    pkcs11::Answer::Key(report) => Report::Pkcs11(report),
                    _ => return Err(other_answer()),
                }
            }
            KeyPlace::Tpm { tcti, key } => {
                let tcti = tcti.clone();
                let task = tpm::Task::Key(key.clone());
                match program.ask(&tpm::Request { tcti, task }, patience)? {
                    tpm::Answer::Key(report) => Report::Tpm(Box::new(report)),
                    _ => return Err(other_answer()),
                }
            }
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

    /// Its public key.
    pub(crate) fn public_key(&self) -> Result<&PublicKeyInfo, Failure> {
        let key = match &self.report {
            Report::Pkcs11(report) => report.public_key.as_ref(),
            Report::Tpm(report) => report.public_key.as_ref(),
        };
        key.ok_or_else(|| {
            Failure::failed(format!(
                "{}: the token does not tell its public key: store the public key or a certificate beside \
                 it, with the same CKA_ID",
                self.place
            ))
        })
    }

    /// Signs the DER of a `CertificationRequestInfo` for this key. The token program refuses everything else.
    pub(crate) fn sign_request(&mut self, info: Vec<u8>) -> Result<Signature, Failure> {
        let patience = Patience::usual("signing", &self.place.pins());
        let info = Der(info);
        match &self.place {
            KeyPlace::Pkcs11 { uri, .. } => {
                let key = uri.clone();
                let task = pkcs11::Task::SignRequest { key, info };
                match self
                    .program
                    .ask(&self.place.pkcs11_request(task)?, patience)?
                {
                    pkcs11::Answer::Signature(signature) => Ok(signature),
                    _ => Err(other_answer()),
                }
            }
            KeyPlace::Tpm { tcti, key } => {
                let (tcti, key) = (tcti.clone(), key.clone());
                let task = tpm::Task::SignRequest { key, info };
                match self.program.ask(&tpm::Request { tcti, task }, patience)? {
                    tpm::Answer::Signature(signature) => Ok(signature),
                    _ => Err(other_answer()),
                }
            }
        }
    }

    /// Has the TPM certify the key; `None` for a PKCS#11 token, which has no such statement.
    pub(crate) fn attest(
        &mut self,
        endorsement_pin: Option<PinSource>,
        qualifying_data: Vec<u8>,
    ) -> Result<Option<tpm::Attestation>, Failure> {
        let KeyPlace::Tpm { tcti, key } = &self.place else {
            return Ok(None);
        };
        let mut pins = self.place.pins();
        pins.push(endorsement_pin.as_ref());
        // RSA endorsement keys are derived as slowly as they are made.
        let patience = Patience {
            what: "attesting the key",
            ..Patience::making(&pins)
        };
        let (tcti, key) = (tcti.clone(), key.clone());
        let task = tpm::Task::Attest {
            key,
            endorsement_pin: endorsement_pin.clone(),
            qualifying_data: Der(qualifying_data),
        };
        match self.program.ask(&tpm::Request { tcti, task }, patience)? {
            tpm::Answer::Attestation(attestation) => Ok(Some(attestation)),
            _ => Err(other_answer()),
        }
    }

    /// Stores a certificate beside the key on its PKCS#11 token. Says what was written.
    pub(crate) fn import_certificate(&mut self, der: Vec<u8>) -> Result<Vec<Pkcs11Uri>, Failure> {
        let KeyPlace::Pkcs11 { uri, .. } = &self.place else {
            return Err(Failure::usage(
                "a TPM keeps no certificates: append it to the key file, or name it as `certificate` in \
                 the configuration",
            ));
        };
        let task = pkcs11::Task::ImportCertificate {
            key: uri.clone(),
            certificate: Der(der),
        };
        self.change(task, "storing the certificate")
    }

    /// Destroys the key with its public key and certificates on its PKCS#11 token, or removes it from its
    /// persistent handle. Says what has gone.
    pub(crate) fn delete(&mut self) -> Result<Vec<String>, Failure> {
        let (tcti, handle, owner_pin) = match &self.place {
            KeyPlace::Pkcs11 { uri, .. } => {
                let task = pkcs11::Task::Delete { key: uri.clone() };
                let gone = self.change(task, "deleting")?;
                return Ok(gone.iter().map(ToString::to_string).collect());
            }
            KeyPlace::Tpm { tcti, key } => match key.source {
                token::link::TpmKeySource::Handle(handle) => {
                    (tcti.clone(), handle, key.owner_pin.clone())
                }
                token::link::TpmKeySource::File(_) => {
                    return Err(Failure::usage(
                        "a key in a file goes with its file: remove that",
                    ));
                }
            },
        };
        let patience = Patience::usual("deleting", &self.place.pins());
        let task = tpm::Task::Delete { handle, owner_pin };
        match self.program.ask(&tpm::Request { tcti, task }, patience)? {
            tpm::Answer::Done => Ok(vec![self.place.to_string()]),
            _ => Err(other_answer()),
        }
    }

    fn change(
        &mut self,
        task: pkcs11::Task,
        what: &'static str,
    ) -> Result<Vec<Pkcs11Uri>, Failure> {
        let patience = Patience::usual(what, &self.place.pins());
        match self
            .program
            .ask(&self.place.pkcs11_request(task)?, patience)?
        {
            pkcs11::Answer::Done(uris) => Ok(uris),
            _ => Err(other_answer()),
        }
    }
}

impl KeyPlace {
    fn program(&self) -> launcher::Program {
        match self {
            KeyPlace::Pkcs11 { .. } => launcher::Program::Pkcs11,
            KeyPlace::Tpm { .. } => launcher::Program::Tpm,
        }
    }

    fn pins(&self) -> Vec<Option<&PinSource>> {
        match self {
            KeyPlace::Pkcs11 { pin, .. } => vec![pin.as_ref()],
            KeyPlace::Tpm { key, .. } => {
                vec![
                    key.pin.as_ref(),
                    key.parent_pin.as_ref(),
                    key.owner_pin.as_ref(),
                ]
            }
        }
    }

    fn pkcs11_request(&self, task: pkcs11::Task) -> Result<pkcs11::Request, Failure> {
        match self {
            KeyPlace::Pkcs11 { module, pin, .. } => Ok(pkcs11::Request {
                module: module.clone(),
                pin: pin.clone(),
                task,
            }),
            KeyPlace::Tpm { .. } => Err(other_answer()),
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
    Failure::failed(
        "the token program gives the answer to another question: install it in the same version as \
         roleseal-agent",
    )
}
