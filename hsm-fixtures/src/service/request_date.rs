//! X-Amz-Date.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, civil};

/// AWS refuses a request whose date is further from its clock than this.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// Checks the `value` of X-Amz-Date (`YYYYMMDD'T'HHMMSS'Z'`) against the clock, and the scope's date against its day.
pub(crate) fn check(value: &str, scope_date: &str, now: Timestamp) -> Result<(), String> {
    let date =
        parse(value).ok_or_else(|| format!("X-Amz-Date is not YYYYMMDDTHHMMSSZ: {value}"))?;
    if !value.starts_with(scope_date) || scope_date.len() != "YYYYMMDD".len() {
        return Err(format!(
            "Credential is scoped to {scope_date}, X-Amz-Date is {value}"
        ));
    }
    let skew = date.duration_since(now);
    if skew.abs() > TOLERANCE {
        return Err(format!(
            "X-Amz-Date {value} is {} seconds from our clock; 300 are allowed",
            skew.as_secs()
        ));
    }
    Ok(())
}

fn parse(value: &str) -> Option<Timestamp> {
    let punctuation = value.bytes().enumerate().all(|(at, byte)| match at {
        8 => byte == b'T',
        15 => byte == b'Z',
        _ => byte.is_ascii_digit(),
    });
    if value.len() != "YYYYMMDDTHHMMSSZ".len() || !punctuation {
        return None;
    }
    let date = civil::DateTime::strptime("%Y%m%dT%H%M%SZ", value).ok()?;
    TimeZone::UTC.to_timestamp(date).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-02T00:04:00Z".parse().unwrap()
    }

    #[test]
    fn five_minutes_either_way_are_allowed() {
        for value in ["20260102T000400Z", "20260102T000900Z"] {
            assert_eq!(check(value, "20260102", now()), Ok(()), "{value}");
        }
        assert_eq!(check("20260101T235900Z", "20260101", now()), Ok(()));
        for (value, day) in [
            ("20260102T000901Z", "20260102"),
            ("20260101T235859Z", "20260101"),
        ] {
            assert!(
                check(value, day, now())
                    .unwrap_err()
                    .contains("from our clock"),
                "{value}"
            );
        }
    }

    #[test]
    fn the_scope_is_of_the_same_day() {
        for day in ["20260101", "2026", "20260102T"] {
            assert!(
                check("20260102T000400Z", day, now())
                    .unwrap_err()
                    .contains("scoped to"),
                "{day}"
            );
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for value in [
            "",
            "2026-01-02T00:04:00Z",
            "20260102T000400",
            "20260102t000400Z",
            "20261302T000400Z",
        ] {
            assert!(
                check(value, "20260102", now())
                    .unwrap_err()
                    .contains("YYYYMMDD"),
                "{value}"
            );
        }
    }
}
