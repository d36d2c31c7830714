//! What tokens there are, and what is on them.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cryptoki_sys::*;
use token::operator::Tell;
use token::operator::pkcs11::{Answer, TokenReport};
use token::{ObjectMatch, PinSource, Pkcs11Uri, TokenError, TokenMatch};

use super::inventory::{CLASS_LIMIT, Inventory};
use super::place::{Places, open_session};
use super::report::Reporter;
use crate::error::Failure;
use crate::raw::Session;
use crate::slot::{Slots, Token};

/// A listing that is under way.
pub(super) struct Listing<'a> {
    pub(super) places: &'a mut Places,
    /// The module.
    pub(super) path: &'a Path,
    pub(super) wanted: &'a Pkcs11Uri,
    pub(super) pin: Option<&'a PinSource>,
    /// Whom to tell, as soon as something is known.
    pub(super) tell: Tell<'a, Answer>,
}

/// How often the command hears that the token still answers, when there is nothing to tell.
const PULSE: Duration = Duration::from_secs(1);

impl Listing<'_> {
    /// Tells of every token that matches, with the objects on it that do, and of every slot that cannot be read where
    /// all are asked for.
    pub(super) fn run(mut self) -> Result<Answer, TokenError> {
        let all = self.places.slots(self.path, &self.wanted.token)?;
        let tokens = all.tokens.iter();
        let matching: Vec<&Token> = tokens
            .filter(|token| token.matches(&self.wanted.token))
            .collect();
        let unreadable = match self.wanted.token == TokenMatch::default() {
            true => all.unreadable.iter().map(unreadable).collect(),
            false => Vec::new(),
        };
        if matching.is_empty() && unreadable.is_empty() {
            all.find(&self.wanted.token)?; // says what there is
        }
        let known = matching.iter().map(|token| without_objects(token, &all));
        self.tell(Answer::Tokens(
            unreadable.iter().cloned().chain(known).collect(),
        ))?;
        for report in unreadable {
            self.tell(Answer::Token(Box::new(report)))?;
        }
        let ready = matching.iter().filter(|token| token.is_initialized());
        let alone = ready.count() <= 1;
        for token in matching {
            self.of_token(token, &all, alone)?;
        }
        Ok(Answer::Listed)
    }

    fn tell(&mut self, answer: Answer) -> Result<(), TokenError> {
        (self.tell)(answer).map_err(gone)
    }

    /// Of one of several, no PIN is tried, since it may be another token's; and what is wrong with one is no reason to
    /// be silent about the others.
    fn of_token(&mut self, token: &Token, all: &Slots, alone: bool) -> Result<(), TokenError> {
        let mut report = without_objects(token, all);
        let session = match token
            .is_initialized()
            .then(|| self.session(token, all, alone))
        {
            None => None,
            Some(Ok((session, logged_in))) => {
                report.logged_in |= logged_in;
                Some(session)
            }
            Some(Err(error)) if alone => return Err(error),
            Some(Err(error)) => {
                report.warnings.push(error.to_string());
                None
            }
        };
        if self.pin.is_some() && !alone && token.is_initialized() && !report.logged_in {
            report.warnings.push(
                "not logged in: a PIN is tried only where one token alone is meant, so name it"
                    .to_owned(),
            );
        }
        self.tell(Answer::Token(Box::new(report)))?;
        let Some(session) = session else {
            return Ok(());
        };
        match self.objects(token, &token.shortest(&all.tokens), &session) {
            Err(error) if !alone => self.tell(Answer::Warning(error.to_string())),
            result => result,
        }
    }

    /// A session, and whether it is logged in.
    fn session(
        &mut self,
        token: &Token,
        all: &Slots,
        alone: bool,
    ) -> Result<(Arc<Session>, bool), TokenError> {
        let pin = self.pin.filter(|_| alone);
        if pin.is_some() {
            let place = self.places.at(self.path, self.wanted, pin)?;
            return Ok((place.session, true));
        }
        if self.places.has_tried(self.path, token) {
            let place = self.places.enter(self.path, token, all, pin)?;
            return Ok((place.session, true));
        }
        let session = open_session(&self.places.started(self.path)?, token)?;
        Ok((Arc::new(session), false))
    }

    fn objects(
        &mut self,
        token: &Token,
        name: &TokenMatch,
        session: &Session,
    ) -> Result<(), TokenError> {
        let failed =
            |failure: Failure| failure.while_doing(format_args!("cannot list what is on {token}"));
        let object = &self.wanted.object;
        // Wherever p11-kit is, one of its tokens has the system's CA certificates: a hundred and more.
        let with_cas = token.flags & CKF_WRITE_PROTECTED == 0 || *object != ObjectMatch::default();
        let inventory = self.inventory(session, with_cas)?;
        let reporter = Reporter {
            session,
            others: &inventory,
            token: name,
        };
        let asked = |class: &str| object.class.as_ref().is_none_or(|wanted| wanted == class);
        if asked("private") {
            for (key, _) in inventory.private.shown(object) {
                let report = reporter.private_key(key);
                self.tell_one(report.map(|key| Answer::ListedKey(Box::new(key))), failed)?;
            }
        }
        if asked("public") {
            for (key, own) in inventory.public.shown(object) {
                if !inventory.has_private_of(own) {
                    let report = reporter.public_key_alone(key);
                    self.tell_one(report.map(|key| Answer::ListedKey(Box::new(key))), failed)?;
                }
            }
        }
        if asked("cert") {
            for (certificate, _) in inventory.certificates.shown(object) {
                let report = reporter.certificate(certificate);
                self.tell_one(report.map(|one| Answer::Certificate(Box::new(one))), failed)?;
            }
        }
        let nobody_says_so = !token.needs_login() && inventory.private.is_empty();
        if nobody_says_so && session.hides_private_objects() {
            self.tell(Answer::Warning(
                "without a login, it shows no private keys: if it has any, --login shows them"
                    .to_owned(),
            ))?;
        }
        Ok(())
    }

    /// An object that is deleted meanwhile is none.
    fn tell_one(
        &mut self,
        answer: Result<Answer, Failure>,
        failed: impl FnOnce(Failure) -> TokenError,
    ) -> Result<(), TokenError> {
        match answer {
            Ok(answer) => self.tell(answer),
            Err(failure) if failure.code == CKR_OBJECT_HANDLE_INVALID => Ok(()),
            Err(failure) => Err(failed(failure)),
        }
    }

    fn inventory(
        &mut self,
        session: &Session,
        without_keys: bool,
    ) -> Result<Inventory, TokenError> {
        let mut last = Instant::now();
        let mut working = || {
            if last.elapsed() < PULSE {
                return Ok(());
            }
            last = Instant::now();
            (self.tell)(Answer::Working).map_err(gone)
        };
        let inventory = Inventory::read(session, without_keys, &mut working)?;
        for (objects, what) in [
            (&inventory.private, "private keys"),
            (&inventory.public, "public keys"),
            (&inventory.certificates, "certificates"),
        ] {
            if objects.has_more {
                self.tell(Answer::Warning(format!(
                    "there are more than {CLASS_LIMIT} {what}: these are not all of them"
                )))?;
            }
        }
        Ok(inventory)
    }
}

