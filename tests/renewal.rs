mod by_hand;
mod check;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hsm_fixtures::{AgentIdentity, AllowRule, LeafSpec, Process, RenewConfig, Scene};
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::{X509, X509NameBuilder, X509ReqBuilder};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::agent::{
    Lab, as_this_user, copy_program, identities, json_of, log_with, request, serial, sign, until,
};
use crate::policy::NOBODY;
use crate::reload::under_load;

/// A scene with a key that was made outside the token, so that OpenSSL can make its requests; and nothing started.
pub(crate) fn lab() -> (Lab, PKey<Private>) {
    let scene = Scene::new().unwrap();
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let token = scene.add_token("lab").unwrap();
    let pem = key.private_key_to_pem_pkcs8().unwrap();
    token.import_key("web", b"web", &pem).unwrap();
    let config = scene.agent_config(Vec::new()).unwrap();
    (Lab { config, scene }, key)
}

/// Adds the identity, whose certificate ends in an hour and so is due, with a request and this command.
pub(crate) fn add(lab: &mut Lab, key: &PKey<Private>, name: &str, command: &str) -> PathBuf {
    let scene = &lab.scene;
    let certificate = scene.path(&format!("{name}.pem"));
    let spec = LeafSpec {
        not_after: LeafSpec::expired("web").not_after + std::time::Duration::from_secs(3660),
        ..LeafSpec::new("web")
    };
    issue(scene, key, &spec, &certificate);
    fs::write(scene.path(&format!("{name}.csr")), csr(key)).unwrap();
    let pin = scene.path("lab.pin");
    let uid = fs::metadata(&pin).unwrap().uid();
    lab.config.identity.push(AgentIdentity {
        name: name.to_owned(),
        key: "pkcs11:token=lab;object=web".to_owned(),
        pin: Some(hsm_fixtures::PinFile { file: pin }),
        certificate: certificate.clone(),
        renew: Some(RenewConfig {
            command: command.to_owned(),
            before: Some("10d".to_owned()),
            ..RenewConfig::default()
        }),
        endpoints: vec![scene.service().url()],
        sessions: None,
        allow: vec![AllowRule {
            users: vec![uid],
            roles: vec!["*".to_owned()],
            max_duration: "1h".to_owned(),
        }],
    });
    certificate
}

fn issue(scene: &Scene, key: &PKey<Private>, spec: &LeafSpec, path: &Path) {
    let spki = key.public_key_to_der().unwrap();
    scene.pki().leaf(&spki, spec).unwrap().write(path).unwrap();
}

fn csr(key: &PKey<Private>) -> Vec<u8> {
    csr_signed(key, key, MessageDigest::sha256())
}

fn csr_signed(signer: &PKey<Private>, key: &PKey<Private>, digest: MessageDigest) -> Vec<u8> {
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", "web").unwrap();
    let mut builder = X509ReqBuilder::new().unwrap();
    builder.set_subject_name(&name.build()).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.sign(signer, digest).unwrap();
    builder.build().to_pem().unwrap()
}

/// The example of docs/renewal.md, with the scene's CA.
pub(crate) fn ca(scene: &Scene) -> String {
    let extensions =
        "basicConstraints = CA:FALSE\nkeyUsage = digitalSignature\nextendedKeyUsage = clientAuth\n";
    fs::write(scene.path("web.ext"), extensions).unwrap();
    let text = include_str!("../docs/renewal.md");
    let command = text.lines().find(|line| line.starts_with("openssl x509 "));
    let directory = format!("{}/", scene.dir().display());
    command.unwrap().replace("/etc/pki/", &directory)
}

fn serial_of(path: &Path) -> String {
    let leaf = X509::from_pem(&fs::read(path).unwrap()).unwrap();
    let serial = leaf.serial_number().to_bn().unwrap();
    serial.to_dec_str().unwrap().to_string()
}

fn warnings(identity: &Value) -> String {
    identity["warnings"].to_string()
}

/// `roleseal-admin renew` with the configuration of the scene's agent.
pub(crate) fn renew(scene: &Scene, arguments: &[&str]) -> Command {
    let mut command = scene.command(hsm_fixtures::programs::admin().unwrap());
    command.args(["renew", "--config"]);
    command.arg(scene.path("agent.toml")).args(arguments);
    command
}

/// Renews what is due until it is dropped.
fn renewer(scene: &Scene) -> Process {
    Process::spawn(renew(scene, &["--watch"]), &scene.path("renewer.log")).unwrap()
}

