//! The system calls of the agent. What is not here does not exist for it: a C library that tries a newer
//! call then takes the older one, which an error of another kind would not tell it to. What only an
//! intruder would call ends the agent at once, and loudly.

use std::ffi::c_long;

use libc::*;
use seccompiler::{
    BackendError, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition,
    SeccompRule,
};
use token::sandbox::{Calls, Confined, Unconfined, allow_only, forbid, hostile_calls};

/// Confines this thread, and those that it starts.
pub(super) fn confine() -> Confined {
    let mut hostile = hostile_calls();
    for call in PROGRAMS {
        hostile.insert(*call, Vec::new());
    }
    let calls = match calls() {
        Ok(calls) => calls,
        Err(error) => return Confined::Not(Unconfined::Failed(error.to_string())),
    };
    match forbid(hostile, SeccompAction::KillProcess) {
        Confined::Wholly => allow_only(calls, SeccompAction::Errno(ENOSYS.unsigned_abs())),
        other => other,
    }
}

/// Running another program. The last two are the numbers of the x32 ABI.
const PROGRAMS: &[c_long] = &[
    SYS_execve,
    SYS_execveat,
    #[cfg(target_arch = "x86_64")]
    {
        0x4000_0000 | 520
    },
    #[cfg(target_arch = "x86_64")]
    {
        0x4000_0000 | 545
    },
];

/// Whatever their arguments: Landlock knows of files, and the rest is the agent's own.
const FREE: &[c_long] = &[
    // Open descriptors.
    SYS_read,
    SYS_readv,
    SYS_pread64,
    SYS_write,
    SYS_writev,
    SYS_lseek,
    SYS_close,
    SYS_fstat,
    SYS_fcntl,
    SYS_dup,
    SYS_dup3,
    SYS_pipe2,
    SYS_eventfd2,
    // Files.
    SYS_openat,
    SYS_newfstatat,
    SYS_statx,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_getdents64,
    SYS_readlinkat,
    SYS_getcwd,
    SYS_unlinkat,
    #[cfg(not(target_arch = "riscv64"))]
    SYS_renameat,
    SYS_renameat2,
    SYS_fsync,
    SYS_inotify_init1,
    SYS_inotify_add_watch,
    SYS_inotify_rm_watch,
    // Clients and the launcher.
    SYS_accept,
    SYS_accept4,
    SYS_recvfrom,
    SYS_recvmsg,
    SYS_sendto,
    SYS_sendmsg,
    SYS_shutdown,
    SYS_getsockopt,
    SYS_setsockopt,
    SYS_getsockname,
    SYS_getpeername,
    SYS_connect, // of the sockets that it may have, see below
    // Waiting.
    SYS_ppoll,
    SYS_pselect6,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    SYS_timerfd_create,
    SYS_timerfd_settime,
    SYS_timerfd_gettime,
    SYS_signalfd4,
    SYS_nanosleep,
    SYS_clock_nanosleep,
    SYS_restart_syscall,
    SYS_wait4, // for the launcher
    SYS_waitid,
    // Threads, signals and memory.
    SYS_futex,
    SYS_set_robust_list,
    SYS_get_robust_list,
    SYS_set_tid_address,
    SYS_rseq,
    SYS_membarrier,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_rt_sigtimedwait,
    SYS_sigaltstack,
    SYS_brk,
    SYS_munmap,
    SYS_mremap,
    SYS_madvise,
    SYS_mlock,
    SYS_munlock,
    SYS_exit,
    SYS_exit_group,
    // Who and when.
    SYS_getpid,
    SYS_gettid,
    SYS_getppid,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    SYS_getrandom,
    SYS_getrusage,
    SYS_times,
    SYS_sysinfo,
    SYS_uname,
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_gettimeofday,
    #[cfg(not(target_arch = "riscv64"))]
    SYS_getrlimit,
];

