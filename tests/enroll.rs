use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use hsm_fixtures::{Agent, KeyKind, Scene, SoftHsm, Token, WEB_ROLE_ARN, programs};
use rustix::process::{Pid, Signal, kill_process};

use crate::agent::{Lab, json_of, until};
use crate::policy::NOBODY;
use crate::renewal::ca;

/// A blank token, and a configuration with nothing but a socket and a remark.
struct Desk {
    token: Token,
    scene: Scene,
}

const REMARK: &str = "# What is here stays: \t\"ä\"";

impl Desk {
    fn new() -> Desk {
        let scene = Scene::new().unwrap();
        let text = format!("socket = {:?}\n{REMARK}", scene.socket());
        scene.write("agent.toml", &text).unwrap();
        Desk {
            token: scene.add_token("lab").unwrap(),
            scene,
        }
    }

    /// `roleseal-admin enroll` with a key on the token.
    fn on_token(&self, more: &[&str]) -> Command {
        let key = ["--uri", "pkcs11:token=lab;object=web", "--module"].map(str::to_owned);
        let mut command = enroll(&self.scene, "web");
        command.args(key).arg(SoftHsm::module().unwrap());
        command
            .arg("--pin-file")
            .arg(self.scene.pin_path(&self.token))
            .args(more);
        command
    }

    /// The private keys of the token.
    fn keys(&self) -> usize {
        let mut list = self.scene.command(programs::admin().unwrap());
        list.args([
            "key",
            "list",
            "--uri",
            "pkcs11:token=lab",
            "--json",
            "--module",
        ]);
        list.arg(SoftHsm::module().unwrap()).arg("--pin-file");
        let listed = json_of(&list.arg(self.scene.pin_path(&self.token)).output().unwrap());
        listed["tokens"][0]["keys"].as_array().unwrap().len()
    }
}

fn enroll(scene: &Scene, name: &str) -> Command {
    let uid = fs::metadata(scene.dir()).unwrap().uid().to_string();
    let mut command = scene.command(programs::admin().unwrap());
    command
        .args(["enroll", "--name", name, "--subject", "CN=web,O=Example"])
        .args(["--allow-user", &uid, "--endpoint", &scene.service().url()])
        .arg("--config")
        .arg(scene.path("agent.toml"))
        .arg("--certificate")
        .arg(scene.path(&format!("{name}.crt")));
    command
}

fn done(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn failed(command: &mut Command, code: i32, expected: &str) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(expected), "{expected}: {stderr}");
    stderr
}

fn credentials(scene: &Scene, identity: &str) {
    let arguments = scene.credential_process(identity, WEB_ROLE_ARN);
    json_of(&scene.roleseal(&arguments).unwrap().output().unwrap());
}

fn start(scene: &Scene) -> Agent {
    let command = scene.agent_command(&scene.path("agent.toml")).unwrap();
    let log = scene.path("agent.log");
    Agent::start(command, &scene.socket(), &log, || false).unwrap()
}

#[test]
fn a_blank_token_and_a_blank_tpm_come_to_credentials() {
    let desk = Desk::new();
    let scene = &desk.scene;
    let before = fs::read_to_string(scene.path("agent.toml")).unwrap();
    let issue = ca(scene);
    let more = ["--issue", &issue, "--renew-before", "10d"];
    let said = done(&desk.on_token(&more).output().unwrap());
    assert!(said.contains("agent: none runs"), "{said}");
    let tpm = scene.add_tpm().unwrap();
    let mut chip = enroll(scene, "chip");
    chip.args(["--tpm", &tpm.tcti(), "--issue", &issue, "--out"]);
    done(&chip.arg(scene.path("chip.tss")).output().unwrap());

    let text = fs::read_to_string(scene.path("agent.toml")).unwrap();
    assert!(
        text.starts_with(&format!("{before}\n\n[[identity]]\n")),
        "{text}"
    );
    assert_eq!(text.matches("renew = ").count(), 1, "{text}");
    let _agent = start(scene);
    credentials(scene, "web");
    credentials(scene, "chip");
    // The request is where a renewal looks for it.
    let mut renew = scene.command(programs::admin().unwrap());
    renew.args(["renew", "--identity", "web", "--config"]);
    let said = done(&renew.arg(scene.path("agent.toml")).output().unwrap());
    assert!(said.contains("not due"), "{said}");
}

