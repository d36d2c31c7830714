//! What the agent takes from itself once it has started, before it reads a client's first byte: by
//! Landlock, all files but those that it reads again, all ports, and all signals to others; by seccomp, all
//! system calls but those that it needs ([`calls`]). It starts no program from then on and asks no user
//! database: its [`launcher`](crate::launcher) does.

mod calls;

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, Scope, path_beneath_rules,
};
use token::sandbox::{Confined, LANDLOCK_ABI, enforce};

use crate::audit;
use crate::config::{CertificateSource, Config, Hardening};

/// What the agent does with files after its start.
#[derive(Debug, Default)]
pub struct Files {
    /// Directories, with all that is below; or files.
    read: Vec<PathBuf>,
    /// Directories in which it removes files.
    remove: Vec<PathBuf>,
}

impl Files {
    /// What it reads again: the configuration, from `path`, and the certificates. Directories and not the
    /// files alone, since a new version comes under a new inode.
    pub fn of(path: &Path, config: &Config) -> Files {
        let mut files = Files {
            read: config.hardening.read.clone(),
            remove: Vec::new(),
        };
        files.read_again(path);
        for identity in &config.identities {
            if let CertificateSource::File(path) = &identity.certificate {
                files.read_again(path);
            }
            if let Some(path) = &identity.chain {
                files.read_again(path);
            }
        }
        files.read.sort();
        files.read.dedup();
        files
    }

    /// The directory of the name, where cert-manager moves a link; and that of the file, where certbot puts
    /// the next version.
    fn read_again(&mut self, path: &Path) {
        self.read.push(directory_of(path));
        if let Ok(target) = path.canonicalize() {
            self.read.push(directory_of(&target));
        }
    }

    /// Lets it remove a file of its own, such as its socket.
    pub fn remove(&mut self, path: &Path) {
        self.remove.push(directory_of(path));
    }
}

/// Where a file is. For one in `/` that is the file: everything is below `/`.
fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        None => path.to_owned(),
        Some(directory) if directory == Path::new("/") => path.to_owned(),
        Some(directory) if directory == Path::new("") => PathBuf::from("."),
        Some(directory) => directory.to_owned(),
    }
}

/// What the agent has confined itself to.
#[derive(Debug)]
pub struct Sandbox {
    /// What may be read; `None` where everything may.
    readable: Option<Vec<PathBuf>>,
}

impl Sandbox {
    /// Confines this process, and says in the log how far. It must have no other thread: what runs already
    /// would stay free.
    pub fn enter(files: &Files, hardening: &Hardening) -> io::Result<Sandbox> {
        if std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
            return Err(io::Error::other("other threads run already"));
        }
        Ok(Sandbox::confine_thread(files, hardening))
    }

    fn confine_thread(files: &Files, hardening: &Hardening) -> Sandbox {
        let mut readable = None;
        if hardening.landlock {
            let confined = enforce(ruleset(files));
            say("Landlock", &confined);
            if !matches!(confined, Confined::Not(_)) {
                let full = |path: &PathBuf| path.canonicalize().ok();
                readable = Some(files.read.iter().filter_map(full).collect());
            }
        } else {
            audit::warn("not confined by Landlock: hardening.landlock is false");
        }
        if hardening.seccomp {
            say("seccomp", &calls::confine());
        } else {
            audit::warn("not confined by seccomp: hardening.seccomp is false");
        }
        Sandbox { readable }
    }

    /// Why the agent may not read a file that its user may, if that is so.
    pub fn explain(&self, path: &Path) -> Option<String> {
        let readable = self.readable.as_deref()?;
        let target = path.canonicalize().ok()?;
        if readable.iter().any(|place| target.starts_with(place)) {
            return None;
        }
        let directory = directory_of(&target);
        Some(format!(
            "since its start, the agent reads only directories that its configuration named then: restart \
             it, so that {directory} is one of them, or keep the file in one that is; a directory for files \
             to come can be named in [hardening] read",
            directory = directory.display()
        ))
    }
}

fn say(by: &str, confined: &Confined) {
    match confined {
        Confined::Wholly => audit::info(&format!("confined by {by}")),
        Confined::Partly(how) => audit::info(&format!("confined by {by} in part: {how}")),
        Confined::Not(why) => audit::warn(&format!("not confined by {by}: {why}")),
    }
}

fn ruleset(files: &Files) -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK_ABI))?
        .handle_access(AccessNet::from_all(LANDLOCK_ABI))?
        .scope(Scope::from_all(LANDLOCK_ABI))?
        .create()?
        .add_rules(path_beneath_rules(
            &files.read,
            AccessFs::ReadFile | AccessFs::ReadDir,
        ))?
        .add_rules(path_beneath_rules(&files.remove, AccessFs::RemoveFile))
}
