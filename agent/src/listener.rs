//! systemd's socket or our own: accepts connections, waits for what arrives on them, and gives each one a thread
//! for as long as its client asks for something.

mod places;
mod waiting;

use std::fs;
use std::io::ErrorKind;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use listenfd::ListenFd;
use wire::{Refusal, Reply, Transport, codec};

use crate::connection::{Connection, Next, no_place};
use crate::log::{self, Level, Refused};
use crate::metrics::OpenConnection;
use crate::panics::contain;
use crate::peer::Peer;
use crate::state::Agent;
use crate::sync::{left, lock, wait_to_read};
use crate::unix_socket::{ListenError, bind_at};
use nix::unistd::geteuid;
use places::{Holder, Idle, Places, Verdict};
use waiting::{Event, Waiting};

/// Where clients connect.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    /// Ends the accepting, when its other end is shut down.
    stop: (UnixStream, UnixStream),
    /// The path to remove at the end, where it is ours.
    path: Option<PathBuf>,
    table: Table,
}

/// The connections.
#[derive(Debug, Clone)]
struct Table {
    /// What the listener waits for, the clients that are silent included.
    waiting: Arc<Waiting<Open>>,
    places: Arc<Mutex<Places>>,
}

/// A connection's thread: P-521 verification in a debug build takes most of it.
const STACK: usize = 512 * 1024;

/// What is waited for beside the connections: a client that connects, and the end of it.
const CLIENT: u64 = 0;
const STOP: u64 = 1;

/// Clients that may wait to be accepted, systemd's socket included; those beyond wait in connect(2). One that connects
/// waits for those before it: with the thousands that Linux permits, a single flooder would delay everybody by as many.
const BACKLOG: i32 = 128;

/// Why a connection is closed for want of threads or memory, in the log.
const NOT_SERVED: &str = "not_served";

/// Idle connections that are tried for a client's place: something may just have arrived on some.
const TRIES: usize = 8;

/// For the listener's thread to finish what it does.
const STOP_DEADLINE: Duration = Duration::from_secs(1);

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
        rustix::net::listen(&socket, BACKLOG).map_err(|error| io(error.into()))?;
        let stop = UnixStream::pair().map_err(io)?;
        let waiting = Waiting::new().map_err(io)?;
        waiting.watch(&socket, CLIENT).map_err(io)?;
        waiting.watch(&stop.0, STOP).map_err(io)?;
        Ok(Listener {
            socket,
            stop,
            path,
            table: Table {
                waiting: Arc::new(waiting),
                places: Arc::default(),
            },
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
        let mut failing = false;
        loop {
            let waiting = &self.table.waiting;
            let events = waiting.wait().unwrap_or_else(|error| {
                log::warn(&format!("cannot wait for clients: {error}"));
                std::thread::sleep(PAUSE);
                Vec::new()
            });
            for event in events {
                // The client concerned is dropped; the others are served.
                contain(|| match event {
                    Event::Ready(open) => self.table.serve(open, agent),
                    // Who began a message learns why the connection is closed.
                    Event::Late(open) if open.connection.unfinished().is_some() => {
                        self.table.serve(open, agent);
                    }
                    Event::Late(idle) => drop(idle),
                    Event::Watched(CLIENT) => self.accept(agent, &mut failing),
                    Event::Watched(_) => {
                        waiting.forget(&self.socket);
                        waiting.forget(&self.stop.0);
                        let _ = self.stop.0.shutdown(Shutdown::Write); // tells `stop`
                    }
                });
            }
        }
    }

    fn accept(&self, agent: &Arc<Agent>, failing: &mut bool) {
        match self.socket.accept() {
            Ok((stream, _)) => {
                *failing = false;
                self.table.admit(stream, agent);
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
        let _ = self.stop.1.shutdown(Shutdown::Write); // it cannot fail but by being so already
        let _ = wait_to_read(&self.stop.1, Instant::now() + STOP_DEADLINE); // late, or told
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path); // somebody else may have done it
        }
    }
}

