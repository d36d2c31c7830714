//! `/healthz`: how it stands with each target, for probes and for `roleseal status`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use client::Diagnostic;
use client::moment::Moment;
use client::refresher::Status;

/// How it stands with all of them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Health {
    /// The worst of all.
    pub(crate) status: State,
    pub(crate) targets: Vec<TargetHealth>,
    /// The keys that verify tokens of pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keys: Option<KeysHealth>,
}

/// The keys of a cluster.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeysHealth {
    pub(crate) state: State,
    pub(crate) count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// From best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// There is a session, and it is renewed in time.
    Ok,
    /// There is a session, but it could not be renewed.
    Degraded,
    /// The first is being asked for.
    Starting,
    /// There is none.
    Failing,
}

/// One target.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TargetHealth {
    pub(crate) name: String,
    pub(crate) state: State,
    /// How many times somebody got a session, since the start.
    #[serde(default)]
    pub(crate) served: u64,
    /// Of the latest session; it may have passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expiration: Option<Timestamp>,
    /// When the next is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_try: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failing_since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

impl Health {
    pub(super) fn of(targets: Vec<TargetHealth>) -> Health {
        let worst = targets.iter().map(|target| target.state).max();
        Health {
            status: worst.unwrap_or(State::Ok),
            targets,
            keys: None,
        }
    }

    /// The same with the keys of a cluster.
    pub(super) fn with_keys(self, keys: KeysHealth) -> Health {
        Health {
            status: self.status.max(keys.state),
            keys: Some(keys),
            ..self
        }
    }
}

impl State {
    /// Of the sessions of one target: as long as not all are alike, one that fails or begins is its service account's alone.
    fn of_all(each: impl Iterator<Item = State> + Clone) -> State {
        let (best, worst) = (each.clone().min(), each.max());
        match (best.unwrap_or(State::Ok), worst.unwrap_or(State::Ok)) {
            (best, worst) if best == worst => best,
            (State::Ok, State::Starting) => State::Ok,
            _ => State::Degraded,
        }
    }

    /// Whether whoever asks gets credentials.
    pub(crate) fn gives_credentials(self) -> bool {
        matches!(self, State::Ok | State::Degraded)
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Degraded => "degraded",
            State::Starting => "starting",
            State::Failing => "failing",
        }
    }
}

impl TargetHealth {
    /// The reason of a failure is told `in_full` only to this host: it names ARNs and hosts.
    pub(super) fn of(
        name: &str,
        (status, served): (&Status, u64),
        now: Moment,
        in_full: bool,
    ) -> TargetHealth {
        let state = match (status.valid(now), &status.failure) {
            (true, None) => State::Ok,
            (true, Some(_)) => State::Degraded,
            (false, None) => State::Starting,
            (false, Some(_)) => State::Failing,
        };
        let failure = status.failure.as_ref();
        TargetHealth {
            name: name.to_owned(),
            state,
            served,
            expiration: status
                .session
                .as_ref()
                .map(|session| session.credentials.expiration),
            next_try: status.next(now),
            failing_since: failure.map(|failure| failure.since),
            error: failure
                .filter(|_| in_full)
                .map(|failure| failure.error.report()),
        }
    }

    /// Of a target with several sessions: the state of all, and what is next. Without a session, nobody has asked for one.
    pub(super) fn of_all(name: &str, each: Vec<TargetHealth>) -> TargetHealth {
        let first =
            |time: fn(&TargetHealth) -> Option<Timestamp>| each.iter().filter_map(time).min();
        let (expiration, next_try) = (first(|one| one.expiration), first(|one| one.next_try));
        let (served, failing_since) = (
            each.iter().map(|one| one.served).sum(),
            first(|one| one.failing_since),
        );
        TargetHealth {
            name: name.to_owned(),
            state: State::of_all(each.iter().map(|one| one.state)),
            served,
            expiration,
            next_try,
            failing_since,
            error: each.into_iter().find_map(|one| one.error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use client::refresher::Failure;

    use super::*;
    use crate::test_support::session;

    #[test]
    fn a_session_counts_until_its_end_and_a_failure_is_told() {
        let (begin, end) = ("2026-01-01T12:00:00Z", "2026-01-01T13:00:00Z");
        let at = |time: &str| -> Timestamp { time.parse().unwrap() };
        let moment = |time| Moment {
            wall: at(time),
            ..Moment::now()
        };
        let failure = Failure {
            error: Arc::new(client::Error::Lost),
            since: at(begin),
            tries: 3,
        };
        let mut status = Status::default();
        let state =
            |status: &Status, now| TargetHealth::of("web", (status, 0), moment(now), true).state;
        assert_eq!(state(&status, begin), State::Starting);
        status.session = Some(Arc::new(session("A", begin, end)));
        assert_eq!(state(&status, begin), State::Ok);
        status.failure = Some(failure);
        assert_eq!(state(&status, begin), State::Degraded);
        assert_eq!(state(&status, end), State::Failing);

        let here = TargetHealth::of("web", (&status, 7), moment(end), true);
        assert_eq!(here.error, Some(client::Error::Lost.to_string()));
        assert_eq!(here.served, 7);
        let elsewhere = TargetHealth::of("web", (&status, 7), moment(end), false);
        assert_eq!(elsewhere.error, None);
        assert_eq!(elsewhere.failing_since, Some(at(begin)));
    }

    #[test]
    fn one_service_account_makes_no_target_fail() {
        use State::{Degraded, Failing, Ok, Starting};
        for (each, all) in [
            (&[][..], Ok),
            (&[Ok, Ok], Ok),
            (&[Starting], Starting),
            (&[Ok, Starting], Ok),
            (&[Ok, Failing], Degraded),
            (&[Ok, Degraded], Degraded),
            (&[Degraded, Failing], Degraded),
            (&[Ok, Starting, Failing], Degraded),
            (&[Starting, Failing], Degraded),
            (&[Failing, Failing], Failing),
        ] {
            assert_eq!(State::of_all(each.iter().copied()), all, "{each:?}");
        }
    }

    #[test]
    fn the_worst_target_makes_the_status() {
        let target = |state| TargetHealth {
            name: "web".into(),
            state,
            served: 0,
            expiration: None,
            next_try: None,
            failing_since: None,
            error: None,
        };
        for (states, worst) in [
            (&[State::Ok, State::Degraded][..], State::Degraded),
            (
                &[State::Failing, State::Starting, State::Ok],
                State::Failing,
            ),
        ] {
            let health = Health::of(states.iter().copied().map(target).collect());
            assert_eq!(health.status, worst);
            let json = serde_json::to_value(&health).unwrap();
            assert_eq!(json["status"], worst.word());
        }
    }
}