/// Without a reload, and while clients ask all the time.
#[test]
fn a_thousand_requests_go_on_across_a_renewal() {
    let (mut lab, key) = lab();
    let go = lab.scene.path("go");
    let wait = format!("while ! [ -e {} ]; do sleep 0.05; done", go.display());
    let command = format!("{wait}; {}", ca(&lab.scene));
    let path = add(&mut lab, &key, "web", &command);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let web = lab.start();
    identities(&web.scene);
    let old = serial(&web.scene);
    assert_eq!(old, serial_of(&path));

    let _renewer = renewer(&web.scene);
    let asked = under_load(&web, |until_asked| {
        until_asked(500);
        assert_eq!(serial(&web.scene), old);
        fs::write(&go, "").unwrap();
        web.until_serial(|serial| serial != old);
        until_asked(1000);
    });
    assert!(asked > 1000, "{asked}");

    assert_eq!(serial(&web.scene), serial_of(&path));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    json_of(&web.credential_process().output().unwrap());
    let log = log_with(&web.agent, "renewed identity=web");
    assert!(
        log.contains(&format!("serial={}", serial_of(&path))),
        "{log}"
    );
    assert_eq!(warnings(&identities(&web.scene)[0]), "[]");
    let left = fs::read_dir(web.scene.dir()).unwrap();
    let left = left.filter(|file| {
        file.as_ref()
            .unwrap()
            .path()
            .display()
            .to_string()
            .contains("-new")
    });
    assert_eq!(left.count(), 0);
}

#[test]
fn a_command_that_fails_changes_nothing_and_shows() {
    let (mut lab, key) = lab();
    let scene = &lab.scene;
    let other = PKey::from_ec_key(EcKey::generate(key.ec_key().unwrap().group()).unwrap()).unwrap();
    issue(
        scene,
        &other,
        &LeafSpec::new("web"),
        &scene.path("foreign.crt"),
    );
    issue(
        scene,
        &key,
        &LeafSpec::expired("web"),
        &scene.path("past.crt"),
    );
    let spec = LeafSpec {
        digital_signature: false,
        ..LeafSpec::new("web")
    };
    issue(scene, &key, &spec, &scene.path("unfit.crt"));
    let cat = |name: &str| format!("cat {}", scene.path(name).display());
    let leaf = ca(scene);
    let (leaf, _) = leaf.split_once(" && cat").unwrap();
    let cases = [
        ("fails", "echo why >&2; exit 3".to_owned(), "exit status: 3"),
        ("garbage", "echo nonsense".to_owned(), "BEGIN CERTIFICATE"),
        ("silent", "true".to_owned(), "it is empty"),
        ("other", cat("foreign.crt"), "not the CSR"),
        ("expired", cat("past.crt"), "expired"),
        ("same", cat("same.pem"), "not after the current"),
        ("unfit", cat("unfit.crt"), "digitalSignature"),
        ("authority", cat("root.pem"), "CA certificate"),
        ("chainless", leaf.to_owned(), "certificate of its issuer"),
        ("huge", "yes".to_owned(), "more than 262144"),
        ("hangs", "sleep 1000".to_owned(), "did not end within 1s"),
    ];
    for (name, command, _) in &cases {
        add(&mut lab, &key, name, command);
    }
    let last = lab.config.identity.last_mut().unwrap();
    last.renew.as_mut().unwrap().timeout = Some("1s".to_owned());
    let mut config = lab.config.clone();
    let files = |scene: &Scene| {
        let read =
            |(name, _, _): &(&str, String, &str)| fs::read(scene.path(&format!("{name}.pem")));
        cases
            .iter()
            .map(|case| read(case).unwrap())
            .collect::<Vec<_>>()
    };
    let before = files(&lab.scene);
    let web = lab.start();
    let renewer = renewer(&web.scene);
    let listed = until("each has failed", || {
        let listed = identities(&web.scene);
        let failed = |identity| warnings(identity).contains("renewal failed at ");
        listed.iter().all(failed).then_some(listed)
    });
    for ((name, _, expected), identity) in cases.iter().zip(&listed) {
        let warnings = warnings(identity);
        assert!(warnings.contains(expected), "{name}: {warnings}");
        assert_eq!(identity["state"], "ready");
        let mut request = request(&web.scene);
        request["identity"] = (*name).into();
        let signed = sign(&web.scene.socket(), request)["parameters"]["headers"].to_string();
        let old = serial_of(&web.scene.path(&format!("{name}.pem")));
        assert!(signed.contains(&format!("Credential={old}/")), "{signed}");
    }
    assert_eq!(files(&web.scene), before);
    log_with(&web.agent, "renewal_failed identity=hangs");
    let log = renewer.log();
    assert!(log.contains("why\n"), "{log}");
    for (name, _, expected) in &cases {
        let mut lines = log.lines();
        let of_it =
            |line: &&str| line.starts_with(&format!("roleseal-admin: cannot renew {name}: "));
        assert!(lines.find(of_it).unwrap().contains(expected), "{log}");
    }
    renewer.stop().unwrap();

    // What is mended is forgotten.
    config.identity[0].renew.as_mut().unwrap().command = ca(&web.scene);
    config.identity.truncate(1);
    web.reload(&config);
    assert!(renew(&web.scene, &[]).status().unwrap().success());
    until("it is renewed", || {
        let identity = &identities(&web.scene)[0];
        let new = identity["serial"] == serial_of(&web.scene.path("fails.pem")).as_str();
        (new && warnings(identity) == "[]").then_some(())
    });
    assert_ne!(fs::read(web.scene.path("fails.pem")).unwrap(), before[0]);
}

