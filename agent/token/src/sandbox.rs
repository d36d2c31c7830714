//! What a program takes from itself beyond privileges: system calls, by seccomp, and files, ports and
//! signals, by Landlock. Who may do what is said in each program's own `sandbox`; here is what they share.
//!
//! Both act on the calling thread and on what it starts later: call them before there are other threads.
//! Both are best effort. A kernel that lacks one is told of, by an error whose text says what is missing,
//! and the program goes on without.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use landlock::{LandlockStatus, RestrictionStatus, RulesetCreated, RulesetStatus};
use libc::*;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch};

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

/// [`HOSTILE`] calls, to be forbidden.
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
pub fn forbid(calls: Calls, answer: SeccompAction) -> Result<(), String> {
    filter(calls, SeccompAction::Allow, answer)
}

/// Makes the kernel answer all but these calls so.
pub fn allow_only(calls: Calls, answer: SeccompAction) -> Result<(), String> {
    filter(calls, answer, SeccompAction::Allow)
}

fn filter(calls: Calls, others: SeccompAction, these: SeccompAction) -> Result<(), String> {
    let arch = TargetArch::try_from(ARCH).map_err(|_| format!("not known for {ARCH}"))?;
    let filter = SeccompFilter::new(calls, others, these, arch);
    let program = filter.and_then(BpfProgram::try_from);
    let program = program.map_err(|error| error.to_string())?;
    seccompiler::apply_filter(&program).map_err(|error| error.to_string())
}

/// Enforces the rules; the error says which part this kernel leaves out.
pub fn enforce(rules: RulesetCreated) -> Result<(), String> {
    let status = rules.restrict_self().map_err(|error| error.to_string())?;
    match status.ruleset {
        RulesetStatus::FullyEnforced => Ok(()),
        _ => Err(shortfall(&status)),
    }
}

fn shortfall(status: &RestrictionStatus) -> String {
    match status.landlock {
        LandlockStatus::NotImplemented => "this kernel has none".to_owned(),
        LandlockStatus::NotEnabled => {
            "this kernel has it switched off (add landlock to its lsm= parameter)".to_owned()
        }
        LandlockStatus::Available { effective_abi, .. } => {
            format!("this kernel's (version {effective_abi} of {LANDLOCK_ABI}) enforces it in part")
        }
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
                forbid(hostile_calls(), SeccompAction::Errno(7)).unwrap();
                take()
            });
            thread.join().unwrap()
        });
        assert_eq!(refused, Err(Errno::from_raw_os_error(7)));
    }
}
