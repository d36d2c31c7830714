//! What each process is denied where it has confined itself. A hostile library (hsm-fixtures/probe) tries it from inside:
//! in the agent in the place of a function of the C library, in roleseal-pkcs11 as the module, in roleseal-tpm as the TCTI.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hsm_fixtures::{KeyKind, TpmConfig, WEB_ROLE_ARN};
use libc::{EACCES, EAGAIN, ENOENT, ENOSYS, EPERM, SIGSYS};
use rustix::process::{Pid, Signal, kill_process};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use crate::agent::{Lab, json_of, until};

/// Call 5000 of the probe's attempt `future`: no kernel has it.
const FUTURE: i64 = 5000;

/// What `future` fails with where a sandbox lets it through.
const LET_THROUGH: u32 = 7;

/// For what happens soon, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// The library, which Cargo has built for this test.
fn probe() -> PathBuf {
    let beside = std::env::current_exe().unwrap();
    beside.with_file_name("libroleseal_probe.so")
}

/// A running agent with the probe in one of its processes.
struct Hostile<'a> {
    agent: Child,
    log: PathBuf,
    /// Sockets outside, which the probe tries to reach.
    _stream: UnixListener,
    datagrams: UnixDatagram,
    _tcp: TcpListener,
    lab: &'a Lab,
}

impl Hostile<'_> {
    /// Starts the agent of this scene with `more` in its configuration and these variables. `attempts` are the probe's.
    fn start<'a>(
        lab: &'a Lab,
        more: &str,
        variables: &[(&str, &Path)],
        attempts: &[&str],
    ) -> Hostile<'a> {
        let text = lab.config.to_toml().unwrap() + more;
        let file = lab.scene.write("agent.toml", &text).unwrap();
        let path = |name: &str| lab.scene.path(name);
        let _ = (
            fs::remove_file(path("stream.sock")),
            fs::remove_file(path("datagram.sock")),
        );
        let stream = UnixListener::bind(path("stream.sock")).unwrap();
        let datagrams = UnixDatagram::bind(path("datagram.sock")).unwrap();
        datagrams.set_nonblocking(true).unwrap();
        let tcp = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let log = path("agent.log");
        let socket = match attempts.contains(&"unix-datagram") {
            true => path("datagram.sock"),
            false => path("stream.sock"),
        };
        let mut command = lab.scene.agent_command(&file).unwrap();
        command
            .envs(variables.iter().copied())
            .env("ROLESEAL_PROBE", attempts.join(" "))
            .env("ROLESEAL_PROBE_SOCKET", socket)
            .env(
                "ROLESEAL_PROBE_PORT",
                tcp.local_addr().unwrap().port().to_string(),
            )
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).unwrap());
        Hostile {
            agent: spawn(command),
            log,
            _stream: stream,
            datagrams,
            _tcp: tcp,
            lab,
        }
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// The error of each attempt, 0 where it was permitted.
    fn results(&self) -> BTreeMap<String, i32> {
        let log = until("the probe has run", || {
            let _ = UnixStream::connect(self.lab.scene.socket()); // a client, for a probe in the agent
            let log = self.log();
            log.contains("probe end").then_some(log)
        });
        let attempt = |line: &str| {
            let (name, error) = line.strip_prefix("probe ")?.split_once('=')?;
            let error = error.parse();
            Some((name.to_owned(), error.unwrap_or_else(|_| panic!("{line}"))))
        };
        log.lines().filter_map(attempt).collect()
    }
}

impl Drop for Hostile<'_> {
    fn drop(&mut self) {
        let _ = self.agent.kill(); // its launcher and token programs end after it
        self.agent.wait().unwrap();
    }
}

/// Starts it on a kernel that answers the call of the future, so that a sandbox which does not catch it shows.
fn spawn(mut command: Command) -> Child {
    let answer = move || {
        let rules = BTreeMap::from([(FUTURE, Vec::new())]);
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let (others, future) = (SeccompAction::Allow, SeccompAction::Errno(LET_THROUGH));
        let filter = SeccompFilter::new(rules, others, future, arch).unwrap();
        apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
        command.spawn().unwrap()
    };
    // The filter is this thread's, and its children's.
    std::thread::scope(|scope| scope.spawn(answer).join().unwrap())
}

