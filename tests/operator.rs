mod attestation;
mod mistakes;
mod pins;
mod terminal;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hsm_fixtures::{
    AgentIdentity, FaultyModule, LeafSpec, Scene, SoftHsm, Swtpm, Token, TpmConfig, WEB_ROLE_ARN,
    command, programs,
};
use openssl::pkey::PKey;
use openssl::x509::X509Req;
use serde_json::{Value, json};

use crate::agent::{Web, call, json_of, token_programs, until};

const TYPES: [&str; 5] = ["ec-p256", "ec-p384", "rsa-2048", "rsa-3072", "rsa-4096"];

/// A token and a TPM, and an operator at a shell.
struct Desk {
    tpm: Swtpm,
    token: Token,
    scene: Scene,
}

impl Desk {
    fn new() -> Desk {
        let scene = Scene::new().unwrap();
        Desk {
            tpm: scene.add_tpm().unwrap(),
            token: scene.add_token("lab").unwrap(),
            scene,
        }
    }

    /// `roleseal-agent LINE`, in the scene's directory.
    fn command(&self, line: &str) -> Command {
        let mut command = self.scene.command(programs::admin().unwrap());
        command
            .args(self.arguments(line))
            .current_dir(self.scene.dir());
        command
    }

    /// The words of a line, with MODULE, PIN and TCTI for what they are here.
    fn arguments(&self, line: &str) -> Vec<String> {
        let module = SoftHsm::module().unwrap().display().to_string();
        let pin = self.scene.pin_path(&self.token).display().to_string();
        line.split_whitespace()
            .map(|word| match word {
                "MODULE" => module.clone(),
                "PIN" => pin.clone(),
                "TCTI" => self.tpm.tcti(),
                word => word.to_owned(),
            })
            .collect()
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// What a line that succeeds prints.
    fn text(&self, line: &str) -> String {
        let output = self.run(line);
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(
            output.status.success(),
            "{line}: {}: {stdout}{stderr}",
            output.status
        );
        stdout
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.text(line)).unwrap()
    }

    /// Why a line fails, without having printed anything.
    fn failure(&self, line: &str, code: i32) -> String {
        let output = self.run(line);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{line}: {stderr}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{line}");
        stderr
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scene.path(name)
    }

    /// The keys that a listing of the token has.
    fn keys_on_token(&self) -> Vec<String> {
        let listing =
            self.json("key list --module MODULE --uri pkcs11:token=lab --pin-file PIN --json");
        keys(&listing["tokens"][0])
    }

    fn keys_in_tpm(&self) -> Vec<String> {
        keys(&self.json("key list --tpm TCTI --json")["tpm"])
    }
}

fn keys(listed: &Value) -> Vec<String> {
    let keys = listed["keys"].as_array().unwrap().iter();
    keys.map(|key| key["key"].as_str().unwrap().to_owned())
        .collect()
}

