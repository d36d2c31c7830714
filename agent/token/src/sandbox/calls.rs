//! The system calls that programs are left with, by their needs: an agent or a token's library.

use std::ffi::c_long;

use libc::*;
use seccompiler::{BackendError, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::Calls;

/// Calls of every program of ours, whatever their arguments.
const COMMON: &[c_long] = &[
    // Open descriptors.
    SYS_read,
    SYS_readv,
    SYS_pread64,
    SYS_write,
    SYS_writev,
    SYS_lseek,
    SYS_close,
    SYS_fstat,
    SYS_dup,
    SYS_dup3,
    SYS_pipe2,
    SYS_eventfd2,
    SYS_recvfrom,
    SYS_shutdown,
    SYS_getsockopt,
    SYS_setsockopt,
    SYS_getsockname,
    SYS_getpeername,
    // Files.
    SYS_openat,
    SYS_newfstatat,
    SYS_statx,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_getdents64,
    SYS_readlinkat,
    SYS_getcwd,
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
    // Only x86_64 has these forms.
    #[cfg(target_arch = "x86_64")]
    SYS_open,
    #[cfg(target_arch = "x86_64")]
    SYS_stat,
    #[cfg(target_arch = "x86_64")]
    SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    SYS_access,
    #[cfg(target_arch = "x86_64")]
    SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    SYS_poll,
    #[cfg(target_arch = "x86_64")]
    SYS_select,
    #[cfg(target_arch = "x86_64")]
    SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    SYS_time,
];

/// Requests to descriptors that send no signal to an owner, and are to terminals and sockets.
const OF_DESCRIPTORS: [c_int; 11] = [
    F_DUPFD,
    F_DUPFD_CLOEXEC,
    F_GETFD,
    F_SETFD,
    F_GETFL,
    F_SETFL,
    F_GETLK,
    F_SETLK,
    F_SETLKW,
    F_OFD_SETLK,
    F_OFD_SETLKW,
];
const OF_TERMINALS_AND_SOCKETS: [Ioctl; 6] =
    [FIONBIO, FIONREAD, FIOCLEX, FIONCLEX, TCGETS, TIOCGWINSZ];

/// More calls of a library that is loaded: they change no file and reach no other process.
const LIBRARY: &[c_long] = &[
    // It is loaded after the program confined itself, and may make code.
    SYS_mmap,
    SYS_mprotect,
    SYS_prctl,
    SYS_preadv,
    SYS_preadv2,
    SYS_pwrite64,
    SYS_pwritev,
    SYS_pwritev2,
    SYS_close_range,
    SYS_sendfile,
    SYS_splice,
    SYS_tee,
    SYS_flock,
    SYS_fsync,
    SYS_fdatasync,
    SYS_openat2,
    SYS_statfs,
    SYS_fstatfs,
    SYS_chdir,
    SYS_fchdir,
    SYS_umask,
    SYS_fadvise64,
    SYS_readahead,
    SYS_getxattr,
    SYS_lgetxattr,
    SYS_fgetxattr,
    SYS_listxattr,
    SYS_llistxattr,
    SYS_flistxattr,
    SYS_name_to_handle_at,
    SYS_inotify_init1,
    SYS_inotify_add_watch,
    SYS_inotify_rm_watch,
    SYS_msync,
    SYS_mincore,
    SYS_mlock2,
    SYS_mlockall,
    SYS_munlockall,
    SYS_pkey_alloc,
    SYS_pkey_free,
    SYS_pkey_mprotect,
    SYS_get_mempolicy,
    SYS_futex_waitv,
    SYS_getcpu,
    SYS_getgroups,
    SYS_getpgid,
    SYS_getsid,
    SYS_getresuid,
    SYS_getresgid,
    SYS_getpriority,
    SYS_capget,
    SYS_personality,
    SYS_sched_getattr,
    SYS_sched_getparam,
    SYS_sched_getscheduler,
    SYS_sched_get_priority_max,
    SYS_sched_get_priority_min,
    SYS_sched_rr_get_interval,
    SYS_getitimer,
    SYS_setitimer,
    SYS_timer_create,
    SYS_timer_settime,
    SYS_timer_gettime,
    SYS_timer_getoverrun,
    SYS_timer_delete,
    SYS_rt_sigpending,
    SYS_rt_sigsuspend,
    #[cfg(target_arch = "x86_64")]
    SYS_arch_prctl,
    #[cfg(target_arch = "x86_64")]
    SYS_getdents,
    #[cfg(target_arch = "x86_64")]
    SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    SYS_pipe,
    #[cfg(target_arch = "x86_64")]
    SYS_eventfd,
    #[cfg(target_arch = "x86_64")]
    SYS_signalfd,
    #[cfg(target_arch = "x86_64")]
    SYS_epoll_create,
    #[cfg(target_arch = "x86_64")]
    SYS_inotify_init,
    #[cfg(target_arch = "x86_64")]
    SYS_alarm,
    #[cfg(target_arch = "x86_64")]
    SYS_pause,
    #[cfg(target_arch = "x86_64")]
    SYS_getpgrp,
];

/// Sockets that a token's library may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sockets {
    /// None.
    Nothing,
    /// TCP, and no other protocol of IPv4 or IPv6.
    Tcp,
    /// Unix sockets, and those on which the kernel announces devices: libusb finds USB tokens by them.
    Local,
    /// Also those of networks.
    Network,
}

