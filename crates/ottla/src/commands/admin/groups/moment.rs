//! Times and durations as people write them.

use anyhow::{Context, bail, ensure};

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Milliseconds since 1970, written so or as UTC time: `2026-11-21T08:30:00Z`, seconds with a fraction or
/// without.
pub(super) fn time(text: &str) -> anyhow::Result<i64> {
    if let Ok(millis) = text.parse::<i64>() {
        ensure!(millis >= 0, "{text} lies before 1970");
        return Ok(millis);
    }
    utc(text)
        .with_context(|| format!("{text:?} is neither a time such as 2026-11-21T08:30:00Z nor milliseconds"))
}

fn utc(text: &str) -> Option<i64> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut clock = clock.split(':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let valid = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in_month).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..60).contains(&second)
        && date.next().is_none()
        && clock.next().is_none()
        && fraction.len() <= 9
        && fraction.bytes().all(|digit| digit.is_ascii_digit());
    if !valid {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some(days_since_1970(year, month, day) * DAY + hour * HOUR + minute * MINUTE + second * SECOND + millis)
}

/// Days from 1 January 1970 on, in the Gregorian calendar. Years begin in March here, so that the leap
/// day is the last of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    /// Days from 1 March of the year 0 to 1 January 1970.
    const EPOCH: i64 = 719_468;
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year / 4 - year / 100 + year / 400 + day_of_year - EPOCH
}

/// Milliseconds, written as `90s`, `30m`, `2h30m`, `7d`, `250ms`.
pub(super) fn duration(text: &str) -> anyhow::Result<i64> {
    let mut rest = text;
    let mut total = 0_i64;
    ensure!(
        !rest.is_empty(),
        "a duration has a number and a unit: 90s, 30m, 2h30m, 7d"
    );
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let letters = rest[digits..].bytes().take_while(u8::is_ascii_lowercase).count();
        let (number, after) = rest.split_at(digits);
        let (unit, after) = after.split_at(letters);
        let unit = match unit {
            "ms" => 1,
            "s" => SECOND,
            "m" => MINUTE,
            "h" => HOUR,
            "d" => DAY,
            _ => bail!("{text:?} is not a duration such as 90s, 30m, 2h30m or 7d"),
        };
        let number: i64 = number
            .parse()
            .with_context(|| format!("{text:?} is not a duration such as 90s, 30m, 2h30m or 7d"))?;
        total = number
            .checked_mul(unit)
            .and_then(|millis| total.checked_add(millis))
            .with_context(|| format!("{text:?} is too long"))?;
        rest = after;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_or_milliseconds() {
        assert_eq!(time("1700000000000").expect("millis"), 1_700_000_000_000);
        assert_eq!(time("1970-01-01T00:00:00Z").expect("utc"), 0);
        assert_eq!(time("2023-11-14T22:13:20Z").expect("utc"), 1_700_000_000_000);
        assert_eq!(time("2024-02-29T12:00:00.25Z").expect("utc"), 1_709_208_000_250);
        for bad in [
            "2023-02-29T00:00:00Z",
            "2023-11-14",
            "2023-11-14T22:13:20",
            "yesterday",
            "-1",
        ] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_add_up() {
        assert_eq!(duration("90s").expect("valid"), 90_000);
        assert_eq!(duration("2h30m").expect("valid"), 9_000_000);
        assert_eq!(duration("7d").expect("valid"), 604_800_000);
        assert_eq!(duration("250ms").expect("valid"), 250);
        for bad in ["", "90", "m", "1w", "9999999999999999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