impl Table {
    fn admit(&self, stream: UnixStream, agent: &Arc<Agent>) {
        let mut peer = match Peer::of(&stream, agent.accounts()) {
            Ok(peer) => peer,
            Err(error) => return log::warn(&format!("cannot tell who connects: {error}")),
        };
        // Groups that are not known yet, and its unit, are asked about with its first request, by its own thread.
        let identities = agent.identities();
        peer.named = identities.know(&peer.at_the_door());
        if let Some(place) = self.find_place(&peer, agent) {
            return self.open(stream, peer, place, agent);
        }
        let by_group = !peer.has_groups_in_memory() && identities.name_groups();
        if !peer.named && (by_group || identities.name_units()) {
            return self.ask_at_door(stream, peer, agent);
        }
        refuse(stream, &peer, agent);
    }

    /// Asks in a thread for the groups and the unit of a client that would be refused without them: strangers must not have
    /// the place of a user whom a group or a unit names.
    fn ask_at_door(&self, stream: UnixStream, mut peer: Peer, agent: &Arc<Agent>) {
        let may_enter = agent.may_look_up(peer.uid);
        let door = may_enter.then(|| Door::enter(&self.places, peer.uid));
        let Some(door) = door.flatten() else {
            return refuse(stream, &peer, agent);
        };
        let (table, agent) = (self.clone(), Arc::clone(agent));
        let refused = peer.refused(NOT_SERVED);
        let ask = move || {
            let identities = agent.identities();
            if identities.name_units() {
                peer.find_unit(&stream);
            }
            peer.named = identities.know(&peer);
            drop(door);
            match table.find_place(&peer, &agent) {
                Some(place) => table.open(stream, peer, place, &agent),
                None => refuse(stream, &peer, &agent),
            }
        };
        start_thread(refused, ask);
    }

    fn open(&self, stream: UnixStream, peer: Peer, place: Place, agent: &Agent) {
        let open = Open {
            connection: Connection::new(stream, peer),
            place,
            _counted: agent.metrics.connected(),
        };
        wait(&self.waiting, open);
    }

    fn find_place(&self, peer: &Peer, agent: &Agent) -> Option<Place> {
        let holder = Holder {
            uid: peer.uid,
            named: peer.named,
        };
        let places = Arc::clone(&self.places);
        let is_entered = self.enter(holder, None, agent);
        is_entered.then(|| Place { places, holder }) // a place leaves on drop
    }

    /// Has the place counted as a named user's if its client turned out to be one, or no more; returns whether there is
    /// room for it.
    fn rename(&self, place: &mut Place, named: bool, agent: &Agent) -> bool {
        let holder = Holder {
            named,
            ..place.holder
        };
        if holder == place.holder {
            return true;
        }
        let is_entered = match named {
            true => self.enter(holder, Some(place.holder), agent),
            false => {
                let mut places = lock(&self.places);
                places.leave(place.holder);
                places.enter(holder);
                true
            }
        };
        if is_entered {
            place.holder = holder;
        }
        is_entered
    }

    /// Counts a connection, if there is room or can be made: a new one, or one that had another place.
    fn enter(&self, holder: Holder, before: Option<Holder>, agent: &Agent) -> bool {
        let own = holder.uid == 0 || holder.uid == geteuid().as_raw();
        let limits = agent.identities().limits;
        let idle = || {
            let all = self.waiting.idle(|open| open.place.holder).into_iter();
            all.map(|(id, holder, since)| Idle { id, holder, since })
                .collect()
        };
        for _ in 0..TRIES {
            let mut places = lock(&self.places);
            if let Some(before) = before {
                places.leave(before);
            }
            let verdict = places.judge(holder, own, &limits, idle);
            match verdict {
                Verdict::Admit => places.enter(holder),
                _ => before.into_iter().for_each(|before| places.enter(before)),
            }
            drop(places);
            match verdict {
                Verdict::Admit => return true,
                Verdict::InPlaceOf(id) => {
                    if self.waiting.take(id).is_some() {
                        agent.metrics.connection_evicted();
                    }
                }
                Verdict::Refuse => break,
            }
        }
        false
    }

