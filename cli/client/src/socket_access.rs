//! Access to the agent's socket: who may connect, and how a user gets access.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User, getegid, getgroups};

/// The file at the socket's path. Displays its mode and owner.
#[derive(Debug)]
pub struct SocketFile {
    is_socket: bool,
    mode: u32,
    owner: String,
    gid: u32,
    group: String,
    /// By the user database: an older login does not have the group yet.
    lists_user: bool,
}

impl SocketFile {
    /// Reads the file's owner and mode.
    pub fn read(path: &Path) -> io::Result<SocketFile> {
        let metadata = fs::metadata(path)?;
        let (uid, gid) = (metadata.uid(), metadata.gid());
        let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
        let owner = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        let user = user_name();
        Ok(SocketFile {
            is_socket: metadata.file_type().is_socket(),
            mode: metadata.mode() & 0o7777,
            owner: owner.map_or_else(|| uid.to_string(), |owner| owner.name),
            gid,
            lists_user: group
                .as_ref()
                .is_some_and(|group| group.mem.contains(&user)),
            group: group.map_or_else(|| gid.to_string(), |group| group.name),
        })
    }
}

impl fmt::Display for SocketFile {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "mode {:04o}, {}:{}", self.mode, self.owner, self.group)
    }
}

/// Returns this user's name, as the agent's rules name it.
pub fn user_name() -> String {
    let uid = Uid::effective();
    let user = User::from_uid(uid).ok().flatten();
    user.map_or_else(|| format!("user {uid}"), |user| user.name)
}

/// Returns how this user gets a connection after a failure of that kind.
pub(crate) fn hint(path: &Path, kind: ErrorKind) -> String {
    let in_group = |gid: u32| {
        let groups = getgroups().unwrap_or_default();
        groups
            .into_iter()
            .chain([getegid()])
            .any(|one| one.as_raw() == gid)
    };
    match (SocketFile::read(path), kind) {
        (Ok(file), _) if !file.is_socket => MISSING.to_owned(),
        (Ok(file), ErrorKind::PermissionDenied) => {
            let in_group = in_group(file.gid);
            admission(path, &file, &user_name(), in_group)
        }
        (Err(_), ErrorKind::PermissionDenied) => directory(path),
        (_, ErrorKind::NotFound) => MISSING.to_owned(),
        (_, ErrorKind::ConnectionRefused) => LEFT_OVER.to_owned(),
        _ => "the agent is overloaded or stopped: systemctl status roleseal-agent".to_owned(),
    }
}

const MISSING: &str = "start roleseal-agent (sudo systemctl start roleseal-agent.socket), or name another socket with \
                       --socket, ROLESEAL_SOCKET or the target's socket";

const LEFT_OVER: &str = "the socket is left over, and no agent listens: sudo systemctl start roleseal-agent.socket \
                         roleseal-agent.service";

/// As an agent makes the socket that has no rule for others.
const OWNER_ALONE: &str = "\
only the socket's owner may connect, as no [[identity.allow]] rule names another user: add a rule that names you (users \
or groups) to agent.toml, then: sudo systemctl restart roleseal-agent (or change SocketMode=, where systemd makes the \
socket)";

fn admission(path: &Path, file: &SocketFile, user: &str, in_group: bool) -> String {
    const GROUP_WRITES: u32 = 0o020;
    let group = &file.group;
    if file.mode & GROUP_WRITES == 0 {
        OWNER_ALONE.to_owned()
    } else if in_group {
        directory(path)
    } else if file.lists_user {
        format!(
            "{user} is in the group {group}, but not in this login: log in again, or use newgrp {group}"
        )
    } else {
        format!("make {user} a member: sudo usermod -aG {group} {user}; then log in again")
    }
}

fn directory(path: &Path) -> String {
    format!(
        "a directory above the socket denies access: \"namei -l {}\" shows which one; open it for others (chmod o+x), or \
         put the socket elsewhere (ListenStream= of roleseal-agent.socket, or socket in agent.toml)",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_denied_user_gets_the_command_that_helps() {
        let path = Path::new("/s");
        for (mode, lists_user, in_group, expected) in [
            (0o660, false, false, "usermod -aG aws deploy"),
            (0o660, true, false, "newgrp aws"),
            (0o600, false, false, "[[identity.allow]]"),
            (0o660, false, true, "namei -l /s"),
        ] {
            let file = SocketFile {
                is_socket: true,
                mode,
                owner: "root".into(),
                gid: 42,
                group: "aws".into(),
                lists_user,
            };
            let hint = admission(path, &file, "deploy", in_group);
            assert!(hint.contains(expected), "{mode:o}: {hint}");
        }
    }

    #[test]
    fn a_hint_follows_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let missing = hint(&path, ErrorKind::NotFound);
        fs::write(&path, "").unwrap();
        assert_eq!(hint(&path, ErrorKind::ConnectionRefused), missing);
        fs::remove_file(&path).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let file = SocketFile::read(&path).unwrap();
        assert!(file.is_socket && file.to_string().starts_with("mode 0640, "));
        drop(listener);
        assert_eq!(hint(&path, ErrorKind::ConnectionRefused), LEFT_OVER);
    }
}
