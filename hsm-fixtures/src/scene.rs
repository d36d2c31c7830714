//! The whole system in one directory: token store, PKI, service, and the programs under test.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::agent::Agent;
use crate::agent_config::{AgentConfig, AgentIdentity, AllowRule};
use crate::pki::{LeafSpec, Pki};
use crate::private_file::write_private;
use crate::service::{Profile, Role, Service, ServiceConfig, TrustAnchor};
use crate::softhsm::{KeyKind, KeySpec, SoftHsm, Token};
use crate::swtpm::Swtpm;
use crate::tpm_key::TpmKeySpec;
use crate::{command, programs};

/// The region of a scene's trust anchor and profile.
pub const REGION: &str = "eu-central-1";
/// The trust anchor that a scene's service knows; its bundle is the PKI's root.
pub const TRUST_ANCHOR_ARN: &str = "arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/1f0b6f2e-93a4-4f0c-8d5a-7a5c0d1e2f30";
/// The profile that a scene's service knows: enabled, for both roles.
pub const PROFILE_ARN: &str =
    "arn:aws:rolesanywhere:eu-central-1:123456789012:profile/5a6b7c8d-0e1f-4a2b-9c3d-4e5f60718293";
/// A role for the identity `web`.
pub const WEB_ROLE_ARN: &str = "arn:aws:iam::123456789012:role/web-deploy";
/// A role for the identity `batch`.
pub const BATCH_ROLE_ARN: &str = "arn:aws:iam::123456789012:role/batch-nightly";

/// The PIN of tokens made by [`Scene::add_token`]: throw-away, and in logs of pkcs11-spy.
pub const PIN: &str = "26842684";

/// SoftHSM, PKI and service in a directory of their own. What is spawned here has a clean environment; drop agents
/// before the scene (they are declared after it), and nothing is left.
pub struct Scene {
    service: Service,
    pki: Pki,
    softhsm: SoftHsm,
    place: Place,
}

/// Where a scene lives.
enum Place {
    /// Removed at the end.
    Temporary(TempDir),
    /// Left for its user to look at.
    Kept(PathBuf),
}

impl Scene {
    /// A scene in a temporary directory, which goes with it.
    ///
    /// # Errors
    ///
    /// Where SoftHSM is missing, or the directory cannot be written.
    pub fn new() -> Result<Scene> {
        Scene::with_service(|_| {})
    }

    /// Like [`Scene::new`], with a service that knows something else: another profile, another clock.
    ///
    /// # Errors
    ///
    /// As for [`Scene::new`], and where the service refuses its configuration.
    pub fn with_service(edit: impl FnOnce(&mut ServiceConfig)) -> Result<Scene> {
        let dir = tempfile::Builder::new()
            .prefix("roleseal-")
            .tempdir()
            .context("cannot make a temporary directory")?;
        Scene::build(Place::Temporary(dir), edit)
    }