/// What other architectures have only in the forms above.
#[cfg(target_arch = "x86_64")]
const OLD: &[c_long] = &[
    SYS_open,
    SYS_stat,
    SYS_lstat,
    SYS_access,
    SYS_readlink,
    SYS_unlink,
    SYS_poll,
    SYS_select,
    SYS_epoll_wait,
    SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[c_long] = &[];

fn calls() -> Result<Calls, BackendError> {
    let own = u64::from(std::process::id());
    let terminal_or_socket = [FIONBIO, FIONREAD, FIOCLEX, FIONCLEX, TCGETS, TIOCGWINSZ];
    let names = [PR_SET_NAME, PR_GET_NAME, PR_SET_VMA];
    // Nothing that was written is run.
    let no_code = || masked(2, PROT_EXEC, 0);
    let mut calls: Calls = FREE.iter().chain(OLD).map(|call| (*call, vec![])).collect();
    calls.extend([
        (SYS_mmap, vec![no_code()?]),
        (SYS_mprotect, vec![no_code()?]),
        // Threads, no processes. `clone3`, whose flags cannot be seen here, is left out for that.
        (SYS_clone, vec![masked(0, CLONE_THREAD, CLONE_THREAD)?]),
        // The service manager and the journal.
        (SYS_socket, vec![unix_datagrams()?]),
        (SYS_socketpair, vec![is(0, AF_UNIX)?]),
        (SYS_ioctl, one_of(1, terminal_or_socket)?),
        (SYS_prctl, one_of(0, names)?),
        // Signals to itself alone, such as that of `abort`; limits of itself alone.
        (SYS_kill, vec![is(0, own)?]),
        (SYS_tgkill, vec![is(0, own)?]),
        (SYS_prlimit64, one_of(0, [0, own])?),
    ]);
    Ok(calls)
}

fn unix_datagrams() -> Result<SeccompRule, BackendError> {
    let kind = SeccompCmpOp::MaskedEq(0xf); // above it are SOCK_CLOEXEC and SOCK_NONBLOCK
    SeccompRule::new(vec![
        condition(0, SeccompCmpOp::Eq, AF_UNIX)?,
        condition(1, kind, SOCK_DGRAM)?,
    ])
}

fn one_of<V: Value>(
    argument: u8,
    values: impl IntoIterator<Item = V>,
) -> Result<Vec<SeccompRule>, BackendError> {
    values
        .into_iter()
        .map(|value| is(argument, value))
        .collect()
}

fn is(argument: u8, value: impl Value) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![condition(argument, SeccompCmpOp::Eq, value)?])
}

fn masked(argument: u8, mask: c_int, value: c_int) -> Result<SeccompRule, BackendError> {
    let masked = SeccompCmpOp::MaskedEq(mask.number());
    SeccompRule::new(vec![condition(argument, masked, value)?])
}

fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: impl Value,
) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, Dword, operator, value.number())
}

/// A number as libc has it, of whichever type.
trait Value {
    fn number(self) -> u64;
}

impl Value for c_int {
    fn number(self) -> u64 {
        u64::from(self.cast_unsigned())
    }
}

impl Value for u64 {
    fn number(self) -> u64 {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io;
    use std::net::TcpStream;
    use std::os::unix::net::{UnixDatagram, UnixStream};
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    use memmap2::MmapMut;

    /// Runs it in a thread that is confined: a filter is a thread's, and ends with it.
    fn confined<T: Send>(run: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                assert_eq!(confine(), Confined::Wholly);
                run()
            });
            thread.join().unwrap()
        })
    }

    fn is_unknown<T>(result: io::Result<T>) -> bool {
        result.err().and_then(|error| error.raw_os_error()) == Some(ENOSYS)
    }

    #[test]
    fn no_process_no_connection_no_code() {
        confined(|| {
            assert!(is_unknown(Command::new("/bin/true").spawn()));
            assert!(is_unknown(TcpStream::connect(("127.0.0.1", 1))));
            assert!(is_unknown(UnixStream::connect(
                "/run/dbus/system_bus_socket"
            )));
            assert!(is_unknown(
                MmapMut::map_anon(1).and_then(MmapMut::make_exec).map(drop)
            ));
            assert!(is_unknown(std::fs::create_dir("/tmp/roleseal-test")));
        });
    }

    #[test]
    fn what_the_agent_does_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let service_manager = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        confined(|| {
            assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
            let datagrams = UnixDatagram::unbound().unwrap();
            datagrams.connect(directory.path().join("notify")).unwrap();
            datagrams.send(b"READY=1").unwrap();
            std::fs::read("/etc/passwd").unwrap();
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
            std::fs::remove_file(directory.path().join("notify")).unwrap();
        });
        assert_eq!(service_manager.recv(&mut [0; 16]).unwrap(), 7);
    }

    /// Runs this test program again, for this test alone: what is to end is a process.
    #[test]
    fn to_run_a_program_is_the_end() {
        let name = "sandbox::calls::tests::to_run_a_program_is_the_end";
        if std::env::var_os("ROLESEAL_TEST_CHILD").is_some() {
            confined(|| panic!("{}", Command::new("/bin/true").exec()));
        }
        let own = std::env::current_exe().unwrap();
        let mut child = Command::new(own);
        child
            .args(["--exact", name])
            .env("ROLESEAL_TEST_CHILD", "1");
        let output = child.output().unwrap();
        assert_eq!(output.status.signal(), Some(SIGSYS), "{output:?}");
    }
}
