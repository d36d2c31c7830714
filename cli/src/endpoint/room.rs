//! The connections that may be open at once. When there are more, the idlest of those on which nobody has shown a target's
//! token is closed for the new one: who can only connect keeps nobody out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, oneshot};

/// All connections of a server.
#[derive(Debug)]
pub(super) struct Room {
    limit: usize,
    seats: Mutex<Seats>,
    /// Told when a connection ends.
    left: Notify,
}

#[derive(Debug, Default)]
struct Seats {
    taken: HashMap<u64, Seat>,
    next: u64,
}

#[derive(Debug)]
struct Seat {
    /// A target's token was shown on it.
    authorized: bool,
    /// A request is under way.
    busy: bool,
    /// When it was accepted, or its last answer was made. Bytes of a request do not count: they may come slowly.
    moved: Instant,
    /// Closes it when dropped.
    _evict: oneshot::Sender<()>,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<Room>,
    id: u64,
}

impl Room {
    /// Has room for so many.
    pub(super) fn new(limit: usize) -> Room {
        Room {
            limit,
            seats: Mutex::default(),
            left: Notify::new(),
        }
    }

    /// Takes a place for a connection, and what is done when another needs it. Waits where all are in the hands of
    /// clients with tokens.
    pub(super) async fn enter(self: &Arc<Room>) -> (Place, oneshot::Receiver<()>) {
        loop {
            if let Some(entered) = self.try_enter(Instant::now()) {
                return entered;
            }
            self.left.notified().await;
        }
    }

    /// Waits until all are gone.
    pub(super) async fn emptied(&self) {
        while !self.seats().taken.is_empty() {
            self.left.notified().await;
        }
    }

    fn try_enter(self: &Arc<Room>, now: Instant) -> Option<(Place, oneshot::Receiver<()>)> {
        let mut seats = self.seats();
        if seats.taken.len() >= self.limit {
            let idlest = seats.idlest()?;
            seats.taken.remove(&idlest);
        }
        let (evict, evicted) = oneshot::channel();
        let id = seats.next;
        seats.next += 1;
        let seat = Seat {
            authorized: false,
            busy: false,
            moved: now,
            _evict: evict,
        };
        seats.taken.insert(id, seat);
        let room = Arc::clone(self);
        Some((Place { room, id }, evicted))
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    fn idlest(&self) -> Option<u64> {
        let seats = self.taken.iter();
        let idle = seats.filter(|(_, seat)| !seat.authorized && !seat.busy);
        let idlest = idle.min_by_key(|(_, seat)| seat.moved);
        idlest.map(|(id, _)| *id)
    }
}

impl Place {
    /// A request has arrived.
    pub(super) fn begin(&self) {
        self.change(|seat| seat.busy = true);
    }

    /// It is answered; `authorized` where it showed a target's token.
    pub(super) fn end(&self, authorized: bool) {
        self.change(|seat| {
            seat.busy = false;
            seat.authorized |= authorized;
            seat.moved = Instant::now();
        });
    }

    fn change(&self, change: impl FnOnce(&mut Seat)) {
        if let Some(seat) = self.room.seats().taken.get_mut(&self.id) {
            change(seat);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.seats().taken.remove(&self.id);
        self.room.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Entered = (Place, oneshot::Receiver<()>);

    const CONNECTIONS: usize = 64;

    fn full() -> (Arc<Room>, Vec<Entered>) {
        let room = Arc::new(Room::new(CONNECTIONS));
        let start = Instant::now();
        let entered = (0..CONNECTIONS).map(|_| room.try_enter(start).unwrap());
        let entered = entered.collect();
        (room, entered)
    }

    fn evicted((_, evicted): &mut Entered) -> bool {
        evicted.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn the_idlest_without_a_token_makes_room() {
        let (room, mut entered) = full();
        entered[0].0.begin(); // a request under way
        for (place, _) in &entered[1..10] {
            place.begin();
            place.end(true);
        }
        for (place, _) in &entered[11..] {
            place.begin();
            place.end(false); // later than the one that has not asked
        }
        let _new = room.try_enter(Instant::now()).unwrap();
        let gone: Vec<usize> = (0..CONNECTIONS)
            .filter(|at| evicted(&mut entered[*at]))
            .collect();
        assert_eq!(gone, [10]);
    }

    #[test]
    fn with_tokens_alone_the_next_waits() {
        let (room, mut entered) = full();
        for (place, _) in &entered {
            place.end(true);
        }
        assert!(room.try_enter(Instant::now()).is_none());
        entered.pop();
        assert!(room.try_enter(Instant::now()).is_some());
    }
}