    /// A scene in `dir`, which is made or must be empty, and is kept.
    ///
    /// # Errors
    ///
    /// As for [`Scene::with_service`], and where `dir` holds something.
    pub fn in_directory(dir: &Path, edit: impl FnOnce(&mut ServiceConfig)) -> Result<Scene> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let dir = fs::canonicalize(dir)?;
        ensure!(
            fs::read_dir(&dir)?.next().is_none(),
            "{} is not empty",
            dir.display()
        );
        Scene::build(Place::Kept(dir), edit)
    }

    fn build(place: Place, edit: impl FnOnce(&mut ServiceConfig)) -> Result<Scene> {
        let dir = place.path();
        fs::create_dir(dir.join("state"))?;
        let softhsm = SoftHsm::create(dir)?;
        let pki = Pki::create(dir)?;
        let mut config = ServiceConfig::new(pki.tls_identity()?);
        config
            .trust_anchors
            .push(TrustAnchor::new(TRUST_ANCHOR_ARN, &pki.root_pem()?));
        config
            .profiles
            .push(Profile::new(PROFILE_ARN, &[WEB_ROLE_ARN, BATCH_ROLE_ARN]));
        config.roles = vec![Role::new(WEB_ROLE_ARN), Role::new(BATCH_ROLE_ARN)];
        edit(&mut config);
        let service = Service::start(config)?;
        Ok(Scene {
            service,
            pki,
            softhsm,
            place,
        })
    }

    /// The scene's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.place.path()
    }

    /// A path in the scene's directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// The token store.
    #[must_use]
    pub fn softhsm(&self) -> &SoftHsm {
        &self.softhsm
    }

    /// The PKI; its root is the trust anchor and the TLS root.
    #[must_use]
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// The local Roles Anywhere and STS.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Where the agent of [`Scene::agent_config`] listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path("agent.sock")
    }

    /// Initialises a token with [`PIN`], which also goes to the file `LABEL.pin` (mode 0600).
    ///
    /// # Errors
    ///
    /// Where SoftHSM refuses, or there is such a file.
    pub fn add_token(&self, label: &str) -> Result<Token> {
        let token = self.softhsm.add_token(label, PIN)?;
        write_private(&self.pin_path(&token), PIN.as_bytes())?;
        Ok(token)
    }

    /// The PIN file of a token made by [`Scene::add_token`].
    #[must_use]
    pub fn pin_path(&self, token: &Token) -> PathBuf {
        self.path(&format!("{}.pin", token.label()))
    }

    /// Generates the key `name` on `token`, certifies it (`NAME.pem`), and returns an identity that the user who runs
    /// this may use for the roles `arn:aws:iam::123456789012:role/NAME-*`, for up to an hour.
    ///
    /// # Errors
    ///
    /// Where the token refuses.
    pub fn add_identity(&self, token: &Token, name: &str, kind: KeyKind) -> Result<AgentIdentity> {
        self.add_identity_with(token, &KeySpec::new(name, kind), &LeafSpec::new(name))
    }

    /// Like [`Scene::add_identity`], with a key and a certificate of the caller's wishes; named as the key's label.
    ///
    /// # Errors
    ///
    /// Where the token refuses.
    pub fn add_identity_with(
        &self,
        token: &Token,
        key: &KeySpec,
        leaf: &LeafSpec,
    ) -> Result<AgentIdentity> {
        let name = key.label.as_str();
        let spki = token.generate(key)?;
        let certificate = self.path(&format!("{name}.pem"));
        self.pki.leaf(&spki, leaf)?.write(&certificate)?;
        let identity = AgentIdentity::new(name, token, &self.pin_path(token), &certificate);
        self.permit(identity)
    }

    /// Starts a TPM of its own, with its state, its log and the files of its keys in the scene's directory. It ends when
    /// dropped; declare it before the agents that use it.
    ///
    /// # Errors
    ///
    /// Where swtpm is missing or does not start.
    pub fn add_tpm(&self) -> Result<Swtpm> {
        let name = |number| match number {
            1 => "tpm".to_owned(),
            number => format!("tpm-{number}"),
        };
        let free = (1..)
            .map(|number| self.path(&name(number)))
            .find(|dir| !dir.exists());
        Swtpm::start(&free.context("no name is left for a TPM")?)
    }

    /// Makes the key `name` on `tpm`, certifies it (`NAME.pem`), writes its auth value, where it has one, to `NAME.pin`
    /// (mode 0600), and returns an identity with the same rights as [`Scene::add_identity`] gives. The agent's
    /// configuration has to name the TPM, too.
    ///
    /// # Errors
    ///
    /// As for [`Swtpm::add_key`].
    pub fn add_tpm_identity(
        &self,
        tpm: &Swtpm,
        name: &str,
        spec: &TpmKeySpec,
    ) -> Result<AgentIdentity> {
        let key = tpm.add_key(name, spec)?;
        let certificate = self.path(&format!("{name}.pem"));
        let leaf = self.pki.leaf(&key.spki, &LeafSpec::new(name))?;
        leaf.write(&certificate)?;
        let auth_file = match &spec.auth {
            Some(auth) => Some(self.write(&format!("{name}.pin"), auth)?),
            None => None,
        };
        self.permit(AgentIdentity::on_tpm(
            name,
            &key,
            auth_file.as_deref(),
            &certificate,
        ))
    }

    /// Lets the user who runs this use the identity for the service and the roles of its name.
    fn permit(&self, identity: AgentIdentity) -> Result<AgentIdentity> {
        let name = &identity.name;
        Ok(AgentIdentity {
            endpoints: vec![self.service.url()],
            allow: vec![AllowRule {
                users: vec![self.uid()?],
                roles: vec![format!("arn:aws:iam::123456789012:role/{name}-*")],
                max_duration: "1h".to_owned(),
            }],
            ..identity
        })
    }

    /// A configuration for the scene's socket, its directory `state` and SoftHSM's module.
    ///
    /// # Errors
    ///
    /// Where the machine has no SoftHSM.
    pub fn agent_config(&self, identity: Vec<AgentIdentity>) -> Result<AgentConfig> {
        Ok(AgentConfig {
            socket: self.socket(),
            state: Some(self.path("state")),
            pkcs11_module: SoftHsm::module()?,
            tpm: None,
            limits: None,
            identity,
        })
    }

    /// Writes a file for its owner alone (0600) into the scene's directory, over an earlier one.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        if path.exists() {
            fs::remove_file(&path).with_context(|| format!("cannot replace {}", path.display()))?;
        }
        write_private(&path, text.as_bytes())?;
        Ok(path)
    }

    /// `roleseal-agent --config CONFIG`, with the scene's environment; for a test to add to and run.
    ///
    /// # Errors
    ///
    /// Where the agent has not been built.
    pub fn agent_command(&self, config: &Path) -> Result<Command> {
        let mut command = self.command(programs::agent()?);
        command.arg("--config").arg(config);
        Ok(command)
    }

    /// Writes `agent.toml` and starts an agent, whose log is `agent.log`; returns once its socket answers.
    ///
    /// # Errors
    ///
    /// Where the agent ends instead, or does not listen in time; the error shows the end of its log.
    pub fn start_agent(&self, config: &AgentConfig) -> Result<Agent> {
        let file = self.write("agent.toml", &config.to_toml()?)?;
        Agent::start(
            self.agent_command(&file)?,
            &config.socket,
            &self.path("agent.log"),
            || false,
        )
    }

    /// `roleseal ARGS`, with the scene's environment.
    ///
    /// # Errors
    ///
    /// Where the CLI has not been built.
    pub fn roleseal<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Command> {
        let mut command = self.command(programs::roleseal()?);
        command.args(args);
        Ok(command)
    }

    /// The arguments of `roleseal` that get credentials for a role, from this scene's agent and service.
    #[must_use]
    pub fn credential_process(&self, identity: &str, role_arn: &str) -> Vec<String> {
        let socket = self.socket().display().to_string();
        let root = self.pki.root_path().display().to_string();
        let endpoint = self.service.url();
        [
            "credential-process",
            "--socket",
            &socket,
            "--identity",
            identity,
            "--role-arn",
            role_arn,
            "--profile-arn",
            PROFILE_ARN,
            "--trust-anchor-arn",
            TRUST_ANCHOR_ARN,
            "--endpoint",
            &endpoint,
            "--ca-bundle",
            &root,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// Any program with the scene's environment: PATH, LANG, HOME and TMPDIR (the scene's directory: what a program that
    /// is killed leaves behind goes with it) and SOFTHSM2_CONF.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = command::clean(program);
        command
            .env("HOME", self.dir())
            .env("TMPDIR", self.dir())
            .envs(self.softhsm.env());
        command
    }

    /// The user who runs this, as the owner of what we have just made.
    fn uid(&self) -> Result<u32> {
        Ok(fs::metadata(self.softhsm.config())?.uid())
    }
}

