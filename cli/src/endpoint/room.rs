//! The connections that may be open at once. When there are more, another is closed for the new one, so that no client can keep
//! the others out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, oneshot};

use super::answer::Authorized;

/// All connections of a server.
#[derive(Debug)]
pub(super) struct Room {
    limit: usize,
    clients: Clients,
    seats: Mutex<Seats>,
    /// Told when a connection ends.
    left: Notify,
}

/// Who the clients with a token are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clients {
    /// The server's users, who trust each other: the idlest connection without a token makes room.
    Trusted,
    /// Service accounts, which do not: the idlest connection of the holder of most makes room, with a token or without.
    Tenants,
}

#[derive(Debug, Default)]
struct Seats {
    taken: HashMap<u64, Seat>,
    next: u64,
}

#[derive(Debug)]
struct Seat {
    holder: Holder,
    /// A request is under way.
    busy: bool,
    /// When it was accepted, or its last answer was made. Bytes of a request do not count: they may come slowly.
    moved: Instant,
    /// Closes it when dropped.
    _evict: oneshot::Sender<()>,
}

/// Whose connection it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Holder {
    /// Nobody has shown a token on it. `None` for a Unix socket.
    Peer(Option<IpAddr>),
    /// The latest token that was shown on it.
    Shown(Authorized),
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<Room>,
    id: u64,
}

impl Room {
    /// Has room for so many.
    pub(super) fn new(limit: usize, clients: Clients) -> Room {
        Room {
            limit,
            clients,
            seats: Mutex::default(),
            left: Notify::new(),
        }
    }

