//! Frames over a Unix stream socket: a frame ends with a NUL byte. Every frame has a limit
//! ([`MESSAGE_LIMIT`], [`REPLY_LIMIT`]), every wait a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use thiserror::Error;

/// The longest message that the agent accepts, in bytes, with its NUL. A signed request has less than 4 KiB.
pub const MESSAGE_LIMIT: usize = 64 * 1024;

/// The longest message that a client accepts, in bytes, with its NUL: a leaf and five intermediates of 16 KiB each take
/// 128 KiB in base64.
pub const REPLY_LIMIT: usize = 192 * 1024;

/// A Unix stream socket that carries frames.
#[derive(Debug)]
pub struct Transport {
    stream: Arc<UnixStream>,
    /// The longest frame that is accepted, in bytes, with its NUL.
    limit: usize,
    /// What arrived and was not yet handed out: part of a frame, or the frames after it.
    received: Vec<u8>,
}

/// Tells whether the peer is still there, while somebody else works for it.
#[derive(Debug, Clone)]
pub struct Presence(Arc<UnixStream>);

/// Why no frame could be received or sent. After any of these the connection is of no more use, except after `Idle`
/// and a `Stalled` receipt: the next one continues.
#[derive(Debug, Error)]
pub enum TransportError {
    /// The peer closed the connection within a frame.
    #[error("the connection was closed in the middle of a message")]
    Cut,
    /// A frame longer than the limit.
    #[error("a message of more than {0} bytes")]
    TooLarge(usize),
    /// Nothing arrived until the deadline.
    #[error("nothing arrived in time")]
    Idle,
    /// A frame began, and its end did not arrive until the deadline; or the peer does not read.
    #[error("a message was not finished in time")]
    Stalled,
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Transport {
    /// Takes over the agent's end of a connection: frames of up to [`MESSAGE_LIMIT`] arrive.
    pub fn new(stream: UnixStream) -> Transport {
        Transport::with_limit(stream, MESSAGE_LIMIT)
    }

    /// Takes over the client's end of a connection: frames of up to [`REPLY_LIMIT`] arrive.
    pub fn of_client(stream: UnixStream) -> Transport {
        Transport::with_limit(stream, REPLY_LIMIT)
    }

    fn with_limit(stream: UnixStream, limit: usize) -> Transport {
        Transport {
            stream: Arc::new(stream),
            limit,
            received: Vec::new(),
        }
    }

    /// To ask whether the peer is still there.
    pub fn presence(&self) -> Presence {
        Presence(Arc::clone(&self.stream))
    }

    /// The next frame, without its NUL; `None` when the peer closed the connection between frames.
    /// It must begin within `idle`, and end within `whole` after that.
    pub fn receive(
        &mut self,
        idle: Duration,
        whole: Duration,
    ) -> Result<Option<Vec<u8>>, TransportError> {
        let mut deadline = Instant::now()
            + if self.received.is_empty() {
                idle
            } else {
                whole
            };
        let mut searched = 0;
        loop {
            let unsearched = self.received.get(searched..).unwrap_or_default();
            if let Some(at) = unsearched.iter().position(|byte| *byte == 0) {
                return self.cut_frame(searched + at).map(Some);
            }
            searched = self.received.len();
            if searched >= self.limit {
                return Err(TransportError::TooLarge(self.limit));
            }
            let began = searched > 0;
            match self.read_some(deadline) {
                Ok(0) if began => return Err(TransportError::Cut),
                Ok(0) => return Ok(None),
                Ok(_) if !began => deadline = Instant::now() + whole,
                Ok(_) => {}
                Err(TransportError::Stalled) if !began => return Err(TransportError::Idle),
                Err(error) => return Err(error),
            }
        }
    }

    /// The longest frame that the peer accepts.
    fn peer_limit(&self) -> usize {
        match self.limit {
            MESSAGE_LIMIT => REPLY_LIMIT,
            _ => MESSAGE_LIMIT,
        }
    }

    /// Takes the frame that ends before the NUL at `end` out of what was received.
    fn cut_frame(&mut self, end: usize) -> Result<Vec<u8>, TransportError> {
        if end >= self.limit {
            return Err(TransportError::TooLarge(self.limit));
        }
        let rest = self.received.split_off(end + 1);
        let mut frame = std::mem::replace(&mut self.received, rest);
        frame.pop();
        Ok(frame)
    }

    fn read_some(&mut self, deadline: Instant) -> Result<usize, TransportError> {
        // Small, so that a thousand idle connections' stacks stay small; a signed request fits in one.
        let mut chunk = [0; 4096];
        let count = within(deadline, |left| {
            // Not in a read with a time-out: the kernel wakes whoever waits there each time that the peer has
            // read something of ours.
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(
                &mut [PollFd::new(&*self.stream, PollFlags::IN)],
                Some(&timeout),
            )? {
                0 => Err(ErrorKind::TimedOut.into()),
                _ => (&*self.stream).read(&mut chunk),
            }
        })?;
        self.received
            .extend_from_slice(chunk.get(..count).unwrap_or_default());
        Ok(count)
    }

    /// Sends one frame, its NUL added, within `whole`.
    pub fn send(&mut self, mut frame: Vec<u8>, whole: Duration) -> Result<(), TransportError> {
        let limit = self.peer_limit();
        if frame.len() >= limit {
            return Err(TransportError::TooLarge(limit));
        }
        frame.push(0);
        let deadline = Instant::now() + whole;
        let mut unsent = frame.as_slice();
        while !unsent.is_empty() {
            let count = within(deadline, |left| {
                self.stream.set_write_timeout(Some(left))?;
                (&*self.stream).write(unsent)
            })?;
            unsent = unsent.get(count..).unwrap_or_default();
        }
        Ok(())
    }
}

impl Presence {
    /// Whether the peer has closed its end for reading, too: nothing would reach it. One that has only ended
    /// its own writing is still there.
    pub fn is_gone(&self) -> bool {
        let mut events = [PollFd::new(&*self.0, PollFlags::empty())];
        poll(&mut events, Some(&Timespec::default())).is_ok_and(|count| count > 0)
            && events
                .iter()
                .any(|event| event.revents().contains(PollFlags::HUP))
    }
}

/// To wait until something arrives.
impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Runs one read or write, again when a signal interrupts it, until `deadline`.
fn within(
    deadline: Instant,
    mut run: impl FnMut(Duration) -> io::Result<usize>,
) -> Result<usize, TransportError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(TransportError::Stalled);
        }
        match run(left) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(TransportError::Stalled);
            }
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(10);

    fn pair() -> (UnixStream, Transport) {
        let (peer, ours) = UnixStream::pair().unwrap();
        (peer, Transport::new(ours))
    }

    #[test]
    fn frames_come_out_as_they_went_in() {
        let (peer, mut receiver) = pair();
        let mut sender = Transport::new(peer);
        sender.send(b"one".to_vec(), LONG).unwrap();
        sender.send(b"two".to_vec(), LONG).unwrap();
        sender.send(vec![7; 30_000], LONG).unwrap();
        drop(sender);
        assert_eq!(receiver.receive(LONG, LONG).unwrap().unwrap(), b"one");
        assert_eq!(receiver.receive(LONG, LONG).unwrap().unwrap(), b"two");
        assert_eq!(
            receiver.receive(LONG, LONG).unwrap().unwrap(),
            vec![7; 30_000]
        );
        assert_eq!(receiver.receive(LONG, LONG).unwrap(), None);
    }

    #[test]
    fn the_limit_counts_the_nul() {
        for (length, of_client, fits) in [
            (MESSAGE_LIMIT - 1, false, true),
            (MESSAGE_LIMIT, false, false),
            (REPLY_LIMIT - 1, true, true),
            (REPLY_LIMIT, true, false),
        ] {
            let (mut peer, ours) = UnixStream::pair().unwrap();
            let mut receiver = match of_client {
                true => Transport::of_client(ours),
                false => Transport::new(ours),
            };
            let writer = std::thread::spawn(move || {
                let mut bytes = vec![b'x'; length];
                bytes.push(0);
                let _ = peer.write_all(&bytes); // refused half-way where it does not fit
            });
            match receiver.receive(LONG, LONG) {
                Ok(Some(frame)) => assert!(fits && frame.len() == length),
                Err(TransportError::TooLarge(_)) => assert!(!fits),
                other => panic!("{other:?}"),
            }
            drop(receiver);
            writer.join().unwrap();
        }
    }

    #[test]
    fn neither_end_sends_more_than_the_other_accepts() {
        let (client, agent) = UnixStream::pair().unwrap();
        let (mut client, mut agent) = (Transport::of_client(client), Transport::new(agent));
        let too_large = |result| matches!(result, Err(TransportError::TooLarge(_)));
        assert!(too_large(client.send(vec![1; MESSAGE_LIMIT], LONG)));
        assert!(too_large(agent.send(vec![1; REPLY_LIMIT], LONG)));
        let reply = vec![1; REPLY_LIMIT - 1];
        let expected = reply.clone();
        let sender = std::thread::spawn(move || agent.send(reply, LONG));
        assert_eq!(client.receive(LONG, LONG).unwrap(), Some(expected));
        sender.join().unwrap().unwrap();
    }

    #[test]
    fn silence_half_a_frame_and_a_cut_differ() {
        let (mut peer, mut receiver) = pair();
        assert!(matches!(
            receiver.receive(SOON, LONG),
            Err(TransportError::Idle)
        ));
        peer.write_all(b"half").unwrap();
        assert!(matches!(
            receiver.receive(LONG, SOON),
            Err(TransportError::Stalled)
        ));
        peer.write_all(b"-way\0ha").unwrap();
        let whole = receiver.receive(SOON, LONG).unwrap();
        assert_eq!(whole.unwrap(), b"half-way");
        drop(peer);
        assert!(matches!(
            receiver.receive(LONG, LONG),
            Err(TransportError::Cut)
        ));
    }

    #[test]
    fn a_peer_that_does_not_read_is_given_up() {
        let (_peer, mut sender) = pair();
        let error = loop {
            if let Err(error) = sender.send(vec![1; 60_000], SOON) {
                break error;
            }
        };
        assert!(matches!(error, TransportError::Stalled));
    }

    #[test]
    fn a_peer_that_only_stops_writing_is_still_there() {
        let (peer, transport) = pair();
        let presence = transport.presence();
        assert!(!presence.is_gone());
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(!presence.is_gone());
        drop(peer);
        assert!(presence.is_gone());
    }
}
