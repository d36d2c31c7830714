//! A token program as the agent runs it, with the agent's end of its link: included by the tests of each program.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use token::link::{self, FromToken, KeyReport, Open, Permission, ToToken};
use token::{PinKey, TokenError, greeting};

pub(crate) const ECDSA: &str = "AWS4-X509-ECDSA-SHA256\n20261123T120000Z\n20261123/eu-central-1/rolesanywhere/aws4_request\ne3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
pub(crate) const RSA: &str = "AWS4-X509-RSA-SHA256\n20261123T120000Z\n20261123/eu-central-1/rolesanywhere/aws4_request\ne3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A program that hangs fails the test; RSA-3072 on a busy swtpm takes a second.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A running token program; its end is awaited on drop.
pub(crate) struct Program {
    pub(crate) child: Child,
    link: Option<UnixStream>,
}

impl Program {
    pub(crate) fn spawn(mut command: Command) -> Program {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(TIMEOUT)).unwrap();
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
        let child = command.spawn().unwrap();
        drop(command); // with its end of the link
        greeting::expect(&mut ours, env!("CARGO_PKG_NAME")).unwrap();
        Program {
            child,
            link: Some(ours),
        }
    }

    pub(crate) fn link(&mut self) -> &mut UnixStream {
        self.link.as_mut().unwrap()
    }

    pub(crate) fn send(&mut self, message: &ToToken) {
        link::send(self.link(), message).unwrap();
    }

    pub(crate) fn send_open(&mut self, open: Open) {
        self.send(&ToToken::Open {
            open,
            pin_key: PinKey::random().unwrap(),
        });
    }

    /// Asks for a signature without waiting for it.
    pub(crate) fn ask(&mut self, id: u64, key: usize, text: &str) {
        let text = text.to_owned();
        self.send(&ToToken::Sign { id, key, text });
    }

    pub(crate) fn receive_any(&mut self) -> FromToken {
        let message = link::receive(self.link()).unwrap();
        message.expect("the token program ended")
    }

    /// The next answer.
    pub(crate) fn receive(&mut self) -> FromToken {
        loop {
            match self.receive_any() {
                FromToken::Sessions(_) => {}
                FromToken::AwaitingTurn { .. } => self.send(&ToToken::YourTurn),
                FromToken::HasPin { .. } => self.send(&ToToken::Pin(Permission::Try)),
                answer => return answer,
            }
        }
    }

    pub(crate) fn reports(&mut self, open: Open) -> Result<Vec<KeyReport>, TokenError> {
        self.send_open(open);
        match self.receive() {
            FromToken::Opened(reports) => reports,
            other => panic!("not an answer: {other:?}"),
        }
    }

    pub(crate) fn sign(&mut self, key: usize, text: &str) -> Result<Vec<u8>, TokenError> {
        self.ask(7, key, text);
        match self.receive() {
            FromToken::Signed { id: 7, result } => result.map(|signature| signature.0),
            other => panic!("not an answer: {other:?}"),
        }
    }

    /// Ends it as the agent does, and as the agent's crash does: the link closes.
    pub(crate) fn end(mut self) -> ExitStatus {
        self.close()
    }

    fn close(&mut self) -> ExitStatus {
        self.link = None;
        self.child.wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.close();
    }
}

/// Why a key or a token cannot be used, whatever comes.
pub(crate) fn unusable<T>(result: &Result<T, TokenError>) -> &str {
    match result {
        Err(TokenError::Unusable(text)) => text,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it is usable"),
    }
}
