//! The system that `up` and `demo` show: one token with two keys; a TPM with one key, where it is wished for.

use std::path::{Path, PathBuf};

use anyhow::Result;
use hsm_fixtures::{
    Agent, AgentIdentity, BATCH_ROLE_ARN, KeyKind, PIN, PROFILE_ARN, Scene, SoftHsm, Swtpm, Token,
    TpmConfig, TpmKeySpec, WEB_ROLE_ARN, programs,
};

use crate::interrupt::Interrupt;

/// The identity whose key is on the TPM; it has the role of `web`.
pub(crate) const ON_TPM: &str = "web-tpm";

/// A running system; dropping it ends the agent, then TPM and service, then removes a temporary directory.
pub(crate) struct Lab {
    pub(crate) agent: Agent,
    pub(crate) tpm: Option<Chip>,
    pub(crate) token: Token,
    pub(crate) scene: Scene,
}

/// A TPM with the key of the identity [`ON_TPM`].
pub(crate) struct Chip {
    pub(crate) swtpm: Swtpm,
    /// What `key = ` says.
    pub(crate) key: String,
    /// How many commands it had before the agent started.
    before: usize,
}

/// What is asked of a lab.
pub(crate) struct Wish<'a> {
    /// Where it lives; `None` for a temporary directory.
    pub(crate) dir: Option<&'a Path>,
    /// Whether pkcs11-spy logs each call.
    pub(crate) spy: bool,
    /// Whether there is a TPM.
    pub(crate) tpm: bool,
    /// Whether the service tells of each decision on stderr.
    pub(crate) verbose: bool,
}

impl Lab {
    /// Starts it, with a line on stderr for each step.
    pub(crate) fn start(interrupt: &Interrupt, wish: &Wish<'_>) -> Result<Lab> {
        // Before anything is made, since a missing program is the likeliest mistake.
        programs::agent()?;
        programs::roleseal()?;
        if wish.tpm {
            programs::tpm()?;
        }
        let scene = match wish.dir {
            None => Scene::with_service(|config| config.verbose = wish.verbose)?,
            Some(dir) => Scene::in_directory(dir, |config| config.verbose = wish.verbose)?,
        };
        step("directory", &scene.dir().display().to_string());
        step(
            "service",
            &format!(
                "{} (IAM Roles Anywhere and STS), {PROFILE_ARN}",
                scene.service().url()
            ),
        );
        let token = scene.add_token("lab")?;
        step(
            "token",
            &format!("{} in {}", token.label(), SoftHsm::module()?.display()),
        );
        let mut identities = Vec::new();
        for (name, kind, what) in [
            ("web", KeyKind::EcP256, "EC P-256"),
            ("batch", KeyKind::Rsa2048, "RSA-2048"),
        ] {
            interrupt.check()?;
            let identity = scene.add_identity(&token, name, kind)?;
            step(
                "identity",
                &format!(
                    "{name}: {} ({what}, made on the token), {}",
                    identity.key,
                    identity.certificate.display()
                ),
            );
            identities.push(identity);
        }
        interrupt.check()?;
        let mut tpm = None;
        if wish.tpm {
            let (identity, chip) = add_tpm(&scene)?;
            identities.push(identity);
            tpm = Some(chip);
        }
        interrupt.check()?;
        let mut config = scene.agent_config(identities)?;
        config.tpm = tpm.as_ref().map(|chip| TpmConfig {
            tcti: chip.swtpm.tcti(),
        });
        if wish.spy {
            config.pkcs11_module = SoftHsm::spy_module()?;
        }
        let file = scene.write("agent.toml", &config.to_toml()?)?;
        let mut command = scene.agent_command(&file)?;
        if wish.spy {
            command
                .env("PKCS11SPY", SoftHsm::module()?)
                .env("PKCS11SPY_OUTPUT", spy_log(&scene));
        }
        let agent = Agent::start(command, &scene.socket(), &scene.path("agent.log"), || {
            interrupt.is_set()
        })?;
        step(
            "agent",
            &format!(
                "process {}, {}",
                agent.process().id(),
                scene.socket().display()
            ),
        );
        Ok(Lab {
            agent,
            tpm,
            token,
            scene,
        })
    }

    /// The identities, each with a role that it may have.
    pub(crate) fn identities(&self) -> Vec<(&'static str, &'static str)> {
        let mut identities = vec![("web", WEB_ROLE_ARN), ("batch", BATCH_ROLE_ARN)];
        if self.tpm.is_some() {
            identities.push((ON_TPM, WEB_ROLE_ARN));
        }
        identities
    }

    /// Ends the agent, which must end well, then the rest.
    pub(crate) fn stop(self) -> Result<()> {
        self.agent.stop()
    }

    /// Where pkcs11-spy writes, where it was wished for.
    pub(crate) fn spy_log(&self) -> PathBuf {
        spy_log(&self.scene)
    }
}

impl Chip {
    /// The TPM commands since the agent started.
    pub(crate) fn commands(&self) -> Vec<String> {
        self.swtpm.commands().split_off(self.before)
    }
}

fn add_tpm(scene: &Scene) -> Result<(AgentIdentity, Chip)> {
    let swtpm = scene.add_tpm()?;
    step("tpm", &swtpm.tcti());
    let spec = TpmKeySpec {
        auth: Some(PIN.to_owned()),
        ..TpmKeySpec::new(KeyKind::EcP256)
    };
    let mut identity = scene.add_tpm_identity(&swtpm, ON_TPM, &spec)?;
    for rule in &mut identity.allow {
        rule.roles = vec![WEB_ROLE_ARN.to_owned()];
    }
    step(
        "identity",
        &format!(
            "{ON_TPM}: {} (EC P-256, made in the TPM, with an auth value), {}",
            identity.key,
            identity.certificate.display()
        ),
    );
    let chip = Chip {
        key: identity.key.clone(),
        before: swtpm.commands().len(),
        swtpm,
    };
    Ok((identity, chip))
}

fn spy_log(scene: &Scene) -> PathBuf {
    scene.path("spy.log")
}

/// One line of progress.
fn step(name: &str, text: &str) {
    eprintln!("{name:<10} {text}");
}
