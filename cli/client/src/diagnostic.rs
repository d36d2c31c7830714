//! The shape of every error of a command: what failed, what to do, and the exit code.

use std::error::Error;
use std::sync::Arc;

use crate::exit::Exit;

/// An error of a command. `Display` says what failed, in one line.
pub trait Diagnostic: Error {
    /// Returns the exit code of a command that fails for this.
    fn exit(&self) -> Exit;

    /// Returns what to do, where that is known.
    fn hint(&self) -> Option<String> {
        None
    }

    /// Returns what failed, and the hint in a line of its own.
    fn report(&self) -> String {
        match self.hint() {
            Some(hint) => format!("{self}\nhint: {hint}"),
            None => self.to_string(),
        }
    }
}

impl<E: Diagnostic + ?Sized> Diagnostic for Arc<E> {
    fn exit(&self) -> Exit {
        (**self).exit()
    }

    fn hint(&self) -> Option<String> {
        (**self).hint()
    }
}

impl<'e, E: Diagnostic + 'e> From<E> for Box<dyn Diagnostic + 'e> {
    fn from(error: E) -> Self {
        Box::new(error)
    }
}