/// Expired while the host was off, or deleted: both come back.
#[test]
fn a_certificate_that_is_expired_or_gone_is_renewed() {
    let (mut lab, key) = lab();
    let command = ca(&lab.scene);
    let expired = add(&mut lab, &key, "expired", "exit 1");
    issue(&lab.scene, &key, &LeafSpec::expired("web"), &expired);
    let gone = add(&mut lab, &key, "gone", "exit 1");
    fs::remove_file(&gone).unwrap();
    let mut config = lab.config.clone();
    let web = lab.start();
    assert_eq!(renew(&web.scene, &[]).status().unwrap().code(), Some(1));
    until("the CA is missed", || {
        let failed = |identity: &Value| warnings(identity).contains("exit status: 1");
        identities(&web.scene).iter().all(failed).then_some(())
    });
    // Neither keeps a configuration from being taken over that mends it.
    for identity in &mut config.identity {
        identity.renew.as_mut().unwrap().command = command.clone();
    }
    let said = web.reload(&config);
    assert!(!said.contains("not reloaded"), "{said}");
    assert!(renew(&web.scene, &[]).status().unwrap().success());
    until("both are ready", || {
        let ready = |identity: &Value| identity["state"] == "ready";
        identities(&web.scene).iter().all(ready).then_some(())
    });
    assert_eq!(fs::metadata(&gone).unwrap().mode() & 0o777, 0o644);
}

fn by_hand(scene: &Scene, config: &str, arguments: &[&str]) -> Output {
    scene.write("agent.toml", config).unwrap();
    renew(scene, arguments).output().unwrap()
}

/// Where no timer is enabled.
#[test]
fn a_certificate_that_nothing_renews_is_warned_of() {
    let (mut lab, key) = lab();
    add(&mut lab, &key, "web", "true");
    let web = lab.start();
    until("it is warned of", || {
        let warnings = warnings(&identities(&web.scene)[0]);
        warnings.contains("roleseal-renew.timer").then_some(())
    });
}

/// Failures are over once somebody has put a good certificate there, and none is made by a signal.
#[test]
fn a_failure_is_forgotten_when_the_certificate_is_no_longer_due() {
    let (mut lab, key) = lab();
    let path = add(&mut lab, &key, "web", "false");
    let web = lab.start();
    assert_eq!(renew(&web.scene, &[]).status().unwrap().code(), Some(1));
    let failed = || warnings(&identities(&web.scene)[0]).contains("renewal failed at");
    until("the failure is seen", || failed().then_some(()));
    issue(&web.scene, &key, &LeafSpec::new("web"), &path);
    let toml = lab_config_without_before(&web.scene);
    web.scene.write("agent.toml", &toml).unwrap();
    assert!(renew(&web.scene, &[]).status().unwrap().success());
    until("it is forgotten", || (!failed()).then_some(()));
}

/// The scene's configuration with certificates that are not due yet.
fn lab_config_without_before(scene: &Scene) -> String {
    let text = fs::read_to_string(scene.path("agent.toml")).unwrap();
    text.replace("\"10d\"", "\"1m\"")
}

/// A FIFO in the place of a record, or of the certificate's own lock file, holds nobody.
#[test]
fn a_record_that_is_no_file_holds_nobody() {
    let (mut lab, key) = lab();
    add(&mut lab, &key, "web", "false");
    let fifo = lab.scene.path(".web.pem.roleseal-renewal");
    let mut mkfifo = Command::new("mkfifo");
    hsm_fixtures::command::output(mkfifo.arg(&fifo)).unwrap();
    let web = lab.start();
    json_of(&web.credential_process().output().unwrap());
    assert_eq!(renew(&web.scene, &[]).status().unwrap().code(), Some(1));
    web.agent.stop().unwrap();
}

/// A copy of a program that every user may run, with the scene's configuration, `agent.toml`.
fn for_everybody(lab: &mut Lab, built: &Path) -> PathBuf {
    lab.config.identity[0].pin = None; // whose file is not for everybody
    let scene = &lab.scene;
    let file = scene.write("agent.toml", &lab.config.to_toml().unwrap());
    for (path, mode) in [(scene.dir(), 0o711), (&file.unwrap(), 0o644)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let program = scene.path("bin").join(built.file_name().unwrap());
    fs::create_dir(scene.path("bin")).unwrap();
    fs::set_permissions(scene.path("bin"), fs::Permissions::from_mode(0o755)).unwrap();
    copy_program(built, &program);
    program
}
