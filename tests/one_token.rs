use std::fs;
use std::path::PathBuf;
use std::process::Command;

use hsm_fixtures::{
    Agent, KeyKind, KeySpec, LeafSpec, Scene, SoftHsm, Token, WEB_ROLE_ARN, command,
};

use crate::agent::{Lab, Web, as_this_user, identities, json_of, spied_calls, until};

/// pkcs11-spy under four names: two files, a link to one of them, and a hard link.
fn names_of_one_module(scene: &Scene) -> Vec<PathBuf> {
    let module = SoftHsm::spy_module().unwrap();
    let [copy, other, link, hard] = ["copy", "other", "link", "hard"].map(|name| {
        let path = scene.path(&format!("{name}.so"));
        assert!(!path.exists());
        path
    });
    fs::copy(&module, &copy).unwrap();
    fs::copy(&module, &other).unwrap();
    std::os::unix::fs::symlink(&copy, &link).unwrap();
    fs::hard_link(&copy, &hard).unwrap();
    vec![copy, other, link, hard]
}

/// An agent with an identity for each name of the module.
fn under_each_name(pin: &str) -> (Web, usize) {
    let Lab { mut config, scene } = Lab::new(KeyKind::EcP256);
    scene.write("lab.pin", pin).unwrap();
    let web = config.identity.remove(0);
    for (number, module) in names_of_one_module(&scene).iter().enumerate() {
        let mut identity = web.clone();
        identity.name = format!("web{number}");
        identity.key = format!(
            "pkcs11:token=lab;object=web?module-path={}",
            module.display()
        );
        config.identity.push(identity);
    }
    let count = config.identity.len();
    let file = scene
        .write("agent.toml", &config.to_toml().unwrap())
        .unwrap();
    let mut command = scene.agent_command(&file).unwrap();
    command
        .env("PKCS11SPY", SoftHsm::module().unwrap())
        .env("PKCS11SPY_OUTPUT", scene.path("spy.log"));
    let agent = Agent::start(command, &scene.socket(), &scene.path("agent.log"), || false).unwrap();
    (Web { agent, scene }, count)
}

fn states(scene: &Scene) -> Vec<String> {
    let listed = identities(scene);
    let states = listed.iter().map(|identity| identity["state"].as_str());
    states.map(|state| state.unwrap().to_owned()).collect()
}

#[test]
fn a_wrong_pin_is_tried_once_under_all_names_of_a_module() {
    let (web, count) = under_each_name("00000000");
    assert_eq!(states(&web.scene), vec!["pinRejected"; count]);
    let logins = || {
        spied_calls(&web.scene)
            .iter()
            .filter(|call| *call == "C_Login")
            .count()
    };
    assert_eq!(logins(), 1);
    // Nor again when the agent is asked to look.
    let config = fs::read_to_string(web.scene.path("agent.toml")).unwrap();
    web.reload_text(&config);
    assert_eq!(states(&web.scene), vec!["pinRejected"; count]);
    assert_eq!(logins(), 1);
}

#[test]
fn a_right_pin_opens_a_token_under_all_names_of_a_module() {
    let (web, count) = under_each_name(hsm_fixtures::PIN);
    until("every name of the module serves", || {
        (states(&web.scene) == vec!["ready"; count]).then_some(())
    });
}

/// An agent whose one identity has this key and certificate, by hand.
fn start(scene: &Scene, identity: &str) -> Agent {
    let text = format!(
        "socket = {:?}\npkcs11-module = {:?}\n[[identity]]\nname = \"web\"\nendpoints = [{:?}]\n\
         pin = {{ file = {:?} }}\n{identity}",
        scene.socket(),
        SoftHsm::module().unwrap(),
        scene.service().url(),
        scene.path("lab.pin"),
    );
    let config = scene.write("agent.toml", &text).unwrap();
    let command = scene.agent_command(&config).unwrap();
    Agent::start(command, &scene.socket(), &scene.path("agent.log"), || false).unwrap()
}

fn openssl(scene: &Scene, arguments: &str) {
    let mut openssl: Command = scene.command("openssl");
    openssl.args(arguments.split(' ')).current_dir(scene.dir());
    command::output(&mut openssl).unwrap();
}

/// A CA with the intermediate's name and another key; and one that has nothing to do with it.
fn store_other_cas(scene: &Scene, token: &Token) {
    let subject = {
        let mut openssl: Command = scene.command("openssl");
        openssl.args(["x509", "-noout", "-subject", "-nameopt", "compat", "-in"]);
        let output = command::output(openssl.arg(scene.pki().intermediate_path())).unwrap();
        let text = String::from_utf8(output).unwrap();
        text.trim().trim_start_matches("subject=").trim().to_owned()
    };
    for (name, subject) in [("namesake", subject.as_str()), ("stranger", "/CN=stranger")] {
        let mut openssl: Command = scene.command("openssl");
        openssl.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ]);
        openssl.args([
            "-nodes",
            "-keyout",
            "other.key",
            "-outform",
            "DER",
            "-days",
            "2",
        ]);
        openssl
            .args(["-out", name, "-subj", subject])
            .current_dir(scene.dir());
        command::output(&mut openssl).unwrap();
        let der = fs::read(scene.path(name)).unwrap();
        token
            .write_certificate(name, name.as_bytes(), &der, false)
            .unwrap();
    }
}

