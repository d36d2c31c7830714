//! Files that decide what a process does, such as a library, a program or a configuration: nobody may be able to
//! replace them but root, the process's own user, and the owner of its program.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, StatVfsMountFlags, StatxAttributes, StatxFlags, fstat,
    fstatvfs, lgetxattr, openat, statx,
};
use rustix::io::Errno;
use rustix::process::geteuid;
use thiserror::Error;

use crate::walk::{Step, walk};

/// Why a file is not trusted.
#[derive(Debug, Error)]
pub enum Untrusted {
    /// The system does not show it.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The file, or a directory on its path, has a mode that lets others change it.
    #[error("other users can change {}: mode {mode:04o}", .path.display())]
    Mode {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file, a directory or a symbolic link on its path belongs to another user.
    #[error("{} belongs to user {owner}, who can change it", .path.display())]
    Owner {
        /// The file, directory or link.
        path: PathBuf,
        /// That user.
        owner: u32,
    },
}

impl Untrusted {
    /// The command that helps.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Untrusted::Io { .. } => None,
            Untrusted::Mode { path, .. } => Some(format!("chmod go-w {}", path.display())),
            Untrusted::Owner { path, .. } => Some(format!("chown -h root {}", path.display())),
        }
    }

    /// The cause with the command that helps, for messages that have no hint of their own.
    pub fn explain(&self) -> String {
        match self.remedy() {
            Some(remedy) => format!("{self}; run `{remedy}`"),
            None => self.to_string(),
        }
    }
}

/// Refuses a file that others can replace: by its mode or owner, or by those of a directory or a link on its path.
pub fn check(path: &Path) -> Result<(), Untrusted> {
    open_with(path, OFlags::PATH, None).map(drop)
}

/// The same, and opens it to read: what is read is what was checked.
pub fn open(path: &Path) -> Result<File, Untrusted> {
    open_of(path, None)
}

/// The same of a file that may be this user's, too, such as the agent's for a command that root runs.
pub fn open_of(path: &Path, user: Option<u32>) -> Result<File, Untrusted> {
    open_with(path, OFlags::RDONLY | OFlags::NONBLOCK, user)
}

fn open_with(path: &Path, flags: OFlags, user: Option<u32>) -> Result<File, Untrusted> {
    let io = |error: io::Error| Untrusted::Io {
        path: path.to_owned(),
        error,
    };
    let full = std::path::absolute(path).map_err(io)?;
    let end = walk(&full, |step| match step {
        Step::Directory(path, stat, directory) => match check_one(path, stat, user) {
            Err(Stop::Untrusted(Untrusted::Mode { .. })) if is_read_only_mount(directory) => Ok(()),
            checked => checked,
        },
        Step::Link(path, stat, _) => check_owner(path, stat, user),
    });
    let end = end.map_err(|stop: Stop| match stop {
        Stop::Io(error) => io(error),
        Stop::Untrusted(untrusted) => untrusted,
    })?;
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(&end.directory, &end.name, flags, Mode::empty());
    let file = file.map_err(|error| io(error.into()))?;
    let stat = fstat(&file).map_err(|error| io(error.into()))?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    let checked = match is_file {
        true => check_one(&end.path, &stat, user),
        // The mode of a device says nothing of who writes what is read.
        false => check_owner(&end.path, &stat, user)
            .and_then(|()| Err(Stop::Io(io::Error::other("not a regular file")))),
    };
    match checked {
        Ok(()) => Ok(File::from(file)),
        Err(Stop::Io(error)) => Err(io(error)),
        Err(Stop::Untrusted(untrusted)) => Err(untrusted),
    }
}

/// Reads, while this process is not confined yet, what later questions need.
pub fn prepare() {
    let _ = (owner_of_program(), members());
}

/// What ends a walk.
enum Stop {
    Io(io::Error),
    Untrusted(Untrusted),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Io(error)
    }
}

/// In a directory with the sticky bit, such as /tmp, everybody may make files, and nobody replace another user's.
fn check_one(path: &Path, stat: &Stat, user: Option<u32>) -> Result<(), Stop> {
    check_owner(path, stat, user)?;
    let mode = Mode::from_raw_mode(stat.st_mode);
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let is_sticky = is_directory && mode.contains(Mode::SVTX);
    let by_others = mode.contains(Mode::WOTH);
    let by_group =
        mode.contains(Mode::WGRP) && !(is_trusted_group(stat.st_gid) && has_no_list(path));
    match !is_sticky && (by_others || by_group) {
        true => Err(Stop::Untrusted(Untrusted::Mode {
            path: path.to_owned(),
            mode: mode.bits(),
        })),
        false => Ok(()),
    }
}

