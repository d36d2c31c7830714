mod auth_values;
mod loss;

use std::collections::BTreeMap;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use hsm_fixtures::{
    Agent, AgentIdentity, KeyKind, Scene, Swtpm, TpmConfig, TpmKeyForm, TpmKeyParent, TpmKeySpec,
    WEB_ROLE_ARN, command, programs,
};
use serde_json::Value;

use crate::agent::{identities, json_of, token_programs};

/// A scene with a TPM and, once started, its agent.
struct Chip {
    agent: Option<Agent>,
    identities: Vec<AgentIdentity>,
    tpm: Swtpm,
    scene: Scene,
}

const AUTH: &str = "correct horse";

/// How long a service may take to resume after its TPM came back.
const RESUMED: Duration = Duration::from_secs(20);

impl Chip {
    fn new() -> Chip {
        let scene = Scene::new().unwrap();
        Chip {
            agent: None,
            identities: Vec::new(),
            tpm: scene.add_tpm().unwrap(),
            scene,
        }
    }

    fn add(&mut self, name: &str, spec: &TpmKeySpec) {
        let mut identity = self.scene.add_tpm_identity(&self.tpm, name, spec).unwrap();
        identity.allow[0].roles = vec![WEB_ROLE_ARN.to_owned()];
        self.identities.push(identity);
    }

    fn start(&mut self) {
        let mut config = self.scene.agent_config(self.identities.clone()).unwrap();
        config.tpm = Some(TpmConfig {
            tcti: self.tpm.tcti(),
        });
        self.agent = Some(self.scene.start_agent(&config).unwrap());
    }

    fn stop(&mut self) {
        self.agent.take().unwrap().stop().unwrap();
    }

    fn command(&self, name: &str) -> std::process::Command {
        let arguments = self.scene.credential_process(name, WEB_ROLE_ARN);
        self.scene.roleseal(&arguments).unwrap()
    }

    fn ask(&self, name: &str) -> Output {
        self.command(name).output().unwrap()
    }

    fn sign(&self, name: &str) {
        json_of(&self.ask(name));
    }

    /// Many at the same time.
    fn ask_at_once(&self, name: &str, count: usize) -> Vec<Output> {
        let running: Vec<_> = (0..count)
            .map(|_| {
                let mut command = self.command(name);
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
                command.spawn().unwrap()
            })
            .collect();
        running
            .into_iter()
            .map(|child| child.wait_with_output().unwrap())
            .collect()
    }

    /// Asks until it is served again.
    fn wait_for(&self, name: &str) {
        let deadline = Instant::now() + RESUMED;
        loop {
            let output = self.ask(name);
            if output.status.success() {
                return;
            }
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(Instant::now() < deadline, "{stderr}");
        }
    }

    fn states(&self) -> BTreeMap<String, Value> {
        identities(&self.scene)
            .into_iter()
            .map(|identity| (identity["name"].as_str().unwrap().to_owned(), identity))
            .collect()
    }

    /// Nothing of ours is in the TPM, not even a session that is saved outside it.
    fn assert_left_nothing(&self) {
        for kind in [
            "handles-transient",
            "handles-loaded-session",
            "handles-saved-session",
        ] {
            assert_eq!(self.tpm.capability(kind).unwrap(), "", "{kind}");
        }
    }
}

fn ec() -> TpmKeySpec {
    TpmKeySpec::new(KeyKind::EcP256)
}

fn with_auth(spec: TpmKeySpec) -> TpmKeySpec {
    TpmKeySpec {
        auth: Some(AUTH.to_owned()),
        ..spec
    }
}

fn persistent(handle: u32) -> TpmKeyForm {
    TpmKeyForm::Persistent(handle)
}

fn refused(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert_eq!(output.stdout, b"");
    stderr
}

