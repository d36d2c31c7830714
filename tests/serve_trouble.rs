use std::process::{Command, Stdio};
use std::time::Duration;

use hsm_fixtures::{Fault, Process, Service};

use crate::agent::until;
use crate::http::Http;
use crate::serving::{Serving, key_of, short_sessions, write_targets};

/// What the service does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    Refuses,
    Answers(Fault),
}

const ALL: [Trouble; 10] = [
    Trouble::Refuses,
    Trouble::Answers(Fault::Status(500)),
    Trouble::Answers(Fault::Status(503)),
    Trouble::Answers(Fault::Status(429)),
    Trouble::Answers(Fault::Status(403)),
    Trouble::Answers(Fault::Hang),
    Trouble::Answers(Fault::Garbage),
    Trouble::Answers(Fault::Truncated),
    Trouble::Answers(Fault::Partial),
    Trouble::Answers(Fault::Expired),
];

impl Trouble {
    fn begin(self, service: &Service) {
        match self {
            Trouble::Refuses => service.stop_listening().unwrap(),
            Trouble::Answers(fault) => service.set_fault(Some(fault)),
        }
    }

    fn end(service: &Service) {
        service.listen_again().unwrap();
        service.set_fault(None);
    }
}

/// A session's life: its last quarter is the time that is left when it is not renewed.
const SECONDS: u32 = 12;

/// In each kind of trouble, at the start and later: what is handed out is a whole session that has not ended, or an
/// error; it heals by itself.
#[test]
fn in_trouble_there_is_a_good_session_or_an_error() {
    std::thread::scope(|scope| {
        for trouble in ALL {
            scope.spawn(move || endure(trouble, ALL[0]));
        }
    });
}

/// The same where one trouble follows the other.
#[test]
fn one_trouble_after_the_other_makes_no_difference() {
    std::thread::scope(|scope| {
        for pair in [(1, 6), (4, 0), (9, 3), (0, 9), (6, 4), (5, 7)] {
            scope.spawn(move || endure(ALL[pair.0], ALL[pair.1]));
        }
    });
}

fn endure(first: Trouble, second: Trouble) {
    let web = short_sessions(SECONDS);
    first.begin(web.scene.service());
    if first != Trouble::Answers(Fault::Hang) {
        // It would take half a minute to say the same.
        let marker = web.scene.path("marker");
        let mut exec = exec(&web.scene);
        let output = exec.arg("touch").arg(&marker).output().unwrap();
        assert!(
            matches!(output.status.code(), Some(6 | 7)),
            "{first:?} {output:?}"
        );
        assert!(!marker.exists(), "{first:?}");
    }
    let serving = Serving::start(web, &["--no-cache"]);
    if first != Trouble::Answers(Fault::Hang) {
        until("it has failed", || {
            (serving.state() == "failing").then_some(())
        });
        assert_eq!(serving.http().get("/healthz", &[]).status, 503);
        let mut http = serving.http();
        let token = serving.token();
        let answer = http.get("/credentials/web", &[("Authorization", &token)]);
        assert_eq!(answer.status, 503, "{first:?}");
        assert!(!answer.json()["message"].as_str().unwrap().is_empty());
    }
    Trouble::end(serving.service());
    let mut clients = [Client::of_serve(&serving), Client::of_exec(&serving)];
    let keys = clients
        .each_mut()
        .map(|client| until("there is a session", || client.ask()));

    second.begin(serving.service());
    let mut seen = Vec::new();
    until("it is noticed", || {
        clients.iter_mut().for_each(|client| drop(client.ask()));
        let state = serving.state();
        if seen.last() != Some(&state) {
            seen.push(state);
        }
        (seen.last().unwrap() == "failing").then_some(())
    });
    for client in &mut clients {
        until("its session has ended", || {
            client.ask().is_none().then_some(())
        });
    }
    Trouble::end(serving.service());
    for (client, key) in clients.iter_mut().zip(keys) {
        assert_ne!(until("it has recovered", || client.ask()), key);
    }
    until("that is said", || (serving.state() == "ok").then_some(()));
}

fn exec(scene: &hsm_fixtures::Scene) -> Command {
    let mut exec = scene
        .roleseal(&["exec", "--target=web", "--targets"])
        .unwrap();
    exec.arg(write_targets(scene)).arg("--");
    exec
}

/// Somebody who asks an endpoint again and again.
struct Client {
    http: Option<Http>,
    address: std::net::SocketAddr,
    path: String,
    token: String,
    _process: Option<Process>,
}

impl Client {
    fn of_serve(serving: &Serving) -> Client {
        Client {
            http: None,
            address: serving.address(),
            path: "/credentials/web".to_owned(),
            token: serving.token(),
            _process: None,
        }
    }

    fn of_exec(serving: &Serving) -> Client {
        let scene = &serving.web.scene;
        let mut exec = exec(scene);
        let script = "echo $AWS_CONTAINER_CREDENTIALS_FULL_URI $AWS_CONTAINER_AUTHORIZATION_TOKEN ready; \
                      exec sleep 1000";
        exec.args(["sh", "-c", script]).stdin(Stdio::null());
        let process = Process::spawn(exec, &scene.path("exec.log")).unwrap();
        let log = until("the command runs", || {
            assert!(process.is_running(), "{}", process.log());
            Some(process.log()).filter(|log| log.contains("ready"))
        });
        let line = log.lines().find(|line| line.contains("ready")).unwrap();
        let words: Vec<_> = line.split(' ').collect();
        let url = words[0].strip_prefix("http://").unwrap();
        let (address, path) = url.split_once('/').unwrap();
        Client {
            http: None,
            address: address.parse().unwrap(),
            path: format!("/{path}"),
            token: words[1].to_owned(),
            _process: Some(process),
        }
    }

    /// The key of a good session, or `None` for an error.
    fn ask(&mut self) -> Option<String> {
        let http = self.http.insert(Http::tcp(self.address));
        let answer = http.get(&self.path, &[("Authorization", &self.token)]);
        std::thread::sleep(Duration::from_millis(20)); // others have to run
        match answer.status {
            503 => {
                assert!(!answer.body.contains("AccessKeyId"), "{answer:?}");
                None
            }
            _ => Some(key_of(&answer)),
        }
    }
}
