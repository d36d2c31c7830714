//! The system that `up` and `demo` show: one token, two keys, two identities.

use std::path::{Path, PathBuf};

use anyhow::Result;
use hsm_fixtures::{Agent, KeyKind, PROFILE_ARN, Scene, SoftHsm, Token, programs};

use crate::interrupt::Interrupt;

/// A running system; dropping it ends the agent, then the service, then removes a temporary directory.
pub(crate) struct Lab {
    pub(crate) agent: Agent,
    pub(crate) token: Token,
    pub(crate) scene: Scene,
}

/// What is asked of a lab.
pub(crate) struct Wish<'a> {
    /// Where it lives; `None` for a temporary directory.
    pub(crate) dir: Option<&'a Path>,
    /// Whether pkcs11-spy logs each call.
    pub(crate) spy: bool,
    /// Whether the service tells of each decision on stderr.
    pub(crate) verbose: bool,
}

impl Lab {
    /// Starts it, with a line on stderr for each step.
    pub(crate) fn start(interrupt: &Interrupt, wish: &Wish<'_>) -> Result<Lab> {
        // Before anything is made, since a missing program is the likeliest mistake.
        programs::agent()?;
        programs::roleseal()?;
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
        let mut config = scene.agent_config(identities)?;
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
            token,
            scene,
        })
    }

    /// Where pkcs11-spy writes, where it was wished for.
    pub(crate) fn spy_log(&self) -> PathBuf {
        spy_log(&self.scene)
    }
}

fn spy_log(scene: &Scene) -> PathBuf {
    scene.path("spy.log")
}

/// One line of progress.
fn step(name: &str, text: &str) {
    eprintln!("{name:<10} {text}");
}
