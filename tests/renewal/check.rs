//! `--check` of an identity that is renewed.

use super::*;

/// Its CA may verify what cannot be verified here.
#[test]
fn a_request_that_cannot_be_verified_here_renews_and_a_check_warns_of_it() {
    for (digest, expected) in [
        (
            MessageDigest::sha512(),
            "in a way that cannot be verified here",
        ),
        (MessageDigest::sha1(), "with SHA-1, which is too weak"),
    ] {
        let (mut lab, key) = lab();
        let command = ca(&lab.scene);
        let path = add(&mut lab, &key, "web", &command);
        let before = serial_of(&path);
        let request = csr_signed(&key, &key, digest);
        fs::write(path.with_extension("csr"), request).unwrap();
        let file = lab
            .scene
            .write("agent.toml", &lab.config.to_toml().unwrap());
        let mut check = lab.scene.agent_command(&file.unwrap()).unwrap();
        let output = as_this_user(check.arg("--check")).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        let expected = format!("web.csr: it is signed {expected}");
        assert!(
            said.contains("warning") && said.contains(&expected),
            "{said}"
        );
        assert!(renew(&lab.scene, &[]).status().unwrap().success());
        assert_ne!(serial_of(&path), before);
        let web = lab.start();
        assert_eq!(warnings(&identities(&web.scene)[0]), "[]");
    }
}

#[test]
fn a_check_finds_what_would_keep_a_renewal_from_working() {
    let (mut lab, key) = lab();
    let path = add(&mut lab, &key, "web", "true");
    let scene = &lab.scene;
    let good = lab.config.to_toml().unwrap();
    let check = |config: &str| {
        let file = scene.write("agent.toml", config).unwrap();
        let mut check = scene.agent_command(&file).unwrap();
        let output = as_this_user(check.arg("--check")).output().unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert_eq!(check(&good), (true, String::new()));
    let other = PKey::from_ec_key(EcKey::generate(key.ec_key().unwrap().group()).unwrap()).unwrap();
    let request = scene.path("web.csr");
    let sha256 = MessageDigest::sha256();
    for (content, expected) in [
        (csr(&other), "another key"),
        (csr_signed(&other, &key, sha256), "not its key's"),
        (b"nonsense".to_vec(), "BEGIN CERTIFICATE REQUEST"),
    ] {
        fs::write(&request, content).unwrap();
        let (good, said) = check(&good);
        assert!(!good && said.contains(expected), "{said}");
    }
    fs::remove_file(&request).unwrap();
    let (sound, said) = check(&good);
    assert!(!sound && said.contains("web.csr: cannot read it"), "{said}");
    fs::write(&request, csr(&key)).unwrap();
    // What a renewal would destroy.
    let mut text = fs::read(&path).unwrap();
    text.extend(key.private_key_to_pem_pkcs8().unwrap());
    fs::write(&path, text).unwrap();
    let (sound, said) = check(&good);
    assert!(!sound && said.contains("a private key in it"), "{said}");
}

/// By somebody who could not put the new certificate into its place.
#[test]
fn a_check_warns_of_a_directory_that_cannot_be_written() {
    if as_root::by_sudo!() {
        return;
    }
    let (mut lab, key) = lab();
    add(&mut lab, &key, "web", "true");
    let program = for_everybody(&mut lab, &hsm_fixtures::programs::agent().unwrap());
    let scene = &lab.scene;
    let check = |uid| {
        let mut command = scene.command(&program);
        command
            .arg("--check")
            .arg("--config")
            .arg(scene.path("agent.toml"));
        let output = command.uid(uid).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        said
    };
    let said = check(NOBODY);
    let expected = format!("cannot be put into {}", scene.dir().display());
    assert!(
        said.contains("warning") && said.contains(&expected),
        "{said}"
    );
    assert_eq!(check(0), "");
}
