//! A session: credentials, and how long they are good for.

use jiff::{SignedDuration, Timestamp};

use crate::credentials::Credentials;

/// A session that AWS vended. `Debug` shows no secret.
#[derive(Debug)]
pub struct Session {
    /// Secret key and token are among them.
    pub credentials: Credentials,
    /// When it was asked for.
    pub issued: Timestamp,
    /// The certificate that it was asked for with: its serial, decimal.
    pub serial: Option<String>,
}

/// AWS's tools ask anew once less than this is left (botocore does so 15 minutes ahead, others later):
/// what has less would make them ask for every call.
const MARGIN: SignedDuration = SignedDuration::from_mins(15);

impl Session {
    /// Whether it may still be used.
    pub fn valid(&self, now: Timestamp) -> bool {
        now < self.credentials.expiration
    }

    /// Whether it may still be handed to somebody who will use it for a while.
    pub fn fresh(&self, now: Timestamp) -> bool {
        now < self.stale_at()
    }

    /// When it stops being fresh: 15 minutes, or a quarter of its life, before its end.
    pub(crate) fn stale_at(&self) -> Timestamp {
        self.credentials.expiration - self.margin()
    }

    /// How long before its end it stops being fresh.
    pub(crate) fn margin(&self) -> SignedDuration {
        let life = self.credentials.expiration.duration_since(self.issued);
        MARGIN.min(life / 4).max(SignedDuration::ZERO)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A session named by its access key.
    pub(crate) fn session(key: &str, issued: &str, expiration: &str) -> Session {
        Session {
            credentials: Credentials {
                access_key_id: key.into(),
                secret_access_key: "s3cret".into(),
                session_token: "t0ken".into(),
                expiration: expiration.parse().unwrap(),
            },
            issued: issued.parse().unwrap(),
            serial: Some("42".into()),
        }
    }

    #[test]
    fn a_session_is_fresh_until_a_margin_before_its_end() {
        let cases = [
            ("13:00:00", "12:44:59", "12:45:00"), // an hour: a quarter of an hour
            ("12:15:00", "12:11:14", "12:11:15"), // a quarter of an hour: a quarter of that
            ("12:00:08", "12:00:05", "12:00:06"),
        ];
        for (end, fresh, stale) in cases {
            let at = |time: &str| format!("2026-01-01T{time}Z").parse().unwrap();
            let end_time: Timestamp = at(end);
            let one = session("A", "2026-01-01T12:00:00Z", &end_time.to_string());
            assert!(one.fresh(at(fresh)), "{end}");
            assert!(!one.fresh(at(stale)) && one.valid(at(stale)), "{end}");
            assert!(!one.valid(end_time), "{end}");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_does_no_harm() {
        let one = session("A", "2026-01-01T13:00:00Z", "2026-01-01T12:00:00Z");
        let now = "2026-01-01T11:59:59Z".parse().unwrap();
        assert!(one.fresh(now) && one.valid(now));
    }
}
