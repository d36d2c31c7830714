//! What a program takes from itself beyond privileges: system calls, by seccomp, and files, ports and
//! signals, by Landlock. Who may do what is said in each program's own `sandbox`; here is what they share.
//!
//! Both act on the calling thread and on what it starts later: call them before there are other threads.
//! Both are best effort: where a kernel lacks something, the program says so and goes on without.

mod calls;
mod unconfined;

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::ffi::c_long;

pub use calls::{Sockets, common_calls, free, is, library_calls, masked, one_of};

use landlock::{LandlockStatus, RestrictionStatus, RulesetCreated, RulesetError, RulesetStatus};
use libc::{
    BPF_ABS, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, ENOSYS, SECCOMP_RET_KILL_PROCESS,
};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch, sock_filter,
};
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

/// Rules on system calls: each call, with what its arguments must be; none means whatever they are.
pub type Calls = BTreeMap<c_long, Vec<SeccompRule>>;

/// How far a token program is confined: by each kernel feature, with its name.
pub type Fence = [(&'static str, Confined); 2];

/// Makes the kernel answer these calls so, and leaves all others alone.
pub fn forbid(calls: Calls, answer: SeccompAction) -> Confined {
    filter(calls, SeccompAction::Allow, answer)
}

/// Leaves the process with these calls: no other one exists, known today or not. An error of another kind would not tell
/// a C library to take an older call.
pub fn allow_only(calls: Result<Calls, BackendError>) -> Confined {
    let absent = SeccompAction::Errno(ENOSYS.unsigned_abs());
    match calls {
        Ok(calls) => filter(calls, absent, SeccompAction::Allow),
        Err(error) => Confined::Not(Unconfined::Failed(error.to_string())),
    }
}

fn filter(calls: Calls, others: SeccompAction, these: SeccompAction) -> Confined {
    let before = Surroundings::of_process();
    let Ok(arch) = TargetArch::try_from(ARCH) else {
        return Confined::Not(Unconfined::Failed(format!("there are no rules for {ARCH}")));
    };
    let filter = SeccompFilter::new(calls, others, these, arch);
    let program = filter.and_then(BpfProgram::try_from);
    let applied = program
        .map(without_x32)
        .map_err(seccompiler::Error::from)
        .and_then(|program| seccompiler::apply_filter(&program));
    match applied {
        Ok(()) => Confined::Wholly,
        Err(error) => Confined::Not(before.without_seccomp(&error)),
    }
}

/// Ends the process at a call of the x32 ABI, which is x86_64's to the kernel, with numbers of its own. The filter itself
/// ends it at a call of any other architecture.
fn without_x32(mut program: BpfProgram) -> BpfProgram {
    if cfg!(target_arch = "x86_64") {
        let instruction = |code: u32, jt, jf, k| sock_filter {
            code: code as u16, // all are below 0x100
            jt,
            jf,
            k,
        };
        let check = [
            instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0), // the number, the first of seccomp_data
            instruction(BPF_JMP | BPF_JGE | BPF_K, 0, 1, X32),
            instruction(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_KILL_PROCESS),
        ];
        program.splice(0..0, check);
    }
    program
}

/// `__X32_SYSCALL_BIT` (arch/x86/include/uapi/asm/unistd.h).
const X32: u32 = 0x4000_0000;

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
    fn forbidden_calls_are_refused_and_others_are_not() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let take = || {
            let own = pidfd_open(getpid(), PidfdFlags::empty())?;
            pidfd_getfd(own, file.as_raw_fd(), PidfdGetfdFlags::empty()).map(drop)
        };
        assert_eq!(take(), Ok(()));
        // A filter is a thread's, and ends with it.
        let refused = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let calls = free(&[libc::SYS_pidfd_getfd]);
                assert_eq!(forbid(calls, SeccompAction::Errno(7)), Confined::Wholly);
                take()
            });
            thread.join().unwrap()
        });
        assert_eq!(refused, Err(Errno::from_raw_os_error(7)));
    }
}
