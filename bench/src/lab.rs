//! Tokens, keys and agents to measure.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hsm_fixtures::{
    Agent, AgentConfig, AgentIdentity, KeyKind, KeySpec, LeafSpec, LimitsConfig, PIN, Scene,
    SoftHsm, Swtpm, Token, TpmConfig, TpmKeyParent, TpmKeySpec, WEB_ROLE_ARN,
};

use wire::State;

use crate::client::Caller;
use crate::process;
use crate::raw::Raw;

/// SoftHSM with two keys, two TPMs with a key each, certificates, and a service.
pub(crate) struct Lab {
    softhsm: Vec<Key>,
    tpms: Vec<Key>,
    token: Token,
    pub(crate) scene: Scene,
}

/// A key with its identity.
pub(crate) struct Key {
    /// For the tables.
    pub(crate) name: &'static str,
    pub(crate) rsa: bool,
    pub(crate) identity: AgentIdentity,
    /// Where it is in a TPM.
    pub(crate) tpm: Option<Swtpm>,
}

/// A running agent.
pub(crate) struct Running {
    agent: Agent,
    pub(crate) socket: PathBuf,
}

/// Of the agent, and of the loop around the token alone.
pub(crate) const SESSIONS: u32 = 2;

/// Below it keys are loaded without deriving it anew: the loop shall be a simple one.
const PARENT: u32 = 0x8100_0001;

/// How long an agent may take to open a thousand identities on a busy machine.
const READY: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(1);

/// What the kernel calls them: the first fifteen characters.
const TOKEN_PROGRAMS: [&str; 2] = ["roleseal-pkcs11", "roleseal-tpm"];

impl Lab {
    pub(crate) fn new() -> Result<Lab> {
        let scene = Scene::new()?;
        let token = scene.add_token("lab")?;
        let mut softhsm = Vec::new();
        for (name, label, kind) in KINDS {
            let spec = KeySpec::new(label, kind);
            let identity = scene.add_identity_with(&token, &spec, &LeafSpec::new(label))?;
            softhsm.push(Key::new(name, kind, identity, None));
        }
        let mut tpms = Vec::new();
        for (name, label, kind) in KINDS {
            let swtpm = scene.add_tpm()?;
            let spec = TpmKeySpec {
                parent: TpmKeyParent::Persistent(PARENT),
                ..TpmKeySpec::new(kind)
            };
            let identity = scene.add_tpm_identity(&swtpm, &format!("{label}-tpm"), &spec)?;
            tpms.push(Key::new(name, kind, identity, Some(swtpm)));
        }
        Ok(Lab {
            softhsm,
            tpms,
            token,
            scene,
        })
    }

    /// RSA-2048, then P-256.
    pub(crate) fn softhsm(&self) -> &[Key] {
        &self.softhsm
    }

    /// RSA-2048, then P-256, each in a TPM of its own, which has room for the agent's and for ours.
    pub(crate) fn tpms(&self) -> &[Key] {
        &self.tpms
    }

    /// Starts an agent with the key's identity alone, and waits until it signs.
    pub(crate) fn start(&self, key: &Key) -> Result<Running> {
        self.start_with(vec![key.identity.clone()], key.tpm.as_ref(), |_| {})
    }

    /// Starts an agent and waits until all identities are ready.
    pub(crate) fn start_with(
        &self,
        identities: Vec<AgentIdentity>,
        tpm: Option<&Swtpm>,
        adapt: impl FnOnce(&mut Command),
    ) -> Result<Running> {
        let running = self.launch(identities, tpm, adapt)?;
        running.wait_ready()?;
        Ok(running)
    }

    /// Starts an agent and waits until it listens.
    pub(crate) fn launch(
        &self,
        identities: Vec<AgentIdentity>,
        tpm: Option<&Swtpm>,
        adapt: impl FnOnce(&mut Command),
    ) -> Result<Running> {
        let mut config: AgentConfig = self.scene.agent_config(identities)?;
        config.tpm = tpm.map(|tpm| TpmConfig { tcti: tpm.tcti() });
        config.limits = Some(LimitsConfig {
            connections: Some(2048),
            connections_per_user: Some(2048),
            ..LimitsConfig::default()
        });
        let file = self.scene.write("agent.toml", &config.to_toml()?)?;
        let mut command = self.scene.agent_command(&file)?;
        adapt(&mut command);
        let log = self.scene.path("agent.log");
        let agent = Agent::start(command, &config.socket, &log, || false)?;
        let socket = config.socket;
        Ok(Running { agent, socket })
    }

