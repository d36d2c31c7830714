//! An agent on the faulty module, and what 32 clients hear of it.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use hsm_fixtures::{Agent, FaultyModule, KeyKind, KeySpec, LeafSpec, Scene};

use crate::agent::{Web, identities, token_programs};
use crate::crowd::{Answer, CLIENTS, ask, ask_once};

/// How many requests each client makes.
pub(super) const ROUNDS: usize = 3;

/// A token that was away is tried again after a minute at the most. What hangs meanwhile is given 31 s.
pub(super) const RECOVERY: Duration = Duration::from_secs(120);

/// A process that was killed is not gone at once.
const GONE: Duration = Duration::from_secs(20);

const POLL: Duration = Duration::from_millis(50);

/// The token is away, and tried again by itself.
const AWAY: [&str; 2] = ["TokenUnavailable", "DeadlineExceeded"];

/// The names of the errors among the answers.
pub(super) fn refusals(answers: &[Answer]) -> Vec<&str> {
    let mut names = Vec::new();
    for answer in answers {
        if let Answer::Refused(name, _) = answer {
            names.push(name.as_str());
        }
    }
    names
}

/// That whatever was refused was refused by these errors.
pub(super) fn assert_refused(answers: &[Answer], names: &[&str], faults: impl Debug) {
    let other = |answer: &&Answer| match answer {
        Answer::Refused(name, _) => !names.contains(&name.as_str()),
        Answer::Signed => false,
    };
    assert_eq!(answers.iter().find(other), None, "{faults:?}");
}

/// A running agent on the faulty module. Its token has another key, too.
pub(super) struct Stage {
    pub(super) web: Web,
    pub(super) faulty: FaultyModule,
}

impl Stage {
    /// Has signed once.
    pub(super) fn new() -> Stage {
        let stage = Stage::prepared(&KeySpec::new("web", KeyKind::EcP256), &[]);
        assert_eq!(ask_once(&stage.web.scene), Answer::Signed);
        stage
    }

    /// Has the faults from the start.
    pub(super) fn prepared(key: &KeySpec, faults: &[&str]) -> Stage {
        Stage::with_pin(hsm_fixtures::PIN, key, faults)
    }

    /// The same, and this PIN for the token.
    pub(super) fn with_pin(pin: &str, key: &KeySpec, faults: &[&str]) -> Stage {
        let scene = Scene::new().unwrap();
        let token = scene.add_token("lab").unwrap();
        let web = scene.add_identity_with(&token, key, &LeafSpec::new("web"));
        let web = web.unwrap();
        let other = KeySpec::new("other", KeyKind::EcP256);
        token.generate(&other).unwrap();
        scene.write("lab.pin", pin).unwrap();
        let faulty = FaultyModule::new(scene.dir()).unwrap();
        faulty.inject(faults).unwrap();
        let mut config = scene.agent_config(vec![web]).unwrap();
        config.pkcs11_module = faulty.module().to_owned();
        let text = config.to_toml().unwrap();
        let file = scene.write("agent.toml", &text).unwrap();
        let mut command = scene.agent_command(&file).unwrap();
        command.envs(faulty.env());
        let log = scene.path("agent.log");
        let agent = Agent::start(command, &scene.socket(), &log, || false).unwrap();
        Stage {
            web: Web { agent, scene },
            faulty,
        }
    }

    pub(super) fn inject(&self, faults: &[&str]) {
        self.faulty.inject(faults).unwrap();
    }

    pub(super) fn nobody_notices(&self, faults: &[&str]) {
        let answers = ask(&self.web.scene, ROUNDS, || self.inject(faults));
        let all = vec![Answer::Signed; ROUNDS * CLIENTS];
        assert_eq!(answers, all, "{faults:?}");
        self.logs_in_once_an_opening();
    }

