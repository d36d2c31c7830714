//! The connections on which nothing arrives. None of them has a thread: a thousand clients that are connected
//! and silent cost their descriptors, and little else.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;

use crate::sync::lock;

/// Connections that wait for their clients, and what else the listener waits for.
#[derive(Debug)]
pub(super) struct Waiting<C> {
    epoll: OwnedFd,
    connections: Mutex<Connections<C>>,
}

#[derive(Debug)]
struct Connections<C> {
    waiting: HashMap<u64, Waiter<C>>,
    next: u64,
    swept: Instant,
}

#[derive(Debug)]
struct Waiter<C> {
    connection: C,
    since: Instant,
    until: Instant,
}

/// What has happened.
#[derive(Debug)]
pub(super) enum Event<C> {
    /// To what was [watched](Waiting::watch) under this number.
    Watched(u64),
    /// Something arrived on this connection, or its client sends no more.
    Ready(C),
    /// Nothing arrived until its time was over.
    Late(C),
}

/// How long a client may hold a connection without a call. A library that keeps one opens another.
const IDLE_DEADLINE: Duration = Duration::from_secs(60);

/// How often it is looked for connections that were idle for too long: one may exceed its time by so much.
const SWEEP: Duration = Duration::from_secs(5);

/// Events that are fetched at once.
const BATCH: usize = 64;

/// Numbers below are for what is watched.
const FIRST: u64 = 16;

impl<C: AsFd> Waiting<C> {
    pub(super) fn new() -> io::Result<Waiting<C>> {
        Ok(Waiting {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            connections: Mutex::new(Connections {
                waiting: HashMap::new(),
                next: FIRST,
                swept: Instant::now(),
            }),
        })
    }

    /// Tells of this, too, again and again while something is there; `number` is less than 16.
    pub(super) fn watch(&self, what: impl AsFd, number: u64) -> io::Result<()> {
        let data = epoll::EventData::new_u64(number);
        Ok(epoll::add(&self.epoll, what, data, epoll::EventFlags::IN)?)
    }

    /// Tells of it no more.
    pub(super) fn forget(&self, what: impl AsFd) {
        let _ = epoll::delete(&self.epoll, what); // it is not there, then
    }

    /// Takes a connection until something arrives on it, even if that has happened already, or until that time if it
    /// comes before the end of an idle connection.
    pub(super) fn add(&self, connection: C, until: Option<Instant>) -> io::Result<()> {
        let mut connections = self.lock();
        let id = connections.next;
        connections.next += 1;
        // The lock is held: whoever is told of it finds it.
        let data = epoll::EventData::new_u64(id);
        epoll::add(&self.epoll, &connection, data, epoll::EventFlags::IN)?;
        let since = Instant::now();
        let waiter = Waiter {
            connection,
            since,
            until: until.unwrap_or(since + IDLE_DEADLINE),
        };
        connections.waiting.insert(id, waiter);
        Ok(())
    }

    /// The next events; none when it was quiet for a while.
    pub(super) fn wait(&self) -> io::Result<Vec<Event<C>>> {
        let mut events = Vec::with_capacity(BATCH);
        let timeout = Timespec::try_from(SWEEP).ok();
        match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // Dropped after the lock: a connection that ends takes another.
        let mut ended = Vec::new();
        let mut connections = self.lock();
        let event = |event: &epoll::Event| match event.data.u64() {
            watched @ ..FIRST => Some(Event::Watched(watched)),
            id => {
                let Waiter { connection, .. } = connections.waiting.remove(&id)?;
                self.forget(&connection);
                // Nothing would reach a client that is gone, whatever it has sent: it is worth no thread.
                if { event.flags }.contains(epoll::EventFlags::HUP) {
                    ended.push(connection);
                    return None;
                }
                Some(Event::Ready(connection))
            }
        };
        let mut events: Vec<_> = events.iter().filter_map(event).collect();
        for connection in connections.sweep(Instant::now()) {
            self.forget(&connection); // somebody who works for it may hold it open
            events.push(Event::Late(connection));
        }
        Ok(events)
    }

    /// Each connection's number, what `of` says of it, and since when it waits.
    pub(super) fn idle<T>(&self, of: impl Fn(&C) -> T) -> Vec<(u64, T, Instant)> {
        let connections = self.lock();
        let waiting = connections.waiting.iter();
        waiting
            .map(|(id, waiter)| (*id, of(&waiter.connection), waiter.since))
            .collect()
    }

    /// Takes out the connection of that number, unless something has arrived on it.
    pub(super) fn take(&self, id: u64) -> Option<C> {
        let mut connections = self.lock();
        let waiter = connections.waiting.get(&id)?;
        let mut events = [PollFd::new(&waiter.connection, PollFlags::IN)];
        if poll(&mut events, Some(&Timespec::default())) != Ok(0) {
            return None;
        }
        let Waiter { connection, .. } = connections.waiting.remove(&id)?;
        self.forget(&connection);
        Some(connection)
    }

