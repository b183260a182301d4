//! Which protocol a connection speaks, told from its first bytes.
//!
//! Kafka's first four bytes are the length of a frame. HTTP, of either version, begins with a method in
//! capital letters: as a length that would be more than a gigabyte. TLS begins with a handshake record,
//! as a length more than 350 MB. Both are beyond any frame that a broker accepts by default.

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Kafka's binary protocol.
    Kafka,
    /// HTTP/1 or HTTP/2 (gRPC).
    Http,
    /// A TLS handshake.
    Tls,
}

/// How many bytes always suffice for [`classify`].
pub(super) const ENOUGH: usize = 4;

/// Methods by which HTTP/1 requests begin, and the preface of HTTP/2, each to its fourth byte.
const HTTP: [&[u8; 4]; 10] = [
    b"PRI ", b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"OPTI", b"PATC", b"CONN", b"TRAC",
];

/// Tells the protocol from the bytes that have come so far; `None`: more are needed.
pub(super) fn classify(bytes: &[u8]) -> Option<Protocol> {
    let head = &bytes[..bytes.len().min(ENOUGH)];
    if head.is_empty() {
        return None;
    }
    if let Some(protocol) = [0x16, 0x03].get(..head.len().min(2))
        && head.starts_with(protocol)
    {
        return (head.len() >= 2).then_some(Protocol::Tls);
    }
    let may_be_http = HTTP.iter().any(|method| method.starts_with(head));
    match (may_be_http, head.len() == ENOUGH) {
        (true, true) => Some(Protocol::Http),
        (true, false) => None,
        (false, _) => Some(Protocol::Kafka),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_the_protocol() {
        assert_eq!(classify(b""), None);
        assert_eq!(classify(&[0, 0, 0, 40]), Some(Protocol::Kafka));
        assert_eq!(
            classify(&[0]),
            Some(Protocol::Kafka),
            "one byte tells most Kafka clients"
        );
        assert_eq!(classify(b"P"), None);
        assert_eq!(classify(b"PO"), None);
        assert_eq!(classify(b"POST / HTTP/1.1"), Some(Protocol::Http));
        assert_eq!(classify(b"PRI * HTTP/2.0"), Some(Protocol::Http));
        assert_eq!(classify(b"PX"), Some(Protocol::Kafka));
        assert_eq!(classify(&[0x16]), None);
        assert_eq!(classify(&[0x16, 0x03, 0x01]), Some(Protocol::Tls));
        assert_eq!(classify(&[0x16, 0x04, 0, 0]), Some(Protocol::Kafka));
    }

    #[test]
    fn four_bytes_always_suffice() {
        for first in 0..=u8::MAX {
            for second in [0, 3, b'R', b'O', b'E'] {
                assert!(classify(&[first, second, 0, 0]).is_some());
            }
        }
    }
}