    /// Starts the loop around the token alone.
    pub(crate) fn raw(&self, key: &Key) -> Result<Raw> {
        let mut command = self.scene.command(std::env::current_exe()?);
        match &key.tpm {
            None => {
                command.arg("raw-pkcs11").arg(SoftHsm::module()?);
                command.args([self.token.label(), PIN, &key.identity.name]);
                command.args(key.rsa.then_some("--rsa"));
            }
            Some(tpm) => {
                command.args(["raw-tpm", &tpm.tcti(), &key.identity.key]);
                command.env("TSS2_LOG", "all+NONE");
            }
        }
        Raw::start(command)
    }

    /// So many identities with the key, each with a certificate of its own.
    pub(crate) fn identities(&self, key: &Key, count: usize) -> Result<Vec<AgentIdentity>> {
        let spki = openssl::x509::X509::from_pem(&std::fs::read(&key.identity.certificate)?)?;
        let spki = spki.public_key()?.public_key_to_der()?;
        let mut identities = vec![key.identity.clone()];
        for number in 1..count {
            let name = format!("{}-{number}", key.identity.name);
            let certificate = self.scene.path(&format!("{name}.pem"));
            self.scene
                .pki()
                .leaf(&spki, &LeafSpec::new(&name))?
                .write(&certificate)?;
            identities.push(AgentIdentity {
                name,
                certificate,
                ..key.identity.clone()
            });
        }
        Ok(identities)
    }
}

const KINDS: [(&str, &str, KeyKind); 2] = [
    ("RSA-2048", "batch", KeyKind::Rsa2048),
    ("EC P-256", "web", KeyKind::EcP256),
];

impl Key {
    fn new(
        name: &'static str,
        kind: KeyKind,
        mut identity: AgentIdentity,
        tpm: Option<Swtpm>,
    ) -> Key {
        for rule in &mut identity.allow {
            rule.roles = vec![WEB_ROLE_ARN.to_owned()];
        }
        if tpm.is_none() {
            identity.sessions = Some(SESSIONS);
        }
        Key {
            name,
            rsa: kind == KeyKind::Rsa2048,
            identity,
            tpm,
        }
    }
}

impl Running {
    /// Clients that use the identity.
    pub(crate) fn caller(&self, scene: &Scene, identity: &str) -> Caller {
        Caller::new(scene, &self.socket, identity)
    }

    /// Waits until every identity is ready.
    fn wait_ready(&self) -> Result<()> {
        let deadline = Instant::now() + READY;
        let mut client = wire::Client::connect(&self.socket)?;
        loop {
            let identities = client.list_identities()?;
            let all = |state| identities.iter().all(|identity| identity.state == state);
            if all(State::Ready) && !identities.is_empty() {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the identities did not become ready; the agent's log:\n{}",
                self.agent.process().log_tail()
            );
            std::thread::sleep(POLL);
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.agent.process().id()
    }

    /// The one token program.
    pub(crate) fn token_program(&self) -> Result<u32> {
        self.descendant(|name| TOKEN_PROGRAMS.contains(&name))
            .context("the agent has no token program")
    }

    /// Its launcher, which starts token programs.
    pub(crate) fn launcher(&self) -> Result<u32> {
        self.descendant(|name| !TOKEN_PROGRAMS.contains(&name))
            .context("the agent has no launcher")
    }

    fn descendant(&self, is_it: impl Fn(&str) -> bool) -> Option<u32> {
        let all = process::descendants(self.pid()).ok()?;
        all.into_iter()
            .find(|(_, name)| is_it(name))
            .map(|(pid, _)| pid)
    }

    pub(crate) fn stop(self) -> Result<()> {
        self.agent.stop()
    }
}
