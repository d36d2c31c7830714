//! The agent's socket: whether it is there, lets this user in, and somebody listens.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use client::agent_client::NO_RULES;
use client::exit::Exit;
use nix::unistd::{Gid, Group, Uid, User};
use wire::{Client, ClientError};

use super::finding::{Check, Finding};

/// What is at the path, and who asks.
pub(super) struct Facts {
    path: PathBuf,
    /// What named the path.
    from: String,
    file: Result<File, ErrorKind>,
    caller: Caller,
    /// How a connection went.
    connection: Result<(), (ErrorKind, String)>,
}

struct File {
    is_socket: bool,
    mode: u32,
    owner: String,
    gid: u32,
    group: String,
    /// By the user database: a login that is older does not have it yet.
    caller_is_listed: bool,
}

struct Caller {
    name: String,
    groups: Vec<u32>,
}

/// Looks, and connects.
pub(super) fn look(path: &Path, from: &str) -> (Facts, Option<Client>) {
    let caller = Caller::of_process();
    let file = fs::metadata(path)
        .map(|metadata| File::of(&metadata, &caller.name))
        .map_err(|error| error.kind());
    let (connection, client) = match Client::connect(path) {
        Ok(client) => (Ok(()), Some(client)),
        Err(ClientError::Connect(error)) => (Err((error.kind(), error.to_string())), None),
        Err(error) => (Err((ErrorKind::Other, error.to_string())), None),
    };
    let facts = Facts {
        path: path.to_owned(),
        from: from.to_owned(),
        file,
        caller,
        connection,
    };
    (facts, client)
}

/// What there is to say of it.
pub(super) fn judge(facts: &Facts) -> Finding {
    let path = facts.path.display();
    let from = &facts.from;
    let failed = |detail: String, remedy: &str| {
        Finding::failed(Check::Socket, Exit::AgentUnreachable, detail, remedy)
    };
    let file = match &facts.file {
        Ok(file) => file,
        Err(ErrorKind::NotFound) => {
            return failed(format!("{path} ({from}) is not there"), NOT_THERE);
        }
        Err(kind) => {
            let detail = format!(
                "{path} ({from}) cannot be looked at: {}",
                io::Error::from(*kind)
            );
            return failed(detail, DIRECTORY);
        }
    };
    if !file.is_socket {
        return failed(format!("{path} ({from}) is no socket"), NOT_THERE);
    }
    let rights = format!(
        "{path} ({from}, mode {:04o}, {}:{})",
        file.mode, file.owner, file.group
    );
    match &facts.connection {
        Ok(()) => Finding::ok(Check::Socket, format!("{rights} takes connections")),
        Err((ErrorKind::PermissionDenied, _)) => failed(
            format!("{rights} does not let {} in", facts.caller.name),
            &admission(file, &facts.caller),
        ),
        Err((ErrorKind::ConnectionRefused, _)) => failed(
            format!("{rights} is left over: nobody listens"),
            "Start the agent: sudo systemctl start roleseal-agent.socket roleseal-agent.service",
        ),
        Err((_, error)) => failed(
            format!("{rights} takes no connection: {error}"),
            "The agent is overloaded or stopped: systemctl status roleseal-agent",
        ),
    }
}

const NOT_THERE: &str = "Is roleseal-agent running (systemctl status roleseal-agent.socket \
                         roleseal-agent.service; it is started by sudo systemctl start roleseal-agent.socket)? Where its socket is another, name it with --socket, \
                         ROLESEAL_SOCKET or the target's socket.";

const DIRECTORY: &str = "A directory above it keeps you out: namei -l shows which one. Have it \
                         opened for others (chmod o+x), or the socket put elsewhere (ListenStream= of \
                         roleseal-agent.socket, or socket in agent.toml).";

/// How a user comes in whom the socket keeps out.
fn admission(file: &File, caller: &Caller) -> String {
    const GROUP_WRITES: u32 = 0o020;
    let (group, name) = (&file.group, &caller.name);
    if file.mode & GROUP_WRITES == 0 {
        return NO_RULES.to_owned();
    }
    if caller.groups.contains(&file.gid) {
        return format!(
            "A directory above it keeps you out (namei -l shows which one): have it opened for {name} (chmod o+x). What \
             {name} may then use is for the rules in agent.toml to say."
        );
    }
    match file.caller_is_listed {
        true => format!(
            "{name} is in the group {group} by now, but not in this login: log out and in again, or use \
             newgrp {group}."
        ),
        false => {
            format!(
                "Have {name} made a member: sudo usermod -aG {group} {name}; then log in again."
            )
        }
    }
}

