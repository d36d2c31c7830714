//! What the agent takes from itself once it has started, before it reads a client's first byte: by
//! Landlock, all files but those that it reads again, all ports, and all signals to others; by seccomp, all
//! system calls but those that it needs (`sandbox/calls.rs`). It starts no program from then on and asks no user
//! database: its [`launcher`](crate::launcher) does.

mod calls;

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, Scope, path_beneath_rules,
};
use token::PinSource;
use token::sandbox::{Confined, LANDLOCK_ABI, enforce};

use crate::log;
use config::check::Confinement;
use config::{Config, Hardening, MetricsAddress};

/// What the agent does with files after its start.
#[derive(Debug, Default)]
pub struct Files {
    /// Directories, with all that is below; or files.
    read: Vec<PathBuf>,
    /// Directories in which it removes files.
    remove: Vec<PathBuf>,
    /// A directory in which it reads, writes and replaces files.
    write: Option<PathBuf>,
    /// Of the token programs, which the agent should not be able to read.
    pins: Vec<PathBuf>,
}

impl Files {
    /// What it reads again: the configuration, from `path`, the certificates, and their requests. Directories and not the
    /// files alone, since a new version comes under a new inode.
    pub fn of(path: &Path, config: &Config) -> Files {
        let mut files = Files {
            read: config.hardening.read.clone(),
            remove: Vec::new(),
            write: None,
            pins: config.pins().filter_map(PinSource::file).collect(),
        };
        files.read_again(path);
        for identity in &config.identities {
            let request = identity
                .renewal
                .as_ref()
                .map(|renewal| renewal.csr.as_path());
            for path in identity.certificate.files().chain(request) {
                files.read_again(path);
            }
        }
        if let Some(MetricsAddress::Socket(path)) = &config.metrics {
            files.remove(path);
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

    /// Lets it read, write and replace the files of this directory.
    pub fn write(&mut self, directory: PathBuf) {
        self.write = Some(directory);
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

/// What the agent has confined itself to: by default, nothing.
#[derive(Debug, Default)]
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
                readable = Some(full(&files.read));
            }
        } else {
            log::warn("not confined by Landlock: hardening.landlock is false");
        }
        if hardening.seccomp {
            say("seccomp", &calls::confine());
        } else {
            log::warn("not confined by seccomp: hardening.seccomp is false");
        }
        let sandbox = Sandbox { readable };
        sandbox.warn_of_readable_pins(&files.pins);
        sandbox
    }

    fn warn_of_readable_pins(&self, pins: &[PathBuf]) {
        let Some(readable) = self.readable.as_deref() else {
            return; // of that the log tells already
        };
        if let Some(pin) = full(pins).iter().find(|pin| is_below(pin, readable)) {
            log::warn(&format!(
                "the agent itself could read the PIN in {}: keep PINs in a directory with neither \
                 configuration nor certificates, or make them systemd credentials",
                pin.display()
            ));
        }
    }

    /// The error of reading these files; and why the agent may not read one that its user may, if that is
    /// so.
    pub fn explain<'a>(&self, error: String, paths: impl IntoIterator<Item = &'a Path>) -> String {
        match paths.into_iter().find_map(|path| self.objection(path)) {
            Some(objection) => format!("{error}; {objection}"),
            None => error,
        }
    }
}