fn gone(error: io::Error) -> TokenError {
    TokenError::Gone(format!("the command is gone: {error}"))
}

fn unreadable((slot, failure): &(CK_SLOT_ID, Failure)) -> TokenReport {
    let name = TokenMatch {
        slot_id: Some(*slot),
        ..TokenMatch::default()
    };
    let warning = format!("cannot be read: {failure}");
    TokenReport {
        uri: named(&name),
        slot: *slot,
        model: String::new(),
        flags: Vec::new(),
        logged_in: false,
        warnings: vec![warning],
    }
}

fn without_objects(token: &Token, all: &Slots) -> TokenReport {
    let has = |flag| token.flags & flag != 0;
    let flags = FLAGS.iter().filter(|(flag, _)| has(*flag));
    let warnings = WARNINGS.iter().filter(|(flag, is_set, _)| {
        has(*flag) == *is_set && (token.is_initialized() || *flag == CKF_TOKEN_INITIALIZED)
    });
    TokenReport {
        uri: named(&token.shortest(&all.tokens)),
        slot: token.slot,
        model: token.model(),
        flags: flags.map(|(_, name)| (*name).to_owned()).collect(),
        logged_in: !has(CKF_LOGIN_REQUIRED) && token.is_initialized(),
        warnings: warnings.map(|(.., text)| (*text).to_owned()).collect(),
    }
}

fn named(token: &TokenMatch) -> Pkcs11Uri {
    Pkcs11Uri {
        token: token.clone(),
        ..Pkcs11Uri::default()
    }
}

macro_rules! flags {
    ($($name:ident)*) => { &[$(($name, stringify!($name))),*] };
}

const FLAGS: &[(CK_FLAGS, &str)] = flags! {
    CKF_TOKEN_INITIALIZED CKF_LOGIN_REQUIRED CKF_USER_PIN_INITIALIZED CKF_WRITE_PROTECTED
    CKF_PROTECTED_AUTHENTICATION_PATH CKF_USER_PIN_COUNT_LOW CKF_USER_PIN_FINAL_TRY CKF_USER_PIN_LOCKED
    CKF_USER_PIN_TO_BE_CHANGED CKF_ERROR_STATE
};

/// What to say where a flag is set, or is not.
const WARNINGS: &[(CK_FLAGS, bool, &str)] = &[
    (
        CKF_TOKEN_INITIALIZED,
        false,
        "not initialized, so that it can have no keys: initialize it with the vendor's tool, or with \
         pkcs11-tool --init-token --slot SLOT --label LABEL, then pkcs11-tool --init-pin",
    ),
    (
        CKF_USER_PIN_LOCKED,
        true,
        "its user PIN is locked: have the security officer unlock it",
    ),
    (
        CKF_USER_PIN_FINAL_TRY,
        true,
        "one more wrong PIN locks it, and so it is not tried here: log in once by hand with the right one \
         (pkcs11-tool --login --list-objects)",
    ),
    (
        CKF_USER_PIN_COUNT_LOW,
        true,
        "somebody gave it a wrong PIN: look for a program with an old PIN before it locks the token",
    ),
    (
        CKF_ERROR_STATE,
        true,
        "it failed its self-test and does nothing (CKF_ERROR_STATE): ask its vendor",
    ),
];
