//! The token program as the agent runs it.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use token::link::{self, FromToken, KeyReport, Open, OpenTpm, OpenTpmKey, ToToken, TpmKeySource};
use token::{PinSource, Tcti, TokenError, greeting};

use crate::swtpm::{Swtpm, command};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_roleseal-tpm");

/// RSA-3072 on a busy swtpm takes a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running token program.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) link: UnixStream,
}

impl Program {
    pub(crate) fn start() -> Program {
        Program::spawn(command(PROGRAM))
    }

    pub(crate) fn spawn(mut command: Command) -> Program {
        let (link, theirs) = UnixStream::pair().unwrap();
        link.set_read_timeout(Some(PATIENCE)).unwrap();
        let child = command.stdin(OwnedFd::from(theirs)).spawn().unwrap();
        let mut link = link;
        greeting::expect(&mut link, "roleseal-tpm").unwrap();
        Program { child, link }
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
        self.send(&ToToken::Open {
            open: Open::Tpm(OpenTpm {
                tcti,
                keys,
                left_sessions: vec![],
            }),
            refused_pins: vec![],
        });
        match self.receive() {
            FromToken::Opened(reports) => reports,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn sign(&mut self, key: usize, text: &str) -> Result<Vec<u8>, TokenError> {
        self.ask(7, key, text);
        match self.receive() {
            FromToken::Signed { id: 7, result } => result.map(|signature| signature.0),
            other => panic!("{other:?}"),
        }
    }

    /// Asks for a signature without waiting for it.
    pub(crate) fn ask(&mut self, id: u64, key: usize, text: &str) {
        let text = text.to_owned();
        self.send(&ToToken::Sign { id, key, text });
    }

    pub(crate) fn send(&mut self, message: &ToToken) {
        link::send(&mut self.link, message).unwrap();
    }

    /// The next answer.
    pub(crate) fn receive(&mut self) -> FromToken {
        loop {
            match link::receive(&mut self.link).unwrap() {
                Some(FromToken::HasPin { .. } | FromToken::TryingPin | FromToken::Sessions(_)) => {}
                answer => return answer.expect("the token program ended"),
            }
        }
    }

    /// Ends it as the agent does, and as the agent's crash does: the link closes.
    pub(crate) fn end(mut self) -> ExitStatus {
        drop(self.link);
        self.child.wait().unwrap()
    }
}

/// A key without any auth value.
pub(crate) fn key(source: TpmKeySource) -> OpenTpmKey {
    OpenTpmKey {
        source,
        pin: None,
        parent_pin: None,
        owner_pin: None,
        pins_are_good: false,
    }
}

pub(crate) fn pin(value: &str) -> Option<PinSource> {
    Some(PinSource::Value(value.to_owned().into()))
}
