//! A PIN from a person: at the terminal without echo, or by systemd's password agents.

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};

use rustix::process::{Signal, kill_current_process_group};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::read_all::read_all;

/// The terminal, with echo and signals off until it is dropped: a Ctrl-C must not leave it so.
struct Silent {
    terminal: File,
    before: Termios,
}

impl Silent {
    fn open() -> io::Result<Silent> {
        let terminal = File::options().read(true).write(true).open("/dev/tty")?;
        let before = tcgetattr(&terminal)?;
        let mut silent = before.clone();
        silent
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
        Ok(Silent { terminal, before })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before); // it may have hung up
    }
}

/// Asks at the terminal of this process. Writes what is typed into `buffer`, and says how long it is.
pub(super) fn at_terminal(question: &str, buffer: &mut [u8]) -> io::Result<usize> {
    let mut silent = Silent::open()?;
    write!(silent.terminal, "{question}: ")?;
    let typed = type_into(&silent.terminal, buffer);
    writeln!(silent.terminal)?;
    drop(silent);
    if typed.as_ref().is_err_and(is_interrupt) {
        // What the terminal would have done, had it not been silent: the whole command ends.
        kill_current_process_group(Signal::INT)?;
    }
    typed
}

fn is_interrupt(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted
}

/// A line, with the keys that a terminal's own line editing has. Read to its end whatever is wrong with it: what
/// is typed after that would be shown.
fn type_into(mut keys: impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    const INTERRUPT: u8 = 0x03;
    const END: u8 = 0x04;
    const BACKSPACE: u8 = 0x08;
    const KILL: u8 = 0x15;
    const WORD: u8 = 0x17;
    const DELETE: u8 = 0x7f;
    let mut length = 0;
    let mut fault = None;
    loop {
        let mut key = [0];
        let [key] = match keys.read(&mut key) {
            Ok(0) => [END],
            Ok(_) => key,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        match key {
            b'\n' | b'\r' => return fault.map_or(Ok(length), |fault| Err(io::Error::other(fault))),
            INTERRUPT => {
                return Err(io::Error::new(
                    io::ErrorKind::Interrupted,
                    "no PIN was given",
                ));
            }
            END => return Err(io::Error::other("no PIN was given")),
            BACKSPACE | DELETE => {
                // A character of UTF-8, and not its last byte alone.
                while length > 0 {
                    length -= 1;
                    if buffer.get(length).is_none_or(|byte| byte & 0xc0 != 0x80) {
                        break;
                    }
                }
            }
            KILL | WORD => (length, fault) = (0, None),
            // An arrow, Ctrl-Z: nobody sees that it became part of the PIN, which costs a try.
            key if key.is_ascii_control() => {
                fault = Some("a key was pressed that is no character, and no PIN was tried");
            }
            key => match buffer.get_mut(length) {
                Some(place) => {
                    *place = key;
                    length += 1;
                }
                None => fault = fault.or(Some("it is too long for a PIN")),
            },
        }
    }
}

/// As long as a command waits for a person: whatever ends the command before, nobody is asked for ever.
const TIMEOUT: &str = "--timeout=600";

/// Asks by `systemd-ask-password`: at the console, at a desktop, or wherever an agent of systemd's is. Writes
/// its output into `buffer`, and says how long it is.
pub(super) fn by_systemd(question: &str, buffer: &mut [u8]) -> io::Result<usize> {
    let mut asking = Command::new("systemd-ask-password")
        .args([TIMEOUT, "--icon=drive-harddisk", "--id=roleseal"])
        .arg(format!("{question}:"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| {
            io::Error::other(format!("systemd-ask-password cannot be run: {error}"))
        })?;
    let answer = match asking.stdout.take() {
        Some(output) => read_all(output, buffer),
        None => Err(io::ErrorKind::BrokenPipe.into()),
    };
    match asking.wait()? {
        status if status.success() => answer,
        status => Err(io::Error::other(format!("systemd-ask-password: {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8]) -> Result<String, String> {
        let mut buffer = [0; 8];
        let length = type_into(keys, &mut buffer).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    #[test]
    fn a_line_can_be_corrected() {
        for (keys, expected) in [
            (&b"1234\n"[..], "1234"),
            (b"1234\r56", "1234"),
            (b"123\x7f4\n", "124"),
            (b"123\x08\x08\x08\x08\x084\n", "4"),
            (b"123\x154\n", "4"),
            (b"123\x174\n", "4"),
            ("1é\u{7f}2\n".as_bytes(), "12"),
            (b"12345678\n", "12345678"),
            (b"12\x1b[D34\x1534\n", "34"),
        ] {
            assert_eq!(typed(keys).as_deref(), Ok(expected), "{keys:?}");
        }
        for (keys, expected) in [
            (&b"12\x03"[..], "no PIN"),
            (b"\x04", "no PIN"),
            (b"12", "no PIN"),
            (b"123456789\n", "too long"),
            (b"\x1b[D1234\n", "no character"),
            (b"12\x1a34\n", "no character"),
            (b"12\t34\n", "no character"),
        ] {
            let error = typed(keys).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_is_typed_after_a_fault_is_read_as_silently() {
        for mut keys in [&b"12\x1b[D345678\nls\n"[..], b"123456789\nls\n"] {
            type_into(&mut keys, &mut [0; 8]).unwrap_err();
            assert_eq!(keys, b"ls\n");
        }
    }
}