/// What each attempt has to end with.
#[track_caller]
fn assert_results(hostile: &Hostile, expected: &[(i32, &[&str])]) {
    let expected: BTreeMap<String, i32> = expected
        .iter()
        .flat_map(|(error, names)| names.iter().map(|name| ((*name).to_owned(), *error)))
        .collect();
    let results = hostile.results();
    let wrong: Vec<_> = expected
        .iter()
        .filter(|(name, error)| results.get(*name) != Some(error))
        .map(|(name, error)| format!("{name}: {:?} instead of {error}", results.get(name)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn names<'a>(expected: &[(i32, &[&'a str])]) -> Vec<&'a str> {
    expected
        .iter()
        .flat_map(|(_, names)| *names)
        .copied()
        .collect()
}

/// Sockets of every kind.
const SOCKETS: &[&str] = &[
    "tcp", "tcp6", "udp", "mptcp", "netlink", "uevents", "vsock", "unix",
];

/// No sandbox lets these through.
const HOSTILE: &[&str] = &[
    "unshare-user",
    "setns",
    "ptrace",
    "process_vm_readv",
    "pidfd_getfd",
    "mount",
    "open_tree",
    "open_tree_attr",
    "move_mount",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "mount_setattr",
    "bpf",
    "keyctl",
    "io_uring",
    "userfaultfd",
];

/// The same, where no call of them ends the program.
const DENIED: &[&str] = &[
    "clone-user",
    "clone3",
    "clone3-user",
    "limit-parent",
    "memfd",
    "memfd-exec",
    "statmount",
    "listmount",
    "file_getattr",
    "future",
];

/// What libraries and the agent do all the time.
const NEEDED: &[&str] = &["thread", "own-limit", "data", "stream-pair"];

#[test]
fn the_agent_makes_no_socket_no_process_and_passes_no_descriptor() {
    let expected: &[(i32, &[&str])] = &[
        (0, NEEDED),
        (EAGAIN, &["recvmsg"]), // descriptors of the launcher come by it
        (EACCES, &["read-passwd", "write-etc"]),
        (ENOSYS, SOCKETS),
        (ENOSYS, DENIED),
        (
            ENOSYS,
            &[
                "unix-datagram",
                "tcp-connect",
                "datagram-pair",
                "sendmsg",
                "sendmmsg",
                "fork",
                #[cfg(target_arch = "x86_64")]
                "vfork",
                "signal-parent",
                "owner-parent",
                "memfd-sealed",
                "code",
            ],
        ),
    ];
    let preload = probe();
    let variables = [("LD_PRELOAD", preload.as_path())];
    let lab = Lab::new(KeyKind::EcP256);
    let hostile = Hostile::start(&lab, "", &variables, &names(expected));
    assert_results(&hostile, expected);
    assert!(hostile.datagrams.recv(&mut [0; 8]).is_err());
    // The same process signs.
    let arguments = lab.scene.credential_process("web", WEB_ROLE_ARN);
    json_of(&lab.scene.roleseal(&arguments).unwrap().output().unwrap());
}

/// What the agent opened before it confined itself still works: to a path, and to an abstract name as in a container.
#[test]
fn the_service_manager_hears_of_start_and_reload() {
    let lab = Lab::new(KeyKind::EcP256);
    let path = lab.scene.path("notify.sock");
    let name = format!("roleseal-test-{}", std::process::id());
    let manager = |address: SocketAddr| {
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket
    };
    for (variable, socket) in [
        (
            path.display().to_string(),
            manager(SocketAddr::from_pathname(&path).unwrap()),
        ),
        (
            format!("@{name}"),
            manager(SocketAddr::from_abstract_name(&name).unwrap()),
        ),
    ] {
        let hears = || {
            let mut message = [0; 4096];
            let length = socket.recv(&mut message).unwrap();
            String::from_utf8_lossy(&message[..length]).into_owned()
        };
        let variables = [("NOTIFY_SOCKET", Path::new(&variable))];
        let hostile = Hostile::start(&lab, "", &variables, &[]);
        assert_eq!(hears(), "READY=1\n");
        kill_process(Pid::from_child(&hostile.agent), Signal::HUP).unwrap();
        let reloading = hears();
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        assert!(time.unwrap().trim().parse::<u64>().is_ok(), "{reloading}");
        assert_eq!(hears(), "READY=1\n");
    }
}

