//! An operator's tasks: `roleseal-pkcs11 --operator`, on real tokens.

#[path = "operator/certificates.rs"]
mod certificates;
#[path = "operator/deletion.rs"]
mod deletion;
#[path = "operator/faults.rs"]
mod faults;
#[path = "operator/foreign.rs"]
mod foreign;
#[path = "operator/generation.rs"]
mod generation;
#[path = "operator/listing.rs"]
mod listing;
#[path = "operator/others.rs"]
mod others;
#[path = "operator/pins.rs"]
mod pins;

use token::Pkcs11Uri;
use token::operator::pkcs11::{Answer, CertificateReport, KeyReport, Request, Task, TokenReport};
use token::operator::{Der, KeyType, Outcome, PublicKeyInfo};

use super::*;

/// What was told of a token.
#[derive(Debug)]
struct Listed {
    token: TokenReport,
    keys: Vec<KeyReport>,
    certificates: Vec<CertificateReport>,
}

impl std::ops::Deref for Listed {
    type Target = TokenReport;

    fn deref(&self) -> &TokenReport {
        &self.token
    }
}

/// A command's link to the token program.
struct Operator {
    program: Program,
    module: PathBuf,
    pin: Option<PinSource>,
}

impl Operator {
    fn new(store: &Store) -> Operator {
        Operator::with(store, SOFTHSM, &[("SOFTHSM2_CONF", store.conf())])
    }

    fn with(store: &Store, module: &str, environment: &[(&str, String)]) -> Operator {
        let mut command = Command::new(PROGRAM);
        command.arg(token::operator::ARGUMENT);
        command.current_dir(store.path("")).env_clear();
        command.envs(environment.iter().map(|(name, value)| (*name, value)));
        Operator {
            program: Program::spawn(command),
            module: module.into(),
            pin: Some(PinSource::File(store.path("lab.pin"))),
        }
    }

    fn send(&mut self, task: Task) {
        let request = Request {
            module: self.module.clone(),
            pin: self.pin.clone(),
            user: None,
            task,
        };
        link::send(self.program.link(), &request).unwrap();
    }

    fn receive(&mut self) -> std::io::Result<Option<Outcome<Answer>>> {
        link::receive(self.program.link())
    }

    fn try_ask(&mut self, task: Task) -> std::io::Result<Option<Outcome<Answer>>> {
        self.send(task);
        self.receive()
    }

    /// The last answer.
    fn ask(&mut self, task: Task) -> Outcome<Answer> {
        self.send(task);
        loop {
            match self.receive().unwrap().expect("the program ended") {
                Ok(
                    Answer::Tokens(_)
                    | Answer::Token(_)
                    | Answer::ListedKey(_)
                    | Answer::Certificate(_)
                    | Answer::Warning(_)
                    | Answer::Working,
                ) => {}
                last => return last,
            }
        }
    }

    fn refusal(&mut self, task: Task) -> String {
        match self.ask(task) {
            Err(error) => error.to_string(),
            Ok(answer) => panic!("not refused: {answer:?}"),
        }
    }

    fn generate(&mut self, key: &str, key_type: KeyType) -> KeyReport {
        match self.ask(generate(key, key_type)) {
            Ok(Answer::Key(report)) => *report,
            other => panic!("not made: {other:?}"),
        }
    }

    fn key(&mut self, key: &str) -> KeyReport {
        let key = uri(key);
        match self.ask(Task::Key { key }) {
            Ok(Answer::Key(report)) => *report,
            other => panic!("no key: {other:?}"),
        }
    }

    /// The task to delete the key as it is now.
    fn deletion(&mut self, key: &Pkcs11Uri) -> Task {
        Task::Delete {
            key: key.clone(),
            shown: Box::new(self.key(&key.to_string())),
        }
    }

    fn delete(&mut self, key: &Pkcs11Uri) -> Vec<String> {
        let task = self.deletion(key);
        self.done(task)
    }

    fn list(&mut self, token: &str) -> Vec<Listed> {
        let mut tokens: Vec<Listed> = Vec::new();
        self.send(Task::List { token: uri(token) });
        loop {
            let answer = self.receive().unwrap().expect("the program ended");
            match answer.unwrap() {
                Answer::Tokens(_) | Answer::Working => {}
                Answer::Token(token) => tokens.push(Listed {
                    token: *token,
                    keys: Vec::new(),
                    certificates: Vec::new(),
                }),
                Answer::ListedKey(key) => tokens.last_mut().unwrap().keys.push(*key),
                Answer::Certificate(one) => tokens.last_mut().unwrap().certificates.push(*one),
                Answer::Warning(text) => tokens.last_mut().unwrap().token.warnings.push(text),
                Answer::Listed => return tokens,
                other => panic!("not listed: {other:?}"),
            }
        }
    }

