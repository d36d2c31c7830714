//! Ctrl-C and its kin: noted, and looked at between steps, so that everything started is also ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// How soon a signal, or an agent that died, is noticed while waiting.
const POLL: Duration = Duration::from_millis(100);

pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    pub(crate) fn install() -> Result<Interrupt> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Interrupt(flag))
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Ends a sequence of steps.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_set() {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Waits for a signal, as long as `alive` has no objection.
    pub(crate) fn wait_while(&self, mut alive: impl FnMut() -> Result<()>) -> Result<()> {
        while !self.is_set() {
            alive()?;
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}
