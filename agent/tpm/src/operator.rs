//! An operator's tasks: what a person's command has this program do.

mod attest;
mod endorsement_certificates;
mod generate;
mod list;
mod load;
mod pcr_policy;
mod persistent;
mod pins;
mod report;

use token::link::OpenTpmKey;
use token::operator::tpm::{Answer, KeyReport, Request, Task};
use token::operator::{Der, Outcome, check_certification_request};
use token::{Signature, TokenError};

use self::load::load;
use self::pins::Pins;
use crate::auth_value::Refused;
use crate::caller::Caller;
use crate::spki::public_key_info;
use crate::tpm::Tpm;

/// Does tasks, one at a time.
#[derive(Default)]
pub(crate) struct Operator {
    pins: Pins,
    /// Not tried again for a later task either.
    refused: Refused,
}

impl Operator {
    /// Does one task, on a TPM that is opened for it: closing it flushes all that the task had loaded. A
    /// person is asked before, so that nobody else waits for the TPM meanwhile.
    pub(crate) fn work(&mut self, request: Request) -> Outcome<Answer> {
        let Request { tcti, mut task } = request;
        if let Task::Generate(new) = &task {
            generate::check(new)?;
        }
        self.pins.read(&mut task)?;
        let mut tpm = Tpm::open(&tcti, Caller::Operator)?;
        tpm.refused = std::mem::take(&mut self.refused);
        let answer = perform(&mut tpm, task);
        self.refused = std::mem::take(&mut tpm.refused);
        answer
    }
}

fn perform(tpm: &mut Tpm, task: Task) -> Outcome<Answer> {
    Ok(match task {
        Task::List => Answer::Tpm(list::list(tpm)?),
        Task::Generate(new) => Answer::Key(generate::generate(tpm, &new)?),
        Task::Key(key) => Answer::Key(look_at(tpm, &key)?),
        Task::SignRequest { key, info } => Answer::Signature(sign_request(tpm, &key, &info)?),
        Task::Attest {
            key,
            endorsement_pin,
            qualifying_data,
        } => {
            let endorsement_pin = endorsement_pin.as_ref();
            let attestation = attest::attest(tpm, &key, endorsement_pin, &qualifying_data)?;
            Answer::Attestation(attestation)
        }
        Task::Delete {
            handle,
            shown,
            owner_pin,
        } => {
            persistent::remove(tpm, handle, &shown, owner_pin.as_ref())?;
            Answer::Done
        }
    })
}

fn look_at(tpm: &mut Tpm, key: &OpenTpmKey) -> Outcome<KeyReport> {
    let found = load(tpm, key)?;
    Ok(report::of_found(key, found))
}

fn sign_request(tpm: &mut Tpm, key: &OpenTpmKey, info: &Der) -> Outcome<Signature> {
    let found = load(tpm, key)?;
    let name = &found.name;
    let refused = |fault: String| TokenError::Unusable(format!("{name}: refused to sign: {fault}"));
    let own = public_key_info(&found.public)
        .ok_or_else(|| refused("its public key is malformed".to_owned()))?;
    check_certification_request(&info.0, &own).map_err(refused)?;
    found.sign(tpm, &info.0)
}
