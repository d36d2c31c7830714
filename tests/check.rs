use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use hsm_fixtures::{KeyKind, Scene, SoftHsm, programs};

use crate::agent::{Lab, copy_program};
use crate::policy::NOBODY;

/// A scene whose configuration and certificate `nobody` can read, and nothing else. Only root can look as nobody.
fn scene() -> Scene {
    let Lab { mut config, scene } = Lab::new(KeyKind::EcP256);
    config.pkcs11_module = SoftHsm::module().unwrap();
    let config = config.to_toml().unwrap();
    scene.write("agent.toml", &config).unwrap();
    open(scene.dir(), 0o711);
    for name in ["agent.toml", "web.pem"] {
        open(&scene.path(name), 0o644);
    }
    scene
}

fn open(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// `--check`, where `systemctl cat` prints this unit, or fails.
fn check(scene: &Scene, unit: Option<&str>, more: &[&str]) -> Output {
    check_command(scene, unit, more).output().unwrap()
}

fn check_command(scene: &Scene, unit: Option<&str>, more: &[&str]) -> Command {
    let script = match unit {
        Some(unit) => {
            scene.write("unit", unit).unwrap();
            format!("#!/bin/sh\ncat '{}'\n", scene.path("unit").display())
        }
        None => "#!/bin/sh\necho 'no systemd here' >&2\nexit 1\n".to_owned(),
    };
    fs::create_dir_all(scene.path("bin")).unwrap();
    let systemctl = scene.write("bin/systemctl", &script).unwrap();
    open(&systemctl, 0o755);
    let path = format!("{}:/usr/bin:/bin", scene.path("bin").display());
    let mut command = scene.agent_command(&scene.path("agent.toml")).unwrap();
    command.arg("--check").args(more).env("PATH", path);
    command
}

/// The faults that it finds, one a line.
fn faults(output: &Output) -> Vec<String> {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(!output.status.success(), "{stderr}");
    let lines = stderr.lines().filter(|line| line.starts_with("  "));
    lines.map(|line| line.trim().to_owned()).collect()
}

/// What it says where it finds none: on standard output, and as warnings.
fn good(output: &Output) -> (String, String) {
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8(bytes.clone()).unwrap());
    assert!(output.status.success(), "{stderr}");
    (stdout, stderr)
}

#[test]
fn root_sees_what_the_agents_user_cannot_read() {
    if as_root::by_sudo!() {
        return;
    }
    let scene = scene();
    let tokens = scene.path("tokens");
    open(scene.softhsm().config(), 0o600);
    open(&tokens, 0o700);
    let as_root = good(&check(&scene, None, &["--user", "root"]));
    assert!(as_root.0.contains("looked at as root"), "{}", as_root.0);
    let pin = scene.path("lab.pin");
    let softhsm = scene.softhsm().config();
    let found = faults(&check(&scene, None, &["--user", "nobody"]));
    assert_eq!(found.len(), 2, "{found:?}");
    for path in [&pin, &softhsm.to_owned()] {
        let named = |fault: &String| fault.contains(path.to_str().unwrap());
        assert!(found.iter().any(named), "{}: {found:?}", path.display());
    }
    // Each is put right by what it says.
    chown(&pin, Some(NOBODY), Some(NOBODY)).unwrap();
    open(softhsm, 0o644);
    let found = faults(&check(&scene, None, &["--user", "nobody"]));
    assert!(
        found.len() == 1 && found[0].contains(tokens.to_str().unwrap()),
        "{found:?}"
    );
    open(&tokens, 0o755);
    let (said, warnings) = good(&check(&scene, None, &["--user", "nobody"]));
    assert!(said.contains("looked at as nobody"), "{said}");
    assert_eq!(warnings, "");
    // A configuration that is closed to it, and a user who is nobody's.
    open(&scene.path("agent.toml"), 0o600);
    let closed = check(&scene, None, &["--user", "nobody"]);
    let said = String::from_utf8_lossy(&closed.stderr).into_owned();
    assert!(!closed.status.success() && said.contains("looked at as nobody"));
    assert!(
        !check(&scene, None, &["--user", "no such user"])
            .status
            .success()
    );
}

