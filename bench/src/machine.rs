//! Where it was measured.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use jiff::Timestamp;

/// One fact a line: name and value.
pub(crate) fn describe() -> Result<Vec<(&'static str, String)>> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = field(&cpus, "model name").unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism()?;
    let memory = fs::read_to_string("/proc/meminfo")?;
    let kib: f64 = field(&memory, "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .context("the kernel does not tell how much memory there is")?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    Ok(vec![
        (
            "date",
            Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        ),
        ("processor", format!("{model}, {cores} cores")),
        ("memory", format!("{:.0} GiB", kib / f64::from(1 << 20))),
        (
            "system",
            format!("{}, Linux {}", distribution(), kernel.trim_end()),
        ),
        (
            "load before",
            format!("{load} (other programs' work counts against these figures)"),
        ),
        ("roleseal", env!("CARGO_PKG_VERSION").to_owned()),
        ("SoftHSM", version("softhsm2-util", "--version")),
        ("swtpm", version("swtpm", "--version")),
    ])
}

/// The value behind `name :`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

fn distribution() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}

fn version(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    let line = text.lines().next().unwrap_or("?");
    let line = line.split(',').next().unwrap_or(line); // swtpm goes on with its authors
    line.trim_start_matches("TPM emulator version ").to_owned()
}