/// As Kubernetes mounts a ConfigMap: mode 0777, and nobody can write. Only where the directory is the mount itself: below
/// a mount, a service may see as read-only (`ProtectSystem=`) what all others of the host write.
fn is_read_only_mount(directory: &OwnedFd) -> bool {
    let stat = statx(directory, "", AtFlags::EMPTY_PATH, StatxFlags::empty());
    let is_mount = stat.is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    let flags = || fstatvfs(directory).map(|fs| fs.f_flag);
    is_mount && flags().is_ok_and(|flags| flags.contains(StatVfsMountFlags::RDONLY))
}

/// With an access-control list, the mode shows its mask in the group's place: others may be meant.
fn has_no_list(path: &Path) -> bool {
    let found = lgetxattr(path, "system.posix_acl_access", &mut [0_u8; 0]);
    matches!(found, Err(Errno::NODATA | Errno::OPNOTSUPP))
}

fn check_owner(path: &Path, stat: &Stat, user: Option<u32>) -> Result<(), Stop> {
    match is_trusted(stat.st_uid) || Some(stat.st_uid) == user {
        true => Ok(()),
        false => Err(Stop::Untrusted(Untrusted::Owner {
            path: path.to_owned(),
            owner: stat.st_uid,
        })),
    }
}

fn is_trusted(user: u32) -> bool {
    user == 0 || user == geteuid().as_raw() || Some(user) == owner_of_program()
}

/// Who owns the program that runs could have put any other in its place.
fn owner_of_program() -> Option<u32> {
    static PROGRAM: OnceLock<Option<u32>> = OnceLock::new();
    *PROGRAM.get_or_init(|| Some(fs::metadata("/proc/self/exe").ok()?.uid()))
}

/// Where each user has a group of its own, a umask of 002 is usual: such a group is its user. One without members is
/// nobody's that is known here: a service may have it.
fn is_trusted_group(group: u32) -> bool {
    let members = members().get(&group);
    members.is_some_and(|members| {
        !members.is_empty() && members.iter().all(|user| user.is_some_and(is_trusted))
    })
}

/// The members of this host's own groups; `None` for one whom only another user database knows. As of the first
/// question: a confined process cannot look again.
fn members() -> &'static Members {
    static MEMBERS: OnceLock<Members> = OnceLock::new();
    MEMBERS.get_or_init(|| {
        let [users, groups] = ["/etc/passwd", "/etc/group"]
            .map(|path| fs::read(path).unwrap_or_default())
            .map(|text| String::from_utf8_lossy(&text).into_owned());
        parse(&users, &groups)
    })
}

type Members = BTreeMap<u32, BTreeSet<Option<u32>>>;

