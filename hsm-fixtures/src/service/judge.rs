//! One request in, one answer out; HTTP is not known here.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};

use super::answer::Answer;
use super::authorization_header::Authorization;
use super::config::ServiceConfig;
use super::create_session;
use super::explanation::Explanation;
use super::fault::{Fault, Faults};
use super::journal::{Decision, Journal, Operation};
use super::own_hosts::OwnHosts;
use super::received::Received;
use super::refusal::Refusal;
use super::registry::Registry;
use super::sts;
use super::vault::Vault;

/// The state that all connections share.
pub(crate) struct Judge {
    registry: RwLock<Registry>,
    hosts: OwnHosts,
    clock_offset: SignedDuration,
    session_seconds: Option<u32>,
    verbose: bool,
    explain: bool,
    faults: Faults,
    vault: Mutex<Vault>,
    journal: Mutex<Journal>,
}

impl Judge {
    /// The judge of a service at this port.
    pub(crate) fn new(config: &ServiceConfig, port: u16) -> Result<Judge> {
        Ok(Judge {
            registry: RwLock::new(Registry::new(config)?),
            hosts: OwnHosts::new(config, port)?,
            clock_offset: config.clock_offset,
            session_seconds: config.session_seconds,
            verbose: config.verbose,
            explain: config.explain,
            faults: Faults::default(),
            vault: Mutex::default(),
            journal: Mutex::default(),
        })
    }

    /// The service's clock.
    pub(crate) fn now(&self, fault: Option<Fault>) -> Timestamp {
        let now = Timestamp::now() + self.clock_offset;
        match fault {
            Some(Fault::Clock(ahead)) => now + ahead,
            _ => now,
        }
    }

    /// Answers a request. STS is at the path `/`, Roles Anywhere everywhere else.
    pub(crate) fn answer(
        &self,
        request: &Received,
        request_id: &str,
        now: Timestamp,
        fault: Option<Fault>,
    ) -> Answer {
        if let Err(reason) = self.hosts.check(request) {
            return self.refuse(request, now, &Refusal::misdirected(reason));
        }
        if request.path == "/" {
            return self.get_caller_identity(request, request_id, now);
        }
        if let Some(answer) = fault.and_then(Fault::answer) {
            self.record_fault(answer.status, &format!("{fault:?}"));
            return answer;
        }
        let answer = self.create_session(request, now, fault);
        match fault {
            Some(fault) => fault.spoil(answer),
            None => answer,
        }
    }

    /// The faults that are due.
    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Notes a request that met a fault and was not judged.
    pub(crate) fn record_fault(&self, status: u16, reason: &str) {
        let operation = Operation::CreateSession;
        let outcome = Outcome {
            status,
            message: "a fault",
            reason,
            allowed_by: "",
        };
        self.record(self.now(None), operation, None, &outcome);
    }

    /// What [`answer`](Judge::answer) would make of a CreateSession.
    pub(crate) fn would_grant(&self, request: &Received) -> Result<(), String> {
        let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        let mut explanation = Explanation::default();
        match create_session::judge(&registry, request, self.now(None), &mut explanation) {
            Ok(_) => Ok(()),
            Err(refusal) => Err(format!("{}: {}", refusal.message, refusal.reason)),
        }
    }

    /// Answers bytes that could not even be read as a request.
    pub(crate) fn answer_unreadable(&self, message: &str) -> Answer {
        let refusal = Refusal::invalid(message);
        self.record(
            self.now(None),
            Operation::CreateSession,
            None,
            &Outcome {
                reason: "",
                ..Outcome::refused(&refusal)
            },
        );
        Answer::refused(&refusal)
    }

    /// Refuses a request before its operation is looked at.
    fn refuse(&self, request: &Received, now: Timestamp, refusal: &Refusal) -> Answer {
        let outcome = Outcome::refused(refusal);
        self.record(now, Operation::CreateSession, Some(request), &outcome);
        Answer::refused(refusal)
    }

    pub(crate) fn journal(&self) -> MutexGuard<'_, Journal> {
        lock(&self.journal)
    }

    /// Adds a revocation list to a trust anchor, from the next request on.
    pub(crate) fn import_crl(&self, anchor: &str, bytes: &[u8]) -> Result<()> {
        let mut registry = self
            .registry
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        registry.import_crl(anchor, bytes)
    }

    fn create_session(&self, request: &Received, now: Timestamp, fault: Option<Fault>) -> Answer {
        let mut explanation = Explanation::default();
        let judged = {
            let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
            create_session::judge(&registry, request, now, &mut explanation)
        };
        let granted = judged.and_then(|mut grant| {
            if let Some(seconds) = self.session_seconds {
                grant.seconds = seconds.into();
            }
            if fault == Some(Fault::Expired) {
                grant.seconds = -60;
            }
            let session = lock(&self.vault).vend(&grant, now);
            session
                .map(|session| (grant, session))
                .map_err(|error| Refusal::denied("Internal error", error.to_string()))
        });
        let outcome = match &granted {
            Ok((grant, session)) => Outcome {
                status: 201,
                message: &session.arn,
                reason: "",
                allowed_by: &grant.allowed_by,
            },
            Err(refusal) => Outcome::refused(refusal),
        };
        explanation.verdict(outcome.to_string());
        self.record(now, Operation::CreateSession, Some(request), &outcome);
        if self.explain {
            eprintln!("{explanation}");
        }
        match &granted {
            Ok((grant, session)) => Answer::created(grant, session),
            Err(refusal) => Answer::refused(refusal),
        }
    }

    fn get_caller_identity(&self, request: &Received, request_id: &str, now: Timestamp) -> Answer {
        let vault = lock(&self.vault);
        let outcome = sts::caller_identity(&vault, request, now);
        let answer = sts::answer(outcome.as_ref().copied(), request_id);
        let (message, reason) = match &outcome {
            Ok(session) => (session.arn.as_str(), ""),
            Err(error) => (error.message.as_str(), error.code),
        };
        self.record(
            now,
            Operation::GetCallerIdentity,
            Some(request),
            &Outcome {
                status: answer.status,
                message,
                reason,
                allowed_by: "",
            },
        );
        answer
    }

    fn record(
        &self,
        time: Timestamp,
        operation: Operation,
        request: Option<&Received>,
        outcome: &Outcome<'_>,
    ) {
        let credential = request
            .and_then(|request| request.header("authorization").ok())
            .and_then(|value| Authorization::parse(value).ok())
            .map(|authorization| authorization.credential_id);
        let decision = Decision {
            time,
            operation,
            credential,
            status: outcome.status,
            message: outcome.message.to_owned(),
            reason: outcome.reason.to_owned(),
            allowed_by: outcome.allowed_by.to_owned(),
        };
        if self.verbose {
            eprintln!("{decision}");
        }
        self.journal().record(decision);
    }
}

/// What becomes of a request, for the journal.
struct Outcome<'a> {
    status: u16,
    message: &'a str,
    reason: &'a str,
    allowed_by: &'a str,
}

impl<'a> Outcome<'a> {
    fn refused(refusal: &'a Refusal) -> Outcome<'a> {
        Outcome {
            status: refusal.kind.status(),
            message: &refusal.message,
            reason: &refusal.reason,
            allowed_by: "",
        }
    }
}

impl fmt::Display for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.message)?;
        match self.reason {
            "" => Ok(()),
            reason => write!(f, "; because {reason}"),
        }
    }
}

/// A thread that panicked while it held the lock has failed its test already; the others shall still get answers.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
