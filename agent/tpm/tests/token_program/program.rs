//! `roleseal-tpm` on a TPM, and its keys' messages.

use token::link::{KeyReport, Open, OpenTpm, OpenTpmKey, TpmKeySource};
use token::{PinSource, Tcti, TokenError};

use crate::harness::Program;
use crate::swtpm::{Swtpm, command};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_roleseal-tpm");

impl Program {
    pub(crate) fn start() -> Program {
        Program::spawn(command(PROGRAM))
    }

    /// Starts it on this TPM, with these keys.
    pub(crate) fn open(tpm: &Swtpm, keys: Vec<OpenTpmKey>) -> (Program, Vec<KeyReport>) {
        let mut program = Program::start();
        let reports = program.try_open(tpm.tcti(), keys).unwrap();
        (program, reports)
    }

    pub(crate) fn try_open(
        &mut self,
        tcti: Tcti,
        keys: Vec<OpenTpmKey>,
    ) -> Result<Vec<KeyReport>, TokenError> {
        let keys = keys.into_iter().map(Some).collect();
        self.reports(Open::Tpm(OpenTpm {
            tcti,
            keys,
            left_sessions: vec![],
        }))
    }
}

/// A key without any auth value.
pub(crate) fn key(source: TpmKeySource) -> OpenTpmKey {
    OpenTpmKey {
        source,
        pin: None,
        parent_pin: None,
        owner_pin: None,
    }
}

pub(crate) fn pin(value: &str) -> Option<PinSource> {
    Some(PinSource::Value(value.to_owned().into()))
}
