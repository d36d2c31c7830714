//! An operator's tasks.

use token::operator::pkcs11::{Answer, KeyReport, Request, Task};
use token::operator::{KeyType, Outcome};

use super::*;

#[test]
fn every_kind_of_key_is_made_for_signing_alone_and_signs_its_request() {
    let store = Store::new();
    let mut program = Program::for_operator(&store);
    for key_type in KeyType::ALL {
        let label = key_type.name();
        let made = program.generated(
            &store,
            &format!("pkcs11:token=lab;object={label}"),
            key_type,
        );
        eprintln!("{made:?}");
    }
}

impl Program {
    fn for_operator(store: &Store) -> Program {
        Program::for_operator_with(store, &[("SOFTHSM2_CONF", store.conf())])
    }

    fn for_operator_with(store: &Store, environment: &[(&str, String)]) -> Program {
        let mut command = Command::new(PROGRAM);
        command.arg(token::operator::ARGUMENT);
        command.current_dir(store.directory.path()).env_clear();
        command.envs(environment.iter().map(|(name, value)| (*name, value)));
        Program::spawn(command)
    }

    fn ask(&mut self, request: &Request) -> Outcome<Answer> {
        link::send(self.link.as_mut().unwrap(), request).unwrap();
        let answer = link::receive(self.link.as_mut().unwrap()).unwrap();
        answer.expect("the program ended")
    }

    fn generated(&mut self, store: &Store, key: &str, key_type: KeyType) -> KeyReport {
        let key = key.parse().unwrap();
        match self.ask(&store.task(Task::Generate { key, key_type })) {
            Ok(Answer::Key(report)) => *report,
            other => panic!("not made: {other:?}"),
        }
    }
}

impl Store {
    fn task(&self, task: Task) -> Request {
        Request {
            module: SOFTHSM.into(),
            pin: Some(PinSource::File(self.path("lab.pin"))),
            task,
        }
    }
}
