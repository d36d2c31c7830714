//! What an operator's token program does not break off: a login, and changes on a token.
//!
//! SoftHSM writes its token anew at a login: a program that ends in the middle of it leaves an empty one, and all keys
//! are lost.

use signal_hook::low_level::emulate_default_handler;
use token::signals::{Held, Signals};

/// Holds back the signals that end a program; dropped, it obeys one that has arrived.
pub(crate) struct Unbroken(Option<Held>);

impl Unbroken {
    pub(crate) fn begin() -> Unbroken {
        let signals = Signals::of_process().ok();
        Unbroken(signals.map(Signals::hold))
    }
}

impl Drop for Unbroken {
    fn drop(&mut self) {
        if self.0.take().is_some()
            && let Some(signal) = Signals::of_process().ok().and_then(Signals::arrived)
        {
            let _ = emulate_default_handler(signal); // does not return
        }
    }
}