/// Reads passwd(5) and group(5).
fn parse(users: &str, groups: &str) -> Members {
    let lines = |text: &str| -> Vec<Vec<String>> {
        let fields = |line: &str| line.split(':').map(str::to_owned).collect();
        text.lines().map(fields).collect()
    };
    let (mut numbers, mut members) = (BTreeMap::new(), Members::new());
    for line in lines(groups) {
        if let [_, _, group, ..] = &line[..]
            && let Ok(group) = group.parse()
        {
            members.entry(group).or_default();
        }
    }
    for line in lines(users) {
        if let [name, _, user, group, ..] = &line[..]
            && let (Ok(user), Ok(group)) = (user.parse(), group.parse())
        {
            numbers.insert(name.clone(), user);
            if let Some(members) = members.get_mut(&group) {
                members.insert(Some(user));
            }
        }
    }
    for line in lines(groups) {
        if let [_, _, group, names, ..] = &line[..]
            && let Ok(group) = group.parse()
            && let Some(members) = members.get_mut(&group)
        {
            let names = names.split(',').filter(|name| !name.is_empty());
            members.extend(names.map(|name| numbers.get(name).copied()));
        }
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

    const OTHER: u32 = 65_534;

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// What is refused, by its name.
    fn culprit(path: &Path) -> Option<PathBuf> {
        match check(path) {
            Ok(()) => {
                open(path).unwrap();
                None
            }
            Err(Untrusted::Mode { path, .. } | Untrusted::Owner { path, .. }) => Some(path),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn what_others_can_replace_is_named() {
        let place = tempfile::tempdir().unwrap(); // below /tmp, as a rule
        let root = place.path().canonicalize().unwrap();
        let (directory, file, link) = (root.join("d"), root.join("d/file"), root.join("link"));
        fs::create_dir(&directory).unwrap();
        fs::write(&file, "").unwrap();
        symlink("d/file", &link).unwrap();
        set(&directory, 0o755);
        for path in [&file, &link] {
            for (mode, is_good) in [(0o644, true), (0o755, true), (0o646, false)] {
                set(&file, mode);
                let expected = (!is_good).then(|| file.clone());
                assert_eq!(culprit(path), expected, "{mode:o}");
            }
            set(&file, 0o644);
            for (mode, is_good) in [(0o777, false), (0o1777, true), (0o755, true)] {
                set(&directory, mode);
                let expected = (!is_good).then(|| directory.clone());
                assert_eq!(culprit(path), expected, "{mode:o}");
            }
        }
        let error = check(&root.join("absent")).unwrap_err();
        assert!(matches!(error, Untrusted::Io { .. }), "{error}");
        assert!(check(&directory).is_err());
    }

    /// The group's bits are then the list's mask, which others may have.
    #[test]
    fn an_access_control_list_is_not_a_private_group() {
        if as_root::by_sudo!() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let file = place.path().canonicalize().unwrap().join("file");
        fs::write(&file, "").unwrap();
        set(&file, 0o664);
        assert_eq!(culprit(&file), None); // root's own group
        // acl(5): version 2; user, another user, group, mask, others, each with tag, permissions and number.
        let mut list = 2_u32.to_le_bytes().to_vec();
        for (tag, permissions, number) in [
            (1_u16, 6_u16, u32::MAX),
            (2, 6, OTHER),
            (4, 4, u32::MAX),
            (16, 6, u32::MAX),
            (32, 4, u32::MAX),
        ] {
            list.extend(tag.to_le_bytes());
            list.extend(permissions.to_le_bytes());
            list.extend(number.to_le_bytes());
        }
        let name = "system.posix_acl_access";
        match rustix::fs::setxattr(&file, name, &list, rustix::fs::XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP) => return, // this file system has no lists
            set => set.unwrap(),
        }
        assert_eq!(culprit(&file), Some(file.clone()));
    }

    #[test]
    fn the_agents_own_file_is_good_for_roots_commands() {
        if as_root::by_sudo!() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let file = place.path().canonicalize().unwrap().join("file");
        fs::write(&file, "").unwrap();
        chown(&file, Some(OTHER), None).unwrap();
        assert!(open(&file).is_err());
        assert!(open_of(&file, Some(OTHER - 1)).is_err());
        assert!(open_of(&file, Some(OTHER)).is_ok());
    }

    #[test]
    fn a_third_users_file_directory_or_link_is_named() {
        if as_root::by_sudo!() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        let (directory, file, link) = (root.join("d"), root.join("d/file"), root.join("link"));
        fs::create_dir(&directory).unwrap();
        fs::write(&file, "").unwrap();
        symlink("d/file", &link).unwrap();
        for path in [&directory, &file, &link] {
            lchown(path, Some(OTHER), None).unwrap();
            assert_eq!(culprit(&link).as_ref(), Some(path));
            lchown(path, Some(0), None).unwrap();
        }
        // A group that nobody knows, and one with other members.
        set(&file, 0o664);
        for group in [54_321, OTHER] {
            chown(&file, None, Some(group)).unwrap();
            assert_eq!(culprit(&link).as_ref(), Some(&file), "{group}");
        }
    }

    #[test]
    fn members_are_those_of_both_files() {
        let users = "root:x:0:0::/:\nu:x:1000:1000::/:\nv:x:1001:1000::/:\nw:x:1002:1002::/:\n";
        let groups = "root:x:0:\nshared:x:1000:\nw:x:1002:w\nmore:x:7:w,absent\nnone:x:8:\n# x\n";
        let members = parse(users, groups);
        let of = |group: u32| members.get(&group).map(|one| one.iter().copied().collect());
        assert_eq!(of(0), Some(vec![Some(0)]));
        assert_eq!(of(1000), Some(vec![Some(1000), Some(1001)]));
        assert_eq!(of(1002), Some(vec![Some(1002)]));
        assert_eq!(of(7), Some(vec![None, Some(1002)]));
        assert_eq!(of(8), Some(Vec::new()));
        assert_eq!(of(9), None);
    }
}
