use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use hsm_fixtures::Scene;
use rustix::process::{Pid, Signal, kill_process};

use crate::agent::{Web, until};
use crate::http::Http;
use crate::serving::{key_of, write_targets};

/// With every signal as it is by default: who runs the tests in the background ignores some, and so would the command.
fn exec(scene: &Scene, words: &[&str]) -> Command {
    let roleseal = scene.roleseal(&["exec", "--target=web"]).unwrap();
    let mut command = Command::new("env");
    command
        .env_clear()
        .envs(
            roleseal
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .arg("--default-signal")
        .arg(roleseal.get_program())
        .args(roleseal.get_args())
        .arg("--targets")
        .arg(write_targets(scene))
        .arg("--")
        .args(words);
    command
}

fn code(scene: &Scene, words: &[&str]) -> Option<i32> {
    exec(scene, words).output().unwrap().status.code()
}

#[test]
fn the_exit_status_is_the_commands() {
    let web = Web::start();
    assert_eq!(code(&web.scene, &["true"]), Some(0));
    assert_eq!(code(&web.scene, &["sh", "-c", "exit 7"]), Some(7));
    assert_eq!(code(&web.scene, &["sh", "-c", "kill -KILL $$"]), Some(137));
    assert_eq!(code(&web.scene, &["/nonexistent"]), Some(127));
    assert_eq!(code(&web.scene, &["/etc/passwd"]), Some(126));
}

#[test]
fn the_environment_leads_to_the_target_and_nowhere_else() {
    let web = Web::start();
    let script = "echo x \"$1\"; env; curl -s -H \"Authorization: $AWS_CONTAINER_AUTHORIZATION_TOKEN\" \
                  $AWS_CONTAINER_CREDENTIALS_FULL_URI";
    let run = |region: Option<&str>| {
        let mut command = exec(&web.scene, &["sh", "-c", script, "sh", "an argument"]);
        command.envs(region.map(|region| ("AWS_DEFAULT_REGION", region)));
        command
            .env("AWS_SESSION_TOKEN", "t")
            .env("AWS_ROLE_ARN", "r")
            .env("AWS_ACCESS_KEY", "a")
            .env("AWS_SECRET_KEY", "s")
            .env("AWS_BEARER_TOKEN_BEDROCK", "b")
            .env("AMAZON_ACCESS_KEY_ID", "m")
            .env("http_proxy", "http://127.0.0.1:1")
            .env("HTTP_PROXY", "http://127.0.0.1:1")
            .env("no_proxy", "lab.test")
            .env("BOTO_CONFIG", "/etc/boto.mine");
        let output = command.output().unwrap();
        assert_eq!(output.stderr, b"");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = run(None);
    assert!(text.starts_with("x an argument\n"), "{text}");
    assert!(text.contains("\"AccessKeyId\":\"ASIA"), "{text}");
    let mut names: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("AWS_") || name.starts_with("AMAZON_"))
        .collect();
    names.sort_unstable();
    let expected = [
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CREDENTIAL_PROFILES_FILE",
        "AWS_DEFAULT_REGION",
        "AWS_REGION",
        "AWS_SHARED_CREDENTIALS_FILE",
    ];
    assert_eq!(names, expected);
    assert!(text.contains("AWS_REGION=eu-central-1\n"), "{text}");
    for line in [
        "BOTO_CONFIG=/dev/null\n",
        "no_proxy=lab.test,127.0.0.1\n",
        "NO_PROXY=lab.test,127.0.0.1\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let text = run(Some("eu-west-3")); // the caller's own
    assert!(text.contains("AWS_DEFAULT_REGION=eu-west-3\n") && !text.contains("AWS_REGION="));
}

#[test]
fn the_token_is_in_a_file_as_long_as_the_command_runs() {
    let web = Web::start();
    let script = "echo $AWS_CONTAINER_AUTHORIZATION_TOKEN; cat $AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE; echo; \
                  stat -c %a $AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE; echo $AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
    let output = exec(&web.scene, &["sh", "-c", script]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], lines[1]);
    assert_eq!(lines[2], "600");
    assert!(!std::path::Path::new(lines[3]).exists());
}

#[test]
fn without_a_session_the_command_is_not_started() {
    let Web { agent, scene } = Web::start();
    agent.stop().unwrap();
    let marker = scene.path("marker");
    let words = ["touch", marker.to_str().unwrap()];
    let output = exec(&scene, &words).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("agent.sock"));
    assert!(!marker.exists());
}

/// Ends with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.0), Signal::TERM); // which it passes on
            let _ = self.0.wait();
        }
    }
}