/// Every kind that swtpm has, without and with an auth value, in one agent.
fn every_kind_signs(form: impl Fn(u32) -> TpmKeyForm, parent: TpmKeyParent) {
    let mut chip = Chip::new();
    let mut number = 0;
    for kind in [
        KeyKind::Rsa2048,
        KeyKind::Rsa3072,
        KeyKind::EcP256,
        KeyKind::EcP384,
        KeyKind::EcP521,
    ] {
        let spec = TpmKeySpec {
            form: form(number),
            parent,
            ..TpmKeySpec::new(kind)
        };
        chip.add(&format!("{kind:?}"), &spec);
        let spec = TpmKeySpec {
            form: form(number + 1),
            ..with_auth(spec)
        };
        chip.add(&format!("{kind:?}-auth"), &spec);
        number += 2;
    }
    chip.start();
    for _ in 0..2 {
        for identity in &chip.identities {
            chip.sign(&identity.name);
        }
    }
    let signed = 2 * chip.identities.len() as u64;
    assert_eq!(chip.scene.service().sessions_created(), signed);
    chip.stop();
    chip.assert_left_nothing();
    assert_eq!(chip.tpm.lockout_counter().unwrap(), 0);
}

#[test]
fn every_kind_of_file_by_tpm2_tools_signs() {
    every_kind_signs(|_| TpmKeyForm::File, TpmKeyParent::OwnerPrimary);
}

#[test]
fn every_kind_of_file_by_tpm2_openssl_signs() {
    every_kind_signs(|_| TpmKeyForm::OpenSslFile, TpmKeyParent::OwnerPrimary);
}

#[test]
fn every_kind_below_a_persistent_parent_signs() {
    every_kind_signs(|_| TpmKeyForm::File, TpmKeyParent::Persistent(0x8100_0001));
}

#[test]
fn every_kind_at_a_persistent_handle_signs() {
    every_kind_signs(
        |number| persistent(0x8100_0101 + number),
        TpmKeyParent::OwnerPrimary,
    );
}

#[test]
fn keys_with_a_fixed_scheme_sign() {
    let mut chip = Chip::new();
    for (name, kind, scheme) in [
        ("p256", KeyKind::EcP256, "ecdsa-sha256"),
        ("p384", KeyKind::EcP384, "ecdsa-sha256"),
        ("p384-sha384", KeyKind::EcP384, "ecdsa-sha384"),
        ("rsa", KeyKind::Rsa2048, "rsassa-sha256"),
    ] {
        let spec = TpmKeySpec {
            scheme: Some(scheme.to_owned()),
            ..TpmKeySpec::new(kind)
        };
        chip.add(name, &spec);
    }
    chip.start();
    for identity in &chip.identities {
        chip.sign(&identity.name);
        chip.sign(&identity.name);
    }
}

#[test]
fn a_policy_binds_a_key_to_a_pcr() {
    let mut chip = Chip::new();
    let spec = TpmKeySpec {
        pcr: Some(16),
        ..ec()
    };
    chip.add("sealed", &spec);
    chip.start();
    chip.sign("sealed");
    let before = chip.tpm.commands().len();
    chip.sign("sealed");
    let commands = chip.tpm.commands().split_off(before);
    assert_eq!(commands, ["TPM2_PolicyPCR", "TPM2_Sign"]);

    // The machine has become another one.
    let digest = "16:sha256=0000000000000000000000000000000000000000000000000000000000000001";
    command::output(chip.tpm.tool("tpm2_pcrextend").arg(digest)).unwrap();
    let message = refused(&chip.ask("sealed"));
    assert!(
        message.contains("PCR") && message.contains("16"),
        "{message}"
    );
    let identity = &crate::agent::identities(&chip.scene)[0];
    assert_eq!(identity["state"], "unusable");
    assert!(
        identity["message"].as_str().unwrap().contains("PCR"),
        "{identity}"
    );
    chip.stop();
    chip.assert_left_nothing();
}

