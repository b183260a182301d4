//! Until when a call may take: what the client says in `grpc-timeout`, and what the request says.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// How long a call is worked on where the client does not say.
pub(super) const DEFAULT: Duration = Duration::from_secs(30);
/// However patient the client, no attempt takes longer.
pub(super) const LONGEST: Duration = Duration::from_secs(300);

/// The client's own deadline, where it has one.
pub(super) fn of_client(metadata: &MetadataMap) -> Option<Instant> {
    let timeout = parse(metadata.get("grpc-timeout")?.to_str().ok()?)?;
    Instant::now().checked_add(timeout)
}

/// The end of an attempt that begins now: after `timeout_ms`, or with the client's own deadline.
pub(super) fn of_attempt(timeout_ms: Option<u32>, of_client: Option<Instant>) -> Instant {
    let timeout = timeout_ms.map_or(DEFAULT, |ms| Duration::from_millis(ms.into()).min(LONGEST));
    let end = Instant::now() + timeout;
    of_client.map_or(end, |client| client.min(end))
}

/// At most eight digits and a unit, as gRPC over HTTP/2 has it.
fn parse(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(count * 3600),
        'M' => Duration::from_secs(count * 60),
        'S' => Duration::from_secs(count),
        'm' => Duration::from_millis(count),
        'u' => Duration::from_micros(count),
        'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_has_them() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("7n", Some(Duration::from_nanos(7))),
            ("", None),
            ("S", None),
            ("-1S", None),
            ("123456789S", None),
            ("1x", None),
            ("1é", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_sooner_end_counts() {
        let soon = Instant::now() + Duration::from_millis(5);
        assert_eq!(of_attempt(Some(60_000), Some(soon)), soon);
        assert!(of_attempt(Some(u32::MAX), None) <= Instant::now() + LONGEST);
    }
}
