//! SoftHSM, swtpm, a small PKI and a strict local IAM Roles Anywhere, on one machine: what roleseal is shown and judged on.
//!
//! A [`Scene`] puts them together in a directory of its own, and starts the programs under test there. It shares no
//! code with them.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use hsm_fixtures::{KeyKind, Scene, WEB_ROLE_ARN};
//!
//! let scene = Scene::new()?;
//! let token = scene.add_token("lab")?;
//! let web = scene.add_identity(&token, "web", KeyKind::EcP256)?;
//! let agent = scene.start_agent(&scene.agent_config(vec![web])?)?;
//! let output = scene.roleseal(&scene.credential_process("web", WEB_ROLE_ARN))?.output()?;
//! assert!(output.status.success());
//! assert_eq!(scene.service().sessions_created(), 1);
//! agent.stop()?;
//! # Ok(())
//! # }
//! ```

mod agent;
mod agent_config;
pub mod command;
mod faulty;
mod pki;
mod private_file;
mod process;
pub mod programs;
mod scene;
mod service;
mod softhsm;
mod swtpm;
mod tpm_key;

pub use agent::Agent;
pub use agent_config::{
    AgentConfig, AgentIdentity, AllowRule, LimitsConfig, PinFile, RenewConfig, TpmConfig,
};
pub use faulty::FaultyModule;
pub use pki::{Digest, Issuer, Leaf, LeafSpec, Pki, Purpose, TlsIdentity};
pub use process::Process;
pub use scene::{BATCH_ROLE_ARN, PIN, PROFILE_ARN, REGION, Scene, TRUST_ANCHOR_ARN, WEB_ROLE_ARN};
pub use service::{
    AttributeMapping, CertificateField, DEFAULT_PROFILE_SECONDS, Decision, Explained, Fault,
    Operation, Profile, Question, Role, Service, ServiceConfig, TrustAnchor,
};
pub use softhsm::{KeyKind, KeySpec, SoftHsm, Token};
pub use swtpm::Swtpm;
pub use tpm_key::{TpmKey, TpmKeyForm, TpmKeyParent, TpmKeySpec};
