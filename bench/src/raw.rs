//! The token alone: a process of our own that has it in its hands, and does nothing but sign.
//!
//! A process, since SoftHSM finds its tokens by an environment variable, which no thread may change.

pub(crate) mod pkcs11;
pub(crate) mod tpm;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// What is asked of the process, a line of JSON each.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Order {
    threads: usize,
    duration: Duration,
}

/// What came of it: how long each signature took.
#[derive(Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) times: Vec<Duration>,
    pub(crate) elapsed: Duration,
}

impl Run {
    pub(crate) fn per_second(&self) -> f64 {
        self.times.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// The running process; it ends with its standard input.
pub(crate) struct Raw {
    child: Child,
    orders: Option<ChildStdin>,
    runs: BufReader<ChildStdout>,
}

impl Raw {
    /// Starts `roleseal-bench raw-…`.
    pub(crate) fn start(mut command: Command) -> Result<Raw> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the loop around the token alone")?;
        let orders = child.stdin.take();
        let runs = child.stdout.take().context("no standard output")?;
        let runs = BufReader::new(runs);
        Ok(Raw {
            child,
            orders,
            runs,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Signs for that long, in that many threads.
    pub(crate) fn run(&mut self, threads: usize, duration: Duration) -> Result<Run> {
        let order = serde_json::to_string(&Order { threads, duration })?;
        let orders = self.orders.as_mut().context("it has ended")?;
        writeln!(orders, "{order}")?;
        let mut answer = String::new();
        self.runs.read_line(&mut answer)?;
        ensure!(
            !answer.is_empty(),
            "the loop around the token alone has ended"
        );
        Ok(serde_json::from_str(&answer)?)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.child.wait(); // what it returns helps nobody now
    }
}

/// Takes orders until there are no more. `signers` sign, one in a thread.
fn serve<S: FnMut() -> Result<()> + Send>(mut signers: Vec<S>) -> Result<()> {
    for line in std::io::stdin().lines() {
        let order: Order = serde_json::from_str(&line?)?;
        let run = sign_for(&mut signers, order)?;
        println!("{}", serde_json::to_string(&run)?);
    }
    Ok(())
}

fn sign_for<S: FnMut() -> Result<()> + Send>(signers: &mut [S], order: Order) -> Result<Run> {
    ensure!(
        order.threads <= signers.len(),
        "too many threads for the token"
    );
    let began = Instant::now();
    let until = began + order.duration;
    let times = std::thread::scope(|scope| {
        let signers = signers.iter_mut().take(order.threads);
        let threads: Vec<_> = signers
            .map(|sign| scope.spawn(move || sign_until(sign, until)))
            .collect();
        let mut times = Vec::new();
        for thread in threads {
            let own = thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread panicked"))?;
            times.extend(own?);
        }
        anyhow::Ok(times)
    })?;
    let elapsed = began.elapsed();
    Ok(Run { times, elapsed })
}

fn sign_until(mut sign: impl FnMut() -> Result<()>, until: Instant) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    let mut before = Instant::now();
    while before < until {
        sign()?;
        let now = Instant::now();
        times.push(now - before);
        before = now;
    }
    Ok(times)
}