/// Systemd passes it to the service alone: what the unit says of it is looked at.
#[test]
fn a_credential_is_looked_up_in_the_unit() {
    if as_root::by_sudo!() {
        return;
    }
    let scene = scene();
    open(scene.softhsm().config(), 0o644);
    open(&scene.path("tokens"), 0o755);
    let text = fs::read_to_string(scene.path("agent.toml")).unwrap();
    let pin = scene.path("lab.pin");
    let by_file = format!("file = \"{}\"", pin.display());
    let text = text.replace(&by_file, "credential = \"lab\"");
    assert!(text.contains("credential"), "{text}");
    scene.write("agent.toml", &text).unwrap();
    open(&scene.path("agent.toml"), 0o644);

    let conf = scene.softhsm().config().display();
    let unit =
        |more: &str| format!("[Service]\nUser=nobody\nEnvironment=SOFTHSM2_CONF={conf}\n{more}\n");
    let load = |file: &Path| unit(&format!("LoadCredential=lab:{}", file.display()));
    let (said, warnings) = good(&check(&scene, Some(&load(&pin)), &[]));
    assert!(said.contains("looked at as nobody"), "{said}");
    assert_eq!(warnings, "");
    let absent = scene.path("absent.pin");
    for (unit, expected) in [
        (load(&absent), "absent.pin"),
        (unit(""), "LoadCredential=lab:"),
    ] {
        let found = faults(&check(&scene, Some(&unit), &[]));
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
    }
    // Where nothing is known of the unit, or of where it has the credential from, that is said.
    let stored = unit("LoadCredential=lab");
    for (unit, user) in [
        (None, "nobody"),
        (Some(&stored), "nobody"),
        (Some(&stored), "root"),
    ] {
        let (_, warnings) = good(&check(&scene, unit.map(String::as_str), &["--user", user]));
        assert!(
            warnings.contains("\"lab\" was not checked"),
            "{unit:?} {user}: {warnings}"
        );
    }
    // In the service itself it is looked at as before.
    let mut inside = scene.agent_command(&scene.path("agent.toml")).unwrap();
    inside.args(["--check", "--user", "root"]);
    let inside = inside.env("CREDENTIALS_DIRECTORY", scene.dir()).output();
    assert_eq!(faults(&inside.unwrap()).len(), 1);
    // A control process of the service, which before systemd 255 may not enter that directory: as from outside.
    let closed = scene.path("closed");
    fs::create_dir(&closed).unwrap();
    open(&closed, 0o700);
    for (unit, is_good) in [(load(&pin), true), (load(&absent), false)] {
        let mut control = check_command(&scene, Some(&unit), &[]);
        let output = control.env("CREDENTIALS_DIRECTORY", &closed).output();
        assert_eq!(output.unwrap().status.success(), is_good);
    }
}

/// Root made them, and the agent's user cannot read them.
#[test]
fn a_key_file_of_root_is_a_fault() {
    if as_root::by_sudo!() {
        return;
    }
    let scene = scene();
    let file = scene.write("chip.tss", "not looked into").unwrap();
    let text = format!(
        "[[identity]]\nname = \"chip\"\nkey = {file:?}\ncertificate = {:?}\n\
         tpm = {{ tcti = \"swtpm:host=127.0.0.1,port=1\" }}\n",
        scene.path("web.pem")
    );
    scene.write("agent.toml", &text).unwrap();
    open(&scene.path("agent.toml"), 0o644);
    good(&check(&scene, None, &["--user", "root"]));
    open(&file, 0o600);
    let found = faults(&check(&scene, None, &["--user", "nobody"]));
    assert!(
        found.len() == 1 && found[0].contains("chip.tss"),
        "{found:?}"
    );
    chown(&file, Some(NOBODY), None).unwrap();
    good(&check(&scene, None, &["--user", "nobody"]));
}

#[test]
fn only_root_looks_as_another() {
    if as_root::by_sudo!() {
        return;
    }
    let scene = scene();
    let program = scene.path("roleseal-agent");
    copy_program(programs::agent().unwrap().as_os_str(), &program);
    let output = scene
        .command(&program)
        .args(["--check", "--user", "root", "--config"])
        .arg(scene.path("agent.toml"))
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("only root"),
        "{said}"
    );
}
