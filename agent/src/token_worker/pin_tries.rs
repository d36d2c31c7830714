//! Which PINs were refused while this agent runs, and whose turn it is to try one: one record for all workers, since one
//! token may be open under several names of its module.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use token::PinFingerprint;

use super::Event;

/// The tries of PINs, shared by all workers of an agent and their successors.
#[derive(Debug, Clone, Default)]
pub struct PinTries(Arc<Mutex<Record>>);

#[derive(Debug, Default)]
struct Record {
    refused: Vec<PinFingerprint>,
    /// Their first try had no answer, and their token can tell whether it counted.
    doubtful: Vec<PinFingerprint>,
    /// In the order in which they came.
    line: Vec<Place>,
    last: u64,
}

#[derive(Debug)]
struct Place {
    number: u64,
    /// The token's identity.
    token: String,
    events: Sender<Event>,
}

/// A place in the line of those who want to try a PIN of one token; left on drop.
#[derive(Debug)]
pub(super) struct Turn {
    tries: PinTries,
    number: u64,
}

impl PinTries {
    pub(super) fn refused(&self) -> Vec<PinFingerprint> {
        self.lock().refused.clone()
    }

    pub(super) fn doubtful(&self) -> Vec<PinFingerprint> {
        self.lock().doubtful.clone()
    }

    /// Has no worker try this PIN again.
    pub(super) fn refuse(&self, pin: PinFingerprint) {
        let mut record = self.lock();
        record.doubtful.retain(|doubtful| *doubtful != pin);
        record.refused.push(pin);
    }

    /// Has the token asked whether the last try of this PIN counted, before the next one.
    pub(super) fn doubt(&self, pin: PinFingerprint) {
        let mut record = self.lock();
        if !record.doubtful.contains(&pin) {
            record.doubtful.push(pin);
        }
    }

    /// The token has taken this PIN.
    pub(super) fn accept(&self, pin: &PinFingerprint) {
        self.lock().doubtful.retain(|doubtful| doubtful != pin);
    }

    /// Waits in line for the token of this identity. `events` gets [`Event::Turn`] when somebody has left.
    pub(super) fn line_up(&self, token: String, events: Sender<Event>) -> Turn {
        let mut record = self.lock();
        record.last += 1;
        let number = record.last;
        record.line.push(Place {
            number,
            token,
            events,
        });
        let tries = self.clone();
        Turn { tries, number }
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Whether nobody is before this one.
    pub(super) fn has_come(&self) -> bool {
        let line = &self.tries.lock().line;
        let own = line.iter().find(|place| place.number == self.number);
        let first = own.and_then(|own| line.iter().find(|place| place.token == own.token));
        first.is_some_and(|first| first.number == self.number)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut record = self.tries.lock();
        let line = &mut record.line;
        if let Some(at) = line.iter().position(|place| place.number == self.number) {
            let own = line.remove(at);
            for next in line.iter().filter(|place| place.token == own.token) {
                let _ = next.events.send(Event::Turn); // its worker may have ended
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use token::Pin;

    use super::*;

    #[test]
    fn one_try_of_a_token_follows_the_other() {
        let tries = PinTries::default();
        let (events, inbox) = mpsc::channel();
        let turn = |token: &str| tries.line_up(token.to_owned(), events.clone());
        let [first, second, third] = [turn("lab"), turn("lab"), turn("lab")];
        let other = turn("other");
        assert!(first.has_come() && other.has_come());
        assert!(!second.has_come() && !third.has_come());
        drop(second); // which has waited long enough
        assert!(!third.has_come());
        drop(first);
        assert!(third.has_come());
        drop(other);
        // Only those of the same token heard of it: two, then one.
        drop(events);
        assert_eq!(inbox.try_iter().count(), 3);
    }

    #[test]
    fn a_doubt_lasts_until_the_token_has_answered() {
        let tries = PinTries::default();
        let pin = Pin::from("1234".to_owned());
        let pin = || PinFingerprint::of("lab", &[&pin]).unwrap();
        let (one, other) = (pin(), pin());
        tries.doubt(one.clone());
        tries.doubt(one.clone());
        tries.doubt(other.clone());
        tries.accept(&one);
        assert_eq!(tries.doubtful(), std::slice::from_ref(&other));
        tries.refuse(other.clone());
        assert!(tries.doubtful().is_empty());
        assert_eq!(tries.refused(), [other]);
    }
}