/// Calls of an intruder, of another ABI, and of x32, whose numbers no list has.
#[test]
fn an_intruders_calls_end_the_agent() {
    let preload = probe();
    let lab = Lab::new(KeyKind::EcP256);
    let more: &[&str] = match cfg!(target_arch = "x86_64") {
        true => &["execve", "exec-descriptor", "x32", "i386"],
        false => &["execve", "exec-descriptor"],
    };
    for attempt in ["ptrace", "unshare-user", "open_tree_attr"]
        .iter()
        .chain(more)
    {
        let variables = [("LD_PRELOAD", preload.as_path())];
        let mut hostile = Hostile::start(&lab, "", &variables, &[attempt]);
        let socket = lab.scene.socket();
        let status = until(attempt, || {
            let _ = UnixStream::connect(&socket);
            hostile.agent.try_wait().unwrap()
        });
        assert_eq!(
            status.signal(),
            Some(SIGSYS),
            "{attempt}: {}",
            hostile.log()
        );
    }
}

/// A module's names: one that is known to need no network, and any other.
const LOCAL: &str = "libsofthsm2.so";
const OTHER: &str = "libvendor.so";

/// The usual scene with the probe as its module, under this name.
fn with_module(name: &str) -> Lab {
    let mut lab = Lab::new(KeyKind::EcP256);
    lab.config.pkcs11_module = lab.scene.path(name);
    fs::copy(probe(), &lab.config.pkcs11_module).unwrap();
    lab
}

#[test]
fn a_module_gets_no_namespace_no_mount_and_no_program_in_memory() {
    let expected: &[(i32, &[&str])] = &[
        (0, NEEDED),
        (
            0,
            &[
                "read-passwd",
                "code",
                "fork",
                #[cfg(target_arch = "x86_64")]
                "vfork",
                "memfd-sealed",
                "unix-connect",
                "uevents",
                "datagram-pair",
                "sendmsg",
            ],
        ),
        (ENOENT, &["execve"]), // helpers may be started
        (EACCES, &["write-etc"]),
        (EPERM, &["signal-parent"]),
        (ENOSYS, HOSTILE),
        (ENOSYS, DENIED),
        (ENOSYS, &["exec-descriptor", "vsock"]),
    ];
    let lab = with_module(OTHER);
    let hostile = Hostile::start(&lab, "", &[], &names(expected));
    assert_results(&hostile, expected);
}

#[test]
fn a_modules_networks_are_closed_where_it_needs_none_and_as_the_configuration_says() {
    let networks: &[&str] = &["tcp", "tcp6", "udp", "mptcp", "netlink", "tcp-connect"];
    let local: &[&str] = &["unix", "unix-datagram", "uevents"];
    for (name, setting, closed) in [
        (LOCAL, "", true),
        (OTHER, "", false),
        (LOCAL, "[hardening]\npkcs11-network = true\n", false),
        (OTHER, "[hardening]\npkcs11-network = false\n", true),
    ] {
        let lab = with_module(name);
        let expected = [(if closed { ENOSYS } else { 0 }, networks), (0, local)];
        let hostile = Hostile::start(&lab, setting, &[], &names(&expected));
        assert_results(&hostile, &expected);
    }
}

#[test]
fn a_reload_closes_the_networks_of_a_running_modules_token() {
    let lab = with_module(OTHER);
    let hostile = Hostile::start(&lab, "", &[], &["tcp"]);
    assert_results(&hostile, &[(0, &["tcp"])]);
    let closed = lab.config.to_toml().unwrap() + "[hardening]\npkcs11-network = false\n";
    lab.scene.write("agent.toml", &closed).unwrap();
    let agent = Pid::from_child(&hostile.agent);
    kill_process(agent, Signal::HUP).unwrap();
    let line = format!("probe tcp={ENOSYS}");
    until(&line, || hostile.log().contains(&line).then_some(()));
}