    /// Gives the connection a thread until its client is silent.
    fn serve(&self, mut open: Open, agent: &Arc<Agent>) {
        let (table, agent) = (self.clone(), Arc::clone(agent));
        let refused = open.connection.refused(NOT_SERVED);
        let serve = move || {
            let place = &mut open.place;
            let next = open.connection.serve(&agent, |peer| {
                let may_stay = table.rename(place, peer.named, &agent);
                if !may_stay {
                    count_refused(peer, &agent);
                }
                may_stay
            });
            if next == Next::Wait {
                wait(&table.waiting, open);
            }
        };
        start_thread(refused, serve);
    }
}

/// A connection that is open: with a thread, or waiting.
#[derive(Debug)]
struct Open {
    connection: Connection,
    place: Place,
    _counted: OpenConnection,
}

impl AsFd for Open {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

fn wait(waiting: &Waiting<Open>, open: Open) {
    let refused = open.connection.refused(NOT_SERVED);
    let until = open.connection.unfinished();
    if let Err(error) = waiting.add(open, until) {
        log::refused(refused, || {
            log::warn(&format!("cannot wait for a client: {error}"));
        });
    }
}

fn start_thread(refused: Refused, run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new()
        .name("connection".to_owned())
        .stack_size(STACK);
    if let Err(error) = thread.spawn(run) {
        log::refused(refused, || {
            log::warn(&format!("cannot start a thread for a client: {error}"));
        });
    }
}

/// Answers the clients that wait at systemd's socket while the agent cannot serve, for at least two seconds if there are
/// any. Unanswered, each would have systemd start the agent again at once, until it gives the socket up.
pub fn refuse_waiting(refusal: &Refusal) {
    let Ok(Some(socket)) = ListenFd::from_env().take_unix_listener(0) else {
        return; // there is no socket yet
    };
    let deadline = Instant::now() + WINDOW;
    let mut next = Instant::now();
    while wait_to_read(&socket, next) == Ok(true) {
        let Ok((stream, _)) = socket.accept() else {
            return;
        };
        let mut client = Transport::new(stream);
        // What it asks is read: with bytes left in its socket, the kernel would take the answer back.
        if let Ok(Some(_)) = client.receive(SLOW_CLIENT, SLOW_CLIENT) {
            let reply = codec::encode_reply(&Reply::Refused(refusal.clone()));
            let _ = client.send(reply, SLOW_CLIENT); // it may be gone
        }
        next = deadline;
        if left(deadline).is_zero() {
            return;
        }
    }
}

/// How long waiting clients are answered: an agent that cannot serve is started at most this often.
const WINDOW: Duration = Duration::from_secs(2);

/// For a client's request, and for its taking the answer, while others wait.
const SLOW_CLIENT: Duration = Duration::from_millis(100);

fn refuse(stream: UnixStream, peer: &Peer, agent: &Agent) {
    count_refused(peer, agent);
    let busy = Reply::Refused(no_place());
    // An empty socket takes it at once; nothing is waited for here.
    let _ = Transport::new(stream).send(codec::encode_reply(&busy), Duration::from_millis(1));
}

fn count_refused(peer: &Peer, agent: &Agent) {
    log::refused(peer.refused("connection_refused"), || {
        log::event(Level::Warn, "connection_refused", peer.fields());
    });
    agent.metrics.connection_refused();
}

/// A connection's place among those that may be open; given back on drop.
#[derive(Debug)]
struct Place {
    places: Arc<Mutex<Places>>,
    holder: Holder,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.places).leave(self.holder);
    }
}

/// A client at the door, until it is dropped.
struct Door {
    places: Arc<Mutex<Places>>,
    uid: u32,
}

impl Door {
    fn enter(places: &Arc<Mutex<Places>>, uid: u32) -> Option<Door> {
        let places = Arc::clone(places);
        let entered = lock(&places).enter_door(uid);
        entered.then(|| Door { places, uid }) // likewise
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        lock(&self.places).leave_door(self.uid);
    }
}