    pub(super) fn passes(&self, faults: &[&str], afterwards: &[&str]) -> Vec<Answer> {
        let answers = ask(&self.web.scene, ROUNDS, || self.inject(faults));
        assert_refused(&answers, &AWAY, faults);
        self.resumes(afterwards);
        answers
    }

    /// Serves everybody again, by itself, with no other fault than these.
    pub(super) fn resumes(&self, faults: &[&str]) {
        self.inject(faults);
        self.resumes_by_itself();
    }

    /// The same with the faults that it has.
    pub(super) fn resumes_by_itself(&self) {
        let deadline = Instant::now() + RECOVERY;
        loop {
            let answer = ask_once(&self.web.scene);
            assert_refused(std::slice::from_ref(&answer), &AWAY, &answer);
            if answer == Answer::Signed {
                break;
            }
            assert!(Instant::now() < deadline, "{answer:?}");
            std::thread::sleep(POLL);
        }
        let answers = ask(&self.web.scene, 1, || {});
        assert_eq!(answers, vec![Answer::Signed; CLIENTS]);
        self.logs_in_once_an_opening();
    }

    fn logs_in_once_an_opening(&self) {
        let count = |function| self.faulty.count(function).unwrap();
        assert!(count("C_Login") <= count("C_Initialize"));
    }

    /// Refuses everything by that error from then on, even when the faults are gone.
    pub(super) fn latches(&self, faults: &[&str], name: &str) {
        let answers = ask(&self.web.scene, ROUNDS, || self.inject(faults));
        assert_refused(&answers, &[name], faults);
        assert!(!refusals(&answers).is_empty(), "{faults:?}");
        self.faulty.clear().unwrap();
        let answers = ask(&self.web.scene, ROUNDS, || {});
        assert_refused(&answers, &[name], faults);
        assert_eq!(refusals(&answers).len(), answers.len(), "{faults:?}");
    }

    pub(super) fn settles_as(&self, name: &str) {
        let deadline = Instant::now() + RECOVERY;
        while !matches!(ask_once(&self.web.scene), Answer::Refused(error, _) if error == name) {
            assert!(Instant::now() < deadline, "{name}");
            std::thread::sleep(POLL);
        }
    }

    /// The one warning of the identity.
    pub(super) fn warning(&self) -> String {
        let identities = identities(&self.web.scene);
        let [warning] = &identities[0]["warnings"].as_array().unwrap()[..] else {
            panic!("{identities:?}");
        };
        warning.as_str().unwrap().to_owned()
    }

    /// The agent serves, by one token program, and leaves none when it ends.
    pub(super) fn end_serving(self, faults: impl Debug) {
        self.end(1..=1, faults);
    }

    /// The agent refuses, with a token program or without, and leaves none when it ends.
    pub(super) fn end_refusing(self, faults: impl Debug) {
        self.end(0..=1, faults);
    }

    fn end(self, programs: RangeInclusive<usize>, faults: impl Debug) {
        let Stage { web, faulty } = self;
        let deadline = Instant::now() + GONE;
        loop {
            let (known, all) = (token_programs(&web.agent).len(), alive(&faulty, true).len());
            if programs.contains(&known) && known == all {
                break;
            }
            assert!(Instant::now() < deadline, "{faults:?}: {known} of {all}");
            std::thread::sleep(POLL);
        }
        web.agent.stop().unwrap();
        let deadline = Instant::now() + GONE;
        while !alive(&faulty, false).is_empty() {
            let alive = alive(&faulty, false);
            assert!(Instant::now() < deadline, "{faults:?}: {alive:?}");
            std::thread::sleep(POLL);
        }
    }
}

/// The token programs that are still there, of all that ever called the module; `unreaped` ones or not.
fn alive(faulty: &FaultyModule, unreaped: bool) -> BTreeSet<u32> {
    let mut processes = faulty.processes().unwrap();
    processes.retain(|process| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        stat.contains("(roleseal-pkcs11)") && (unreaped || !stat.contains(") Z"))
    });
    processes
}
