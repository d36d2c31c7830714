//! Files that other programs may have written, or may read meanwhile: bounded reads, whole replacements, new files,
//! locks and sockets; whose hand is in what.
//!
//! Names are opened in a directory that is held open: another directory that comes under its path changes nothing.

pub mod directory;
mod lock;
mod new_file;
mod place;
mod read;
mod socket;
pub mod trust;
mod walk;

pub use lock::{Lock, Unlocked};
pub use new_file::{NewFile, Storage, sweep};
pub use place::{Place, PlaceError};
pub use read::{open, read, read_to};
pub use socket::{BindError, bind};
