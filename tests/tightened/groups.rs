//! Groups that change while connections live.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use hsm_fixtures::{Agent, BATCH_ROLE_ARN, KeyKind};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::LATER;
use crate::agent::{Lab, Web, call_on, connect_as, launcher, request, until};
use crate::clock::Clock;

/// A user of every Debian, and a group that none of its processes has.
const USER: u32 = 1;
const USER_NAME: &str = "daemon";
const ANOTHER_GROUP: u32 = 4_000_002;

/// A scene whose agent has a group file of its own, and a clock of its own.
struct Staff {
    web: Web,
    clock: Clock,
    groups: PathBuf,
}

impl Staff {
    /// The members of the group `staffers`, and no others, may use the identity.
    fn start() -> Staff {
        let mut lab = Lab::new(KeyKind::EcP256);
        lab.config.identity[0].allow.clear();
        let text = lab.config.to_toml().unwrap().replace("allow = []\n", "");
        let rules = "\n[[identity.allow]]\ngroups = [\"staffers\"]\n";
        let file = lab.scene.write("agent.toml", &(text + rules)).unwrap();
        let groups = lab.scene.path("group");
        write_groups(&groups, USER_NAME);
        let agent = lab.scene.agent_command(&file).unwrap();
        let clock = Clock::of_kind(&lab.scene, "CLOCK_MONOTONIC", 0);
        let mut command: Command = lab.scene.command("unshare");
        let script = "mount --bind \"$1\" /etc/group && shift && exec \"$@\"";
        command
            .args(["--mount", "sh", "-ec", script, "sh"])
            .arg(&groups)
            .arg(agent.get_program())
            .args(agent.get_args());
        let (socket, log) = (lab.scene.socket(), lab.scene.path("agent.log"));
        let agent = Agent::start(clock.of(command), &socket, &log, || false).unwrap();
        let web = Web {
            agent,
            scene: lab.scene,
        };
        Staff { web, clock, groups }
    }

    /// With a connection of the member, for whom it signs.
    fn with_member() -> (Staff, UnixStream) {
        let staff = Staff::start();
        let mut connection = connect_as(&staff.web.scene, USER, ANOTHER_GROUP);
        assert!(staff.signs(&mut connection));
        (staff, connection)
    }

    fn set_members(&self, members: &str) {
        write_groups(&self.groups, members);
    }

    /// Whether the agent signs for the user at the other end of this connection.
    fn signs(&self, connection: &mut UnixStream) -> bool {
        let reply = call_on(connection, "SignCreateSession", request(&self.web.scene));
        if let Some(error) = reply.get("error") {
            assert_eq!(error, "org.roleseal.Agent.NotPermitted");
            assert_eq!(reply["parameters"]["rule"], "caller");
        }
        reply.get("error").is_none()
    }
}

/// In place: the file is mounted. This host's own groups stay: they tell whose the programs' directories are.
fn write_groups(path: &PathBuf, members: &str) {
    let own = fs::read_to_string("/etc/group").unwrap();
    fs::write(path, format!("{own}staffers:x:4000009:{members}\n")).unwrap();
}

#[test]
fn a_removed_member_stops_within_a_minute_on_a_connection_that_lives() {
    if as_root::by_sudo!() {
        return;
    }
    let (staff, mut connection) = Staff::with_member();
    staff.set_members("");
    assert!(staff.signs(&mut connection)); // no request waits for a user database that answered within the minute
    staff.clock.set(LATER);
    assert!(!staff.signs(&mut connection));
    staff.set_members(USER_NAME);
    assert!(!staff.signs(&mut connection));
    staff.clock.set(2 * LATER);
    assert!(staff.signs(&mut connection));
}

#[test]
fn a_reload_has_groups_asked_anew() {
    if as_root::by_sudo!() {
        return;
    }
    let (staff, mut connection) = Staff::with_member();
    staff.set_members("");
    let text = fs::read_to_string(staff.web.scene.path("agent.toml")).unwrap();
    staff.web.reload_text(&text);
    assert!(!staff.signs(&mut connection));
    staff.set_members(USER_NAME);
    staff.web.reload_text(&text);
    assert!(staff.signs(&mut connection));
}

/// A launcher that does not answer leaves no answer of before in force, and no caller without a reason.
#[test]
fn a_user_database_that_does_not_answer_permits_nobody() {
    if as_root::by_sudo!() {
        return;
    }
    let (staff, mut connection) = Staff::with_member();
    // A reload that has to look nothing up.
    let text = fs::read_to_string(staff.web.scene.path("agent.toml")).unwrap();
    let text = text.replace("\"staffers\"", "4000009");
    let launcher = Pid::from_raw(launcher(&staff.web.agent)).unwrap();
    kill_process(launcher, Signal::STOP).unwrap();
    assert!(staff.signs(&mut connection)); // within the minute nobody is asked
    staff.web.reload_text(&text);
    for (method, parameters) in [
        ("SignCreateSession", request(&staff.web.scene)),
        ("MayCreateSession", request(&staff.web.scene)),
        ("ListIdentities", json!({})),
        ("GetCertificate", json!({ "identity": "absent" })),
    ] {
        let reply = call_on(&mut connection, method, parameters);
        assert_eq!(
            reply["error"], "org.roleseal.Agent.Busy",
            "{method} {reply}"
        );
    }
    // A rule for the user that does not permit the request decides nothing either.
    let rule = format!(
        "[[identity.allow]]\nusers = [{USER}]\nmax-duration = \"15m\"\nroles = [\"{BATCH_ROLE_ARN}\"]\n"
    );
    staff.web.reload_text(&(text + &rule));
    let reply = call_on(
        &mut connection,
        "SignCreateSession",
        request(&staff.web.scene),
    );
    assert_eq!(reply["error"], "org.roleseal.Agent.Busy", "{reply}");
    kill_process(launcher, Signal::CONT).unwrap();
    until("it answers again", || {
        let reply = call_on(
            &mut connection,
            "SignCreateSession",
            request(&staff.web.scene),
        );
        reply.get("error").is_none().then_some(())
    });
}