/// The token has the keys `web` and `other`, both with the label `web`, and the certificate of one.
fn with_certificate_on_token(scene: &Scene) -> (Token, String) {
    let token = scene.add_token("lab").unwrap();
    for id in ["other", "own"] {
        let key = KeySpec {
            id: id.as_bytes().to_vec(),
            ..KeySpec::new("web", KeyKind::EcP256)
        };
        let spki = token.generate(&key).unwrap();
        if id == "own" {
            let leaf = scene.pki().leaf(&spki, &LeafSpec::new("web")).unwrap();
            token
                .write_certificate("leaf", b"own", &leaf.der, false)
                .unwrap();
            leaf.write(&scene.path("web.pem")).unwrap();
            return (token, leaf.serial_decimal);
        }
    }
    panic!("neither of the keys is its own")
}

#[test]
fn intermediates_on_the_token_are_sent() {
    let scene = Scene::new().unwrap();
    let (token, serial) = with_certificate_on_token(&scene);
    store_other_cas(&scene, &token);
    openssl(
        &scene,
        &format!(
            "x509 -in {} -outform DER -out ca.der",
            scene.pki().intermediate_path().display()
        ),
    );
    let intermediate = fs::read(scene.path("ca.der")).unwrap();
    token
        .write_certificate("ca", b"ca", &intermediate, false)
        .unwrap();
    for certificate in ["", "certificate = \"pkcs11:object=leaf\"\n"] {
        let agent = start(
            &scene,
            &format!("key = \"pkcs11:token=lab;id=own\"\n{certificate}"),
        );
        let identity = &identities(&scene)[0];
        assert_eq!(identity["serial"], serial.as_str(), "{identity}");
        let socket = scene.socket().display().to_string();
        let inspect = [
            "inspect",
            "--json",
            "--identity",
            "web",
            "--socket",
            &socket,
        ];
        let seen = json_of(&scene.roleseal(&inspect).unwrap().output().unwrap());
        assert_eq!(seen["intermediates"].as_array().unwrap().len(), 1, "{seen}");
        let arguments = scene.credential_process("web", WEB_ROLE_ARN);
        json_of(&scene.roleseal(&arguments).unwrap().output().unwrap());
        agent.stop().unwrap();
    }
}

/// Of two keys with one label, the one that the certificate is for.
#[test]
fn a_key_is_named_by_its_certificate() {
    let scene = Scene::new().unwrap();
    let (_token, serial) = with_certificate_on_token(&scene);
    let file = format!("certificate = {:?}\n", scene.path("web.pem"));
    for certificate in ["", "certificate = \"pkcs11:object=leaf\"\n", &file] {
        let agent = start(
            &scene,
            &format!("key = \"pkcs11:token=lab;object=web\"\n{certificate}"),
        );
        let identity = &identities(&scene)[0];
        assert_eq!(identity["state"], "ready", "{certificate}: {identity}");
        assert_eq!(identity["serial"], serial.as_str());
        agent.stop().unwrap();
    }
}

#[test]
fn a_certificate_for_a_key_of_another_type_is_unusable() {
    let Lab { mut config, scene } = Lab::new(KeyKind::Rsa2048);
    let token = scene.add_token("second").unwrap();
    let other = scene
        .add_identity(&token, "other", KeyKind::EcP256)
        .unwrap();
    config.identity[0].certificate = other.certificate;
    let _agent = scene.start_agent(&config).unwrap();
    assert_eq!(states(&scene), ["unusable"]);
}

#[test]
fn a_private_key_in_a_certificates_file_is_found() {
    let Lab { config, scene } = Lab::new(KeyKind::EcP256);
    let file = scene
        .write("agent.toml", &config.to_toml().unwrap())
        .unwrap();
    let check = || {
        let mut check = scene.agent_command(&file).unwrap();
        as_this_user(check.arg("--check"))
            .output()
            .unwrap()
            .status
            .success()
    };
    let inspect = || {
        let web = scene.path("web.pem").display().to_string();
        let output = scene
            .roleseal(&["inspect", "--json", &web])
            .unwrap()
            .output()
            .unwrap();
        json_of(&output)["objections"].as_array().unwrap().len()
    };
    assert!(check());
    let before = inspect();
    openssl(
        &scene,
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out clear.key",
    );
    let leaf = fs::read_to_string(scene.path("web.pem")).unwrap();
    let key = fs::read_to_string(scene.path("clear.key")).unwrap();
    scene.write("web.pem", &format!("{leaf}{key}")).unwrap();
    assert!(!check());
    assert_eq!(inspect(), before + 1);
}
