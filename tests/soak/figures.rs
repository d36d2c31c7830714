use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hsm_fixtures::Agent;

/// What came of a soak.
#[derive(Default)]
pub(crate) struct Figures {
    signed: AtomicU64,
    refused: Mutex<BTreeMap<String, u64>>,
    done: Mutex<BTreeMap<&'static str, u64>>,
    longest: Mutex<Duration>,
    /// What must not be.
    faults: Mutex<Vec<String>>,
    failed: AtomicBool,
    /// Signatures without a line in the log.
    lost: Mutex<u64>,
    /// Lines about a hostile user.
    hostile_lines: Mutex<u64>,
    samples: Mutex<Vec<Sample>>,
}

/// The agent at one moment.
struct Sample {
    /// VmRSS, in KiB.
    memory: u64,
    descriptors: u64,
    threads: u64,
}

/// The agent answers within 25 s, and this machine is busy.
const LATEST: Duration = Duration::from_secs(30);

/// What the memory may grow by between the second fifth and the last, in KiB: malloc's arenas settle.
const GROWTH: u64 = 2048;

impl Figures {
    pub(crate) fn signed(&self) {
        self.signed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self, name: &str) {
        *self
            .refused
            .lock()
            .unwrap()
            .entry(name.to_owned())
            .or_default() += 1;
    }

    /// Something was done to the agent.
    pub(crate) fn did(&self, what: &'static str) {
        *self.done.lock().unwrap().entry(what).or_default() += 1;
    }

    pub(crate) fn took(&self, time: Duration) {
        let mut longest = self.longest.lock().unwrap();
        *longest = time.max(*longest);
        drop(longest);
        if time > LATEST {
            self.fault(format!("an answer took {time:?}"));
        }
    }

    pub(crate) fn fault(&self, what: String) {
        println!("soak: {what}");
        self.faults.lock().unwrap().push(what);
        self.failed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub(crate) fn measure(&self, agent: &Agent) {
        let process = format!("/proc/{}", agent.process().id());
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap_or_default();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        };
        let (Some(memory), Some(threads)) = (number("VmRSS:"), number("Threads:")) else {
            return self.fault("the agent is gone".to_owned());
        };
        let descriptors =
            std::fs::read_dir(format!("{process}/fd")).map_or(0, Iterator::count) as u64;
        self.samples.lock().unwrap().push(Sample {
            memory,
            descriptors,
            threads,
        });
    }

    /// Judges the whole log of an agent that has ended, after it signed so often: each signature has its line, and hostile
    /// users have a few lines a second.
    pub(crate) fn read_log(&self, log: &str, signatures: u64, length: Duration) {
        let begin = |line: &str, word: &str| {
            let text = line.split_once("Z ").map_or(line, |(_, text)| text);
            text.starts_with(word)
        };
        let count = |words: &[&str]| {
            let found = |line: &&str| words.iter().any(|word| begin(line, word));
            let strangers = |line: &&str| words[0] == "signed " || line.contains(" uid=4000001 ");
            let lines = log.lines().filter(found).filter(strangers);
            lines.count() as u64
        };
        let signed = count(&["signed "]);
        *self.lost.lock().unwrap() = signatures.abs_diff(signed);
        if signed != signatures {
            self.fault(format!(
                "{signatures} signatures have {signed} lines in the log"
            ));
        }
        let lines = count(&["refused ", "repeated ", "connection_refused "]);
        *self.hostile_lines.lock().unwrap() = lines;
        if lines > 8 + 2 * (length.as_secs() + 60) {
            self.fault(format!("a hostile user has {lines} lines in the log"));
        }
    }

    pub(crate) fn line(&self) -> String {
        let refused: u64 = self.refused.lock().unwrap().values().sum();
        let samples = self.samples.lock().unwrap();
        let now = samples.last().map_or(0, |sample| sample.memory);
        let signed = self.signed.load(Ordering::Relaxed);
        format!("{signed} signed, {refused} refused, the agent has {now} KiB")
    }

    pub(crate) fn rows(&self) -> Vec<(String, String)> {
        let mut rows = vec![
            (
                "signed and verified".to_owned(),
                self.signed.load(Ordering::Relaxed).to_string(),
            ),
            (
                "wrong signatures, late answers, other faults".to_owned(),
                self.faults.lock().unwrap().len().to_string(),
            ),
            (
                "longest answer".to_owned(),
                format!("{:.1} s", self.longest.lock().unwrap().as_secs_f64()),
            ),
        ];
        for (name, count) in [
            ("signatures without a line in the log", &self.lost),
            ("lines in the log about a hostile user", &self.hostile_lines),
        ] {
            rows.push((name.to_owned(), count.lock().unwrap().to_string()));
        }
        for (name, count) in &*self.refused.lock().unwrap() {
            rows.push((format!("refused: `{name}`"), count.to_string()));
        }
        for (what, count) in &*self.done.lock().unwrap() {
            rows.push(((*what).to_owned(), count.to_string()));
        }
        for (name, (first, last)) in [
            (
                "memory of the agent (RSS), KiB",
                self.fifths(|sample| sample.memory),
            ),
            ("its descriptors", self.fifths(|sample| sample.descriptors)),
            ("its threads", self.fifths(|sample| sample.threads)),
        ] {
            rows.push((
                format!("{name}, median of the second fifth and of the last"),
                format!("{first}, {last}"),
            ));
        }
        rows
    }

    /// The medians of the second fifth, when all has been used once, and of the last.
    fn fifths(&self, value: fn(&Sample) -> u64) -> (u64, u64) {
        let samples = self.samples.lock().unwrap();
        let fifth = (samples.len() / 5).max(1);
        let median = |part: &[Sample]| {
            let mut values: Vec<u64> = part.iter().map(value).collect();
            values.sort_unstable();
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        let mut parts = samples.chunks(fifth);
        let early = parts.nth(1).map(median).unwrap_or_default();
        (early, median(&samples[samples.len() - fifth..]))
    }

    /// Fails on what must not be.
    pub(crate) fn check(&self) {
        let faults = self.faults.lock().unwrap();
        assert!(faults.is_empty(), "{faults:#?}");
        let (early, late) = self.fifths(|sample| sample.memory);
        assert!(
            late <= early + GROWTH,
            "memory grew from {early} to {late} KiB"
        );
        let (early, late) = self.fifths(|sample| sample.descriptors);
        assert!(
            late <= early + 20,
            "descriptors grew from {early} to {late}"
        );
        assert!(self.signed.load(Ordering::Relaxed) > 0);
    }
}