#[test]
fn keys_that_must_not_or_cannot_sign_say_why() {
    let mut chip = Chip::new();
    let rsa = TpmKeySpec::new(KeyKind::Rsa2048);
    let attributes = |spec: &TpmKeySpec, text: &str| TpmKeySpec {
        attributes: text.to_owned(),
        ..spec.clone()
    };
    let decrypt = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|decrypt";
    chip.add("decrypt", &attributes(&rsa, decrypt));
    let restricted = TpmKeySpec {
        scheme: Some("ecdsa-sha256:null".to_owned()),
        ..attributes(
            &ec(),
            "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign",
        )
    };
    chip.add("restricted", &restricted);
    let movable = "sensitivedataorigin|userwithauth|sign";
    chip.add("movable", &attributes(&ec(), movable));
    chip.add("web", &ec());
    chip.start();
    let states = chip.states();
    for (name, expected) in [("decrypt", "sign"), ("restricted", "restricted")] {
        assert_eq!(states[name]["state"], "unusable", "{}", states[name]);
        let message = states[name]["message"].as_str().unwrap();
        assert!(message.contains(expected), "{message}");
    }
    assert_eq!(states["movable"]["state"], "ready");
    assert_eq!(states["movable"]["warnings"].as_array().unwrap().len(), 1);
    assert_eq!(states["web"]["warnings"].as_array().unwrap().len(), 0);
    chip.sign("movable");
}

#[test]
fn a_further_signature_costs_one_command() {
    for spec in [
        ec(),
        with_auth(ec()),
        with_auth(TpmKeySpec {
            form: TpmKeyForm::OpenSslFile,
            ..TpmKeySpec::new(KeyKind::Rsa2048)
        }),
        TpmKeySpec {
            form: persistent(0x8100_0101),
            ..ec()
        },
        with_auth(TpmKeySpec {
            form: persistent(0x8100_0101),
            ..ec()
        }),
    ] {
        let mut chip = Chip::new();
        chip.add("web", &spec);
        chip.start();
        chip.sign("web");
        let before = chip.tpm.commands().len();
        for _ in 0..5 {
            chip.sign("web");
        }
        let commands = chip.tpm.commands().split_off(before);
        assert_eq!(commands, ["TPM2_Sign"; 5], "{spec:?}");
        assert!(!chip.agent.as_ref().unwrap().process().log().contains(AUTH));
        chip.stop();
        chip.assert_left_nothing();
    }
}

/// Files and handles, without and with auth values: more than a TPM has room for.
fn twelve() -> Chip {
    let mut chip = Chip::new();
    for number in 0..12 {
        let form = match number % 4 {
            0 => persistent(0x8100_0101 + number),
            1 => TpmKeyForm::OpenSslFile,
            _ => TpmKeyForm::File,
        };
        let kind = match number % 3 {
            0 => KeyKind::Rsa2048,
            _ => KeyKind::EcP256,
        };
        let spec = TpmKeySpec {
            form,
            auth: (number % 2 == 0).then(|| AUTH.to_owned()),
            ..TpmKeySpec::new(kind)
        };
        chip.add(&format!("web-{number}"), &spec);
    }
    chip
}

#[test]
fn twelve_identities_share_a_tpm_without_a_resource_manager() {
    let mut chip = twelve();
    chip.start();
    for _ in 0..2 {
        for identity in &chip.identities {
            chip.sign(&identity.name);
        }
    }
    let in_turn = chip.scene.service().sessions_created();
    let deadline = Instant::now() + Duration::from_secs(5);
    std::thread::scope(|scope| {
        for identity in &chip.identities {
            let chip = &chip;
            scope.spawn(move || {
                while Instant::now() < deadline {
                    chip.sign(&identity.name);
                }
            });
        }
    });
    assert!(chip.scene.service().sessions_created() > in_turn + 12);
    for state in chip.states().values() {
        assert_eq!(state["state"], "ready", "{state}");
    }
    chip.stop();
    chip.assert_left_nothing();
    assert_eq!(chip.tpm.lockout_counter().unwrap(), 0);
}

#[test]
fn one_agent_serves_an_hsm_and_a_tpm() {
    let mut chip = Chip::new();
    let token = chip.scene.add_token("lab").unwrap();
    let web = chip
        .scene
        .add_identity(&token, "web", KeyKind::EcP256)
        .unwrap();
    chip.identities.push(web);
    chip.add("chip", &with_auth(ec()));
    chip.start();
    chip.sign("web");
    chip.sign("chip");
    assert_eq!(token_programs(chip.agent.as_ref().unwrap()).len(), 2);

    // The HSM is none of a dead TPM's business.
    chip.tpm.kill().unwrap();
    refused(&chip.ask("chip"));
    chip.sign("web");
}