    /// A certificate request of that key in DER, by its name in the subject.
    fn request(&mut self, report: &KeyReport, name: &str) -> Vec<u8> {
        let public = report.public_key.as_ref().unwrap();
        let info = request_info(public, name);
        let algorithm = match report.algorithm.starts_with("RSA") {
            true => "300d06092a864886f70d01010b0500",
            false => "300a06082a8648ce3d040302",
        };
        let task = Task::SignRequest {
            key: report.uri.clone(),
            info: Der(info.clone()),
        };
        let signature = match self.ask(task) {
            Ok(Answer::Signature(signature)) => signature.0,
            other => panic!("not signed: {other:?}"),
        };
        let bits = der(0x03, &[&[0], signature.as_slice()].concat());
        der(
            0x30,
            &[info, hex::decode(algorithm).unwrap(), bits].concat(),
        )
    }

    fn done(&mut self, task: Task) -> Vec<String> {
        match self.ask(task) {
            Ok(Answer::Done(uris)) => uris.iter().map(Pkcs11Uri::to_string).collect(),
            other => panic!("not done: {other:?}"),
        }
    }
}

impl Store {
    /// What pkcs11-tool lists of these objects after a login.
    fn objects(&self, class: &str) -> String {
        let login = ["--login", "--pin", PIN, "--list-objects"];
        self.tool(&[&login[..], &["--type", class]].concat())
    }

    /// A certificate by a CA of the store, for whatever key the request is of.
    fn certify(&self, request: &[u8], name: &str) -> Vec<u8> {
        fs::write(self.path("request.der"), request).unwrap();
        if !self.path("ca.pem").exists() {
            self.openssl(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -subj /CN=CA -out ca.pem",
            );
        }
        self.openssl(&format!(
            "x509 -req -inform DER -in request.der -CA ca.pem -CAkey ca.key -CAcreateserial -outform DER -out {name}.der"
        ));
        fs::read(self.path(&format!("{name}.der"))).unwrap()
    }
}

fn uri(text: &str) -> Pkcs11Uri {
    text.parse().unwrap()
}

fn generate(key: &str, key_type: KeyType) -> Task {
    let key = uri(key);
    Task::Generate { key, key_type }
}

fn request_info(public: &PublicKeyInfo, name: &str) -> Vec<u8> {
    let common_name = [
        &[0x06, 3, 0x55, 0x04, 0x03],
        der(0x0c, name.as_bytes()).as_slice(),
    ]
    .concat();
    let subject = der(0x30, &der(0x31, &der(0x30, &common_name)));
    let parts = [&[0x02, 1, 0], subject.as_slice(), &public.0, &[0xa0, 0]];
    der(0x30, &parts.concat())
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let head = match content.len() {
        0..0x80 => vec![tag, low],
        0x80..0x100 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [&head, content].concat()
}

#[test]
fn daemon_and_operator_do_not_take_each_others_messages() {
    let store = Store::new();
    store.generate("EC:prime256v1", "01", "web", &[]);
    let spy = Spy::new(&store);
    let mut operator = Operator::with(&store, &spy.module, &spy.environment);
    let open = store.open_in(&spy.module, &["pkcs11:object=web"]);
    operator.program.ask_to_open(open);
    let heard: std::io::Result<Option<FromToken>> = link::receive(operator.program.link());
    assert!(!matches!(heard, Ok(Some(_))), "{heard:?}");
    assert!(!operator.program.end().success());

    let mut daemon = Operator {
        program: Program::start_with(&store, &spy.environment),
        module: spy.module.clone().into(),
        pin: operator.pin.clone(),
    };
    let heard = daemon.try_ask(generate("pkcs11:token=lab;object=new", KeyType::EcP256));
    assert!(!matches!(heard, Ok(Some(_))), "{heard:?}");
    daemon.program.end();

    // A daemon at work does not take them either.
    let mut daemon = Program::start_with(&store, &spy.environment);
    assert!(daemon.opened(store.open_in(&spy.module, &["pkcs11:object=web"]))[0].is_ok());
    let request = Request {
        module: spy.module.clone().into(),
        pin: operator.pin,
        user: None,
        task: generate("pkcs11:token=lab;object=new", KeyType::EcP256),
    };
    let link = daemon.link();
    link::send(link, &request).unwrap();
    link.shutdown(std::net::Shutdown::Write).unwrap();
    let heard: std::io::Result<Option<FromToken>> = link::receive(link);
    assert!(!matches!(heard, Ok(Some(_))), "{heard:?}");
    daemon.end();
    assert_eq!(count(&spy.calls(), "C_GenerateKeyPair"), 0);
    assert!(!store.objects("privkey").contains("new"));
}