    fn lock(&self) -> MutexGuard<'_, Connections<C>> {
        lock(&self.connections)
    }
}

impl<C> Connections<C> {
    /// Takes out what was idle for too long.
    fn sweep(&mut self, now: Instant) -> Vec<C> {
        if now.saturating_duration_since(self.swept) < SWEEP {
            return Vec::new();
        }
        self.swept = now;
        let late = self.waiting.extract_if(|_, waiter| waiter.until <= now);
        late.map(|(_, waiter)| waiter.connection).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    fn ready(waiting: &Waiting<UnixStream>) -> Vec<UnixStream> {
        let connection = |event| match event {
            Event::Ready(connection) => Some(connection),
            Event::Watched(_) | Event::Late(_) => None,
        };
        waiting
            .wait()
            .unwrap()
            .into_iter()
            .filter_map(connection)
            .collect()
    }

    #[test]
    fn who_says_something_is_found_and_who_leaves_is_forgotten() {
        let waiting = Waiting::new().unwrap();
        let (mut speaker, theirs) = UnixStream::pair().unwrap();
        speaker.write_all(b"before").unwrap();
        waiting.add(theirs, None).unwrap();
        assert_eq!(ready(&waiting).len(), 1);
        let (mut speaker, theirs) = UnixStream::pair().unwrap();
        waiting.add(theirs, None).unwrap();
        let (_silent, theirs) = UnixStream::pair().unwrap();
        waiting.add(theirs, None).unwrap();
        speaker.write_all(b"after").unwrap();
        let mut found = ready(&waiting);
        assert_eq!(found.len(), 1);
        waiting.add(found.remove(0), None).unwrap();
        assert_eq!(ready(&waiting).len(), 1);
        let (leaver, theirs) = UnixStream::pair().unwrap();
        waiting.add(theirs, None).unwrap();
        leaver.shutdown(std::net::Shutdown::Write).unwrap();
        let found = ready(&waiting).remove(0); // it may read an answer
        waiting.add(found, None).unwrap();
        drop(leaver);
        assert_eq!(ready(&waiting).len(), 0);
        assert_eq!(waiting.lock().waiting.len(), 1);
    }

    #[test]
    fn who_is_silent_for_too_long_is_closed() {
        let waiting = Waiting::new().unwrap();
        let (mut silent, theirs) = UnixStream::pair().unwrap();
        waiting.add(theirs, None).unwrap();
        let mut connections = waiting.lock();
        connections.sweep(Instant::now() + IDLE_DEADLINE - SWEEP);
        assert_eq!(connections.waiting.len(), 1);
        connections.sweep(Instant::now() + IDLE_DEADLINE);
        assert_eq!(connections.waiting.len(), 0);
        assert!(silent.write_all(b"too late").is_err());
    }

    #[test]
    fn who_does_not_finish_is_late() {
        let waiting = Waiting::new().unwrap();
        let (_silent, first) = UnixStream::pair().unwrap();
        let (_stalled, second) = UnixStream::pair().unwrap();
        waiting.add(first, None).unwrap();
        waiting.add(second, Some(Instant::now())).unwrap();
        waiting.lock().swept = Instant::now().checked_sub(SWEEP).unwrap();
        let (mut speaker, watched) = UnixStream::pair().unwrap();
        waiting.watch(&watched, 7).unwrap();
        speaker.write_all(b"x").unwrap();
        let events = waiting.wait().unwrap();
        assert!(matches!(events[..], [Event::Watched(7), Event::Late(_)]));
        assert_eq!(waiting.lock().waiting.len(), 1);
    }

    #[test]
    fn who_makes_room_is_silent() {
        let waiting = Waiting::new().unwrap();
        let (mut speaker, first) = UnixStream::pair().unwrap();
        let (_silent, second) = UnixStream::pair().unwrap();
        waiting.add(first, None).unwrap();
        waiting.add(second, None).unwrap();
        speaker.write_all(b"x").unwrap();
        let idle = waiting.idle(|_| ());
        let taken = idle.iter().filter_map(|(id, ..)| waiting.take(*id));
        assert_eq!(taken.count(), 1);
        assert_eq!(ready(&waiting).len(), 1); // the speaker was not touched
    }

    #[test]
    fn what_is_watched_is_told_again_and_again() {
        let waiting: Waiting<UnixStream> = Waiting::new().unwrap();
        let (mut speaker, theirs) = UnixStream::pair().unwrap();
        waiting.watch(&theirs, 7).unwrap();
        speaker.write_all(b"x").unwrap();
        for _ in 0..2 {
            assert!(matches!(waiting.wait().unwrap()[..], [Event::Watched(7)]));
        }
        waiting.forget(&theirs);
        let (mut other, theirs) = UnixStream::pair().unwrap();
        waiting.add(theirs, None).unwrap();
        other.write_all(b"x").unwrap();
        assert!(matches!(waiting.wait().unwrap()[..], [Event::Ready(_)]));
    }
}
