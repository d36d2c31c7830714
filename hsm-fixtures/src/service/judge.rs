//! One request in, one answer out; HTTP is not known here.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};

use super::answer::Answer;
use super::authorization::Authorization;
use super::config::ServiceConfig;
use super::create_session;
use super::fault::{Fault, Faults};
use super::journal::{Decision, Journal, Operation};
use super::received::Received;
use super::refusal::Refusal;
use super::registry::Registry;
use super::sts;
use super::vault::Vault;

/// The state that all connections share.
pub(crate) struct Judge {
    registry: Registry,
    clock_offset: SignedDuration,
    session_seconds: Option<u32>,
    verbose: bool,
    faults: Faults,
    vault: Mutex<Vault>,
    journal: Mutex<Journal>,
}

impl Judge {
    pub(crate) fn new(config: &ServiceConfig) -> Result<Judge> {
        Ok(Judge {
            registry: Registry::new(config)?,
            clock_offset: config.clock_offset,
            session_seconds: config.session_seconds,
            verbose: config.verbose,
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
        self.record(self.now(None), operation, None, status, "a fault", reason);
    }

    /// What [`answer`](Judge::answer) would make of a CreateSession.
    pub(crate) fn would_grant(&self, request: &Received) -> Result<(), String> {
        match create_session::judge(&self.registry, request, self.now(None)) {
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
            refusal.kind.status(),
            &refusal.message,
            "",
        );
        Answer::refused(&refusal)
    }

    pub(crate) fn journal(&self) -> MutexGuard<'_, Journal> {
        lock(&self.journal)
    }

    fn create_session(&self, request: &Received, now: Timestamp, fault: Option<Fault>) -> Answer {
        let record = |status, message: &str, reason: &str| {
            self.record(
                now,
                Operation::CreateSession,
                Some(request),
                status,
                message,
                reason,
            );
        };
        let granted = create_session::judge(&self.registry, request, now).and_then(|mut grant| {
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
        match granted {
            Ok((grant, session)) => {
                record(201, &session.arn, "");
                Answer::created(&grant, &session)
            }
            Err(refusal) => {
                record(refusal.kind.status(), &refusal.message, &refusal.reason);
                Answer::refused(&refusal)
            }
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
            answer.status,
            message,
            reason,
        );
        answer
    }

    fn record(
        &self,
        time: Timestamp,
        operation: Operation,
        request: Option<&Received>,
        status: u16,
        message: &str,
        reason: &str,
    ) {
        let credential = request
            .and_then(|request| request.header("authorization").ok())
            .and_then(|value| Authorization::parse(value).ok())
            .map(|authorization| authorization.credential_id);
        let decision = Decision {
            time,
            operation,
            credential,
            status,
            message: message.to_owned(),
            reason: reason.to_owned(),
        };
        if self.verbose {
            eprintln!("{decision}");
        }
        self.journal().record(decision);
    }
}

/// A thread that panicked while it held the lock has failed its test already; the others shall still get answers.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