#[test]
fn a_running_agent_has_the_identity_at_once() {
    let web = Lab::new(KeyKind::EcP256).start();
    let token = web.scene.add_token("other").unwrap();
    let mut batch = enroll(&web.scene, "batch");
    batch
        .args(["--uri", "pkcs11:token=other;object=batch", "--module"])
        .arg(SoftHsm::module().unwrap())
        .arg("--pin-file")
        .arg(web.scene.pin_path(&token))
        .args(["--issue", &ca(&web.scene)]);
    let said = done(&batch.output().unwrap());
    assert!(said.contains("batch is ready"), "{said}");
    credentials(&web.scene, "batch");
    credentials(&web.scene, "web");
    // Once more, it finds everything there.
    let said = done(&batch.output().unwrap());
    for part in ["key: ", "request: ", "configuration: "] {
        let line = said.lines().find(|line| line.starts_with(part)).unwrap();
        assert!(
            line.contains("it is there") || line.contains("already"),
            "{said}"
        );
    }
}

/// Interrupted while it waits for somebody to issue the certificate.
#[test]
fn run_again_it_goes_on_and_makes_no_second_key() {
    let desk = Desk::new();
    let scene = &desk.scene;
    let answer = scene.path("answer.pem");
    let cert = ["--cert", answer.to_str().unwrap()];
    let mut waiting = desk.on_token(&cert);
    let mut waiting = waiting
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let request = scene.path("web.csr");
    until("there is a request", || request.exists().then_some(()));
    kill_process(Pid::from_child(&waiting), Signal::INT).unwrap();
    let ended = waiting.wait().unwrap().signal();
    assert_eq!(ended, Some(Signal::INT.as_raw()));
    assert_eq!(desk.keys(), 1);

    let said = failed(
        &mut desk.on_token(&["--issue", "exit 3"]),
        1,
        "exit status: 3",
    );
    assert!(
        said.contains("Done so far") && said.contains("hint: "),
        "{said}"
    );
    let other = format!("cat {}", scene.pki().root_path().display());
    failed(
        &mut desk.on_token(&["--issue", &other]),
        1,
        "CA certificate",
    );
    let mut renamed = desk.on_token(&cert);
    renamed.args(["--subject", "CN=other"]);
    failed(&mut renamed, 2, "cannot be used multiple times");
    assert!(!scene.path("web.crt").exists());

    // Half of it is no certificate yet.
    let issue = format!(
        "({}) < {} > {}",
        ca(scene),
        request.display(),
        answer.display()
    );
    let mut resumed = desk.on_token(&cert);
    fs::write(&answer, "-----BEGIN CERTIFICATE-----\nMIIB").unwrap();
    let log = fs::File::create(scene.path("log")).unwrap();
    let mut resumed = resumed.stdout(Stdio::null()).stderr(log).spawn().unwrap();
    until("it says what is wrong", || {
        let log = fs::read_to_string(scene.path("log")).unwrap();
        log.contains("not yet: ").then_some(())
    });
    assert!(
        scene
            .command("sh")
            .args(["-c", &issue])
            .status()
            .unwrap()
            .success()
    );
    assert!(resumed.wait().unwrap().success());
    assert_eq!(desk.keys(), 1);
    let _agent = start(scene);
    credentials(scene, "web");
}

/// As after a crash between the two: the key is made, and its file not given away yet.
#[test]
fn the_key_file_of_a_run_that_did_not_come_further_is_given_to_the_owner() {
    if as_root::by_sudo!() {
        return;
    }
    let desk = Desk::new();
    let scene = &desk.scene;
    let tpm = scene.add_tpm().unwrap();
    let issue = ca(scene);
    let owners = [("chip", 0o600), ("shared", 0o640)].map(|(name, mode)| {
        let file = scene.path(&format!("{name}.tss"));
        let mut generate = scene.command(programs::admin().unwrap());
        generate.args(["key", "generate", "--tpm", &tpm.tcti(), "--out"]);
        done(&generate.arg(&file).output().unwrap());
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let mut go_on = enroll(scene, name);
        go_on.args(["--existing-key", "--owner", "nobody", "--issue", &issue]);
        go_on.args(["--tpm", &tpm.tcti(), "--out"]);
        done(&go_on.arg(&file).output().unwrap());
        fs::metadata(&file).unwrap().uid()
    });
    // What its owner has shared with others on purpose stays as it is.
    assert_eq!(owners, [NOBODY, 0]);
}

