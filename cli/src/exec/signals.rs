//! Signals of a program that runs another: they are read from a descriptor, with who sent them.

use std::io;
use std::process::{Child, ExitStatus};

use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, kill_process};

/// The signals of this process, which wait to be read.
pub(super) struct Signals {
    descriptor: SignalFd,
}

/// What is passed on. Other signals that stop or end a process do so to this one.
const PASSED_ON: [Signal; 7] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// `si_code` of what the kernel sent, such as for Ctrl-C (linux/siginfo.h).
const SI_KERNEL: i32 = 0x80;

impl Signals {
    /// Blocks them in this thread and those that it starts. A command that is started has none blocked, and
    /// ignores what this process was told to ignore.
    pub(super) fn block() -> io::Result<Signals> {
        let mut set: SigSet = PASSED_ON.into_iter().collect();
        set.add(Signal::SIGCHLD);
        set.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Signals {
            descriptor: SignalFd::with_flags(&set, flags)?,
        })
    }

    /// Lets signals do what they do without us: most end this process.
    pub(super) fn obey(&self) -> io::Result<()> {
        while let Some((signal, _)) = self.next()? {
            let one = SigSet::from(signal);
            raise(signal)?;
            one.thread_unblock()?; // here it comes
            one.thread_block()?;
        }
        Ok(())
    }

    /// Passes them on until the command has ended.
    pub(super) fn forward_to(&self, mut child: Child) -> io::Result<ExitStatus> {
        let pid = Pid::from_child(&child);
        loop {
            // Not reaped before: its number is still its own.
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            self.wait()?;
            while let Some((signal, by_kernel)) = self.next()? {
                if is_passed_on(signal, by_kernel) {
                    let number = rustix::process::Signal::from_named_raw(signal as i32);
                    if let Some(number) = number {
                        let _ = kill_process(pid, number); // it may have ended
                    }
                }
            }
        }
    }

    fn wait(&self) -> io::Result<()> {
        let mut descriptors = [PollFd::new(&self.descriptor, PollFlags::IN)];
        match poll(&mut descriptors, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The next that has come, and whether the kernel sent it.
    fn next(&self) -> io::Result<Option<(Signal, bool)>> {
        let Some(info) = self.descriptor.read_signal()? else {
            return Ok(None);
        };
        let signal = Signal::try_from(info.ssi_signo.cast_signed())?;
        Ok(Some((signal, info.ssi_code == SI_KERNEL)))
    }
}

/// The terminal sends its signals to all of the foreground process group, in which the command is as well;
/// but that it hangs up, to the session's leader only, which we may be.
fn is_passed_on(signal: Signal, by_kernel: bool) -> bool {
    let of_terminal = matches!(signal, Signal::SIGINT | Signal::SIGQUIT | Signal::SIGWINCH);
    signal != Signal::SIGCHLD && !(by_kernel && of_terminal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_terminal_sends_reaches_the_command_without_us() {
        assert!(!is_passed_on(Signal::SIGINT, true));
        assert!(!is_passed_on(Signal::SIGWINCH, true));
        assert!(is_passed_on(Signal::SIGINT, false));
        assert!(is_passed_on(Signal::SIGHUP, true));
        assert!(is_passed_on(Signal::SIGTERM, false));
        assert!(!is_passed_on(Signal::SIGCHLD, true));
    }
}
