//! What `roleseal-tpm` can do without: it reads libraries, their configuration, and the files of its keys
//! and PINs; it writes to the TPM's device and nowhere else; it has no socket but those to a TPM; it starts no
//! process and signals none.

use std::collections::HashSet;
use std::ffi::c_long;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use landlock::{
    Access, AccessFs, AccessNet, BitFlags, NetPort, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};
use token::link::{Open, OpenTpm};
use token::sandbox::{self, Confined, Fence, LANDLOCK_ABI, Sockets, library_calls};
use token::{PinSource, Tcti};

/// libtss2 and what it stands on, wherever a distribution has it; host names and users; whether the
/// machine is in FIPS mode; random numbers.
const READ: &[&str] = &[
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt",
    "/nix",
    "/gnu",
    "/etc",
    "/proc/sys/crypto",
    "/dev/random",
    "/dev/urandom",
];

/// What GLib looks at before it speaks with D-Bus.
const READ_FOR_DBUS: &[&str] = &["/proc", "/run", "/var/lib/dbus"];

/// A directory, which is another one where it was removed and made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct DirectoryId {
    device: u64,
    inode: u64,
}

/// What this process may read of its keys and PINs; unset where it is not confined.
static GRANTED: OnceLock<HashSet<DirectoryId>> = OnceLock::new();

pub(crate) fn confine(open: &Open) -> Fence {
    let (files, calls) = match open {
        Open::Tpm(open) => (confine_files(open), confine_calls(&open.tcti)),
        Open::Pkcs11(_) => {
            let no_tpm = sandbox::Unconfined::Failed("it is no TPM".to_owned()); // and is not opened either
            (Confined::Not(no_tpm.clone()), Confined::Not(no_tpm))
        }
    };
    [("Landlock", files), ("seccomp", calls)]
}

fn confine_files(open: &OpenTpm) -> Confined {
    let granted = directories(open).filter_map(|path| id(&path)).collect();
    let confined = sandbox::enforce(ruleset(open));
    if !matches!(confined, Confined::Not(_)) {
        let _ = GRANTED.set(granted); // once a process
    }
    confined
}

fn confine_calls(tcti: &Tcti) -> Confined {
    sandbox::allow_only(match tcti {
        Tcti::Device(_) => library_calls(Sockets::Nothing),
        Tcti::Swtpm(_) | Tcti::Mssim(_) => library_calls(Sockets::Tcp),
        Tcti::Tabrmd { .. } => library_calls(Sockets::Local).map(|mut calls| {
            calls.extend(sandbox::free(DBUS));
            calls
        }),
    })
}

/// Calls of GLib, which passes descriptors and credentials over D-Bus.
const DBUS: &[c_long] = &[libc::SYS_sendmsg, libc::SYS_recvmsg];

/// Returns a directory that holds a key or PIN of `open` and is closed to this process. It was confined for an earlier
/// request: the key was set aside then, the directory was made later, or a link leads elsewhere by now.
pub(crate) fn closed_directory(open: &OpenTpm) -> Option<PathBuf> {
    let granted = GRANTED.get()?;
    directories(open).find(|path| id(path).is_some_and(|id| !granted.contains(&id)))
}

fn id(path: &Path) -> Option<DirectoryId> {
    let metadata = path.metadata().ok()?;
    Some(DirectoryId {
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}

fn ruleset(open: &OpenTpm) -> Result<RulesetCreated, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let mut scope: BitFlags<Scope> = Scope::Signal.into();
    if !matches!(open.tcti, Tcti::Tabrmd { .. }) {
        scope |= Scope::AbstractUnixSocket; // where a session's D-Bus may be
    }
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK_ABI))?
        .handle_access(AccessNet::from_all(LANDLOCK_ABI))?
        .scope(scope)?
        .create()?
        .add_rules(path_beneath_rules(READ, read))?
        .add_rules(path_beneath_rules(directories(open), AccessFs::ReadFile))?
        .add_rules(path_beneath_rules(["/dev/null"], device))?;
    match &open.tcti {
        Tcti::Device(path) => rules = rules.add_rules(path_beneath_rules([path], device))?,
        Tcti::Swtpm(server) | Tcti::Mssim(server) => {
            for port in [Some(server.port), server.port.checked_add(1)]
                .into_iter()
                .flatten()
            {
                rules = rules.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
            }
        }
        Tcti::Tabrmd { .. } => rules = rules.add_rules(path_beneath_rules(READ_FOR_DBUS, read))?,
    }
    Ok(rules)
}

/// Where the files of the keys and of their PINs are. They are read again when the TPM is opened again, and
/// have been replaced by then, or put there; so it is not the files themselves that may be read.
fn directories(open: &OpenTpm) -> impl Iterator<Item = PathBuf> {
    files(open).flat_map(|path| {
        let target = path.canonicalize().ok();
        let directory = |path: PathBuf| path.parent().map(Path::to_owned);
        [directory(path), target.and_then(directory)]
            .into_iter()
            .flatten()
    })
}

