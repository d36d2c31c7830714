//! The agent's half of the socketpair: has a token program started, speaks with it, and ends it.

use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use token::TokenError;
use token::greeting::{self, GreetingError};
use token::link::{self, FromToken, ToToken};

use crate::launcher::{Running, TokenPrograms};
use crate::panics::contain;
use crate::sync::{lock, wait_while};
use token::Program;

/// A running token program.
#[derive(Debug)]
pub(super) struct TokenProcess {
    /// `None` once it was let go.
    program: Option<Running>,
    link: UnixStream,
}

/// How long a message may take to leave: requests are few and short and fit into the socket's buffer; a
/// thousand keys to open do not.
const SEND_LIMIT: Duration = Duration::from_secs(2);

/// A reader parses one message at a time, in bytes.
const SMALL_STACK: usize = 256 * 1024;

/// How long a token program may take to log out and close, a little more than it allows itself.
const CLOSE_DEADLINE: Duration = Duration::from_secs(3);

/// How long a killed program is waited for.
const KILL_LIMIT: Duration = Duration::from_secs(1);

/// So many messages of a token program are at hand for its worker at the most. Then they stay in the socket.
const UNREAD_LIMIT: usize = 16;

/// Messages of a token program that its worker has not taken.
#[derive(Debug, Default)]
struct Backlog {
    count: Mutex<usize>,
    taken: Condvar,
}

/// The place of a message among them, until drop.
#[derive(Debug)]
pub(super) struct Unread(Arc<Backlog>);

impl Backlog {
    /// Waits until there is room for a message.
    fn make_room(backlog: &Arc<Backlog>) -> Unread {
        let count = lock(&backlog.count);
        *wait_while(&backlog.taken, count, None, |count| *count >= UNREAD_LIMIT) += 1;
        Unread(Arc::clone(backlog))
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        *lock(&self.0.count) -= 1;
        self.0.taken.notify_one();
    }
}

impl TokenProcess {
    /// Starts `program`. Each of its answers goes to `events`, and `None` when it is gone.
    pub(super) fn start<E: Send + 'static>(
        programs: &TokenPrograms,
        program: Program,
        events: Sender<E>,
        event: impl Fn(Option<FromToken>, Unread) -> E + Send + 'static,
    ) -> Result<TokenProcess, TokenError> {
        let name = program.file_name();
        let (program, link) = programs.start(program).map_err(TokenError::Gone)?;
        let mut process = TokenProcess {
            program: Some(program),
            link,
        };
        greeting::expect(&mut process.link, name).map_err(not_ours)?;
        process.read_into(events, event).map_err(gone)?;
        Ok(process)
    }

    fn read_into<E: Send + 'static>(
        &self,
        events: Sender<E>,
        event: impl Fn(Option<FromToken>, Unread) -> E + Send + 'static,
    ) -> io::Result<()> {
        self.link.set_write_timeout(Some(SEND_LIMIT))?;
        let mut link = self.link.try_clone()?;
        let backlog = Arc::default();
        let read = move || loop {
            let unread = Backlog::make_room(&backlog);
            // A panic counts as the loss of the program.
            let answer = contain(|| link::next(&mut link).unwrap_or_default()).flatten();
            let last = answer.is_none();
            if events.send(event(answer, unread)).is_err() || last {
                return;
            }
        };
        std::thread::Builder::new()
            .name("token-reader".to_owned())
            .stack_size(SMALL_STACK)
            .spawn(read)?;
        Ok(())
    }

    /// Sends a message, whose answer comes to where [`start`](Self::start) was told.
    pub(super) fn send(&mut self, message: &ToToken) -> Result<(), TokenError> {
        link::send(&mut self.link, message).map_err(gone)
    }

    /// Lets the program log out and close, and waits for that.
    pub(super) fn close(mut self) {
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
pub(super) fn ended() -> TokenError {
    TokenError::Gone("the token program ended; its own words are in the log".to_owned())
}

/// The error of a program that does not answer.
pub(super) fn hung(limit: Duration) -> TokenError {
    TokenError::Hung(format!(
        "the token did not answer within {} s",
        limit.as_secs()
    ))
}

/// The error of a program that answers what it was not asked.
pub(super) fn nonsense() -> TokenError {
    TokenError::Broken("the token program's answer makes no sense".to_owned())
}

/// What becomes of the loss of a token program that tried a PIN for the first time.
pub(super) fn lost_while_trying(error: &TokenError) -> TokenError {
    TokenError::PinRejected(format!(
        "{error}, and that while the PIN was tried for the first time: whether it counted as a wrong one is \
         unknown, so it is not tried again; check the PIN and the token by hand, then: roleseal-admin pin retry \
         IDENTITY"
    ))
}

/// The error of a program that does not greet as one of this version does. Nothing was sent to it, and no PIN tried.
fn not_ours(error: GreetingError) -> TokenError {
    match error {
        GreetingError::Version { .. } => TokenError::Broken(format!(
            "{error}: the programs were upgraded; restart roleseal-agent"
        )),
        GreetingError::Unreadable { ref cause, .. } if cause.kind() == ErrorKind::UnexpectedEof => {
            ended()
        }
        GreetingError::Unreadable { .. } => TokenError::Broken(error.to_string()),
    }
}

fn gone(error: io::Error) -> TokenError {
    if error.kind() == ErrorKind::BrokenPipe {
        return ended();
    }
    TokenError::Gone(format!("the token program cannot be reached: {error}"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_program_that_is_not_heard_has_to_wait() {
        const COUNT: usize = 5 * UNREAD_LIMIT;
        let (link, mut program) = UnixStream::pair().unwrap();
        for _ in 0..COUNT {
            link::send(&mut program, &FromToken::Sessions(vec![])).unwrap();
        }
        drop(program);
        let process = TokenProcess {
            program: None,
            link,
        };
        let (events, inbox) = mpsc::channel();
        let most = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&most);
        let event = move |answer: Option<FromToken>, unread: Unread| {
            seen.fetch_max(*unread.0.count.lock().unwrap(), Ordering::Relaxed);
            (answer, unread)
        };
        process.read_into(events, event).unwrap();
        let held: Vec<_> = inbox.iter().take(UNREAD_LIMIT).collect();
        drop(held);
        let rest = inbox.iter().filter(|(answer, _)| answer.is_some()).count();
        assert_eq!(rest, COUNT - UNREAD_LIMIT);
        assert!(most.load(Ordering::Relaxed) <= UNREAD_LIMIT);
    }
}
