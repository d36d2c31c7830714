use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use hsm_fixtures::programs;
use serde_json::Value;

/// What a reader pastes: the blocks of shell commands of a page.
pub(crate) fn blocks(page: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(path.join(page)).unwrap();
    let blocks = text.split("```sh\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap().to_owned())
        .collect()
}

/// Ports that nobody has, one after the other: libtss2 looks for a TPM's control channel beside it.
fn free_ports(count: u16) -> u16 {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let next = |more| TcpListener::bind(("127.0.0.1", port + more));
        if (1..count).all(|more| next(more).is_ok()) {
            return port;
        }
    }
}

/// A page, what a reader waits for after each block that leaves a program running, and the ports, each with how many
/// there are from it on.
type Page<'a> = (&'a str, &'a [&'a str], &'a [(u16, u16)]);

/// Pastes the pages into one shell, in an empty directory, with our programs in front of the system's. Ports are
/// replaced: another test may have those of the page. Nothing stays behind. What was printed.
fn paste(pages: &[Page]) -> String {
    let home = tempfile::tempdir().unwrap();
    let clone = home.path().join("clone");
    fs::create_dir(&clone).unwrap();
    let mut script = String::from("set -eux -o pipefail\n");
    for (page, ready, _) in pages {
        let mut ready = ready.iter();
        for block in blocks(page) {
            script += &block;
            if block.lines().any(|line| line.ends_with(" &")) {
                let ready = ready.next().unwrap();
                script += &format!("timeout 60 bash -c 'until {ready}; do sleep 0.1; done'\n");
            }
        }
        assert_eq!(ready.next(), None);
    }
    let ports: BTreeSet<_> = pages.iter().flat_map(|(_, _, ports)| *ports).collect();
    for (first, count) in ports {
        let free = free_ports(*count);
        for more in 0..*count {
            let written = (first + more).to_string();
            assert!(script.contains(&written), "{written}");
            script = script.replace(&written, &(free + more).to_string());
        }
    }
    let own = programs::roleseal().unwrap();
    let path = format!("{}:/usr/bin:/bin", own.parent().unwrap().display());
    let log = home.path().join("log");
    let output = fs::File::create(&log).unwrap();
    let mut shell = Command::new("timeout"); // a process group of its own, which it ends as a whole
    shell
        .args(["--kill-after=5", "240", "bash", "-c"])
        .arg(format!(
            "trap 'kill $(jobs -p) || true; wait' EXIT\n{script}"
        ))
        .env_clear()
        .env("PATH", path)
        .env("HOME", home.path())
        .current_dir(&clone)
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output);
    let status = shell.status().unwrap();
    let log = fs::read_to_string(log).unwrap();
    let left: Vec<_> = fs::read_dir(&clone).unwrap().flatten().collect();
    let at = |name: &str| {
        let texts = left.iter().map(|left| left.path().join(name));
        texts.flat_map(fs::read_to_string).collect::<String>()
    };
    assert!(
        status.success(),
        "{status}:\n{log}\n{}\n{}",
        at("agent.log"),
        at("service.log")
    );
    assert!(left.is_empty(), "{left:?}");
    log
}

/// The answers of `credential-process` in what was printed.
fn sessions(log: &str) -> usize {
    let answers = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    answers
        .filter(|answer| {
            let id = answer["AccessKeyId"].as_str().unwrap_or_default();
            answer["Version"] == 1 && id.starts_with("ASIA")
        })
        .count()
}

const AGENT: &str = "roleseal identities --socket agent.sock";
const SERVICE: &str = "grep -q https: service.log";
const TPM: &str = "true < /dev/tcp/127.0.0.1/2322";

const ON_SOFTHSM: Page = (
    "docs/quickstart-softhsm.md",
    &[AGENT, SERVICE],
    &[(9443, 1)],
);
const ON_TPM: Page = (
    "docs/quickstart-tpm.md",
    &[TPM, AGENT, SERVICE],
    &[(9443, 1), (2321, 2)],
);

#[test]
fn from_a_blank_token_to_a_session() {
    let log = paste(&[ON_SOFTHSM]);
    assert_eq!(sessions(&log), 1, "{log}");
}

#[test]
fn from_a_blank_tpm_to_a_session() {
    let log = paste(&[ON_TPM]);
    assert_eq!(sessions(&log), 1, "{log}");
}

#[test]
fn one_after_the_other() {
    let log = paste(&[ON_SOFTHSM, ON_TPM]);
    assert_eq!(sessions(&log), 2, "{log}");
}
