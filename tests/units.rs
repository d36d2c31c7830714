use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use hsm_fixtures::{KeyKind, LimitsConfig, Scene};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::agent::{Lab, Web, log_with, request, until};
use crate::hostile::{scrape, start_with, strangers};
use crate::others::{error_of, open_to_others};
use crate::strangers::with_rules;

/// A user that no host has.
const DAEMON: u32 = 4_000_021;

/// Another one.
const OTHER: u32 = 4_000_022;

/// Of all users without a number in the agent's user namespace; services run as it, too.
const UNMAPPED: u32 = 65_534;

/// Of removing control groups; each takes some 10 ms.
const TRIES: usize = 200;

/// A slice with units in it, of this test alone, in the hierarchies that a service manager has here.
pub(crate) struct Slice {
    name: String,
    mounts: TempDir,
}

impl Slice {
    /// `None` where root can mount no control groups, as in some containers.
    pub(crate) fn new() -> Option<Slice> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let slice = Slice {
            name: format!("roleseal{}x{count}.slice", std::process::id()),
            mounts: tempfile::tempdir().unwrap(),
        };
        let made = slice.with_each("mkdir \"$1/$2\"", &[]);
        if !made {
            eprintln!("no control groups here, as in a container: not tested");
        }
        made.then_some(slice)
    }

    /// Moves a process into the group of that path in the slice.
    fn add(&self, pid: u32, path: &str) {
        let script = "mkdir -p \"$1/$2/$3\"; echo \"$4\" > \"$1/$2/$3/cgroup.procs\"";
        assert!(self.with_each(script, &[path, &pid.to_string()]), "{path}");
    }

    /// Runs a script for each hierarchy, with its place, the slice's name and these arguments.
    fn with_each(&self, script: &str, arguments: &[&str]) -> bool {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let named = own.contains(":name=systemd:");
        let named = named.then_some(["cgroup", "none,name=systemd"]);
        let unified = own.contains("0::").then_some(["cgroup2", "rw"]);
        let mut all = named.into_iter().chain(unified).peekable();
        // The mount is seen by the script alone, or else for as long as it runs.
        let script = format!(
            "mount -t \"$5\" -o \"$6\" none \"$1\"; trap 'umount \"$1\"' EXIT; set -- \"$1\" \"$2\" \"$3\" \"$4\"; {script}"
        );
        all.peek().is_some()
            && all.all(|kind| {
                let mut command = Command::new("unshare");
                command
                    .args(["--mount", "--propagation", "unchanged", "sh", "-ec"])
                    .args([&script, "sh"])
                    .arg(self.mounts.path())
                    .arg(&self.name);
                let of = |at: usize| arguments.get(at).copied().unwrap_or_default();
                let output = command.args([of(0), of(1)]).args(kind).output().unwrap();
                if !output.status.success() {
                    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
                }
                output.status.success()
            })
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        let remove = "[ ! -d \"$1/$2\" ] || find \"$1/$2\" -depth -type d -exec rmdir {} +";
        // A process that is about to end may still be in it.
        let removed = (0..TRIES).any(|_| self.with_each(remove, &[]));
        if !removed {
            eprintln!("{} is left", self.name);
        }
    }
}

/// Makes each line a call on a connection of its own. With `leave`, the process that has connected ends, and another one that
/// has inherited the connection goes on; with `keep`, the connections stay open.
const CLIENT: &str = r#"
import os, socket, sys
kept = []
for line in iter(sys.stdin.readline, ""):
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(sys.argv[1])
    if sys.argv[2:] == ["leave"] and os.fork():
        os._exit(0)
    if sys.argv[2:] == ["keep"]:
        kept.append(stream)
    stream.sendall(line.strip().encode() + b"\0")
    reply = b""
    while not reply.endswith(b"\0"):
        part = stream.recv(65536)
        if not part:
            break
        reply += part
    print(reply.rstrip(b"\0").decode(), flush=True)
"#;

/// A process that calls the agent.
struct Client {
    child: Child,
    calls: ChildStdin,
    replies: BufReader<ChildStdout>,
}