impl File {
    fn of(metadata: &fs::Metadata, caller: &str) -> File {
        let group = Group::from_gid(Gid::from_raw(metadata.gid()))
            .ok()
            .flatten();
        let owner = User::from_uid(Uid::from_raw(metadata.uid())).ok().flatten();
        File {
            is_socket: metadata.file_type().is_socket(),
            mode: metadata.mode() & 0o7777,
            owner: owner.map_or_else(|| metadata.uid().to_string(), |user| user.name),
            gid: metadata.gid(),
            caller_is_listed: group
                .as_ref()
                .is_some_and(|group| group.mem.iter().any(|member| member == caller)),
            group: group.map_or_else(|| metadata.gid().to_string(), |group| group.name),
        }
    }
}

/// This user's name, as a rule of the agent's names it.
pub(super) fn caller_name() -> String {
    let uid = Uid::effective();
    let user = User::from_uid(uid).ok().flatten();
    user.map_or_else(|| format!("user {uid}"), |user| user.name)
}

impl Caller {
    fn of_process() -> Caller {
        let gid = rustix::process::getegid().as_raw();
        let more = rustix::process::getgroups().unwrap_or_default();
        let more = more.into_iter().map(rustix::process::Gid::as_raw);
        Caller {
            name: caller_name(),
            groups: [gid].into_iter().chain(more).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::doctor::finding::Outcome;

    fn facts(mode: u32, gid: u32, listed: bool, kind: Option<ErrorKind>) -> Facts {
        Facts {
            path: "/run/s".into(),
            from: "the default".into(),
            file: Ok(File {
                is_socket: true,
                mode,
                owner: "root".into(),
                gid,
                group: "aws".into(),
                caller_is_listed: listed,
            }),
            caller: Caller {
                name: "deploy".into(),
                groups: vec![1001, 7],
            },
            connection: kind.map_or(Ok(()), |kind| Err((kind, "it says so".into()))),
        }
    }

    #[test]
    fn who_is_kept_out_learns_how_to_come_in() {
        let denied = Some(ErrorKind::PermissionDenied);
        for (mode, gid, listed, expected) in [
            (0o660, 42, false, "usermod -aG aws deploy"),
            (0o660, 42, true, "newgrp aws"),
            (0o600, 42, false, "[[identity.allow]]"),
            (0o660, 7, false, "namei -l"),
        ] {
            let finding = judge(&facts(mode, gid, listed, denied));
            assert_eq!(finding.outcome, Outcome::Failed(Exit::AgentUnreachable));
            assert!(finding.detail.contains("root:aws) does not let deploy in"));
            let remedy = finding.remedy.unwrap();
            assert!(remedy.contains(expected), "{mode:o}: {remedy}");
        }
    }

    #[test]
    fn every_way_not_to_listen_has_its_remedy() {
        let fine = judge(&facts(0o666, 42, false, None));
        assert_eq!(
            (fine.outcome, fine.detail.as_str()),
            (
                Outcome::Ok,
                "/run/s (the default, mode 0666, root:aws) takes connections"
            )
        );
        for (kind, detail, remedy) in [
            (ErrorKind::ConnectionRefused, "left over", "Start the agent"),
            (ErrorKind::TimedOut, "it says so", "overloaded"),
        ] {
            let finding = judge(&facts(0o666, 42, false, Some(kind)));
            assert_eq!(finding.outcome, Outcome::Failed(Exit::AgentUnreachable));
            assert!(finding.detail.contains(detail), "{}", finding.detail);
            assert!(finding.remedy.unwrap().contains(remedy));
        }
    }

    #[test]
    fn what_is_there_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let look = |name: &str| judge(&look(&directory.path().join(name), "by --socket").0);
        let missing = look("a.sock");
        assert!(
            missing
                .detail
                .ends_with("a.sock (by --socket) is not there")
        );
        assert!(missing.remedy.unwrap().contains("ROLESEAL_SOCKET"));
        fs::write(directory.path().join("file"), "").unwrap();
        assert!(look("file").detail.ends_with("is no socket"));

        let path = directory.path().join("b.sock");
        let listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let there = look("b.sock");
        assert_eq!(there.outcome, Outcome::Ok, "{}", there.detail);
        assert!(there.detail.contains("mode 0640"), "{}", there.detail);
        drop(listener);
        assert!(look("b.sock").detail.contains("nobody listens"));
    }
}
