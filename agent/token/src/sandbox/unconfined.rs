//! Why a program is not confined. A kernel that lacks something and a filter of the service manager's that swallows the
//! call for it answer alike: only what else is known of both tells them apart.

use std::error::Error;
use std::fmt;
use std::fs;
use std::sync::OnceLock;

use landlock::{AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetError};
use rustix::system::uname;

/// Why a program is not confined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unconfined {
    /// A system-call filter that was there before refuses these calls.
    Filtered(&'static str),
    /// Such a filter does, or this kernel lacks them: where nothing tells which.
    PerhapsFiltered(&'static str),
    /// This kernel has it, and switched off.
    SwitchedOff,
    /// This kernel has none.
    NotInKernel,
    /// Something else.
    Failed(String),
}

/// As `SystemCallFilter=` names them.
const LANDLOCK: &str = "landlock_create_ruleset landlock_add_rule landlock_restrict_self";
const SECCOMP: &str = "seccomp prctl";

/// Linux 5.13 was the first with Landlock.
const FIRST_LANDLOCK: (u32, u32) = (5, 13);

/// What is known of kernel and process, before the process confines itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// Whether a system-call filter is in force.
    filtered: bool,
    /// Whether Landlock is among the kernel's security modules; `None` where that does not show.
    landlock: Option<bool>,
    /// Whether the kernel is new enough for Landlock.
    new_enough: bool,
}

impl Surroundings {
    /// As they were when this was first asked.
    pub(super) fn of_process() -> &'static Surroundings {
        static FIRST: OnceLock<Surroundings> = OnceLock::new();
        FIRST.get_or_init(Surroundings::look)
    }

    fn look() -> Surroundings {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let modules = fs::read_to_string("/sys/kernel/security/lsm").ok();
        let release = uname().release().to_string_lossy().into_owned();
        Surroundings {
            filtered: has_filter(&status),
            landlock: modules.map(|modules| modules.trim().split(',').any(|one| one == "landlock")),
            new_enough: version(&release).is_none_or(|version| version >= FIRST_LANDLOCK),
        }
    }

    /// Landlock's calls do not exist, as it seems.
    pub(super) fn without_landlock(&self) -> Unconfined {
        match (self.landlock, self.filtered && self.new_enough) {
            (Some(true), _) => Unconfined::Filtered(LANDLOCK),
            (None, true) => Unconfined::PerhapsFiltered(LANDLOCK),
            (Some(false), _) | (None, false) => Unconfined::NotInKernel,
        }
    }

    /// Rules could not be made or put in force, where something in them is required.
    pub(super) fn landlock_failed(&self, error: &RulesetError) -> Unconfined {
        let required = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        match required.handle_access(AccessFs::Execute) {
            Ok(_) => self.failed(error, LANDLOCK), // what the first Landlock has is there
            Err(_) => self.without_landlock(),
        }
    }

    /// No filter could be put in force.
    pub(super) fn without_seccomp(&self, error: &seccompiler::Error) -> Unconfined {
        self.failed(error, SECCOMP)
    }

    fn failed(&self, error: &(dyn Error + 'static), calls: &'static str) -> Unconfined {
        match self.filtered && is_refused(error) {
            true => Unconfined::Filtered(calls),
            false => Unconfined::Failed(error.to_string()),
        }
    }
}

/// Whether the kernel said EPERM or ENOSYS: what filters say.
fn is_refused(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return [Some(libc::EPERM), Some(libc::ENOSYS)].contains(&error.raw_os_error());
        }
        cause = error.source();
    }
    false
}

