//! Whose turn it is to try a PIN of a token, which may be open under several names of its module.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use crate::sync::lock;
use crate::token_worker::Event;

/// The workers that want to try a PIN, of all tokens.
#[derive(Debug, Clone, Default)]
pub(super) struct Line(Arc<Mutex<Places>>);

#[derive(Debug, Default)]
struct Places {
    /// In the order in which they came.
    all: Vec<Place>,
    last: u64,
}

#[derive(Debug)]
struct Place {
    number: u64,
    /// The token's identity.
    token: String,
    events: Sender<Event>,
}

/// A place in the line; left on drop.
#[derive(Debug)]
pub(in crate::token_worker) struct Turn {
    line: Line,
    number: u64,
}

impl Line {
    pub(super) fn enter(&self, token: String, events: Sender<Event>) -> Turn {
        let mut places = lock(&self.0);
        places.last += 1;
        let number = places.last;
        places.all.push(Place {
            number,
            token,
            events,
        });
        let line = self.clone();
        Turn { line, number }
    }
}

impl Turn {
    /// Whether nobody is before this one.
    pub(in crate::token_worker) fn has_come(&self) -> bool {
        let places = lock(&self.line.0);
        let places = &places.all;
        let own = places.iter().find(|place| place.number == self.number);
        let first = own.and_then(|own| places.iter().find(|place| place.token == own.token));
        first.is_some_and(|first| first.number == self.number)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut places = lock(&self.line.0);
        let places = &mut places.all;
        if let Some(at) = places.iter().position(|place| place.number == self.number) {
            let own = places.remove(at);
            for next in places.iter().filter(|place| place.token == own.token) {
                let _ = next.events.send(Event::Turn); // its worker may have ended
            }
        }
    }
}
