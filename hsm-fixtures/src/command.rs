//! Runs the tools of other projects (softhsm2-util, pkcs11-tool, tpm2_create, curl) and turns a failure into one readable error.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A command whose environment holds PATH, a fixed locale and nothing else of ours.
///
/// A developer's or CI's environment may carry `AWS_CA_BUNDLE`, proxies, `SOFTHSM2_CONF`: none of it may reach a fixture.
pub(crate) fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LANG", "C.UTF-8");
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// Runs `command` to its end and returns its standard output.
///
/// # Errors
///
/// Where the program is missing (with the Debian package that has it) or fails (with its stderr).
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    output_with_input(command, &[])
}

/// Like [`output`], with `input` on the program's standard input, where secrets go that must not be in argv.
///
/// # Errors
///
/// As for [`output`].
pub fn output_with_input(command: &mut Command, input: &[u8]) -> Result<Vec<u8>> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| {
            format!(
                "cannot start {}{}",
                line(command),
                package_hint(command.get_program())
            )
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading its input is judged by its exit status, not by our broken pipe.
        let _ = stdin.write_all(input);
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("cannot wait for {}", line(command)))?;
    if !output.status.success() {
        bail!(
            "{} failed ({}):\n{}{}",
            line(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end(),
            String::from_utf8_lossy(&output.stdout).trim_end(),
        );
    }
    Ok(output.stdout)
}

fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Where Debian has a program; empty for one of which we do not know.
pub(crate) fn package_hint(program: &OsStr) -> String {
    let package = match Path::new(program).file_name().and_then(OsStr::to_str) {
        Some("softhsm2-util") => "softhsm2",
        Some("pkcs11-tool") => "opensc",
        Some("curl") => "curl",
        Some("swtpm") => "swtpm",
        Some("swtpm_ioctl") => "swtpm-tools",
        Some(name) if name.starts_with("tpm2_") => "tpm2-tools",
        _ => return String::new(),
    };
    format!(" (on Debian or Ubuntu: apt-get install {package})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_command_and_its_stderr() {
        let error = output(clean("sh").args(["-c", "echo out of paper >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("sh -c"), "{error}");
        assert!(
            error.contains("exit status: 3") && error.contains("out of paper"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_tool_names_its_package() {
        for (program, package) in [
            ("softhsm2-util", "softhsm2"),
            ("swtpm_ioctl", "swtpm-tools"),
            ("tpm2_create", "tpm2-tools"),
        ] {
            let error = output(&mut clean(format!("/nonexistent/{program}")))
                .unwrap_err()
                .to_string();
            let hint = format!("apt-get install {package})");
            assert!(error.contains(&hint), "{error}");
        }
    }

    #[test]
    fn input_reaches_the_program() {
        assert_eq!(
            output_with_input(&mut clean("cat"), b"secret").unwrap(),
            b"secret"
        );
    }
}