/// Whatever listens at the socket, only an agent gets the signal, which would end this program.
#[test]
fn nobody_but_the_agent_is_told_to_reload() {
    let desk = Desk::new();
    let _listener = UnixListener::bind(desk.scene.socket()).unwrap();
    let said = failed(
        &mut desk.on_token(&["--issue", &ca(&desk.scene)]),
        1,
        "it runs ",
    );
    assert!(
        said.contains("identity web added") && said.contains("hint: "),
        "{said}"
    );
}

fn names(scene: &Scene) -> Vec<String> {
    let entries = fs::read_dir(scene.dir()).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_refused_has_made_nothing() {
    let desk = Desk::new();
    let scene = &desk.scene;
    let issue = ca(scene);
    let good = fs::read_to_string(scene.path("agent.toml")).unwrap();
    let before = names(scene);
    let identity = "[[identity]]\nname = \"web\"\nkey = \"pkcs11:token=other;object=web\"\n";
    for (config, more, code, expected) in [
        (
            format!("{good}\n{identity}"),
            &["--issue", &issue][..],
            1,
            "another key or certificate",
        ),
        (
            format!("{good}\n[[identity]"),
            &["--issue", &issue],
            1,
            "agent.toml:3",
        ),
        (
            good.clone(),
            &["--allow-group", "no such group"],
            1,
            "no such group",
        ),
        (
            good.clone(),
            &["--issue", "x", "--renew-before", "soon"],
            1,
            "like 10d",
        ),
        (good.clone(), &["--renew"], 2, "--issue"),
        (
            good.clone(),
            &["--issue", "x", "--cert", "y"],
            2,
            "cannot be used with",
        ),
        (
            good.clone(),
            &["--owner", "no such user"],
            2,
            "no such user",
        ),
        (
            good.clone(),
            &["--existing-key", "--issue", &issue],
            1,
            "key",
        ),
    ] {
        scene.write("agent.toml", &config).unwrap();
        failed(&mut desk.on_token(more), code, expected);
        assert_eq!(
            fs::read_to_string(scene.path("agent.toml")).unwrap(),
            config
        );
        assert_eq!((names(scene), desk.keys()), (before.clone(), 0));
    }
    scene.write("agent.toml", &good).unwrap();
    let link = scene.path("web.crt");
    std::os::unix::fs::symlink(scene.path("elsewhere"), &link).unwrap();
    failed(&mut desk.on_token(&["--issue", &issue]), 1, "symbolic link");
    fs::remove_file(&link).unwrap();
    let said = done(
        &desk
            .on_token(&["--issue", &issue, "--dry-run"])
            .output()
            .unwrap(),
    );
    assert!(
        said.contains("make it") && said.contains("[[identity]]"),
        "{said}"
    );
    assert_eq!((names(scene), desk.keys()), (before, 0));

    // A key that somebody else made is used only when that is said.
    desk.token
        .generate(&hsm_fixtures::KeySpec::new("web", KeyKind::EcP256))
        .unwrap();
    failed(
        &mut desk.on_token(&["--issue", &issue]),
        1,
        "--existing-key",
    );
    done(
        &desk
            .on_token(&["--issue", &issue, "--existing-key"])
            .output()
            .unwrap(),
    );
    assert_eq!(desk.keys(), 1);
    // And a request of that time, only for the same subject and key.
    let _agent = start(scene);
    credentials(scene, "web");
    foreign_request(&desk, Path::new("web.csr"), &issue);
}

/// Somebody's request in the place of ours.
fn foreign_request(desk: &Desk, name: &Path, issue: &str) {
    let path = desk.scene.dir().join(name);
    let make = |subject: &str| {
        let mut openssl = desk.scene.command("openssl");
        openssl.args([
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ]);
        openssl.args(["-nodes", "-keyout", "/dev/null", "-subj", subject, "-out"]);
        hsm_fixtures::command::output(openssl.arg(&path)).unwrap();
    };
    make("/O=Example/CN=web");
    failed(&mut desk.on_token(&["--issue", issue]), 1, "another key");
    make("/CN=other");
    failed(&mut desk.on_token(&["--issue", issue]), 1, "for CN=other");
}
