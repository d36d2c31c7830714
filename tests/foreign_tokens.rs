use std::fs;
use std::process::Command;

use hsm_fixtures::{KeyKind, KeySpec, LeafSpec, Scene, WEB_ROLE_ARN, command};

use crate::agent::{Web, identities, json_of, venv};

/// A configuration by hand: what an operator writes for a token that others made. It names no module,
/// so that p11-kit finds SoftHSM among those that are installed.
fn configuration(scene: &Scene, identity: &str) -> std::path::PathBuf {
    let text = format!(
        "socket = {:?}\n[[identity]]\nname = \"web\"\nendpoints = [{:?}]\n{identity}",
        scene.socket(),
        scene.service().url(),
    );
    scene.write("agent.toml", &text).unwrap()
}

fn start(scene: &Scene, identity: &str) -> hsm_fixtures::Agent {
    let command = scene
        .agent_command(&configuration(scene, identity))
        .unwrap();
    let (socket, log) = (scene.socket(), scene.path("agent.log"));
    hsm_fixtures::Agent::start(command, &socket, &log, || false).unwrap()
}

fn openssl(scene: &Scene, arguments: &[&str]) {
    let mut openssl: Command = scene.command("openssl");
    command::output(openssl.args(arguments).current_dir(scene.dir())).unwrap();
}

/// Key by openssl, put on the token by softhsm2-util, certificate by openssl.
#[test]
fn an_imported_key_with_an_openssl_certificate_works_by_configuration_alone() {
    let scene = Scene::new().unwrap();
    let token = scene.add_token("foreign token").unwrap();
    openssl(
        &scene,
        &[
            "genpkey",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
            "-out",
            "key.pem",
        ],
    );
    let pkcs8 = fs::read(scene.path("key.pem")).unwrap();
    token.import_key("mine", &[0xa1], &pkcs8).unwrap();
    openssl(
        &scene,
        &[
            "req", "-new", "-key", "key.pem", "-subj", "/CN=mine", "-out", "mine.csr",
        ],
    );
    let extensions =
        "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=clientAuth\n";
    scene.write("leaf.ext", extensions).unwrap();
    openssl(
        &scene,
        &[
            "x509",
            "-req",
            "-in",
            "mine.csr",
            "-CA",
            "root.pem",
            "-CAkey",
            "root.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-sha256",
            "-extfile",
            "leaf.ext",
            "-out",
            "mine.pem",
        ],
    );
    let pin = scene.pin_path(&token);
    let certificate = scene.path("mine.pem");
    let _agent = start(
        &scene,
        &format!(
            "key = \"pkcs11:token=foreign%20token;id=%A1;type=private\"\npin = {{ file = {pin:?} }}\ncertificate = {certificate:?}\n"
        ),
    );
    let arguments = scene.credential_process("web", WEB_ROLE_ARN);
    json_of(&scene.roleseal(&arguments).unwrap().output().unwrap());
}

/// Certificates on the token, public or seen after login only, chosen by the key's CKA_ID or by name;
/// intermediates from a file; the PIN in the URI.
#[test]
fn certificates_on_the_token_are_found() {
    for (private, certificate_line) in [
        (false, String::new()),
        (true, String::new()),
        (
            true,
            "certificate = \"pkcs11:object=cert%20of%20web\"\n".to_owned(),
        ),
    ] {
        let scene = Scene::new().unwrap();
        let token = scene.add_token("lab").unwrap();
        let key = KeySpec {
            keep_public: false,
            ..KeySpec::new("web", KeyKind::EcP256)
        };
        let spki = token.generate(&key).unwrap();
        let leaf = scene.pki().leaf(&spki, &LeafSpec::new("web")).unwrap();
        token
            .write_certificate("cert of web", &key.id, &leaf.der, private)
            .unwrap();
        let chain = scene.pki().intermediate_path();
        let _agent = start(
            &scene,
            &format!(
                "key = \"pkcs11:token=lab;object=web?pin-value={}\"\nchain = {chain:?}\n{certificate_line}",
                hsm_fixtures::PIN
            ),
        );
        let identity = &identities(&scene)[0];
        assert_eq!(identity["state"], "ready", "{identity}");
        assert_eq!(identity["serial"], leaf.serial_decimal.as_str());
        assert!(!identity.to_string().contains(hsm_fixtures::PIN));
        let arguments = scene.credential_process("web", WEB_ROLE_ARN);
        json_of(&scene.roleseal(&arguments).unwrap().output().unwrap());
    }
}

/// The Varlink client of PyPI reads the interface, lists the identities and has a request signed.
#[test]
fn a_varlink_client_that_is_not_ours_can_use_the_agent() {
    let web = Web::start();
    identities(&web.scene); // its token is open now
    let request = crate::agent::request(&web.scene).to_string();
    let script = r#"
import json, sys, varlink
with varlink.Client.new_with_address("unix:" + sys.argv[1]) as client:
    info = client.get_interfaces()
    assert "org.roleseal.Agent" in info, info
    with client.open("org.roleseal.Agent") as agent:
        identities = agent.ListIdentities()["identities"]
        several = [reply for reply in agent.ListIdentities(_more=True)]
        assert several[0]["identities"] == identities
        signed = agent.SignCreateSession(**json.loads(sys.argv[2]))
        try:
            agent.SignCreateSession(**{**json.loads(sys.argv[2]), "identity": "no"})
        except varlink.VarlinkError as error:
            refused = error.error()
        print(json.dumps([identities, signed, refused]))
"#;
    let output = web
        .scene
        .command(venv("python"))
        .args(["-c", script])
        .arg(web.scene.socket())
        .arg(&request)
        .output()
        .unwrap();
    let answers = json_of(&output);
    assert_eq!(answers[0][0]["name"], "web");
    assert_eq!(answers[0][0]["state"], "ready");
    let authorization = answers[1]["headers"]["Authorization"].as_str().unwrap();
    assert!(
        authorization.starts_with("AWS4-X509-ECDSA-SHA256 Credential="),
        "{authorization}"
    );
    assert_eq!(answers[2], "org.roleseal.Agent.IdentityNotFound");
}
