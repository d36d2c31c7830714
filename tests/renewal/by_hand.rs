//! `roleseal-admin renew` by hand: what it does, by whom, and one at a time.

use super::*;

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
    let directory = scene.path("certificates");
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
