//! How a token program is asked to open its token, and what it says until it has: PINs are tried in turn, and a try
//! whose answer is lost is remembered.

use std::collections::HashSet;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use token::TokenError;
use token::link::{FromToken, KeyReport, Open, ToToken};

use super::Event;
use super::pin_tries::Turn;
use super::process::{self, TokenProcess};
use super::thread::{Thread, ending};
use crate::sync::left;
use config::certificate::CertificateSource;

/// How long a worker waits for others that try a PIN of the same token: each may take a whole opening.
const TURN_LIMIT: Duration = Duration::from_secs(120);

/// How far a token program is in opening its token.
struct Progress {
    limit: Duration,
    until: Instant,
    /// Kept until the token is open: only then is the PIN known to be good or bad.
    turn: Option<Turn>,
    has_begun: bool,
    said: Said,
}

/// What a token program has said so far: a sound one says each thing a few times.
#[derive(Default)]
struct Said {
    pins: HashSet<Option<usize>>,
    turns: usize,
    sessions: usize,
}

/// The longest name of a token, in bytes: a TPM key that cannot be read has its path.
const TOKEN_LIMIT: usize = 4096;

/// How often a token program waits for its turn at the most.
const TURNS: usize = 4;

/// How often it says which sessions it has in a TPM, beyond once for each key.
const OTHER_SESSIONS: usize = 4;

impl Said {
    /// Whether a token program with so many keys may say that, too.
    fn allows(&mut self, word: &FromToken, keys: usize) -> bool {
        match word {
            FromToken::HasPin { key, token, .. } => {
                let is_asked_for = key.is_none_or(|key| key < keys);
                is_asked_for && token.len() <= TOKEN_LIMIT && self.pins.insert(*key)
            }
            FromToken::AwaitingTurn { token } => {
                self.turns += 1;
                token.len() <= TOKEN_LIMIT && self.turns <= TURNS
            }
            FromToken::Sessions(_) => {
                self.sessions += 1;
                self.sessions <= keys + OTHER_SESSIONS
            }
            FromToken::Opened(_) => true,
            FromToken::Signed { .. } => false,
        }
    }
}

impl Progress {
    fn new(limit: Duration) -> Progress {
        Progress {
            limit,
            until: Instant::now() + limit,
            turn: None,
            has_begun: false,
            said: Said::default(),
        }
    }

    fn wait_for(&mut self, turn: Turn) {
        self.turn = Some(turn);
        self.has_begun = false;
        self.until = Instant::now() + TURN_LIMIT;
    }

    fn is_waiting(&self) -> bool {
        self.turn.is_some() && !self.has_begun
    }

    /// Whether the turn has come just now.
    fn begin(&mut self) -> bool {
        let has_come = self.turn.as_ref().is_some_and(Turn::has_come);
        if !has_come || self.has_begun {
            return false;
        }
        self.has_begun = true;
        self.until = Instant::now() + self.limit;
        true
    }
}

impl Thread {
    /// The reports of the keys. A program that is lost while it tries a PIN is an error that passes only
    /// if that PIN was taken before, or the token can tell whether the try counted.
    pub(super) fn ask_to_open(
        &mut self,
        process: &mut TokenProcess,
        limit: Duration,
    ) -> Result<Vec<KeyReport>, TokenError> {
        self.lose_pins(process::ended());
        self.pins.clear();
        process.send(&ToToken::Open {
            open: self.open_request(),
            pin_key: self.shared.pin_tries.key(),
        })?;
        let mut progress = Progress::new(limit);
        // What became of its PIN is recorded while it is this worker's turn: the next one must know.
        match self.hear_reports(process, &mut progress) {
            Ok(Ok(reports)) => {
                self.accept_pin(None);
                Ok(reports)
            }
            Ok(Err(error)) => {
                self.judge_pins(&error);
                Err(error)
            }
            Err(lost) => Err(self.lose_pins(lost)),
        }
    }

    /// What to open: with the public keys of certificates in files, which tell keys of one name apart, and with the
    /// sessions that an earlier program has left in a TPM.
    fn open_request(&self) -> Open {
        let mut open = self.open.clone();
        if let (generation, sessions) = &self.sessions
            && *generation != self.generation
        {
            open.set_left_sessions(sessions);
        }
        if let Open::Pkcs11(open) = &mut open {
            let owners = self.shared.owners();
            let mut last: Option<(&CertificateSource, Option<Vec<u8>>)> = None;
            for (key, owner) in open.keys.iter_mut().zip(owners.iter()) {
                let source = &owner.certificate;
                let known = last.filter(|(known, _)| *known == source);
                let public_key = known.map_or_else(|| source.public_key_in_file(), |(_, key)| key);
                key.public_key.clone_from(&public_key);
                last = Some((source, public_key));
            }
        }
        open
    }

