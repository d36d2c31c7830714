//! The agent's end of the socket to the launcher.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::net::{Shutdown, shutdown};

use super::message::{ANSWER_LIMIT, Answer, FromLauncher, LauncherRequest, Request, receive, send};
use crate::log;
use crate::panics::contain;
use crate::sync::{left, lock, wait_to_read};

/// The socket, and who waits for an answer at it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) socket: OwnedFd,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, SyncSender<Reply>>>,
    /// A thread reads the answers. Before that, whoever asks does, one at a time.
    watched: AtomicBool,
    reading: Mutex<()>,
    /// Its end is wanted.
    closing: AtomicBool,
}

/// An answer, and the descriptors that came with it.
pub(super) type Reply = (Answer, Vec<OwnedFd>);

impl Link {
    pub(super) fn new(socket: OwnedFd) -> Link {
        Link {
            socket,
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
            watched: AtomicBool::new(false),
            reading: Mutex::new(()),
            closing: AtomicBool::new(false),
        }
    }

    pub(super) fn ask(&self, ask: LauncherRequest, limit: Duration) -> Result<Reply, String> {
        let deadline = Instant::now() + limit;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = sync_channel(1);
        self.waiting().insert(number, sender);
        let sent = send(&self.socket, &Request { number, ask }, &[]);
        let reply = match sent {
            Err(error) => Err(format!("the launcher cannot be reached: {error}")),
            Ok(()) if self.watched.load(Ordering::Acquire) => answer
                .recv_timeout(left(deadline))
                .map_err(|error| format!("the launcher does not answer: {error}")),
            Ok(()) => self
                .read_until(&answer, deadline)
                .map_err(|error| format!("the launcher does not answer: {error}")),
        };
        self.waiting().remove(&number);
        reply
    }

    fn read_until(&self, answer: &Receiver<Reply>, deadline: Instant) -> io::Result<Reply> {
        let _turn = lock(&self.reading);
        loop {
            // Another that waited may have taken it in.
            if let Ok(reply) = answer.try_recv() {
                return Ok(reply);
            }
            if !wait_to_read(&self.socket, deadline)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if !self.take_in()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// From now on a thread reads: this one, with [`read_to_end`](Self::read_to_end).
    pub(super) fn watch(&self) {
        self.watched.store(true, Ordering::Release);
    }

    /// Reads until the launcher is gone. Says whether that was not wanted.
    pub(super) fn read_to_end(&self) -> bool {
        // One message lost is one request that fails by its deadline.
        while let None | Some(Ok(true)) = contain(|| self.take_in()) {}
        self.waiting().clear(); // nobody answers any more
        !self.closing.load(Ordering::Acquire)
    }

    /// Lets the launcher end.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        let _ = shutdown(&self.socket, Shutdown::Both); // it may be gone
    }

    /// Takes one message in; `false` when the launcher is gone. An answer that nobody waits for any more is
    /// dropped, and with its link a token program that was started too late.
    fn take_in(&self) -> io::Result<bool> {
        match receive(&self.socket, ANSWER_LIMIT, true)? {
            None => return Ok(false),
            Some((FromLauncher::Answer { number, answer }, descriptors)) => {
                if let Some(sender) = self.waiting().remove(&number) {
                    let _ = sender.send((answer, descriptors)); // it may just have given up
                }
            }
            Some((FromLauncher::Ended { pid, how }, _)) => {
                log::warn(&format!("token program {pid}: {how}"));
            }
        }
        Ok(true)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, SyncSender<Reply>>> {
        lock(&self.waiting)
    }
}