/// `Seccomp: 2` is SECCOMP_MODE_FILTER (proc(5)).
fn has_filter(status: &str) -> bool {
    let mode = status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp:"));
    mode.is_some_and(|mode| mode.trim() == "2")
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// As the reason in a sentence.
impl fmt::Display for Unconfined {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Unconfined::Filtered(calls) => write!(
                f,
                "a system-call filter that this process was started with refuses it: add the calls to the service's \
                 SystemCallFilter= ({calls}), or to the container's seccomp profile"
            ),
            Unconfined::PerhapsFiltered(calls) => write!(
                f,
                "a system-call filter that this process was started with refuses it (add the calls to the service's \
                 SystemCallFilter=: {calls}; or to the container's seccomp profile), or this kernel has none"
            ),
            Unconfined::SwitchedOff => {
                f.write_str("this kernel has it switched off (add landlock to its lsm= parameter)")
            }
            Unconfined::NotInKernel => f.write_str("this kernel has none"),
            Unconfined::Failed(why) => f.write_str(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use landlock::Access;
    use seccompiler::SeccompAction;

    use super::super::{Confined, LANDLOCK_ABI, enforce, forbid, free};
    use super::*;

    #[test]
    fn a_kernel_and_a_filter_are_told_apart() {
        let told = |landlock, filtered, new_enough| {
            let surroundings = Surroundings {
                filtered,
                landlock,
                new_enough,
            };
            surroundings.without_landlock()
        };
        let filtered = Unconfined::Filtered(LANDLOCK);
        let perhaps = Unconfined::PerhapsFiltered(LANDLOCK);
        assert_eq!(told(Some(true), true, true), filtered);
        assert_eq!(told(Some(false), true, true), Unconfined::NotInKernel);
        assert_eq!(told(None, true, true), perhaps);
        assert_eq!(told(None, true, false), Unconfined::NotInKernel);
        assert_eq!(told(None, false, true), Unconfined::NotInKernel);
    }

    #[test]
    fn what_the_kernel_says_is_read() {
        assert!(has_filter("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"));
        assert!(!has_filter("Seccomp:\t0\nSeccomp_filters:\t0\n"));
        assert!(!has_filter(""));
        assert_eq!(version("6.1.0-28-amd64"), Some((6, 1)));
        assert_eq!(version("5.10.0"), Some((5, 10)));
        assert_eq!(version("x"), None);
    }

    /// Set for a process that [`confinement_in_a_process_of_its_own`] is to look at.
    const LOOK: &str = "ROLESEAL_TEST_CONFINEMENT";

    /// Not a test by itself: what [`a_filter_that_swallows_confinement_is_recognised`] starts under a filter.
    #[test]
    fn confinement_in_a_process_of_its_own() {
        if std::env::var_os(LOOK).is_none() {
            return;
        }
        let ruleset = Ruleset::default().handle_access(AccessFs::from_all(LANDLOCK_ABI));
        let required = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::Refer);
        let confined = [
            enforce(ruleset.and_then(Ruleset::create)),
            forbid(free(&[libc::SYS_bpf]), SeccompAction::Errno(7)),
            enforce(required.and_then(Ruleset::create)),
        ];
        for confined in confined {
            println!("\nKIND {}", kind(&confined));
        }
    }

    fn kind(confined: &Confined) -> &'static str {
        match confined {
            Confined::Not(Unconfined::Filtered(_)) => "filtered",
            Confined::Not(Unconfined::PerhapsFiltered(_)) => "perhaps filtered",
            Confined::Not(_) => "not",
            Confined::Wholly | Confined::Partly(_) => "confined",
        }
    }

    /// A filter is inherited: this is what a unit's `SystemCallFilter=` does.
    fn under(calls: &[libc::c_long], errno: i32) -> Vec<String> {
        let run = || {
            if !calls.is_empty() {
                let answer = SeccompAction::Errno(errno.unsigned_abs());
                assert_eq!(forbid(free(calls), answer), Confined::Wholly);
            }
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "--nocapture"])
                .arg("sandbox::unconfined::tests::confinement_in_a_process_of_its_own")
                .env(LOOK, "yes")
                .output()
                .unwrap()
        };
        let output = std::thread::scope(|scope| scope.spawn(run).join().unwrap());
        let text = String::from_utf8(output.stdout).unwrap();
        let kinds = text.lines().filter_map(|line| line.strip_prefix("KIND "));
        kinds.map(str::to_owned).collect()
    }

    #[test]
    fn a_filter_that_swallows_confinement_is_recognised() {
        let free = under(&[], 0);
        assert_eq!(free.len(), 3);
        assert!(
            free.iter().all(|kind| !kind.contains("filtered")),
            "{free:?}"
        );
        for errno in [libc::EPERM, libc::ENOSYS] {
            let told = under(&[libc::SYS_landlock_create_ruleset], errno);
            assert!(told[0].contains("filtered"), "{told:?}");
            assert_eq!(told[1], "confined");
            assert_eq!(told[2], told[0]); // also where something is required of it
            let told = under(&[libc::SYS_landlock_restrict_self], errno);
            assert!(free[0] == "not" || told[0] == "filtered", "{told:?}");
            let told = under(&[libc::SYS_seccomp], errno);
            assert_eq!(told[1], "filtered");
        }
    }
}
