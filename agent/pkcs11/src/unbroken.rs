//! What an operator's token program does not break off: a login, and changes on a token.
//!
//! Ctrl-C goes to every program at the terminal, and a service manager ends all processes of a unit. SoftHSM writes its
//! token anew at a login: a program that ends in the middle of it leaves an empty one, and all keys are lost.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::{flag, low_level};

/// Holds back the signals that end a program, until it is dropped. Not for the daemon's token program, which takes them
/// for the end of its link.
pub(crate) struct Unbroken(Option<&'static Signals>);

struct Signals {
    /// Whether a signal ends the program.
    by_default: Arc<AtomicBool>,
    /// The last one that was held back; 0 for none.
    arrived: Arc<AtomicUsize>,
}

static SIGNALS: OnceLock<Signals> = OnceLock::new();

impl Unbroken {
    pub(crate) fn begin() -> Unbroken {
        let signals = match SIGNALS.get() {
            Some(signals) => Some(signals),
            None => Signals::register()
                .ok()
                .map(|new| SIGNALS.get_or_init(|| new)),
        };
        if let Some(signals) = signals {
            signals.by_default.store(false, Ordering::SeqCst);
        }
        Unbroken(signals)
    }
}

impl Signals {
    fn register() -> io::Result<Signals> {
        let signals = Signals {
            by_default: Arc::new(AtomicBool::new(true)),
            arrived: Arc::default(),
        };
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
            flag::register_conditional_default(signal, Arc::clone(&signals.by_default))?;
            let number = usize::try_from(signal).unwrap_or_default();
            flag::register_usize(signal, Arc::clone(&signals.arrived), number)?;
        }
        Ok(signals)
    }
}

impl Drop for Unbroken {
    fn drop(&mut self) {
        let Some(signals) = self.0 else { return };
        signals.by_default.store(true, Ordering::SeqCst);
        if let Ok(signal @ 1..) = i32::try_from(signals.arrived.swap(0, Ordering::SeqCst)) {
            let _ = low_level::emulate_default_handler(signal); // does not return
        }
    }
}
