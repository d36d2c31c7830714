//! What the kernel says of a process.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

/// Memory of a process, in KiB.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Memory {
    /// Resident.
    pub(crate) rss: u64,
    /// Resident, with what is shared divided by its users; `None` where only root may know.
    pub(crate) pss: Option<u64>,
}

/// `VmRSS` and `Pss`.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    Ok(Memory {
        rss: kib(&status, "VmRSS:").context("the kernel tells no VmRSS")?,
        pss: kib(&rollup, "Pss:"),
    })
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What a process has used of the processors, with those of its threads that have ended.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    ticks(&stat(&pid.to_string())?, 0)
}

/// What the children of this process have used that were waited for.
pub(crate) fn cpu_of_children() -> Result<Duration> {
    ticks(&stat("self")?, 2)
}

/// The fields behind the program's name, from `state` on: proc(5).
fn stat(pid: &str) -> Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = text.rsplit_once(") ").context("an odd /proc/PID/stat")?;
    Ok(fields.split(' ').map(str::to_owned).collect())
}

/// `utime` and `stime`, or `skip` fields further `cutime` and `cstime`.
fn ticks(stat: &[String], skip: usize) -> Result<Duration> {
    const UTIME: usize = 11;
    let fields = stat.iter().skip(UTIME + skip).take(2);
    let ticks: Vec<u64> = fields
        .map(|field| field.parse())
        .collect::<Result<_, _>>()?;
    ensure!(ticks.len() == 2, "an odd /proc/PID/stat");
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64(
        ticks.iter().sum::<u64>() as f64 / per_second as f64,
    ))
}

/// What `pid` has started, and what that has started: numbers and names.
pub(crate) fn descendants(pid: u32) -> Result<Vec<(u32, String)>> {
    let mut all = Vec::new();
    for child in children(pid)? {
        let name = fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
        all.push((child, name.trim_end().to_owned()));
        all.extend(descendants(child)?);
    }
    Ok(all)
}

fn children(pid: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(child) = entry?.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        // It may have ended meanwhile.
        let parent = stat(&child.to_string())
            .ok()
            .and_then(|stat| stat.get(1)?.parse().ok());
        if parent == Some(pid) {
            children.push(child);
        }
    }
    Ok(children)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_known() {
        let own = std::process::id();
        let memory = memory(own).unwrap();
        assert!((500..10_000_000).contains(&memory.rss));
        let before = cpu(own).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while cpu(own).unwrap() == before {
            assert!(std::time::Instant::now() < deadline);
        }
        let family = descendants(std::os::unix::process::parent_id()).unwrap();
        assert!(family.iter().any(|(pid, _)| *pid == own));
    }
}
