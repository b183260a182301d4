//! Kafka's listener lists: `NAME://host:port,NAME://host:port`.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use broker::config::HostPort;

/// One entry of `listeners` or `advertised.listeners`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) address: HostPort,
}

/// Reads a list; names must not repeat.
pub(crate) fn parse_list(key: &str, text: &str) -> anyhow::Result<Vec<Listener>> {
    let mut listeners: Vec<Listener> = Vec::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let Some((name, address)) = entry.split_once("://") else {
            bail!("{key}: {entry:?} is not of the form NAME://host:port");
        };
        let address = parse_address(address).with_context(|| format!("{key}: {entry:?}"))?;
        let name = name.to_ascii_uppercase();
        if listeners.iter().any(|listener| listener.name == name) {
            bail!("{key}: the listener {name} is named twice");
        }
        listeners.push(Listener { name, address });
    }
    Ok(listeners)
}

/// Reads `host:port` or `[v6]:port`; the host may be empty.
pub(crate) fn parse_address(text: &str) -> anyhow::Result<HostPort> {
    let Some((host, port)) = text.rsplit_once(':') else {
        bail!("{text:?} has no port: expected host:port");
    };
    let port = port
        .parse()
        .with_context(|| format!("{port:?} is not a port: expected 0 to 65535"))?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    Ok(HostPort::new(host, port))
}

/// Reads `listener.security.protocol.map` and refuses what is not there yet.
pub(crate) fn security_map(text: Option<&String>) -> anyhow::Result<BTreeMap<String, String>> {
    let mut map = BTreeMap::new();
    for entry in text
        .into_iter()
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .filter(|e| !e.is_empty())
    {
        let Some((name, protocol)) = entry.split_once(':') else {
            bail!("listener.security.protocol.map: {entry:?} is not of the form NAME:PROTOCOL");
        };
        let protocol = protocol.to_ascii_uppercase();
        if protocol != "PLAINTEXT" {
            bail!(
                "listener.security.protocol.map: {name} asks for {protocol}; this version serves PLAINTEXT alone"
            );
        }
        map.insert(name.to_ascii_uppercase(), protocol);
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_kafka_writes_them() {
        let list = parse_list("listeners", "PLAINTEXT://:9092, internal://[::1]:19092").expect("well formed");
        assert_eq!(
            list[0],
            Listener {
                name: "PLAINTEXT".to_owned(),
                address: HostPort::new("", 9092)
            }
        );
        assert_eq!(
            list[1],
            Listener {
                name: "INTERNAL".to_owned(),
                address: HostPort::new("::1", 19092)
            }
        );
    }

    #[test]
    fn mistakes_are_named() {
        for bad in ["9092", "A://b", "A://b:x", "A://b:1,A://c:2", "A://b:70000"] {
            let error = parse_list("listeners", bad).expect_err(bad);
            assert!(format!("{error:#}").contains("listeners"), "{error:#}");
        }
        assert!(security_map(Some(&"EXTERNAL:SASL_SSL".to_owned())).is_err());
    }
}