/// OpenSSL's own program verifies the request; its public key.
fn verified(request: &Path, made: &Value) -> Vec<u8> {
    let mut openssl = Command::new("openssl");
    openssl
        .args(["req", "-verify", "-noout", "-in"])
        .arg(request);
    command::output(&mut openssl).unwrap();
    let request = X509Req::from_pem(&std::fs::read(request).unwrap()).unwrap();
    let key = request.public_key().unwrap();
    let made = PKey::public_key_from_pem(made["publicKey"].as_str().unwrap().as_bytes()).unwrap();
    assert!(key.public_eq(&made));
    key.public_key_to_der().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The certificate that a CA issues for this key: `web.pem`.
fn certify(desk: &Desk, public_key: &[u8]) {
    let leaf = desk
        .scene
        .pki()
        .leaf(public_key, &LeafSpec::new("web"))
        .unwrap();
    leaf.write(&desk.path("web.pem")).unwrap();
}

#[test]
fn every_kind_of_key_is_made_requested_listed_and_deleted_on_a_token() {
    let desk = Desk::new();
    for name in TYPES {
        let key = format!("--uri pkcs11:token=lab;object={name} --module MODULE --pin-file PIN");
        let made = desk.json(&format!("key generate {key} --type {name} --json"));
        let uri = format!("pkcs11:token=lab;object={name}");
        assert_eq!(made["key"], uri);
        for (attribute, value) in [
            ("CKA_SIGN", true),
            ("CKA_ALWAYS_SENSITIVE", true),
            ("CKA_NEVER_EXTRACTABLE", true),
            ("CKA_LOCAL", true),
            ("CKA_EXTRACTABLE", false),
        ] {
            assert_eq!(made["attributes"][attribute], value, "{made}");
        }
        desk.text(&format!(
            "csr {key} --subject CN={name} --dns {name}.example.org --out {name}.csr"
        ));
        let public = verified(&desk.path(&format!("{name}.csr")), &made);
        assert_eq!(desk.keys_on_token(), [uri]);

        certify(&desk, &public);
        let stored = desk.text(&format!("cert import {key} --cert web.pem"));
        assert!(stored.starts_with("stored pkcs11:token=lab;"), "{stored}");
        let listed =
            desk.json("key list --module MODULE --uri pkcs11:token=lab --pin-file PIN --json");
        let certificate = &listed["tokens"][0]["keys"][0]["certificates"][0];
        assert_eq!(certificate["subject"], "CN=web,O=roleseal fixtures");

        let gone = desk.text(&format!("key delete {key} --yes"));
        assert_eq!(gone.matches("deleted").count(), 3, "{gone}");
        assert_eq!(desk.keys_on_token(), [""; 0]);
    }
}

#[test]
fn every_kind_of_key_is_made_requested_listed_and_deleted_in_a_tpm() {
    let desk = Desk::new();
    for name in TYPES.into_iter().filter(|name| *name != "rsa-4096") {
        let made = desk.json(&format!(
            "key generate --tpm TCTI --persist 0x81000101 --type {name} --json"
        ));
        assert_eq!(made["key"], "handle:0x81000101");
        for attribute in ["fixedTPM", "fixedParent", "sensitiveDataOrigin", "sign"] {
            let attributes = made["tpmAttributes"].as_array().unwrap();
            assert!(attributes.contains(&json!(attribute)), "{made}");
        }
        let request =
            format!("csr --handle 0x81000101 --tpm TCTI --subject CN={name} --out {name}.csr");
        desk.text(&request);
        verified(&desk.path(&format!("{name}.csr")), &made);
        assert_eq!(desk.keys_in_tpm(), ["handle:0x81000101"]);
        let taken = desk.failure("key generate --tpm TCTI --persist 0x81000101", 1);
        assert!(taken.contains("0x81000101"), "{taken}");
        let gone = desk.text("key delete --tpm TCTI --handle 0x81000101 --yes");
        assert_eq!(gone, "deleted handle:0x81000101\n");
        assert_eq!(desk.keys_in_tpm(), [""; 0]);

        let file = desk.path(&format!("{name}.tss")).display().to_string();
        let made = desk.json(&format!(
            "key generate --tpm TCTI --out {name}.tss --type {name} --json"
        ));
        assert_eq!(made["key"], file);
        desk.text(&format!(
            "csr --key {name}.tss --tpm TCTI --subject CN={name} --out {name}-2.csr"
        ));
        verified(&desk.path(&format!("{name}-2.csr")), &made);
    }
    let failure = desk.failure("key generate --tpm TCTI --out big.tss --type rsa-4096", 1);
    assert!(failure.contains("does not make rsa-4096"), "{failure}"); // as most TPMs
    assert_eq!(desk.tpm.capability("handles-transient").unwrap(), "");
    assert!(
        desk.failure("key delete --tpm TCTI --handle 0x81000101 --yes", 1)
            .contains("no key at")
    );
}

#[test]
fn keys_that_an_operator_makes_get_credentials() {
    let desk = Desk::new();
    let rule = |identity: AgentIdentity| {
        let mut other =
            desk.scene
                .add_identity(&desk.token, "other", hsm_fixtures::KeyKind::EcP256);
        let mut other = other.as_mut().unwrap().clone();
        other.name = identity.name;
        other.key = identity.key;
        other.pin = identity.pin;
        other.certificate = identity.certificate;
        other.sessions = identity.sessions;
        other.allow[0].roles = vec![WEB_ROLE_ARN.to_owned()];
        other
    };
    let pin = desk.scene.pin_path(&desk.token);
    let made = desk.json(
        "key generate --uri pkcs11:token=lab;object=web --module MODULE --pin-file PIN --json",
    );
    desk.text("csr --uri pkcs11:token=lab;object=web --module MODULE --pin-file PIN --subject CN=web --out web.csr");
    certify(&desk, &verified(&desk.path("web.csr"), &made));
    let on_token = rule(AgentIdentity::new(
        "web",
        &desk.token,
        &pin,
        &desk.path("web.pem"),
    ));

    desk.scene.write("chip.pin", "correct horse").unwrap();
    let made =
        desk.json("key generate --tpm TCTI --out chip.tss --pin-file chip.pin --pcr 16 --json");
    desk.text("csr --key chip.tss --tpm TCTI --pin-file chip.pin --subject CN=chip --out chip.csr");
    let public = verified(&desk.path("chip.csr"), &made);
    let leaf = desk
        .scene
        .pki()
        .leaf(&public, &LeafSpec::new("chip"))
        .unwrap();
    leaf.write(&desk.path("chip.pem")).unwrap();
    let mut chip = on_token.clone();
    chip.name = "chip".to_owned();
    chip.key = desk.path("chip.tss").display().to_string();
    chip.pin.as_mut().unwrap().file = desk.path("chip.pin");
    chip.certificate = desk.path("chip.pem");
    chip.sessions = None;

    let mut config = desk.scene.agent_config(vec![on_token, chip]).unwrap();
    config.tpm = Some(TpmConfig {
        tcti: desk.tpm.tcti(),
    });
    let _agent = desk.scene.start_agent(&config).unwrap();
    for name in ["web", "chip"] {
        let arguments = desk.scene.credential_process(name, WEB_ROLE_ARN);
        json_of(&desk.scene.roleseal(&arguments).unwrap().output().unwrap());
    }
}

#[test]
fn nothing_that_is_there_is_replaced_and_nothing_is_half_done() {
    let desk = Desk::new();
    desk.scene.write("web.tss", "old").unwrap();
    let before = desk.tpm.commands().len();
    let failure = desk.failure("key generate --tpm TCTI --out web.tss", 1);
    assert!(
        failure.contains("web.tss") && failure.contains("exists"),
        "{failure}"
    );
    assert_eq!(desk.tpm.commands().len(), before);
    assert_eq!(std::fs::read(desk.path("web.tss")).unwrap(), b"old");

    desk.failure(
        "key generate --tpm TCTI --out other.tss --parent 0x81000001",
        1,
    );
    let files = std::fs::read_dir(desk.scene.dir()).unwrap();
    let names: Vec<String> = files
        .map(|file| file.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert!(
        !names.iter().any(|name| name.contains("other.tss")),
        "{names:?}"
    );

    let on_token = "--uri pkcs11:token=lab;object=web --module MODULE --pin-file PIN";
    desk.text(&format!("key generate {on_token}"));
    let failure = desk.failure(&format!("key generate {on_token}"), 1);
    assert!(failure.contains("there already"), "{failure}");
    assert_eq!(desk.keys_on_token().len(), 1);

    // A certificate of another key.
    let other = PKey::from_rsa(openssl::rsa::Rsa::generate(2048).unwrap()).unwrap();
    certify(&desk, &other.public_key_to_der().unwrap());
    let failure = desk.failure(&format!("cert import {on_token} --cert web.pem"), 1);
    assert!(failure.contains("not for the key"), "{failure}");
}

#[test]
fn who_cannot_be_asked_is_told_what_to_give() {
    let desk = Desk::new();
    let without_terminal = |line: &str| {
        let mut setsid = desk.scene.command("setsid");
        setsid
            .arg("--wait")
            .arg(programs::admin().unwrap())
            .args(desk.arguments(line));
        let output = setsid.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let told =
        without_terminal("csr --uri pkcs11:token=lab;object=web --module MODULE --subject CN=web");
    for option in [
        "--pin-file",
        "--pin-credential",
        "--pin-ask-password",
        "pin-source",
    ] {
        assert!(told.contains(option), "{told}");
    }
    // A token that needs no login is looked into without a PIN.
    let faulty = FaultyModule::new(desk.scene.dir()).unwrap();
    let no_login = "C_GetTokenInfo no-flags CKF_LOGIN_REQUIRED";
    for (fault, sessions) in [(&[][..], 0), (&[no_login], 1)] {
        faulty.inject(fault).unwrap();
        let mut command = desk.scene.command("setsid");
        command.arg("--wait").arg(programs::admin().unwrap());
        command.args(desk.arguments("csr --uri pkcs11:token=lab;object=web --subject CN=web"));
        command.arg("--module").arg(faulty.module());
        let output = command.envs(faulty.env()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("--pin-file"));
        assert_eq!(faulty.count("C_OpenSession").unwrap(), sessions);
        assert_eq!(faulty.count("C_Login").unwrap(), 0);
    }
    let told = without_terminal(
        "key delete --uri pkcs11:token=lab;object=web --module MODULE --pin-file PIN",
    );
    assert!(told.contains("--yes"), "{told}");
    // What needs no PIN asks for none.
    let listed = desk.text("key list --module MODULE --uri pkcs11:token=lab");
    assert!(listed.contains("use --login"), "{listed}");
}

#[test]
fn the_daemon_has_no_way_to_any_of_this() {
    let web = Web::start();
    let mut stream = std::os::unix::net::UnixStream::connect(web.scene.socket()).unwrap();
    let question = json!({
        "method": "org.varlink.service.GetInterfaceDescription",
        "parameters": { "interface": "org.roleseal.Agent" },
    });
    std::io::Write::write_all(&mut stream, format!("{question}\0").as_bytes()).unwrap();
    let answer = crate::agent::read_reply(&mut stream);
    let description = answer["parameters"]["description"].as_str().unwrap();
    let methods: Vec<&str> = description
        .lines()
        .filter_map(|line| line.strip_prefix("method "))
        .map(|line| line.split('(').next().unwrap().trim())
        .collect();
    assert_eq!(
        methods,
        [
            "ListIdentities",
            "GetCertificate",
            "SignCreateSession",
            "MayCreateSession"
        ]
    );
    for method in [
        "GenerateKey",
        "ListKeys",
        "DeleteKey",
        "SignRequest",
        "Attest",
    ] {
        let answer = call(&web.scene.socket(), method, json!({}));
        assert_eq!(
            answer["error"], "org.varlink.service.MethodNotFound",
            "{answer}"
        );
    }
    let programs = until("the token program starts", || {
        Some(token_programs(&web.agent)).filter(|programs| !programs.is_empty())
    });
    for program in programs {
        let line = std::fs::read_to_string(format!("/proc/{program}/cmdline")).unwrap();
        assert!(!line.contains("--operator"), "{line}");
    }
}