impl Confinement for Sandbox {
    fn objection(&self, path: &Path) -> Option<String> {
        let readable = self.readable.as_deref()?;
        let target = path.canonicalize().ok()?;
        if is_below(&target, readable) {
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

/// Those that are there, without links in them.
fn full(paths: &[PathBuf]) -> Vec<PathBuf> {
    let full = |path: &PathBuf| path.canonicalize().ok();
    paths.iter().filter_map(full).collect()
}

fn is_below(path: &Path, places: &[PathBuf]) -> bool {
    places.iter().any(|place| path.starts_with(place))
}

fn say(by: &str, confined: &Confined) {
    match confined {
        Confined::Wholly => log::info(&format!("confined by {by}")),
        Confined::Partly(how) => log::info(&format!("confined by {by} in part: {how}")),
        Confined::Not(why) => log::warn(&format!("not confined by {by}: {why}")),
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
        .add_rules(path_beneath_rules(&files.remove, AccessFs::RemoveFile))?
        .add_rules(path_beneath_rules(
            &files.write,
            AccessFs::ReadFile
                | AccessFs::ReadDir
                | AccessFs::WriteFile
                | AccessFs::MakeReg
                | AccessFs::RemoveFile,
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;
    use std::io::ErrorKind;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::process::Command;
    use std::sync::mpsc;
    use std::time::Duration;

    use crate::accounts::Accounts;

    /// A host's directories: configuration, certificates as certbot and cert-manager keep them, and a PIN.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Place {
            let place = Place(tempfile::tempdir().unwrap());
            for directory in [
                "etc",
                "live",
                "archive",
                "mounted/v1",
                "mounted/v2",
                "pins",
                "run",
            ] {
                fs::create_dir_all(place.path(directory)).unwrap();
            }
            for version in [1, 2] {
                place.write(
                    &format!("archive/web{version}.pem"),
                    &format!("web {version}"),
                );
                place.write(
                    &format!("mounted/v{version}/tls.crt"),
                    &format!("tls {version}"),
                );
            }
            symlink("../archive/web1.pem", place.path("live/web.pem")).unwrap();
            symlink("v1", place.path("mounted/data")).unwrap();
            symlink("data/tls.crt", place.path("mounted/tls.crt")).unwrap();
            place.write("pins/web.pin", "1234");
            place.write("etc/agent.toml", &place.configuration());
            place
        }

        fn configuration(&self) -> String {
            format!(
                "[[identity]]\nname = \"web\"\nkey = \"pkcs11:object=web\"\n\
                 pin = {{ file = {:?} }}\ncertificate = {:?}\nchain = {:?}\n",
                self.path("pins/web.pin"),
                self.path("live/web.pem"),
                self.path("mounted/tls.crt")
            )
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).unwrap();
        }

        /// Replaces a link as a rename does, at once.
        fn point(&self, name: &str, target: &str) {
            symlink(target, self.path("new")).unwrap();
            fs::rename(self.path("new"), self.path(name)).unwrap();
        }

        fn load(&self) -> Config {
            Config::load(&self.path("etc/agent.toml"), &Accounts::own()).unwrap()
        }

        fn files(&self, config: &Config) -> Files {
            let mut files = Files::of(&self.path("etc/agent.toml"), config);
            files.remove(&self.path("run/agent.sock"));
            files
        }

        /// Runs it in a thread that is confined: Landlock is a thread's, and ends with it. Its system calls
        /// stay its own, so that it can try what they would not let it.
        fn confined<T: Send>(&self, run: impl FnOnce(&Sandbox) -> T + Send) -> T {
            let mut config = self.load();
            config.hardening.seccomp = false;
            std::thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    run(&Sandbox::confine_thread(
                        &self.files(&config),
                        &config.hardening,
                    ))
                });
                thread.join().unwrap()
            })
        }
    }

    fn denied<T>(result: io::Result<T>) -> bool {
        result.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    }

    /// Whether this kernel has all that we know of.
    fn is_complete() -> bool {
        let run = || enforce(ruleset(&Files::default())) == Confined::Wholly;
        std::thread::spawn(run).join().unwrap()
    }

    #[test]
    fn what_is_replaced_is_read_again() {
        let place = Place::new();
        let (replace, wanted) = mpsc::channel();
        let (replaced, done) = mpsc::channel();
        let soon = Duration::from_secs(20);
        std::thread::scope(|scope| {
            let place = &place;
            scope.spawn(move || {
                wanted.recv_timeout(soon).unwrap();
                place.point("live/web.pem", "../archive/web2.pem");
                place.point("mounted/data", "v2");
                place.write(
                    "etc/new.toml",
                    &place.configuration().replace("web", "other"),
                );
                fs::rename(place.path("etc/new.toml"), place.path("etc/agent.toml")).unwrap();
                replaced.send(()).unwrap();
            });
            place.confined(move |_| {
                let read = |name: &str| fs::read_to_string(place.path(name)).unwrap();
                assert_eq!(
                    (read("live/web.pem"), read("mounted/tls.crt")),
                    ("web 1".into(), "tls 1".into())
                );
                replace.send(()).unwrap();
                done.recv_timeout(soon).unwrap();
                assert_eq!(
                    (read("live/web.pem"), read("mounted/tls.crt")),
                    ("web 2".into(), "tls 2".into())
                );
                assert_eq!(place.load().identities[0].name, "other");
            });
        });
    }

    #[test]
    fn a_certificate_request_is_read_wherever_it_is() {
        let place = Place::new();
        place.write("run/web.csr", "a request");
        let csr = place.path("run/web.csr");
        let renew = format!("renew = {{ command = \"true\", csr = {csr:?} }}\n");
        let text = place.configuration() + &renew;
        place.write("etc/agent.toml", &text);
        let read = place.confined(|_| fs::read_to_string(&csr));
        assert_eq!(read.unwrap(), "a request");
    }

    #[test]
    fn nothing_else_is_read_and_nothing_is_written() {
        let place = Place::new();
        drop(UnixListener::bind(place.path("run/agent.sock")).unwrap());
        place.confined(|_| {
            assert!(denied(fs::read(place.path("pins/web.pin"))));
            assert!(denied(fs::read("/etc/passwd")));
            assert!(denied(fs::read_dir("/")));
            assert!(denied(fs::write(place.path("etc/agent.toml"), "")));
            assert!(denied(fs::write(place.path("run/new"), "")));
            assert!(denied(fs::remove_file(place.path("etc/agent.toml"))));
            assert!(denied(UnixListener::bind(place.path("run/other.sock"))));
            fs::remove_file(place.path("run/agent.sock")).unwrap();
        });
    }

    #[test]
    fn it_runs_connects_and_signals_nothing() {
        let place = Place::new();
        let complete = is_complete();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let mut sleeping = Command::new("sleep").arg("60").spawn().unwrap();
        let results = place.confined(|_| {
            [
                denied(Command::new("/bin/true").status()),
                denied(TcpStream::connect(address)),
                denied(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))),
                denied(sleeping.kill()),
            ]
        });
        sleeping.kill().unwrap();
        sleeping.wait().unwrap();
        assert!(results[0]);
        assert!(!complete || results == [true; 4], "{results:?}");
    }

    #[test]
    fn it_says_why_a_file_cannot_be_read() {
        let place = Place::new();
        place.confined(|sandbox| {
            assert_eq!(sandbox.objection(&place.path("live/web.pem")), None);
            assert_eq!(sandbox.objection(&place.path("live/absent.pem")), None);
            let paths = [place.path("live/web.pem"), place.path("pins/web.pin")];
            let why = sandbox.explain("denied".to_owned(), paths.iter().map(PathBuf::as_path));
            assert!(why.starts_with("denied; "), "{why}");
            assert!(why.contains(place.path("pins").to_str().unwrap()), "{why}");
            assert!(why.contains("[hardening] read"), "{why}");
        });
        let config = place.load();
        let off = Hardening {
            landlock: false,
            seccomp: false,
            ..config.hardening.clone()
        };
        let sandbox = Sandbox::confine_thread(&place.files(&config), &off);
        assert_eq!(sandbox.objection(&place.path("pins/web.pin")), None);
        assert!(fs::read(place.path("pins/web.pin")).is_ok());
    }

    #[test]
    fn directories_can_be_added() {
        let place = Place::new();
        let more = format!("[hardening]\nread = [{:?}]\n", place.path("pins"));
        place.write("etc/agent.toml", &(more + &place.configuration()));
        place.confined(|sandbox| {
            assert!(fs::read(place.path("pins/web.pin")).is_ok());
            assert_eq!(sandbox.objection(&place.path("pins/web.pin")), None);
        });
    }

    /// As a test's process has, whose threads would stay free.
    #[test]
    fn it_is_too_late_for_a_process_with_threads() {
        let config = Place::new().load();
        let result = std::thread::spawn(move || {
            Sandbox::enter(&Files::default(), &config.hardening).map(drop)
        });
        assert!(result.join().unwrap().is_err());
    }

    #[test]
    fn a_file_in_the_root_does_not_open_all_that_is_below() {
        assert_eq!(directory_of(Path::new("/web.pem")), Path::new("/web.pem"));
        assert_eq!(directory_of(Path::new("/etc/web.pem")), Path::new("/etc"));
        assert_eq!(directory_of(Path::new("agent.toml")), Path::new("."));
    }
}