impl Client {
    fn start(scene: &Scene, uid: u32, arguments: &[&str]) -> Client {
        let mut python = Command::new("python3");
        python
            .args(["-c", CLIENT])
            .arg(scene.socket())
            .args(arguments)
            .uid(uid)
            .gid(uid)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = python.spawn().unwrap();
        Client {
            calls: child.stdin.take().unwrap(),
            replies: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn send(&mut self, method: &str, parameters: &Value) {
        let method = format!("org.roleseal.Agent.{method}");
        let call = json!({ "method": method, "parameters": parameters });
        writeln!(self.calls, "{call}").unwrap();
    }

    fn read(&mut self) -> Value {
        let mut reply = String::new();
        self.replies.read_line(&mut reply).unwrap();
        serde_json::from_str(&reply).unwrap_or_else(|error| panic!("{error}: {reply:?}"))
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.send(method, parameters);
        self.read()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An agent with these rules for its one identity.
fn start(rules: &str) -> Web {
    let limits = LimitsConfig {
        requests_per_second_unnamed: Some(1000),
        ..LimitsConfig::default()
    };
    start_with_limits(rules, limits)
}

fn start_with_limits(rules: &str, limits: LimitsConfig) -> Web {
    let mut lab = Lab::new(KeyKind::EcP256);
    lab.config.limits = Some(limits);
    let text = with_rules(&lab, rules);
    let web = lab.start();
    let said = web.reload_text(&text);
    assert!(said.contains("1 identities"), "{said}");
    open_to_others(&web.scene);
    web
}

/// The part of the rules that refuses a request of a new process, in the groups of that path; null for none.
pub(crate) fn rule_that_refuses(web: &Web, slice: &Slice, uid: u32, path: Option<&str>) -> Value {
    let mut client = Client::start(&web.scene, uid, &[]);
    if let Some(path) = path {
        slice.add(client.child.id(), path);
    }
    let request = request(&web.scene);
    let signed = client.call("SignCreateSession", &request);
    let rule = signed["parameters"]["rule"].clone();
    assert_eq!(signed["error"].is_null(), rule.is_null(), "{signed}");
    // All other calls see the same caller.
    let permitted = client.call("MayCreateSession", &request);
    assert_eq!(permitted["parameters"]["rule"], rule);
    let listed = client.call("ListIdentities", &json!({}));
    let listed = listed["parameters"]["identities"].as_array().unwrap().len();
    assert_eq!(listed, usize::from(rule.is_null()));
    rule
}

#[test]
fn a_unit_is_permitted_and_a_name_that_others_give_is_not() {
    if as_root::by_sudo!() {
        return;
    }
    let Some(slice) = Slice::new() else { return };
    let web = start("units = [\"payments.service\", \"worker@1.service\"]\n");
    let rule = |uid, path| rule_that_refuses(&web, &slice, uid, path);
    for path in [
        "payments.service",
        "payments.service/child/grandchild",
        "inner.slice/worker@1.service",
    ] {
        assert_eq!(rule(DAEMON, Some(path)), Value::Null, "{path}");
    }
    // Of any user, root among them, and one that has no number of its own.
    for uid in [OTHER, UNMAPPED, 0] {
        assert_eq!(rule(uid, Some("payments.service")), Value::Null, "{uid}");
    }
    for path in [
        Some("other.service"),
        Some("worker@2.service"),
        Some("payments.scope"),
        Some("user@1000.service/app.slice/payments.service"),
        Some("user@1000.service/payments.service"),
        Some("container/payments.service"),
        None,
    ] {
        assert_eq!(rule(DAEMON, path), "caller", "{path:?}");
    }
}

#[test]
fn a_rule_with_users_and_units_needs_both() {
    if as_root::by_sudo!() {
        return;
    }
    let Some(slice) = Slice::new() else { return };
    let web = start(&format!(
        "users = [{DAEMON}]\nunits = [\"payments.service\"]\n"
    ));
    let (payments, other) = (Some("payments.service"), Some("other.service"));
    let rule = |uid, path| rule_that_refuses(&web, &slice, uid, path);
    assert_eq!(rule(DAEMON, payments), Value::Null);
    assert_eq!(rule(DAEMON, other), "caller");
    assert_eq!(rule(DAEMON, None), "caller");
    assert_eq!(rule(OTHER, payments), "caller");
    // A name that matches nobody is not the same as no name.
    let rules = "users = [\"nobody\"]\nunits = [\"payments.service\"]\n";
    let web = start(rules);
    for uid in [UNMAPPED, DAEMON] {
        let rule = rule_that_refuses(&web, &slice, uid, payments);
        assert_eq!(rule, "caller", "{uid}");
    }
}

#[test]
fn a_connection_whose_process_has_ended_is_of_no_unit() {
    if as_root::by_sudo!() {
        return;
    }
    if !is_identified() {
        return;
    }
    let Some(slice) = Slice::new() else { return };
    let web = start("units = [\"payments.service\"]\n");
    let mut client = Client::start(&web.scene, DAEMON, &["leave"]);
    slice.add(client.child.id(), "payments.service");
    kill_process(pid_of(&web), Signal::STOP).unwrap(); // it asks when the process has ended
    client.send("SignCreateSession", &request(&web.scene));
    // It is not reaped: its number and its groups are still there.
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(Pid::from_child(&client.child)), options).unwrap();
    kill_process(pid_of(&web), Signal::CONT).unwrap();
    assert_eq!(client.read()["parameters"]["rule"], "caller");
}

/// A caller connects and ends, and a process of a permitted unit gets its number before the agent looks.
#[test]
fn a_process_with_the_number_of_a_caller_that_has_ended_is_not_the_caller() {
    if as_root::by_sudo!() {
        return;
    }
    if !is_identified() {
        return;
    }
    let last = "/proc/sys/kernel/ns_last_pid";
    if fs::write(last, fs::read(last).unwrap_or_default()).is_err() {
        eprintln!("the next process has no number of choice here: not tested");
        return;
    }
    let Some(slice) = Slice::new() else { return };
    let web = start("units = [\"payments.service\"]\n");
    let refused = until("the successor has the number", || {
        let mut client = Client::start(&web.scene, DAEMON, &["leave"]);
        kill_process(pid_of(&web), Signal::STOP).unwrap();
        client.send("SignCreateSession", &request(&web.scene));
        client.child.wait().unwrap();
        let successor = successor(last, client.child.id());
        if let Some(successor) = &successor {
            slice.add(successor.child.id(), "payments.service");
        }
        kill_process(pid_of(&web), Signal::CONT).unwrap();
        let reply = client.read();
        successor.map(|_| reply["parameters"]["rule"].clone())
    });
    assert_eq!(refused, "caller");
}

/// Before Linux 6.5, a rule with units alone permits nobody.
fn is_identified() -> bool {
    let script = "import socket; socket.socketpair()[0].getsockopt(socket.SOL_SOCKET, 77)";
    let status = Command::new("python3").args(["-c", script]).status();
    let is_identified = status.unwrap().success();
    if !is_identified {
        eprintln!("the kernel has no SO_PEERPIDFD: not tested");
    }
    is_identified
}

/// Each is admitted before its unit is known.
#[test]
fn a_unit_has_no_more_connections_than_its_user_may_have() {
    if as_root::by_sudo!() || !is_identified() {
        return;
    }
    let Some(slice) = Slice::new() else { return };
    let limits = LimitsConfig {
        connections_per_user: Some(2),
        ..LimitsConfig::default()
    };
    let web = start_with_limits("units = [\"payments.service\"]\n", limits);
    let client = |uid| {
        let client = Client::start(&web.scene, uid, &["keep"]);
        slice.add(client.child.id(), "payments.service");
        client
    };
    let errors = |mut client: Client| {
        let mut call = || error_of(&client.call("ListIdentities", &json!({}))).to_owned();
        let errors = [call(), call(), call(), call()];
        (client, errors)
    };
    let (_daemon, refused) = errors(client(DAEMON));
    assert_eq!(refused, ["", "", "Busy", "Busy"]);
    let (_other, refused) = errors(client(OTHER));
    assert_eq!(refused, ["", "", "Busy", "Busy"]);
}

fn pid_of(web: &Web) -> Pid {
    Pid::from_raw(web.agent.process().id().cast_signed()).unwrap()
}

/// A process that waits, with that number; `None` if a process of others was faster.
fn successor(last: &str, pid: u32) -> Option<Successor> {
    fs::write(last, (pid - 1).to_string()).unwrap();
    let mut cat = Command::new("cat");
    let child = cat.stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    let successor = Successor {
        child: child.unwrap(),
    };
    (successor.child.id() == pid).then_some(successor)
}

struct Successor {
    child: Child,
}

impl Drop for Successor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_log_names_the_unit_and_the_container_of_a_caller() {
    if as_root::by_sudo!() {
        return;
    }
    let Some(slice) = Slice::new() else { return };
    let web = start(&format!("users = [{DAEMON}]\n"));
    let id = "0123456789abcdef".repeat(4);
    let pod = "1f0b6f2e-93a4-4f0c-8d5a-7a5c0d1e2f30";
    let in_pod = format!(
        "kubepods-pod{}.slice/cri-containerd-{id}.scope",
        pod.replace('-', "_")
    );
    assert_eq!(
        rule_that_refuses(&web, &slice, DAEMON, Some(&in_pod)),
        Value::Null
    );
    let log = log_with(&web.agent, "container=");
    let signed = log.lines().find(|line| line.contains(" signed ")).unwrap();
    let (unit, container) = (
        format!("unit=cri-containerd-{id}.scope "),
        format!("container=pod{pod}/cri-containerd-{id} "),
    );
    assert!(
        signed.contains(&unit) && signed.contains(&container),
        "{signed}"
    );
    assert_eq!(
        rule_that_refuses(&web, &slice, OTHER, Some("payments.service")),
        "caller"
    );
    log_with(&web.agent, "unit=payments.service ");
}

/// A unit that no rule names by its user has a place, though strangers have all those of the unnamed.
#[test]
fn strangers_that_keep_all_their_places_busy_keep_no_unit_out() {
    if as_root::by_sudo!() {
        return;
    }
    let Some(slice) = Slice::new() else { return };
    let rule = "[[identity.allow]]\nunits = [\"payments.service\"]\n";
    // Unfinished messages, and more calls than are answered meanwhile.
    let info = format!("{}\0", json!({ "method": "org.varlink.service.GetInfo" }));
    for bytes in [format!("{info}{{"), info.repeat(400)] {
        let (web, journal) = start_with(Lab::new(KeyKind::EcP256), rule);
        let taken = strangers(&web, 64, bytes.as_bytes());
        until("they have their places", || {
            (scrape(&web.scene)["roleseal_connections"] == 64).then_some(())
        });
        let mut client = Client::start(&web.scene, DAEMON, &[]);
        slice.add(client.child.id(), "payments.service");
        let sign = |_| {
            let reply = client.call("SignCreateSession", &request(&web.scene));
            error_of(&reply).to_owned()
        };
        let errors: Vec<_> = (0..20).map(sign).collect();
        assert_eq!(errors, [""; 20]);
        drop(taken);
        journal.end(web);
    }
}