    /// The program's answer; the outer error means that it is lost.
    fn hear_reports(
        &mut self,
        process: &mut TokenProcess,
        progress: &mut Progress,
    ) -> Result<Result<Vec<KeyReport>, TokenError>, TokenError> {
        loop {
            let word = self.hear_or_turn(progress.until, progress.limit);
            if let Ok(Some(word)) = &word
                && !progress.said.allows(word, self.open.key_count())
            {
                return Err(process::nonsense());
            }
            match word {
                Ok(None) => self.begin_turn(process, progress)?,
                Ok(Some(FromToken::HasPin {
                    key,
                    token,
                    fingerprint,
                    failures,
                    at_once,
                })) => {
                    let permission = self.announce_pin(key, token, fingerprint, failures);
                    if at_once {
                        self.begin_try(key);
                    }
                    process.send(&ToToken::Pin(permission))?;
                }
                Ok(Some(FromToken::Sessions(sessions))) => {
                    self.sessions = (self.generation, sessions);
                }
                Ok(Some(FromToken::AwaitingTurn { token })) => {
                    let tries = &self.shared.pin_tries;
                    progress.wait_for(tries.line_up(token, self.events.clone()));
                    self.begin_turn(process, progress)?;
                }
                Ok(Some(FromToken::Opened(Ok(reports))))
                    if reports.len() == self.open.key_count() =>
                {
                    return Ok(Ok(reports));
                }
                Ok(Some(FromToken::Opened(Err(error)))) => return Ok(Err(error)),
                Ok(Some(_)) => return Err(process::nonsense()),
                Err(TokenError::Hung(_)) if progress.is_waiting() => {
                    return Err(TokenError::Gone(format!(
                        "another opening of the same token has not ended within {} s",
                        TURN_LIMIT.as_secs()
                    )));
                }
                Err(lost) => return Err(lost),
            }
        }
    }

    /// Lets the token program try its PIN, if nobody is before it.
    fn begin_turn(
        &mut self,
        process: &mut TokenProcess,
        progress: &mut Progress,
    ) -> Result<(), TokenError> {
        if !progress.begin() {
            return Ok(());
        }
        process.send(&ToToken::YourTurn)
    }

    /// The token program's next word while the token is being opened.
    pub(super) fn hear(
        &mut self,
        until: Instant,
        limit: Duration,
    ) -> Result<FromToken, TokenError> {
        loop {
            if let Some(answer) = self.hear_or_turn(until, limit)? {
                return Ok(answer);
            }
        }
    }

    /// The same, or `None` where it may be this worker's turn to try a PIN. Meanwhile requests queue up, and
    /// those that the program had before are heard no more.
    fn hear_or_turn(
        &mut self,
        until: Instant,
        limit: Duration,
    ) -> Result<Option<FromToken>, TokenError> {
        loop {
            let left = left(until);
            if left.is_zero() {
                return Err(process::hung(limit)); // also where it talks without end
            }
            match self.inbox.recv_timeout(left) {
                Ok(Event::Answer(generation, ..)) if generation != self.generation => {}
                Ok(Event::Answer(_, Some(FromToken::Signed { id, .. }), _))
                    if id != self.proof_id => {}
                Ok(Event::Answer(_, Some(answer), _)) => return Ok(Some(answer)),
                Ok(Event::Answer(_, None, _)) => return Err(process::ended()),
                Ok(Event::Turn) => return Ok(None),
                Ok(Event::Sign(job)) => self.enqueue(job),
                Ok(Event::Retry) => self.retry = true,
                Ok(Event::Distrust | Event::Reopen) => {}
                #[cfg(test)]
                Ok(Event::Panic) => panic!("in a test"),
                Ok(Event::Close) => {
                    self.closing = true;
                    // What becomes of a PIN has to be known.
                    if !self.is_trying() {
                        return Err(ending());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Err(ending()),
                Err(RecvTimeoutError::Timeout) => return Err(process::hung(limit)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use token::{Failures, PinFingerprint};

    #[test]
    fn a_pin_is_announced_once_for_each_key_that_was_asked_for() {
        let has_pin = |key, token: usize| FromToken::HasPin {
            key,
            token: "x".repeat(token),
            fingerprint: PinFingerprint::from_hex(&"0".repeat(64)).unwrap(),
            failures: Failures::Untold,
            at_once: true,
        };
        let mut said = Said::default();
        assert!(!said.allows(&has_pin(Some(0), TOKEN_LIMIT + 1), 2));
        for key in [None, Some(0), Some(1)] {
            assert!(said.allows(&has_pin(key, TOKEN_LIMIT), 2), "{key:?}");
            assert!(!said.allows(&has_pin(key, 3), 2), "{key:?}");
        }
        assert!(!said.allows(&has_pin(Some(2), 3), 2));
    }
}