/// Not refused: what calls so is not a module of ours.
#[cfg(target_arch = "x86_64")]
#[test]
fn another_abi_ends_a_token_program() {
    for attempt in ["x32", "i386"] {
        let lab = with_module(OTHER);
        let hostile = Hostile::start(&lab, "", &[], &[attempt]);
        let line = format!("signal: {SIGSYS}");
        until(&line, || hostile.log().contains(&line).then_some(()));
    }
}

/// The usual scene with a key on a TPM, whose TCTI is the probe.
fn with_tcti(tcti: &str) -> Lab {
    let mut lab = Lab::new(KeyKind::EcP256);
    lab.config.tpm = Some(TpmConfig {
        tcti: tcti.to_owned(),
    });
    let identity = &mut lab.config.identity[0];
    // A file beside the library: roleseal-tpm reads the directories of its keys.
    identity.key = lab.scene.path("web.tss").display().to_string();
    (identity.pin, identity.sessions) = (None, None);
    let (name, _) = tcti.split_once(':').unwrap();
    let library = format!("libtss2-tcti-{name}.so.0");
    fs::copy(probe(), lab.scene.path(&library)).unwrap();
    lab
}

#[test]
fn a_tpm_program_has_no_socket_but_those_to_its_tpm() {
    // Port 1 of the loopback is its TPM's; `tcp-connect` is to another one.
    for (tcti, permitted, connect) in [
        ("device:/dev/null", &[][..], ENOSYS),
        ("swtpm:host=127.0.0.1,port=1", &["tcp", "tcp6"], EACCES),
        ("mssim:host=127.0.0.1,port=1", &["tcp", "tcp6"], EACCES),
        (
            "tabrmd:",
            &["unix", "uevents", "unix-connect", "sendmsg"],
            ENOSYS,
        ),
    ] {
        let closed = |names: &[&'static str]| -> Vec<&'static str> {
            let closed = |name: &&&str| !permitted.contains(*name);
            names.iter().filter(closed).copied().collect()
        };
        let (sockets, ways) = (closed(SOCKETS), closed(&["unix-connect", "sendmsg"]));
        let expected: &[(i32, &[&str])] = &[
            (0, NEEDED),
            (0, &["read-passwd", "code"]),
            (0, permitted),
            (connect, &["tcp-connect"]),
            (ENOSYS, &sockets),
            (ENOSYS, &ways),
            (EACCES, &["write-etc"]),
            (ENOSYS, HOSTILE),
            (ENOSYS, DENIED),
            (
                ENOSYS,
                &[
                    "datagram-pair",
                    "sendmmsg",
                    "fork",
                    #[cfg(target_arch = "x86_64")]
                    "vfork",
                    "execve",
                    "exec-descriptor",
                    "signal-parent",
                    "owner-parent",
                    "memfd-sealed",
                ],
            ),
        ];
        let lab = with_tcti(tcti);
        let variables = [("LD_LIBRARY_PATH", lab.scene.dir())];
        let hostile = Hostile::start(&lab, "", &variables, &names(expected));
        assert_results(&hostile, expected);
    }
}

/// With the drop-in of roleseal-tpm, and with one for a network HSM, as docs/hsm-vendors.md has it for nShield.
#[test]
fn the_unit_is_exposed_no_more_than_promised() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging");
    let directory = tempfile::tempdir().unwrap();
    let unit = directory.path().join("roleseal-agent.service");
    let drop_in = directory.path().join("roleseal-agent.service.d");
    fs::create_dir(&drop_in).unwrap();
    fs::copy(packaging.join("roleseal-agent.service"), &unit).unwrap();
    let tpm = fs::read_to_string(packaging.join("roleseal-agent.service.d/tpm.conf")).unwrap();
    let network = "[Service]\nSupplementaryGroups=nfast\nReadWritePaths=/opt/nfast/log\n";
    for (text, tenths) in [(tpm.as_str(), 20), (network, 25)] {
        fs::write(drop_in.join("more.conf"), text).unwrap();
        let mut analyze = Command::new("systemd-analyze");
        analyze
            .args(["security", "--no-pager", "--offline=true"])
            .arg(format!("--threshold={tenths}"))
            .arg(&unit);
        let output = analyze.output().unwrap();
        let table = String::from_utf8_lossy(&output.stdout);
        assert!(table.contains("exposure"), "{output:?}");
        assert!(output.status.success(), "{table}");
    }
}
