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
        ("other", cat("foreign.crt"), "another key"),
        ("expired", cat("past.crt"), "expired"),
        ("same", cat("same.pem"), "no later than"),
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

#[test]
fn it_is_done_by_hand() {
    let (mut lab, key) = lab();
    let command = ca(&lab.scene);
    let path = add(&mut lab, &key, "web", &command);
    let scene = &lab.scene;
    let due = lab.config.to_toml().unwrap();
    let said_by = |config: &str, arguments: &[&str]| {
        let output = by_hand(scene, config, arguments);
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(text).unwrap(),
        )
    };
    // Whoever can read a file can lock it, and keeps no renewal from running by that.
    let _held = ["web.csr", "web.pem"].map(|name| {
        let file = fs::File::open(scene.path(name)).unwrap();
        flock(&file, FlockOperation::LockExclusive).unwrap();
        file
    });
    let old = serial_of(&path);
    let (code, said) = said_by(&due.replace("10d", "1m"), &["--identity", "web"]);
    assert!(code == 0 && said.contains("not due"), "{code} {said}");
    assert_eq!(serial_of(&path), old);
    let (code, said) = said_by(&due, &["--identity", "web"]);
    let new = serial_of(&path);
    assert_ne!(new, old);
    assert!(code == 0 && said.contains(&new), "{code} {said}");
    let (code, said) = said_by(&due, &["--identity", "web"]);
    assert!(code == 0 && said.contains("not due"), "{code} {said}");
    // The same second may give the same end, which is no renewal.
    let longer = due.replace("-days 30", "-days 40");
    assert_eq!(said_by(&longer, &["--identity", "web", "--force"]).0, 0);
    let newer = serial_of(&path);
    assert_ne!(newer, new);
    for (config, arguments, code, expected) in [
        (due.as_str(), &["--identity", "batch"][..], 2, "no identity"),
        (&due, &["--identity", "a b"], 2, "letters, digits"),
        (
            &due.replace("openssl x509", "false"),
            &["--identity", "web", "--force"],
            1,
            "exit status: 1",
        ),
        ("[[identity]", &["--identity", "web"], 1, "agent.toml:1"),
    ] {
        let (ended, said) = said_by(config, arguments);
        assert_eq!(ended, code, "{said}");
        assert!(said.contains(expected), "{expected}: {said}");
    }
    // Without a name, all that are due; what is only shown is not done.
    let dry = due.replace("10d", "365d");
    let (code, said) = said_by(
        &dry,
        &["--dry-run", "--identity", "web", "--identity", "web"],
    );
    assert!(code == 0 && said.matches("due").count() == 2, "{said}");
    assert_eq!(serial_of(&path), newer);
    let (code, said) = said_by(&longer.replace("-days 40", "-days 50"), &["--force"]);
    assert_eq!(code, 0, "{said}");
    assert_ne!(serial_of(&path), newer);
    let (none, _) = due.split_once("[identity.renew]").unwrap();
    let (code, said) = said_by(none, &[]);
    assert_eq!(code, 0, "{said}");
}

fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z") && !stat.contains(") X"))
}

#[test]
fn a_renewal_ends_its_command_and_is_the_only_one() {
    for arguments in [&[][..], &["--watch"]] {
        let (mut lab, key) = lab();
        let pid = lab.scene.path("pid");
        let command = format!(
            "sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait",
            pid.display()
        );
        add(&mut lab, &key, "web", &command);
        let scene = &lab.scene;
        let text = lab.config.to_toml().unwrap();
        scene.write("agent.toml", &text).unwrap();
        let log = scene.path("renewer.log");
        let renewer = Process::spawn(renew(scene, arguments), &log).unwrap();
        let pid = until("the command runs", || fs::read_to_string(&pid).ok());
        let pid = pid.trim();
        assert!(runs(pid));
        let second = by_hand(scene, &text, &["--identity", "web"]);
        let said = String::from_utf8(second.stdout).unwrap();
        assert!(
            second.status.success() && said.contains("another renewal"),
            "{said}"
        );
        let process = Pid::from_raw(renewer.id().cast_signed()).unwrap();
        kill_process(process, Signal::TERM).unwrap();
        until("the command ends", || (!runs(pid)).then_some(()));
        until("the renewer ends", || (!renewer.is_running()).then_some(()));
        // That was no failure of the CA's.
        assert!(!scene.path(".web.pem.roleseal-renewal").exists());
    }
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

/// In a directory of the agent's user: he is told of root's renewal while it runs, and renews after it.
#[test]
fn what_root_leaves_behind_keeps_the_agents_user_from_nothing() {
    if as_root::by_sudo!() {
        return;
    }
    let (mut lab, key) = lab();
    let pid = lab.scene.path("pid");
    let command = format!(
        "test $(id -u) != 0 || {{ echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000; }}; echo renewed >&2",
        pid.display()
    );
    let path = add(&mut lab, &key, "web", &command);
    let scene = &lab.scene;
    let directory = scene.path("state");
    fs::create_dir(&directory).unwrap();
    std::os::unix::fs::chown(&directory, Some(NOBODY), None).unwrap();
    for extension in ["pem", "csr"] {
        let old = path.with_extension(extension);
        fs::rename(&old, directory.join(old.file_name().unwrap())).unwrap();
    }
    lab.config.identity[0].certificate = directory.join("web.pem");
    let program = for_everybody(&mut lab, &hsm_fixtures::programs::admin().unwrap());
    let scene = &lab.scene;
    let renew = |uid| {
        let mut command = scene.command(&program);
        command.args(["renew", "--identity=web", "--config"]);
        command.arg(scene.path("agent.toml")).uid(uid);
        command
    };
    let says = || {
        let output = renew(NOBODY).output().unwrap();
        String::from_utf8([output.stderr, output.stdout].concat()).unwrap()
    };
    let mut roots = renew(0).spawn().unwrap();
    let pid = until("the command runs", || fs::read_to_string(&pid).ok());
    let said = says();
    assert!(said.contains("another renewal"), "{said}");
    roots.kill().unwrap();
    roots.wait().unwrap();
    let command = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    let _ = kill_process(command, Signal::KILL); // it may have ended with its program
    assert!(directory.join(".web.pem.roleseal-lock").exists());
    let said = says();
    assert!(said.starts_with("renewed\n"), "{said}");
}

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
