//! The token program as an operator's command runs it; and what tpm2-tools, openssl and the daemon's own way
//! make of the keys.

#[path = "operator/attest.rs"]
mod attest;
#[path = "operator/generate.rs"]
mod generate;
#[path = "operator/list.rs"]
mod list;
#[path = "operator/persistent.rs"]
mod persistent;
#[path = "operator/request.rs"]
mod request;

use std::fs;

use token::link::{self, OpenTpmKey};
use token::operator::tpm::{Answer, KeyReport, NewKey, Request, Task, TpmReport};
use token::operator::{ARGUMENT, Der, KeyType, Outcome};
use token::{Tcti, TokenError};

use crate::harness::Program;
use crate::program::PROGRAM;
use crate::swtpm::{Swtpm, command};

/// A command's link.
pub(crate) struct Operator {
    program: Program,
    tcti: Tcti,
}

impl Operator {
    pub(crate) fn on(tpm: &Swtpm) -> Operator {
        let mut program = command(PROGRAM);
        program.arg(ARGUMENT);
        Operator {
            program: Program::spawn(program),
            tcti: tpm.tcti(),
        }
    }

    pub(crate) fn ask(&mut self, task: Task) -> Outcome<Answer> {
        let tcti = self.tcti.clone();
        link::send(self.program.link(), &Request { tcti, task }).unwrap();
        let answer = link::receive(self.program.link()).unwrap();
        answer.expect("the token program ended")
    }

    pub(crate) fn generate(&mut self, new: NewKey) -> Outcome<KeyReport> {
        self.ask(Task::Generate(new)).map(key_of)
    }

    pub(crate) fn key(&mut self, key: &OpenTpmKey) -> Outcome<KeyReport> {
        self.ask(Task::Key(key.clone())).map(key_of)
    }

    /// What the list says of the key there.
    pub(crate) fn shown(&mut self, handle: u32) -> KeyReport {
        let mut keys = self.list().keys.into_iter();
        keys.find(|key| key.handle == Some(handle)).unwrap()
    }

    pub(crate) fn list(&mut self) -> TpmReport {
        match self.ask(Task::List) {
            Ok(Answer::Tpm(report)) => report,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn sign_request(&mut self, key: &OpenTpmKey, info: &[u8]) -> Outcome<Vec<u8>> {
        let (key, info) = (key.clone(), Der(info.to_vec()));
        match self.ask(Task::SignRequest { key, info })? {
            Answer::Signature(signature) => Ok(signature.0),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn end(self) {
        assert!(self.program.end().success());
    }
}

fn key_of(answer: Answer) -> KeyReport {
    match answer {
        Answer::Key(report) => report,
        other => panic!("{other:?}"),
    }
}

/// Under the owner's storage primary, without any auth value.
pub(crate) fn new_key(key_type: KeyType) -> NewKey {
    NewKey {
        key_type,
        parent: None,
        parent_pin: None,
        owner_pin: None,
        pin: None,
        pcrs: vec![],
        persist: None,
    }
}

pub(crate) fn fault<T: std::fmt::Debug>(outcome: Outcome<T>) -> String {
    match outcome {
        Err(TokenError::Unusable(text)) => text,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn refused_pin<T: std::fmt::Debug>(outcome: Outcome<T>) -> String {
    match outcome {
        Err(TokenError::PinRejected(text)) => text,
        other => panic!("{other:?}"),
    }
}

impl Swtpm {
    /// Keeps what a command would: `NAME.tss`, and `NAME.pem` with the public key.
    pub(crate) fn keep(&self, name: &str, report: &KeyReport) {
        if let Some(file) = &report.key_file {
            fs::write(self.path(&format!("{name}.tss")), file).unwrap();
        }
        let spki = report.public_key.as_ref().unwrap();
        fs::write(self.path(&format!("{name}.spki")), &spki.0).unwrap();
        self.tool(&format!(
            "openssl pkey -pubin -inform DER -in {name}.spki -out {name}.pem"
        ));
    }

    /// A `CertificationRequestInfo` for `NAME.pem`.
    pub(crate) fn request_info(&self, name: &str) -> Vec<u8> {
        let spki = fs::read(self.path(&format!("{name}.spki"))).unwrap();
        let content = [&[2, 1, 0, 0x30, 0][..], &spki, &[0xa0, 0]].concat();
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        let head = match length {
            [0, length @ 0..0x80] => vec![0x30, length],
            [0, length] => vec![0x30, 0x81, length],
            [high, low] => vec![0x30, 0x82, high, low],
        };
        [head, content].concat()
    }
}