/// Starts a shell script and waits for the line that says it has set its traps.
fn start_script(web: &Web, script: &str) -> (Running, BufReader<std::process::ChildStdout>) {
    let mut command = exec(&web.scene, &["sh", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let running = Running(child);
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (running, lines)
}

#[test]
fn signals_reach_the_command() {
    let web = Web::start();
    let script = "for s in INT TERM HUP QUIT USR1 USR2 WINCH; do trap \"echo $s\" $s; done
                  trap 'echo end; exit 9' ALRM; echo ready; while :; do sleep 0.02; done";
    let (mut child, mut lines) = start_script(&web, script);
    let signals = [
        (Signal::INT, "INT"),
        (Signal::TERM, "TERM"),
        (Signal::HUP, "HUP"),
        (Signal::QUIT, "QUIT"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::WINCH, "WINCH"),
    ];
    for (signal, name) in signals {
        kill_process(Pid::from_child(&child.0), signal).unwrap();
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), name);
    }
    let children = format!("/proc/{0}/task/{0}/children", child.0.id());
    let command = std::fs::read_to_string(children).unwrap();
    let command = Pid::from_raw(command.trim().parse().unwrap()).unwrap();
    kill_process(command, Signal::ALARM).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(9));

    let (mut child, _lines) = start_script(&web, "echo ready; exec sleep 1000");
    kill_process(Pid::from_child(&child.0), Signal::TERM).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(128 + 15));
}

/// Ctrl-C at a terminal reaches the command once, and a signal before there is a session ends roleseal.
#[test]
fn a_terminal_is_as_without_us() {
    let web = Web::start();
    // A shell would make one of two signals that come at nearly the same time.
    let script = "import os, signal
interrupt = {signal.SIGINT}
signal.pthread_sigmask(signal.SIG_BLOCK, interrupt)
os.write(1, b'ready\\n')
signal.sigwaitinfo(interrupt)
os.write(1, b'got INT\\n')
while signal.sigtimedwait(interrupt, 1): os.write(1, b'got INT\\n')
print('read', input(), os.tcgetpgrp(0) == os.getpgrp() and 'foreground' or 'background')";
    let command = exec(&web.scene, &["python3", "-c", script]);
    let word =
        |word: &std::ffi::OsStr| format!("'{}'", word.to_str().unwrap().replace('\'', r"'\''"));
    let line: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(word)
        .collect();
    let mut typed = web.scene.command("script");
    typed
        .args(["-qec", &line.join(" ")])
        .arg(web.scene.path("typescript"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut terminal = typed.spawn().unwrap();
    let mut keys = terminal.stdin.take().unwrap();
    let mut shown = BufReader::new(terminal.stdout.take().unwrap());
    let mut text = String::new();
    let mut see = |what: &str| {
        while !text.contains(what) {
            assert_ne!(shown.read_line(&mut text).unwrap(), 0, "{text}");
        }
        text.clone()
    };
    let mut press = |key: &[u8]| std::io::Write::write_all(&mut keys, key).unwrap();
    see("ready");
    press(b"\x03");
    see("got INT");
    press(b"hello\n");
    let text = see("ground");
    assert!(
        text.contains("read hello") && text.contains("foreground"),
        "{text}"
    );
    assert_eq!(text.matches("got INT").count(), 1, "{text}");
    drop(keys);
    terminal.wait().unwrap();
}

#[test]
fn who_interrupts_before_there_is_a_session_is_obeyed() {
    let web = Web::start();
    web.scene
        .service()
        .set_fault(Some(hsm_fixtures::Fault::Hang));
    let marker = web.scene.path("marker");
    let mut child = exec(&web.scene, &["touch", marker.to_str().unwrap()])
        .spawn()
        .unwrap();
    until("AWS is asked", || {
        (web.scene.service().create_session_requests() > 0).then_some(())
    });
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(2)
    );
    assert!(!marker.exists());
}

#[test]
fn nohup_stays_nohup() {
    let web = Web::start();
    let exec = exec(&web.scene, &["sh", "-c", "kill -HUP $$; echo alive"]);
    let mut nohup = web.scene.command("env");
    let (option, roleseal) = (exec.get_args().take(1), exec.get_args().skip(1));
    nohup.args(option).arg("nohup").args(roleseal);
    let output = nohup.output().unwrap();
    assert_eq!(output.stdout, b"alive\n", "{output:?}");
}

#[test]
fn the_endpoint_is_private() {
    let web = Web::start();
    let script = "echo ready; echo $AWS_CONTAINER_CREDENTIALS_FULL_URI; \
                  echo $AWS_CONTAINER_AUTHORIZATION_TOKEN; exec sleep 1000";
    let (mut child, mut lines) = start_script(&web, script);
    let mut line = || {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let (url, token) = (line(), line());
    let (address, path) = url
        .strip_prefix("http://")
        .unwrap()
        .split_once('/')
        .unwrap();
    let mut http = Http::tcp(address.parse().unwrap());
    let path = format!("/{path}");
    key_of(&http.get(&path, &[("Authorization", &token)]));
    assert_eq!(http.get(&path, &[]).status, 401);
    assert_eq!(http.get(&path, &[("Authorization", "x")]).status, 401);
    let rebound = [("Authorization", token.as_str()), ("Host", "evil.example")];
    assert_eq!(http.get(&path, &rebound).status, 403);
    assert_eq!(http.get("/healthz", &[]).status, 404);
    assert_eq!(http.get("/latest/meta-data/", &[]).status, 404);
    kill_process(Pid::from_child(&child.0), Signal::TERM).unwrap();
    child.0.wait().unwrap();
    assert!(std::net::TcpStream::connect(address).is_err());
}
