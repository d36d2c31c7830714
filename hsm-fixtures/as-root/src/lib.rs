//! Runs the tests that need root by sudo, where the others run as an ordinary user.

use std::process::{Command, Output, Stdio};

/// Variables that a test may read; sudo drops all others.
const ENVIRONMENT: [&str; 4] = ["LANG", "PATH", "RUST_BACKTRACE", "TMPDIR"];

/// Repeats the calling test as root by `sudo -n`, and returns `true` once it has passed there; `false` if this is root.
///
/// It goes into the first line of a test: `if as_root::by_sudo!() { return; }`. Such a test is never skipped: it panics
/// where sudo refuses.
#[macro_export]
macro_rules! by_sudo {
    () => {{
        fn here() {}
        $crate::repeated(::std::any::type_name_of_val(&here))
    }};
}

/// What [`by_sudo!`] does, for the test around the function of that path.
///
/// # Panics
///
/// Where sudo refuses, and where the test fails.
#[must_use]
#[allow(clippy::panic, reason = "how a test fails")]
pub fn repeated(path: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return false;
    }
    // The crate, the modules, the test, the function in it.
    let name = path
        .split_once("::")
        .and_then(|(_, path)| path.rsplit_once("::"));
    let Some((name, _)) = name else {
        panic!("{path} is not in a test");
    };
    let output = as_root(name);
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\n', "\n  ");
    let (stdout, stderr) = (said(&output.stdout), said(&output.stderr));
    assert!(
        stdout.contains("running 1 test"),
        "cannot run {name} as root: {stderr}\nhint: `make test` has sudo ask for the password; or run the tests as root"
    );
    assert!(output.status.success(), "as root:\n  {stdout}\n  {stderr}");
    true
}

#[allow(clippy::panic, reason = "how a test fails")]
fn as_root(name: &str) -> Output {
    let program = std::env::current_exe();
    let program =
        program.unwrap_or_else(|error| panic!("cannot tell which program this is: {error}"));
    let set = |name| Some(format!("{name}={}", std::env::var(name).ok()?));
    let mut command = Command::new("sudo");
    command
        .args(["-n", "env"])
        .args(ENVIRONMENT.into_iter().filter_map(set))
        .arg(program)
        .args(["--exact", name, "--nocapture"])
        .stdin(Stdio::null());
    command
        .output()
        .unwrap_or_else(|error| panic!("cannot start sudo: {error}"))
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    #[test]
    fn a_test_is_run_by_root() {
        if crate::by_sudo!() {
            return;
        }
        assert!(rustix::process::geteuid().is_root());
    }

    #[test]
    fn a_test_that_is_not_there_does_not_pass() {
        let root = rustix::process::geteuid().is_root();
        let passed = catch_unwind(|| crate::repeated("crate::tests::absent::here"));
        assert_eq!(passed.is_ok_and(|by_sudo| !by_sudo), root);
    }
}
