//! What a client's process runs, for the log. Whoever asks must not be confined: Landlock hides other
//! processes.

use std::fs::{self, File};
use std::io::Read;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The path of what the process runs, or its name in brackets; `None` where nobody may tell, and for a
/// process that is younger than the connection of whoever had its number then.
pub fn of(pid: i32, connected: Duration) -> Option<String> {
    let name = executable(pid)?;
    // Asked last: a process that is old enough now was so when its name was read.
    let same = started(pid).is_none_or(|started| started <= connected);
    same.then(|| name.chars().take(PATH_LIMIT).collect())
}

/// The time since the boot, by which processes are told to be younger than connections.
pub fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// Of a path in the log, in characters.
const PATH_LIMIT: usize = 1024;

/// More than any line of /proc that is read here has.
const PROC_LIMIT: u64 = 4096;

/// The path of what the process runs; of another user's process its name in brackets, as ps writes it.
fn executable(pid: i32) -> Option<String> {
    if pid <= 0 {
        return None;
    }
    let path = fs::read_link(format!("/proc/{pid}/exe"));
    let path = path.map(|path| path.to_string_lossy().into_owned());
    path.ok().or_else(|| {
        let name = read_proc(pid, "comm")?;
        Some(format!("[{}]", name.trim_end_matches('\n')))
    })
}

/// When the process was started, since the boot; rounded down to a clock tick.
fn started(pid: i32) -> Option<Duration> {
    let stat = read_proc(pid, "stat")?;
    let (_, after_name) = stat.rsplit_once(')')?; // a name may hold anything
    let ticks: u64 = after_name.split_whitespace().nth(19)?.parse().ok()?;
    let millis = ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis(millis))
}

fn read_proc(pid: i32, file: &str) -> Option<String> {
    let mut text = Vec::new();
    let file = File::open(format!("/proc/{pid}/{file}")).ok()?;
    file.take(PROC_LIMIT).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};
    use std::time::Instant;

    /// A process that waits until it is dropped.
    struct Waiting(Child);

    impl Waiting {
        fn start() -> Waiting {
            let mut cat = Command::new("cat");
            let child = cat.stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
            let waiting = Waiting(child.unwrap());
            until(|| executable(waiting.pid()).is_some_and(|name| name.ends_with("/cat")));
            waiting
        }

        fn pid(&self) -> i32 {
            self.0.id().cast_signed()
        }
    }

    impl Drop for Waiting {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn until(mut true_now: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !true_now() {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_process_is_named_by_what_it_runs() {
        let other = Waiting::start();
        assert!(of(other.pid(), since_boot()).unwrap().ends_with("/cat"));
        for nobody in [0, -1, i32::MAX] {
            assert_eq!(of(nobody, since_boot()), None);
        }
    }

    /// As of another user's process, there is no path of one that has ended and waits to be reaped.
    #[test]
    fn without_a_path_its_name_is_in_brackets() {
        let mut other = Waiting::start();
        other.0.kill().unwrap();
        until(|| executable(other.pid()).as_deref() == Some("[cat]"));
    }

    #[test]
    fn a_process_that_is_younger_than_its_connection_is_another() {
        let before = since_boot();
        let tick = Duration::from_millis(20);
        until(|| since_boot() > before + tick); // what starts now starts in a later tick
        let other = Waiting::start();
        assert_eq!(of(other.pid(), before), None);
        assert!(of(other.pid(), since_boot()).is_some());
    }
}