impl Place {
    fn path(&self) -> &Path {
        match self {
            Place::Temporary(dir) => dir.path(),
            Place::Kept(dir) => dir,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_identity_has_a_key_a_certificate_and_a_rule() {
        let scene = Scene::new().unwrap();
        let token = scene.add_token("lab").unwrap();
        let web = scene.add_identity(&token, "web", KeyKind::EcP256).unwrap();
        assert_eq!(web.key, "pkcs11:token=lab;object=web");
        assert!(token.private_key_access("web").is_ok());
        assert_eq!(
            fs::read_to_string(&web.certificate)
                .unwrap()
                .matches("BEGIN CERTIFICATE")
                .count(),
            2
        );
        let pin = fs::metadata(&web.pin.as_ref().unwrap().file).unwrap();
        assert_eq!(pin.permissions().mode() & 0o777, 0o600);
        let text = scene.agent_config(vec![web]).unwrap().to_toml().unwrap();
        assert!(text.contains(&scene.service().url()), "{text}");
    }

    #[test]
    fn an_identity_on_a_tpm_has_a_key_a_certificate_and_a_rule() {
        let scene = Scene::new().unwrap();
        let (first, second) = (scene.add_tpm().unwrap(), scene.add_tpm().unwrap());
        assert_ne!(first.dir(), second.dir());
        let plain = TpmKeySpec::new(KeyKind::EcP256);
        let web = scene.add_tpm_identity(&first, "web", &plain).unwrap();
        assert!(Path::new(&web.key).is_file(), "{}", web.key);
        assert!(web.certificate.is_file() && web.pin.is_none());
        let secret = TpmKeySpec {
            auth: Some("2684".to_owned()),
            ..plain
        };
        let batch = scene.add_tpm_identity(&second, "batch", &secret).unwrap();
        let pin = batch.pin.unwrap().file;
        assert_eq!(
            fs::metadata(&pin).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_to_string(pin).unwrap(), "2684");
        assert_eq!(batch.allow[0].roles.len(), 1);
    }

    #[test]
    fn a_temporary_directory_goes_with_the_scene_and_a_named_one_stays() {
        let scene = Scene::new().unwrap();
        let dir = scene.dir().to_owned();
        assert!(dir.is_dir());
        drop(scene);
        assert!(!dir.exists());

        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("named");
        drop(Scene::in_directory(&dir, |_| {}).unwrap());
        assert!(dir.join("root.pem").is_file());
        assert!(
            Scene::in_directory(&dir, |_| {})
                .err()
                .unwrap()
                .to_string()
                .contains("not empty")
        );
    }

    #[test]
    fn programs_do_not_see_our_environment() {
        let scene = Scene::new().unwrap();
        let text = String::from_utf8(command::output(&mut scene.command("env")).unwrap()).unwrap();
        let mut names: Vec<&str> = text
            .lines()
            .filter_map(|line| Some(line.split_once('=')?.0))
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["HOME", "LANG", "PATH", "SOFTHSM2_CONF", "TMPDIR"]);
    }
}
