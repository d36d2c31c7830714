//! What a program takes from itself beyond privileges: system calls, by seccomp, and files, ports and
//! signals, by Landlock. Who may do what is said in each program's own `sandbox`; here is what they share.
//!
//! Both act on the calling thread and on what it starts later: call them before there are other threads.
//! Both are best effort: where a kernel lacks something, the program says so and goes on without.

mod unconfined;

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use landlock::{LandlockStatus, RestrictionStatus, RulesetCreated, RulesetError, RulesetStatus};
use libc::*;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch};
use unconfined::Surroundings;
pub use unconfined::Unconfined;

/// How far a program is confined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confined {
    /// As far as we know how.
    Wholly,
    /// As far as this kernel knows how, and how far that is.
    Partly(String),
    /// Not at all, and why.
    Not(Unconfined),
}

/// The last Landlock ABI that was tested here: rights of later ones are left alone.
pub const LANDLOCK_ABI: landlock::ABI = landlock::ABI::V7;

/// Calls by which a process takes over another one, the kernel or the machine. Nothing of ours needs
/// them, and no PKCS#11 module or TPM library is known to.
const HOSTILE: &[c_long] = &[
    // Other processes' memory and descriptors.
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_pidfd_getfd,
    SYS_kcmp,
    SYS_perf_event_open,
    // Ways into the kernel that exploits are fond of.
    SYS_bpf,
    SYS_userfaultfd,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
    // The kernel itself.
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_kexec_file_load,
    // Mounts and namespaces.
    SYS_mount,
    SYS_umount2,
    SYS_mount_setattr,
    SYS_move_mount,
    SYS_open_tree,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_pivot_root,
    SYS_chroot,
    SYS_setns,
    SYS_unshare,
    SYS_open_by_handle_at,
    SYS_fanotify_init,
    // The machine.
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_acct,
    SYS_quotactl,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_adjtimex,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_syslog,
    SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    SYS_ioperm,
];

/// Rules on system calls: each call, with what its arguments must be; none means whatever they are.
pub type Calls = BTreeMap<c_long, Vec<SeccompRule>>;

/// Calls of a program that is no longer itself, to be forbidden.
pub fn hostile_calls() -> Calls {
    let calls = HOSTILE.iter().copied();
    // The x32 ABI has numbers of its own for the same calls, of which some are other numbers, too.
    #[cfg(target_arch = "x86_64")]
    let calls = calls.flat_map(|call| [call, X32 | call]).chain(
        [521, 528, 539, 540].map(|call| X32 | call), // ptrace, kexec_load, process_vm_readv, …_writev
    );
    calls.map(|call| (call, Vec::new())).collect()
}

#[cfg(target_arch = "x86_64")]
const X32: c_long = 0x4000_0000;

/// Makes the kernel answer these calls, and no others, so.
pub fn forbid(calls: Calls, answer: SeccompAction) -> Confined {
    filter(calls, SeccompAction::Allow, answer)
}

/// Makes the kernel answer all but these calls so.
pub fn allow_only(calls: Calls, answer: SeccompAction) -> Confined {
    filter(calls, answer, SeccompAction::Allow)
}

fn filter(calls: Calls, others: SeccompAction, these: SeccompAction) -> Confined {
    let before = Surroundings::of_process();
    let Ok(arch) = TargetArch::try_from(ARCH) else {
        return Confined::Not(Unconfined::Failed(format!("there are no rules for {ARCH}")));
    };
    let filter = SeccompFilter::new(calls, others, these, arch);
    let program = filter.and_then(BpfProgram::try_from);
    let applied = program
        .map_err(seccompiler::Error::from)
        .and_then(|program| seccompiler::apply_filter(&program));
    match applied {
        Ok(()) => Confined::Wholly,
        Err(error) => Confined::Not(before.without_seccomp(&error)),
    }
}

/// Enforces Landlock rules, as far as this kernel can.
pub fn enforce(rules: Result<RulesetCreated, RulesetError>) -> Confined {
    let before = Surroundings::of_process();
    match rules.and_then(RulesetCreated::restrict_self) {
        Ok(status) => confined(status, before),
        Err(error) => Confined::Not(before.landlock_failed(&error)),
    }
}

fn confined(status: RestrictionStatus, before: &Surroundings) -> Confined {
    match (status.ruleset, status.landlock) {
        (RulesetStatus::FullyEnforced, _) => Confined::Wholly,
        (RulesetStatus::PartiallyEnforced, LandlockStatus::Available { effective_abi, .. }) => {
            Confined::Partly(format!(
                "this kernel has version {effective_abi}, {LANDLOCK_ABI} would confine it further"
            ))
        }
        (_, LandlockStatus::NotEnabled) => Confined::Not(Unconfined::SwitchedOff),
        _ => Confined::Not(before.without_landlock()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::fd::AsRawFd;

    use rustix::io::Errno;
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

    #[test]
    fn hostile_calls_are_refused_and_others_are_not() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let take = || {
            let own = pidfd_open(getpid(), PidfdFlags::empty())?;
            pidfd_getfd(own, file.as_raw_fd(), PidfdGetfdFlags::empty()).map(drop)
        };
        assert_eq!(take(), Ok(()));
        // A filter is a thread's, and ends with it.
        let refused = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                assert_eq!(
                    forbid(hostile_calls(), SeccompAction::Errno(7)),
                    Confined::Wholly
                );
                take()
            });
            thread.join().unwrap()
        });
        assert_eq!(refused, Err(Errno::from_raw_os_error(7)));
    }
}
