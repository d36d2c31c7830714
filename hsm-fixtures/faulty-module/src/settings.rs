//! The environment.

use std::path::PathBuf;
use std::sync::OnceLock;

/// Names the variable with the path of the real module.
pub const TARGET: &str = "FAULTY_MODULE_TARGET";
/// Names the variable with the path of the control file.
pub const CONTROL: &str = "FAULTY_MODULE_CONTROL";
/// Names the variable with the path of the file that counts the calls.
pub const CALLS: &str = "FAULTY_MODULE_CALLS";

/// What the environment says.
pub(crate) struct Settings {
    pub(crate) target: Option<PathBuf>,
    pub(crate) control: Option<PathBuf>,
    pub(crate) calls: Option<PathBuf>,
}

/// This process's.
pub(crate) fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    let path = |name| std::env::var_os(name).map(PathBuf::from);
    SETTINGS.get_or_init(|| Settings {
        target: path(TARGET),
        control: path(CONTROL),
        calls: path(CALLS),
    })
}

/// Ends the process: a fixture that cannot do what it was told to must not look like one that did.
pub(crate) fn give_up(why: &str) -> ! {
    eprintln!("faulty-module: {why}");
    std::process::abort()
}
