//! systemd's socket or our own: accepts connections, waits for what arrives on them, and gives each one a thread
//! for as long as its client asks for something.

mod waiting;

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use listenfd::ListenFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wire::{Refusal, Reply, Transport, codec};

use crate::connection::{Connection, Next};
use crate::log::{self, Level};
use crate::metrics::OpenConnection;
use crate::panics::contain;
use crate::peer::Peer;
use crate::state::Agent;
use crate::unix_socket::{ListenError, bind_at};
use config::Limits;
use waiting::{Event, Waiting};

/// Where clients connect.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    /// Ends the accepting, when its other end is shut down.
    stop: (UnixStream, UnixStream),
    /// The path to remove at the end, where it is ours.
    path: Option<PathBuf>,
    /// All of these, and the clients that are silent.
    waiting: Arc<Waiting<Open>>,
}

/// A connection's thread: P-521 verification in a debug build takes most of it.
const STACK: usize = 512 * 1024;

/// What is waited for beside the connections: a client that connects, and the end of it.
const CLIENT: u64 = 0;
const STOP: u64 = 1;

/// After the system has refused what it will not refuse for ever.
const PAUSE: Duration = Duration::from_millis(100);

impl Listener {
    /// Takes systemd's socket, or else binds `path`. `others` lets other users connect; whom the agent
    /// serves is the policy's decision all the same.
    pub fn bind(path: &Path, others: bool) -> Result<Listener, ListenError> {
        let passed = ListenFd::from_env()
            .take_unix_listener(0)
            .map_err(ListenError::Activation)?;
        let io = |error| ListenError::Io(path.to_owned(), error);
        let (socket, path) = match passed {
            Some(socket) => (socket, None),
            None => {
                let mode = if others { 0o666 } else { 0o600 };
                (bind_at(path, mode)?, Some(path.to_owned()))
            }
        };
        let stop = UnixStream::pair().map_err(io)?;
        let waiting = Waiting::new().map_err(io)?;
        waiting.watch(&socket, CLIENT).map_err(io)?;
        waiting.watch(&stop.0, STOP).map_err(io)?;
        Ok(Listener {
            socket,
            stop,
            path,
            waiting: Arc::new(waiting),
        })
    }

    /// Where it listens, for the log.
    pub fn address(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => "the socket from systemd".to_owned(),
        }
    }

    /// The path of its socket, where it is ours.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Serves for ever; after [`stop`](Self::stop), those who are connected already.
    pub fn run(&self, agent: &Arc<Agent>) {
        let connections = Arc::new(Mutex::new(HashMap::new()));
        let mut failing = false;
        loop {
            let events = self.waiting.wait().unwrap_or_else(|error| {
                log::warn(&format!("cannot wait for clients: {error}"));
                std::thread::sleep(PAUSE);
                Vec::new()
            });
            for event in events {
                // The client concerned is dropped; the others are served.
                contain(|| match event {
                    Event::Ready(open) => serve(open, agent, &self.waiting),
                    Event::Watched(CLIENT) => self.accept(agent, &connections, &mut failing),
                    Event::Watched(_) => {
                        self.waiting.forget(&self.socket);
                        self.waiting.forget(&self.stop.0);
                    }
                });
            }
        }
    }

    fn accept(&self, agent: &Arc<Agent>, connections: &Connections, failing: &mut bool) {
        match self.socket.accept() {
            Ok((stream, _)) => {
                *failing = false;
                admit(stream, agent, connections, &self.waiting);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                if !*failing {
                    log::warn(&format!("cannot accept connections: {error}"));
                }
                *failing = true;
                // Out of descriptors, most likely: connections that end give some back.
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Takes no more clients, and removes the socket, if it is ours, so that they see at once that nobody is
    /// there. At systemd's they wait for the next agent.
    pub fn stop(&self) {
        let _ = self.stop.1.shutdown(Shutdown::Both); // it cannot fail but by being so already
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path); // somebody else may have done it
        }
    }
}

/// A connection that is open: with a thread, or waiting.
#[derive(Debug)]
struct Open {
    connection: Connection,
    _permit: Permit,
    _counted: OpenConnection,
}

