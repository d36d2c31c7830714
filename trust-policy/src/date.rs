//! Dates of condition values: the W3C's profile of ISO 8601, or seconds since 1970.

/// Seconds since 1970, and nanoseconds of the second.
pub(crate) type Instant = (i64, u32);

/// Reads `YYYY`, `YYYY-MM`, `YYYY-MM-DD`, `…Thh:mmZ`, `…:ssZ`, `….sssZ`, with `Z` or `±hh:mm`; or a number of seconds.
/// Four digits are a year.
pub(crate) fn parse(text: &str) -> Option<Instant> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if text.len() != 4 && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Some((text.parse().ok()?, 0));
    }
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let days = day_number(date, time.is_some())?;
    let (seconds, nanoseconds) = match time {
        Some(time) => time_of_day(time)?,
        None => (0, 0),
    };
    Some((days * 86_400 + seconds, nanoseconds))
}

/// Days from 1970-01-01 in the Gregorian calendar.
fn day_number(date: &str, whole: bool) -> Option<i64> {
    let mut parts = date.split('-');
    let year = number(parts.next()?, 4)?;
    let month = parts.next().map(|part| number(part, 2));
    let day = parts.next().map(|part| number(part, 2));
    if parts.next().is_some() || (whole && day.is_none()) {
        return None;
    }
    let month = month.unwrap_or(Some(1))?;
    let day = day.unwrap_or(Some(1))?;
    if !(1..=12).contains(&month) || !(1..=days_of(month, year)).contains(&day) {
        return None;
    }
    // Years from March, so that a leap day is the last of its year; 719_468 days are from year 0 to 1970.
    let (shifted, months) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days =
        365 * shifted + shifted.div_euclid(4) - shifted.div_euclid(100) + shifted.div_euclid(400);
    Some(days + (153 * months + 2) / 5 + day - 1 - 719_468)
}

fn days_of(month: i64, year: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

fn time_of_day(time: &str) -> Option<Instant> {
    let (clock, offset) = match time.strip_suffix('Z') {
        Some(clock) => (clock, 0),
        None => {
            let at = time.rfind(['+', '-'])?;
            let (clock, zone) = (time.get(..at)?, time.get(at + 1..)?);
            let (hours, minutes) = hours_and_minutes(zone)?;
            let east = time.get(at..=at)? == "+";
            let seconds = hours * 3600 + minutes * 60;
            (clock, if east { -seconds } else { seconds })
        }
    };
    let (minutes_part, seconds_part) = match clock.match_indices(':').nth(1) {
        Some((at, _)) => (clock.get(..at)?, Some(clock.get(at + 1..)?)),
        None => (clock, None),
    };
    let (hours, minutes) = hours_and_minutes(minutes_part)?;
    let (seconds, nanoseconds) = match seconds_part {
        Some(part) => seconds_and_fraction(part)?,
        None => (0, 0),
    };
    Some((hours * 3600 + minutes * 60 + seconds + offset, nanoseconds))
}

fn hours_and_minutes(text: &str) -> Option<(i64, i64)> {
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes) = (number(hours, 2)?, number(minutes, 2)?);
    (hours < 24 && minutes < 60).then_some((hours, minutes))
}

fn seconds_and_fraction(text: &str) -> Option<Instant> {
    let (seconds, fraction) = match text.split_once('.') {
        Some((seconds, fraction)) => (seconds, Some(fraction)),
        None => (text, None),
    };
    let seconds = number(seconds, 2).filter(|seconds| *seconds < 60)?;
    let nanoseconds = match fraction {
        Some(digits) if (1..=9).contains(&digits.len()) => {
            let value = u32::try_from(number(digits, digits.len())?).ok()?;
            value * 10_u32.pow(9 - u32::try_from(digits.len()).ok()?)
        }
        Some(_) => return None,
        None => 0,
    };
    Some((seconds, nanoseconds))
}

fn number(text: &str, digits: usize) -> Option<i64> {
    (text.len() == digits && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_its_instant() {
        // By `date -u -d TEXT +%s`.
        let cases = [
            ("1970", 0),
            ("1969-12-31", -86_400),
            ("2000-02-29", 951_782_400),
            ("2026", 1_767_225_600),
            ("2026-03", 1_772_323_200),
            ("2026-11-24T10:25Z", 1_795_515_900),
            ("2026-11-24T10:25:07Z", 1_795_515_907),
            ("2026-11-24T10:25:07+01:00", 1_795_512_307),
            ("2026-11-24T10:25:07-05:30", 1_795_535_707),
            ("1795515907", 1_795_515_907),
            ("0", 0),
        ];
        for (text, seconds) in cases {
            assert_eq!(parse(text), Some((seconds, 0)), "{text}");
        }
        assert_eq!(parse("1970-01-01T00:00:00.25Z"), Some((0, 250_000_000)));
    }

    #[test]
    fn what_is_no_date_is_none() {
        let cases = [
            "",
            "-",
            "now",
            "2026-13",
            "2026-02-29",
            "2100-02-29",
            "2026-1-1",
            "2026-01-01T24:00Z",
            "2026-01-01T10:00",
            "2026-01T10:00Z",
            "2026-01-01T10:00:60Z",
            "2026-01-01T10:00:00.Z",
            "2026-01-01 10:00Z",
            "2026-01-01-01",
            "99999999999999999999",
            "2026-01-01T10:00:00+1:00",
            "2026-01-01T10:00:00.0123456789Z",
        ];
        for text in cases {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