    /// Takes a place for a connection, and what is done when another needs it. Waits where none can be taken away.
    pub(super) async fn enter(
        self: &Arc<Room>,
        peer: Option<IpAddr>,
    ) -> (Place, oneshot::Receiver<()>) {
        loop {
            if let Some(entered) = self.try_enter(peer, Instant::now()) {
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

    fn try_enter(
        self: &Arc<Room>,
        peer: Option<IpAddr>,
        now: Instant,
    ) -> Option<(Place, oneshot::Receiver<()>)> {
        let mut seats = self.seats();
        if seats.taken.len() >= self.limit {
            let leaves = match self.clients {
                Clients::Trusted => seats.idlest_without_token(),
                Clients::Tenants => seats.idlest_of_most(),
            };
            seats.taken.remove(&leaves?);
        }
        let (evict, evicted) = oneshot::channel();
        let id = seats.next;
        seats.next += 1;
        let seat = Seat {
            holder: Holder::Peer(peer.map(one_of_loopback)),
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

/// A process may connect from any address of 127.0.0.0/8: they count as one.
fn one_of_loopback(ip: IpAddr) -> IpAddr {
    let ip = ip.to_canonical();
    match ip.is_loopback() {
        true => Ipv4Addr::LOCALHOST.into(),
        false => ip,
    }
}

impl Seats {
    fn idlest_without_token(&self) -> Option<u64> {
        let seats = self.taken.iter();
        let idle = seats.filter(|(_, seat)| !seat.busy && !seat.holder.showed_token());
        let idlest = idle.min_by_key(|(_, seat)| seat.moved);
        idlest.map(|(id, _)| *id)
    }

    /// The idlest seat of the holder with the most seats; a busy one where all of them are, so that requests that wait for a
    /// session keep nobody out. The only seat of a holder is taken only if it is idle, and no holder has two.
    fn idlest_of_most(&self) -> Option<u64> {
        let mut counts: HashMap<&Holder, usize> = HashMap::new();
        for seat in self.taken.values() {
            *counts.entry(&seat.holder).or_default() += 1;
        }
        let most = counts.values().copied().max()?;
        let seats = self.taken.iter();
        let of_most = seats.filter(|(_, seat)| counts.get(&seat.holder) == Some(&most));
        let may_go = of_most.filter(|(_, seat)| most > 1 || !seat.busy);
        let idlest = may_go.min_by_key(|(_, seat)| (seat.busy, seat.moved));
        idlest.map(|(id, _)| *id)
    }
}

impl Holder {
    fn showed_token(&self) -> bool {
        matches!(self, Holder::Shown(_))
    }
}

impl Place {
    /// A request has arrived.
    pub(super) fn begin(&self) {
        self.change(|seat| seat.busy = true);
    }

    /// It is answered, and showed this token.
    pub(super) fn end(&self, authorized: Option<Authorized>) {
        self.change(|seat| {
            seat.busy = false;
            if let Some(authorized) = authorized {
                seat.holder = Holder::Shown(authorized);
            }
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

    const ATTACKER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

    fn full(clients: Clients) -> (Arc<Room>, Vec<Entered>) {
        let room = Arc::new(Room::new(CONNECTIONS, clients));
        let start = Instant::now();
        let entered = (0..CONNECTIONS).map(|_| room.try_enter(Some(ATTACKER), start).unwrap());
        let entered = entered.collect();
        (room, entered)
    }

    fn evicted((_, evicted): &mut Entered) -> bool {
        evicted.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    fn gone(entered: &mut [Entered]) -> Vec<usize> {
        let all = entered.iter_mut().enumerate();
        all.filter_map(|(at, one)| evicted(one).then_some(at))
            .collect()
    }

    fn account(name: &str) -> Option<Authorized> {
        Some(Authorized::Account(name.to_owned()))
    }

    #[test]
    fn the_idlest_without_a_token_makes_room() {
        let (room, mut entered) = full(Clients::Trusted);
        entered[0].0.begin(); // a request under way
        for (place, _) in &entered[1..10] {
            place.begin();
            place.end(Some(Authorized::Owner));
        }
        for (place, _) in &entered[11..] {
            place.begin();
            place.end(None); // later than the one that has not asked
        }
        let _new = room.try_enter(Some(OTHER), Instant::now()).unwrap();
        assert_eq!(gone(&mut entered), [10]);
    }

    #[test]
    fn with_tokens_alone_the_next_waits() {
        let (room, mut entered) = full(Clients::Trusted);
        for (place, _) in &entered {
            place.end(Some(Authorized::Owner));
        }
        assert!(room.try_enter(Some(OTHER), Instant::now()).is_none());
        entered.pop();
        assert!(room.try_enter(Some(OTHER), Instant::now()).is_some());
    }

    #[test]
    fn the_tenant_with_most_connections_makes_room_and_nobody_else() {
        let (room, mut entered) = full(Clients::Tenants);
        entered[0].0.end(account("payments/api"));
        for (place, _) in &entered[1..] {
            place.end(account("evil/pod"));
        }
        let new = room.try_enter(Some(OTHER), Instant::now()).unwrap();
        assert_eq!(gone(&mut entered), [1]);
        // Its next ones cost itself others, not the one that has not shown a token yet, nor the idlest of all.
        let mut others = vec![new];
        others.extend((0..9).map(|_| room.try_enter(Some(ATTACKER), Instant::now()).unwrap()));
        assert_eq!(gone(&mut entered), (1..=10).collect::<Vec<_>>());
        assert!(gone(&mut others).is_empty());
    }

    #[test]
    fn requests_of_one_tenant_that_wait_keep_nobody_out() {
        let (room, mut entered) = full(Clients::Tenants);
        entered[0].0.end(account("payments/api"));
        for (place, _) in &entered[1..] {
            place.begin();
        }
        assert!(room.try_enter(Some(OTHER), Instant::now()).is_some());
        let gone = gone(&mut entered);
        assert!(gone.len() == 1 && gone[0] != 0, "{gone:?}");
    }

    #[test]
    fn a_client_is_one_holder_at_all_addresses_of_loopback() {
        let holders = ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.2"];
        let holders = holders.map(|ip| one_of_loopback(ip.parse().unwrap()));
        assert_eq!(holders, [IpAddr::from(Ipv4Addr::LOCALHOST); 4]);
        assert_eq!(one_of_loopback(OTHER), OTHER);
    }
}