fn files(open: &OpenTpm) -> impl Iterator<Item = PathBuf> {
    open.keys.iter().flatten().flat_map(|key| {
        let pins = key.pins().filter_map(PinSource::file);
        pins.chain(key.file().map(Path::to_owned))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;
    use std::io::{ErrorKind, Result};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::process::Command;
    use std::sync::mpsc;

    use token::link::{OpenTpmKey, TpmKeySource};

    struct Place(tempfile::TempDir);

    impl Place {
        /// With files named `key`, `pin` and `other`.
        fn new() -> Place {
            let place = Place(tempfile::tempdir().unwrap());
            for name in ["keys/key", "pins/pin", "elsewhere/other"] {
                fs::create_dir_all(place.path(name).parent().unwrap()).unwrap();
                fs::write(place.path(name), name).unwrap();
            }
            place
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// Runs it in a thread that is confined as for this TPM: Landlock is a thread's, and ends with it. Its system
        /// calls stay its own, so that it can try those that Landlock refuses.
        fn confined<T: Send>(&self, tcti: &str, run: impl FnOnce() -> T + Send) -> T {
            let open = OpenTpm {
                tcti: tcti.parse().unwrap(),
                keys: vec![
                    None,
                    Some(OpenTpmKey {
                        source: TpmKeySource::File(self.path("keys/key")),
                        pin: Some(PinSource::File(self.path("pins/pin"))),
                        parent_pin: None,
                        owner_pin: None,
                    }),
                ],
                left_sessions: vec![],
            };
            std::thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    assert_eq!(confine_files(&open), Confined::Wholly);
                    run()
                });
                thread.join().unwrap()
            })
        }
    }

    fn denied<T: std::fmt::Debug>(result: Result<T>) -> bool {
        result.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    }

    #[test]
    fn its_own_files_are_read_and_no_others() {
        let place = Place::new();
        let ((replace, wanted), (done, replaced)) = (mpsc::channel(), mpsc::channel());
        let pin = place.path("pins/pin");
        let replacing = std::thread::spawn(move || {
            wanted.recv().unwrap();
            fs::write(pin.with_extension("new"), "new").unwrap();
            fs::rename(pin.with_extension("new"), pin).unwrap();
            done.send(()).unwrap();
        });
        let own = &place;
        place.confined("device:/dev/tpmrm0", move || {
            let place = own;
            let read = |name: &str| fs::read_to_string(place.path(name)).unwrap();
            assert_eq!(
                (read("keys/key"), read("pins/pin")),
                ("keys/key".into(), "pins/pin".into())
            );
            // When it is opened again, another file may have its name.
            replace.send(()).unwrap();
            replaced.recv().unwrap();
            assert_eq!(read("pins/pin"), "new");
            assert!(fs::read("/etc/passwd").is_ok());
            assert!(denied(fs::read(place.path("elsewhere/other"))));
            assert!(denied(fs::read("/proc/self/environ")));
        });
        replacing.join().unwrap();
    }

    #[test]
    fn it_writes_to_its_device_alone() {
        let place = Place::new();
        // Any device does: what stands behind the name is the machine's affair.
        place.confined("device:/dev/zero", || {
            let open = |path: &Path| fs::File::options().read(true).write(true).open(path);
            assert!(open(Path::new("/dev/zero")).is_ok());
            assert!(denied(open(Path::new("/dev/full"))));
            assert!(denied(open(&place.path("keys/key"))));
            assert!(denied(fs::write(place.path("new"), "")));
            assert!(denied(fs::remove_file(place.path("keys/key"))));
        });
    }

    #[test]
    fn it_connects_to_its_tpm_alone() {
        let place = Place::new();
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (own, other) = (listen(), listen());
        let (own, other) = (own.local_addr().unwrap(), other.local_addr().unwrap());
        let tcti = format!("swtpm:host=127.0.0.1,port={}", own.port());
        place.confined(&tcti, || {
            assert!(TcpStream::connect(own).is_ok());
            // The next port is the control channel's.
            let control = (own.ip(), own.port() + 1);
            let refused = TcpStream::connect(control).err().map(|error| error.kind());
            assert_ne!(refused, Some(ErrorKind::PermissionDenied));
            if other.port() != own.port() + 1 {
                assert!(denied(TcpStream::connect(other)));
            }
            assert!(denied(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))));
        });
    }

    #[test]
    fn it_starts_no_program() {
        let place = Place::new();
        let result = place.confined("device:/dev/tpmrm0", || Command::new("/bin/true").status());
        assert!(denied(result));
    }
}