impl AsFd for Open {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

fn admit(
    stream: UnixStream,
    agent: &Arc<Agent>,
    connections: &Connections,
    waiting: &Waiting<Open>,
) {
    let peer = match Peer::of(&stream, agent.accounts()) {
        Ok(peer) => peer,
        Err(error) => return log::warn(&format!("cannot tell who connects: {error}")),
    };
    let limits = agent.identities().limits;
    let Some(permit) = Permit::take(connections, peer.uid, limits) else {
        log::event(Level::Warn, "connection_refused", peer.fields());
        agent.metrics.connection_refused();
        return refuse(stream);
    };
    wait(
        waiting,
        Open {
            connection: Connection::new(stream, peer),
            _permit: permit,
            _counted: agent.metrics.connected(),
        },
    );
}

fn wait(waiting: &Waiting<Open>, open: Open) {
    if let Err(error) = waiting.add(open) {
        log::warn(&format!("cannot wait for a client: {error}"));
    }
}

/// Gives the connection a thread until its client is silent.
fn serve(mut open: Open, agent: &Arc<Agent>, waiting: &Arc<Waiting<Open>>) {
    let (agent, waiting) = (Arc::clone(agent), Arc::clone(waiting));
    let serve = move || match open.connection.serve(&agent) {
        Next::Wait => wait(&waiting, open),
        Next::Close => {}
    };
    let thread = std::thread::Builder::new()
        .name("connection".to_owned())
        .stack_size(STACK);
    if let Err(error) = thread.spawn(serve) {
        log::warn(&format!("cannot start a thread for a client: {error}"));
    }
}

/// Answers the clients that wait at systemd's socket while the agent cannot serve, for at least two seconds if there are
/// any. Unanswered, each would have systemd start the agent again at once, until it gives the socket up.
pub fn refuse_waiting(refusal: &Refusal) {
    let Ok(Some(socket)) = ListenFd::from_env().take_unix_listener(0) else {
        return; // there is no socket yet
    };
    let deadline = Instant::now() + WINDOW;
    let mut patience = Duration::ZERO;
    while let Some(stream) = accept_within(&socket, patience) {
        let mut client = Transport::new(stream);
        // What it asks is read: with bytes left in its socket, the kernel would take the answer back.
        if let Ok(Some(_)) = client.receive(SLOW_CLIENT, SLOW_CLIENT) {
            let reply = codec::encode_reply(&Reply::Refused(refusal.clone()));
            let _ = client.send(reply, SLOW_CLIENT); // it may be gone
        }
        patience = deadline.saturating_duration_since(Instant::now());
        if patience.is_zero() {
            return;
        }
    }
}

/// How long waiting clients are answered: an agent that cannot serve is started at most this often.
const WINDOW: Duration = Duration::from_secs(2);

/// For a client's request, and for its taking the answer, while others wait.
const SLOW_CLIENT: Duration = Duration::from_millis(100);

/// The next client, if it connects within that time.
fn accept_within(socket: &UnixListener, time: Duration) -> Option<UnixStream> {
    let timeout = Timespec::try_from(time).ok();
    let mut events = [PollFd::new(socket, PollFlags::IN)];
    match poll(&mut events, timeout.as_ref()) {
        Ok(1..) => socket.accept().ok().map(|(stream, _)| stream),
        _ => None,
    }
}

fn refuse(stream: UnixStream) {
    let busy = Reply::Refused(Refusal::Busy {
        message: "the agent has as many connections as it takes, or as it takes from one user: close some, \
                  or try again later"
            .to_owned(),
    });
    // An empty socket takes it at once; nothing is waited for here.
    let _ = Transport::new(stream).send(codec::encode_reply(&busy), Duration::from_millis(1));
}

/// How many connections each user has.
type Connections = Arc<Mutex<HashMap<u32, u32>>>;

/// One connection of those that may be open; given back on drop.
#[derive(Debug)]
struct Permit {
    connections: Connections,
    uid: u32,
}

impl Permit {
    fn take(connections: &Connections, uid: u32, limits: Limits) -> Option<Permit> {
        let mut counts = connections.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.values().sum::<u32>() >= limits.connections {
            return None;
        }
        let count = counts.get(&uid).copied().unwrap_or_default();
        if count >= limits.connections_per_user {
            return None;
        }
        counts.insert(uid, count + 1);
        let connections = Arc::clone(connections);
        Some(Permit { connections, uid })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}
