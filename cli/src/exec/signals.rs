//! Signals of a program that runs another: what comes to it, and who sent it.

use std::ffi::c_int;
use std::fs;
use std::io;
use std::process::{Child, ExitStatus};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::origin::WithOrigin;
use signal_hook::low_level::emulate_default_handler;
use signal_hook::low_level::siginfo::Cause;

/// The signals that come to this process.
pub(super) struct Signals(SignalsInfo<WithOrigin>);

/// What is passed on. Other signals that stop or end a process do so to this one.
const PASSED_ON: [c_int; 7] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH];

impl Signals {
    /// Takes them from now on. What this process was told to ignore (nohup) stays ignored, by the command
    /// as well.
    pub(super) fn take() -> io::Result<Signals> {
        let ignored = ignored()?;
        let taken = PASSED_ON
            .into_iter()
            .filter(|signal| !is_in(ignored, *signal))
            .chain([SIGCHLD]);
        Ok(Signals(SignalsInfo::new(taken)?))
    }

    /// Lets those that have come do what they do without us: most end this process.
    pub(super) fn obey(&mut self) -> io::Result<()> {
        for origin in self.0.pending() {
            if origin.signal != SIGCHLD {
                emulate_default_handler(origin.signal)?;
            }
        }
        Ok(())
    }

    /// Passes them on until the command has ended.
    pub(super) fn forward_to(mut self, mut child: Child) -> io::Result<ExitStatus> {
        let pid = Pid::from_child(&child);
        loop {
            // Not reaped before: its number is still its own.
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            for origin in self.0.wait() {
                if is_passed_on(origin.signal, matches!(origin.cause, Cause::Kernel))
                    && let Some(signal) = Signal::from_named_raw(origin.signal)
                {
                    let _ = kill_process(pid, signal); // it may have ended
                }
            }
        }
    }
}

/// The terminal sends its signals to all of the foreground process group, in which the command is as well;
/// but that it hangs up, to the session's leader only, which we may be.
fn is_passed_on(signal: c_int, by_kernel: bool) -> bool {
    let of_terminal = [SIGINT, SIGQUIT, SIGWINCH].contains(&signal);
    signal != SIGCHLD && !(by_kernel && of_terminal)
}

/// The signals that this process ignores, a bit for each, as proc(5) has them.
fn ignored() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .ok_or_else(|| io::Error::other("/proc/self/status has no SigIgn"))
}

fn is_in(mask: u64, signal: c_int) -> bool {
    u32::try_from(signal - 1).is_ok_and(|bit| mask.checked_shr(bit).is_some_and(|m| m & 1 == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_terminal_sends_reaches_the_command_without_us() {
        assert!(!is_passed_on(SIGINT, true) && !is_passed_on(SIGWINCH, true));
        assert!(is_passed_on(SIGINT, false) && is_passed_on(SIGTERM, false));
        assert!(is_passed_on(SIGHUP, true) && !is_passed_on(SIGCHLD, true));
    }

    #[test]
    fn a_mask_has_a_bit_for_each_signal() {
        assert!(is_in(0x1, SIGHUP) && is_in(0x4000, SIGTERM) && !is_in(0x4000, SIGHUP));
        assert!(!is_in(u64::MAX, 0) && !is_in(u64::MAX, 65));
        // Rust's own.
        assert!(is_in(ignored().unwrap(), signal_hook::consts::SIGPIPE));
    }
}
