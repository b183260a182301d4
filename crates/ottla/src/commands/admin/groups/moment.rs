//! Times and durations as people write them, and as Kafka's tools want them.

use anyhow::{Context, ensure};

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// The longest fraction of a second, in digits; only thousandths count.
const FRACTION: usize = 9;

/// Milliseconds since 1970, written so or as a time: `2026-11-21T08:30:00Z`, with a fraction of a second or
/// without, with `Z`, an offset such as `+01:00`, or neither: that is UTC, as in `kafka-consumer-groups`.
pub(super) fn time(text: &str) -> anyhow::Result<i64> {
    let millis = text.parse().ok().or_else(|| date_and_time(text));
    let millis = millis.with_context(|| {
        format!(
            "{text:?} is neither a time such as 2026-11-21T08:30:00Z or 2026-11-21T09:30:00.250+01:00 nor \
             milliseconds"
        )
    })?;
    ensure!(millis >= 0, "{text} lies before 1970");
    Ok(millis)
}

fn date_and_time(text: &str) -> Option<i64> {
    let (date, clock) = text.split_once('T')?;
    let [year, month, day] = fields(date, '-')?;
    let (clock, zone) = clock.split_at(clock.find(['Z', '+', '-']).unwrap_or(clock.len()));
    let (clock, millis) = match clock.split_once('.') {
        Some((clock, fraction)) => (clock, thousandths(fraction)?),
        None => (clock, 0),
    };
    let [hour, minute, second] = fields(clock, ':')?;
    let (year, month, day) = (number(year, 4)?, number(month, 2)?, number(day, 2)?);
    let (hour, minute, second) = (number(hour, 2)?, number(minute, 2)?, number(second, 2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let valid = (1..=12).contains(&month)
        && (1..=days_in_month).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !valid {
        return None;
    }
    let of_day = hour * HOUR + minute * MINUTE + second * SECOND + millis;
    Some(days_since_1970(year, month, day) * DAY + of_day - east_of_utc(zone)?)
}

/// Milliseconds that clocks of a zone are ahead: of `Z`, `+01:00`, `-0530`, `+01`, or nothing at all.
fn east_of_utc(zone: &str) -> Option<i64> {
    /// No clock of the world is farther away, as Java has it.
    const FARTHEST: i64 = 18 * HOUR;
    if matches!(zone, "" | "Z") {
        return Some(0);
    }
    let (sign, clock) = match zone.split_at_checked(1)? {
        ("+", clock) => (1, clock),
        ("-", clock) => (-1, clock),
        _ => return None,
    };
    let (hour, minute) = match (clock.split_once(':'), clock.len()) {
        (Some((hour, minute)), _) => (hour, number(minute, 2)?),
        (None, 2) => (clock, 0),
        (None, _) => {
            let (hour, minute) = clock.split_at_checked(2)?;
            (hour, number(minute, 2)?)
        }
    };
    let ahead = number(hour, 2)? * HOUR + minute * MINUTE;
    (minute < 60 && ahead <= FARTHEST).then_some(sign * ahead)
}

/// Days from 1 January 1970 on, in the Gregorian calendar. Years begin in March here, so that the leap
/// day is the last of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    /// Days from 1 March of the year 0 to 1 January 1970.
    const EPOCH: i64 = 719_468;
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - EPOCH
}

/// Milliseconds, written as `90s`, `30m`, `2h30m`, `7d`, `250ms`, or by ISO 8601 as `PT2H30M`, `P7D`.
pub(super) fn duration(text: &str) -> anyhow::Result<i64> {
    let iso = text.strip_prefix(['P', 'p']);
    let millis = iso.map_or_else(|| spoken(text), |parts| iso_8601(&parts.to_ascii_uppercase()));
    millis.with_context(|| format!("{text:?} is not a duration such as 90s, 30m, 2h30m, 7d, PT2H30M or P7D"))
}

/// `2h30m`: numbers, each with its unit, in any order.
fn spoken(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0_i64;
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
            _ => return None,
        };
        total = total.checked_add(whole(number)?.checked_mul(unit)?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

/// What follows the `P`: days, and behind a `T` hours, minutes and seconds, as Java's `Duration` has it. The
/// units come in this order; years and months have no length of their own.
fn iso_8601(parts: &str) -> Option<i64> {
    let (days, clock) = match parts.split_once('T') {
        Some((_, "")) => return None,
        Some((days, clock)) => (days, clock),
        None if parts.is_empty() => return None,
        None => (parts, ""),
    };
    let days = of_units(days, &[('D', DAY)])?;
    days.checked_add(of_units(clock, &[('H', HOUR), ('M', MINUTE), ('S', SECOND)])?)
}

fn of_units(text: &str, units: &[(char, i64)]) -> Option<i64> {
    let mut rest = text;
    let mut total = 0_i64;
    for &(letter, unit) in units {
        let Some((number, after)) = rest.split_once(letter) else {
            continue;
        };
        let (number, millis) = match number.split_once('.') {
            Some((number, fraction)) if letter == 'S' => (number, thousandths(fraction)?),
            _ => (number, 0),
        };
        let of_unit = whole(number)?.checked_mul(unit)?.checked_add(millis)?;
        total = total.checked_add(of_unit)?;
        rest = after;
    }
    rest.is_empty().then_some(total)
}

/// Exactly `N` fields.
fn fields<const N: usize>(text: &str, separator: char) -> Option<[&str; N]> {
    let fields: Vec<&str> = text.split(separator).collect();
    fields.try_into().ok()
}

/// A number of so many digits.
fn number(text: &str, digits: usize) -> Option<i64> {
    whole(text).filter(|_| text.len() == digits)
}

/// A number without a sign.
fn whole(text: &str) -> Option<i64> {
    let digits = text.bytes().all(|digit| digit.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// The digits behind a decimal point, as thousandths.
fn thousandths(fraction: &str) -> Option<i64> {
    whole(fraction).filter(|_| fraction.len() <= FRACTION)?;
    whole(format!("{fraction:0<3}").get(..3)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_milliseconds_or_times() {
        for (text, expected) in [
            ("1700000000000", 1_700_000_000_000),
            ("1970-01-01T00:00:00Z", 0),
            ("2023-11-14T22:13:20Z", 1_700_000_000_000),
            ("2023-11-14T23:13:20+01:00", 1_700_000_000_000),
            ("2023-11-14T23:13:20+01", 1_700_000_000_000),
            ("2023-11-14T16:43:20.000-0530", 1_700_000_000_000),
            ("2024-02-29T12:00:00.25Z", 1_709_208_000_250),
            // As `kafka-consumer-groups` takes it: UTC.
            ("2023-11-14T22:13:20", 1_700_000_000_000),
            ("2024-02-29T12:00:00.250", 1_709_208_000_250),
            ("1970-01-01T01:00:00+01:00", 0),
        ] {
            assert_eq!(time(text).ok(), Some(expected), "{text}");
        }
        for bad in [
            "2023-02-29T00:00:00Z",
            "2023-11-14",
            "2023-11-14T22:13",
            "2023-11-14T22:13:20.",
            "2023-11-14T22:13:20.Z",
            "2023-11-14T22:13:20ZZ",
            "2023-11-14T22:13:20+",
            "2023-11-14T22:13:20+1",
            "2023-11-14T22:13:20+01:60",
            "2023-11-14T22:13:20+19:00",
            "2023-11-14T22:13:20 CET",
            "2023-11-14T22:13:60Z",
            "2023-11-14T24:00:00Z",
            "2023-+1-14T22:13:20Z",
            "2023-1-14T22:13:20Z",
            "1970-01-01T00:00:00+01:00",
            "1969-12-31T23:59:59Z",
            "0000-01-01T00:00:00Z",
            "yesterday",
            "T",
            "",
            "-1",
            "é",
            "2023-11-14T22:13:20+é1",
        ] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_add_up() {
        for (text, expected) in [
            ("90s", 90_000),
            ("2h30m", 9_000_000),
            ("7d", 604_800_000),
            ("250ms", 250),
            ("PT2H30M", 9_000_000),
            ("P7D", 604_800_000),
            ("P1DT1S", 86_401_000),
            ("PT0.25S", 250),
            ("pt90s", 90_000),
            ("P0D", 0),
        ] {
            assert_eq!(duration(text).ok(), Some(expected), "{text}");
        }
        for bad in [
            "",
            "90",
            "m",
            "1w",
            "9999999999999999d",
            "P",
            "PT",
            "P1DT",
            "P1Y",
            "P1M",
            "PT1M1H",
            "PT1.5H",
            "PT-1S",
            "P9999999999999999D",
            "PT1Sx",
            "PTS",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
