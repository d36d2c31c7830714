//! The agent's half of the socketpair: has a token program started, speaks with it, and ends it.

use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Sender;
use std::time::Duration;

use token::link::{self, FromToken, KeyReport, Open, ToToken};
use token::{Signature, StringToSign, TokenError};

use crate::launcher::{Program, Running, TokenPrograms};

/// A running token program whose token is open.
#[derive(Debug)]
pub struct TokenProcess {
    /// `None` once it was let go.
    program: Option<Running>,
    link: UnixStream,
}

impl TokenProcess {
    /// Starts the program for `open` and opens the token within `limit`. The reports are of the keys of
    /// `open`, in that order. A program that is lost while it tries a PIN is an error that passes only if
    /// that PIN `is_good`: otherwise the try may have counted.
    pub fn start(
        programs: &TokenPrograms,
        open: Open,
        limit: Duration,
        is_good: bool,
    ) -> Result<(TokenProcess, Vec<KeyReport>), TokenError> {
        let program = match &open {
            Open::Pkcs11(_) => Program::Pkcs11,
            Open::Tpm(_) => Program::Tpm,
        };
        let (program, link) = programs.start(program).map_err(TokenError::Gone)?;
        let mut process = TokenProcess {
            program: Some(program),
            link,
        };
        let keys = open.key_count();
        let answer = match process.call(&ToToken::Open(open), limit)? {
            FromToken::TryingPin => process.answer(limit).map_err(|error| match is_good {
                true => error,
                false => lost_while_trying(error),
            })?,
            answer => answer,
        };
        match answer {
            FromToken::Opened(Ok(reports)) if reports.len() == keys => Ok((process, reports)),
            FromToken::Opened(Err(error)) => Err(error),
            _ => Err(nonsense()),
        }
    }

    /// Signs with key number `key` and waits for it. Only before [`read_into`](Self::read_into). The
    /// outer error means that the program is lost; the inner one is its answer.
    pub fn sign_and_wait(
        &mut self,
        key: usize,
        text: &StringToSign,
        limit: Duration,
    ) -> Result<Result<Signature, TokenError>, TokenError> {
        let message = ToToken::Sign {
            id: 0,
            key,
            text: text.to_string(),
        };
        match self.call(&message, limit)? {
            FromToken::Signed { id: 0, result } => Ok(result),
            _ => Err(nonsense()),
        }
    }

    /// Sends a request to sign; its answer comes by [`read_into`](Self::read_into).
    pub fn send(&mut self, message: &ToToken) -> Result<(), TokenError> {
        link::send(&mut self.link, message).map_err(gone)
    }

    /// From now on hands each answer to `events`, and `None` when the program is gone.
    pub fn read_into<E: Send + 'static>(
        &self,
        events: Sender<E>,
        event: impl Fn(Option<FromToken>) -> E + Send + 'static,
    ) -> Result<(), TokenError> {
        let mut link = self.link.try_clone().map_err(gone)?;
        link.set_read_timeout(None).map_err(gone)?;
        self.link
            .set_write_timeout(Some(SEND_LIMIT))
            .map_err(gone)?;
        let read = move || loop {
            let answer = link::receive(&mut link).unwrap_or_default();
            let last = answer.is_none();
            if events.send(event(answer)).is_err() || last {
                return;
            }
        };
        std::thread::Builder::new()
            .name("token-reader".to_owned())
            .stack_size(SMALL_STACK)
            .spawn(read)
            .map_err(gone)?;
        Ok(())
    }

    fn call(&mut self, message: &ToToken, limit: Duration) -> Result<FromToken, TokenError> {
        self.link.set_write_timeout(Some(limit)).map_err(gone)?;
        link::send(&mut self.link, message).map_err(|error| lost(error, limit))?;
        self.answer(limit)
    }

    fn answer(&mut self, limit: Duration) -> Result<FromToken, TokenError> {
        self.link.set_read_timeout(Some(limit)).map_err(gone)?;
        match link::receive(&mut self.link) {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(ended()),
            Err(error) => Err(lost(error, limit)),
        }
    }
}

/// Requests are few and short, and fit into the socket's buffer: this is never waited for.
const SEND_LIMIT: Duration = Duration::from_secs(1);

/// A reader parses one message at a time, in bytes.
const SMALL_STACK: usize = 256 * 1024;

/// How long a token program may take to log out and close, a little more than it allows itself.
const CLOSE_DEADLINE: Duration = Duration::from_secs(3);

/// How long a killed program is waited for.
const KILL_LIMIT: Duration = Duration::from_secs(1);

impl TokenProcess {
    /// Lets the program log out and close, and waits for that.
    pub fn close(mut self) {
        let _ = self.link.shutdown(Shutdown::Both);
        if let Some(program) = self.program.take() {
            program.wait(CLOSE_DEADLINE);
        }
    }
}

impl Drop for TokenProcess {
    /// Ends the program at once, and gives it a moment to be gone: some tokens take one program at a
    /// time. A reader of it stops, whoever else may hold the other end.
    fn drop(&mut self) {
        let _ = self.link.shutdown(Shutdown::Both);
        if let Some(program) = self.program.take() {
            program.kill();
            program.wait(KILL_LIMIT);
        }
    }
}

/// The error of a program that is no longer there.
pub fn ended() -> TokenError {
    TokenError::Gone("the token program ended; its own words are in the log".to_owned())
}

fn lost(error: io::Error, limit: Duration) -> TokenError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => TokenError::Hung(format!(
            "the token did not answer within {} s",
            limit.as_secs()
        )),
        _ => gone(error),
    }
}

/// What becomes of the loss of a token program that tried a PIN for the first time.
pub fn lost_while_trying(error: TokenError) -> TokenError {
    let (TokenError::Gone(lost) | TokenError::Hung(lost)) = error else {
        return error;
    };
    TokenError::PinRejected(format!(
        "{lost}, and that while the PIN was tried for the first time: whether it counted as a wrong one is \
         unknown, so it is not tried again; check the PIN and the token by hand, then restart the agent"
    ))
}

fn gone(error: io::Error) -> TokenError {
    TokenError::Gone(format!("the token program cannot be reached: {error}"))
}

fn nonsense() -> TokenError {
    TokenError::Broken("the token program's answer makes no sense".to_owned())
}