/// Returns the calls that agent and token programs share. None of them names another process or the address of a
/// socket.
pub fn common_calls() -> Result<Calls, BackendError> {
    let own = u64::from(std::process::id());
    let mut calls = free(COMMON);
    calls.extend([
        // Threads and no processes. `clone3`, whose flags a filter cannot see, is left out: a C library then takes `clone`.
        (SYS_clone, vec![masked(0, CLONE_THREAD, CLONE_THREAD)?]),
        // Not of datagrams, which could be sent to any address.
        (
            SYS_socketpair,
            vec![SeccompRule::new(vec![
                equal(0, AF_UNIX)?,
                kind_of_socket(SOCK_STREAM)?,
            ])?],
        ),
        (SYS_sendto, vec![SeccompRule::new(vec![null(4)?])?]),
        (SYS_fcntl, one_of(1, OF_DESCRIPTORS)?),
        (SYS_ioctl, one_of(1, OF_TERMINALS_AND_SOCKETS)?),
        // Signals to itself alone, such as that of `abort`; limits of itself alone.
        (SYS_kill, vec![is(0, own)?]),
        (SYS_tgkill, vec![is(0, own)?]),
        (SYS_prlimit64, one_of(0, [0, own])?),
    ]);
    Ok(calls)
}

/// Returns the calls of a token's library that starts no process.
pub fn library_calls(sockets: Sockets) -> Result<Calls, BackendError> {
    let mut calls = common_calls()?;
    calls.extend(free(LIBRARY));
    let rules = sockets.rules()?;
    if !rules.is_empty() {
        calls.insert(SYS_socket, rules);
        calls.insert(SYS_connect, Vec::new());
    }
    Ok(calls)
}

impl Sockets {
    fn rules(self) -> Result<Vec<SeccompRule>, BackendError> {
        Ok(match self {
            Sockets::Nothing => Vec::new(),
            Sockets::Tcp => {
                let mut rules = Vec::new();
                for family in [AF_INET, AF_INET6] {
                    // Not MPTCP, which Landlock's rules for ports do not hold for.
                    for protocol in [0, IPPROTO_TCP] {
                        rules.push(SeccompRule::new(vec![
                            equal(0, family)?,
                            kind_of_socket(SOCK_STREAM)?,
                            equal(2, protocol)?,
                        ])?);
                    }
                }
                rules
            }
            Sockets::Local => {
                let announcements = vec![equal(0, AF_NETLINK)?, equal(2, NETLINK_KOBJECT_UEVENT)?];
                vec![is(0, AF_UNIX)?, SeccompRule::new(announcements)?]
            }
            Sockets::Network => one_of(0, [AF_UNIX, AF_INET, AF_INET6, AF_NETLINK])?,
        })
    }
}

/// Returns these calls, whatever their arguments.
pub fn free(calls: &[c_long]) -> Calls {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

/// Returns the rules that an argument has one of these values.
pub fn one_of<V: Value>(
    argument: u8,
    values: impl IntoIterator<Item = V>,
) -> Result<Vec<SeccompRule>, BackendError> {
    values
        .into_iter()
        .map(|value| is(argument, value))
        .collect()
}

/// Returns the rule that an argument has this value.
pub fn is(argument: u8, value: impl Value) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![equal(argument, value)?])
}

/// Returns the rule that these bits of an argument have this value.
pub fn masked(argument: u8, mask: c_int, value: c_int) -> Result<SeccompRule, BackendError> {
    let masked = SeccompCmpOp::MaskedEq(mask.number());
    SeccompRule::new(vec![condition(argument, masked, value)?])
}

fn kind_of_socket(kind: c_int) -> Result<SeccompCondition, BackendError> {
    // Above these bits are SOCK_CLOEXEC and SOCK_NONBLOCK.
    condition(1, SeccompCmpOp::MaskedEq(0xf), kind)
}

fn equal(argument: u8, value: impl Value) -> Result<SeccompCondition, BackendError> {
    condition(argument, SeccompCmpOp::Eq, value)
}

/// The condition that a pointer is null.
fn null(argument: u8) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)
}

fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: impl Value,
) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value.number())
}

/// A number as libc has it, of any type.
pub trait Value {
    /// Returns the number as a filter has it.
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
