use std::path::Path;
use std::process::{Command, Output, Stdio};

use hsm_fixtures::{AllowRule, KeyKind, Scene};
use serde_json::{Value, json};

use crate::agent::{Lab, call, identities, json_of};
use crate::policy::{NOBODY, as_nobody};

fn inspect(scene: &Scene, more: &[&str]) -> Output {
    let socket = scene.socket().display().to_string();
    let arguments = [&["inspect", "--socket", &socket], more].concat();
    scene.roleseal(&arguments).unwrap().output().unwrap()
}

/// What OpenSSL reads in a certificate.
fn openssl(certificate: &Path, question: &[&str]) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-noout", "-in"]).arg(certificate);
    let answer = openssl.args(question).stderr(Stdio::inherit()).output();
    String::from_utf8(answer.unwrap().stdout)
        .unwrap()
        .trim()
        .to_owned()
}

#[test]
fn the_certificate_that_an_identity_signs_with_is_what_openssl_reads() {
    let web = Lab::new(KeyKind::Rsa2048).start();
    let scene = &web.scene;
    let root = scene.pki().root_path().display().to_string();
    let seen = json_of(&inspect(
        scene,
        &["--identity", "web", "--json", "--trust-anchor", &root],
    ));
    let leaf = scene.path("web.pem");
    let serial = openssl(&leaf, &["-serial"]).replace("serial=", "");
    assert_eq!(seen["serialNumberHex"], serial.to_lowercase());
    assert_eq!(seen["serialNumber"], identities(scene)[0]["serial"]);
    let subject = openssl(&leaf, &["-subject", "-nameopt", "RFC2253"]);
    assert_eq!(seen["subject"], subject.replace("subject=", ""));
    let pem = std::fs::read_to_string(&leaf).unwrap();
    let body: String = pem
        .lines()
        .skip(1)
        .take_while(|line| !line.starts_with('-'))
        .collect();
    assert_eq!(seen["certificateData"], body);
    assert_eq!(seen["keyType"], "RSA");
    assert_eq!(seen["intermediates"].as_array().unwrap().len(), 1);
    assert_eq!(seen["accepted"], true, "{seen}");
    assert_eq!(seen["sourceIdentity"], "CN=web");

    // A file says the same, and so does the only identity, unnamed.
    let file = leaf.display().to_string();
    assert_eq!(
        json_of(&inspect(scene, &[&file, "--json", "--trust-anchor", &root])),
        seen
    );
    assert_eq!(
        json_of(&inspect(scene, &["--json", "--trust-anchor", &root])),
        seen
    );

    let table = inspect(scene, &[&file]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(
        table.contains("aws:PrincipalTag/x509Subject/CN  web\n"),
        "{table}"
    );
}

#[test]
fn another_anchor_is_a_refusal() {
    let web = Lab::new(KeyKind::EcP256).start();
    let other = Scene::new().unwrap();
    let root = other.pki().root_path().display().to_string();
    let output = inspect(&web.scene, &["--identity", "web", "--trust-anchor", &root]);
    assert_eq!(output.status.code(), Some(6));
    let text = String::from_utf8(output.stdout).unwrap();
    // The roots of two scenes have one name.
    assert!(text.contains("is not signed by"), "{text}");
}

#[test]
fn standard_input_is_read_for_one_file() {
    let scene = Scene::new().unwrap();
    let root = scene.pki().root_path().display().to_string();
    let setup = ["aws-setup", "--name", "web", "--format", "cli"];
    let anchor = "arn:aws:rolesanywhere:eu-central-1:123456789012:trust-anchor/1b";
    for arguments in [
        vec!["inspect", "-", "-"],
        vec!["inspect", "-", "--trust-anchor", "-"],
        vec![
            "trust-policy",
            "--trust-anchor-arn",
            anchor,
            "-",
            &root,
            "-",
        ],
        [&setup[..], &["--ca-file", "-", "--certificate", "-"]].concat(),
    ] {
        let mut roleseal = scene.roleseal(&arguments).unwrap();
        roleseal.stdin(std::fs::File::open(&root).unwrap());
        let output = roleseal.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(
            said.contains("standard input (-) is named for two files"),
            "{said}"
        );
        assert_eq!(output.stdout, b"");
    }
    let mut once = scene
        .roleseal(&["inspect", &root, "--trust-anchor", "-"])
        .unwrap();
    let output = once
        .stdin(std::fs::File::open(&root).unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(6), "{output:?}");
}

#[test]
fn certificates_are_shown_to_those_who_may_use_them() {
    if as_root::by_sudo!() {
        return;
    }
    let mut lab = Lab::new(KeyKind::EcP256);
    let mut other = lab.config.identity[0].clone();
    other.name = "other".to_owned();
    lab.config.identity.push(other);
    let for_us = lab.config.identity[0].allow[0].clone();
    lab.config.identity[0].allow.push(AllowRule {
        users: vec![NOBODY],
        ..for_us
    });
    let web = lab.start();
    let socket = web.scene.socket().display().to_string();
    let inspect = |more: &[&str]| {
        let words = [&["inspect", "--json", "--socket", &socket], more].concat();
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        as_nobody(&web, &words)
    };
    let seen = json_of(&inspect(&["--identity", "web"]));
    assert_eq!(seen["subject"], json_of(&inspect(&[]))["subject"]);
    let refused = inspect(&["--identity", "other"]);
    assert_eq!(refused.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("65534"));
    assert_eq!(refused.stdout, b"");
    // We may use both.
    let both = super::inspect::inspect(&web.scene, &[]);
    assert_eq!(both.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&both.stderr).contains("web, other"));
    let absent = super::inspect::inspect(&web.scene, &["--identity", "absent"]);
    assert_eq!(absent.status.code(), Some(4));
}

#[test]
fn without_its_token_an_identity_still_has_its_file() {
    let mut lab = Lab::new(KeyKind::EcP256);
    let mut no_token = lab.config.identity[0].clone();
    no_token.name = "no-token".to_owned();
    no_token.key = "pkcs11:token=absent;object=web".to_owned();
    let mut no_file = lab.config.identity[0].clone();
    no_file.name = "no-file".to_owned();
    no_file.certificate = lab.scene.path("absent.pem");
    lab.config.identity.extend([no_token, no_file]);
    let web = lab.start();
    let chain = |name: &str| -> Value {
        call(
            &web.scene.socket(),
            "GetCertificate",
            json!({ "identity": name }),
        )
    };
    let ready = chain("web");
    assert_eq!(ready["parameters"]["chain"].as_array().unwrap().len(), 2);
    assert_eq!(chain("no-token"), ready);
    let absent = chain("no-file");
    assert_eq!(absent["error"], "org.roleseal.Agent.IdentityUnusable");
    let output = inspect(&web.scene, &["--identity", "no-file"]);
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stderr).contains("absent.pem"));
}
