//! How many connections there may be, in all and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::ConnectionLimits;

/// Why a connection is closed as soon as it was accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("max.connections={0} are open")]
    Total(usize),
    #[error("max.connections.per.ip={0} are open from this address")]
    PerAddress(usize),
}

/// Counts open connections; shared by the listeners of a broker.
#[derive(Clone, Debug)]
pub struct ConnectionGate {
    limits: ConnectionLimits,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Holds a connection's place until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    address: IpAddr,
    open: Arc<Mutex<Open>>,
}

impl ConnectionGate {
    /// No connections yet.
    pub fn new(limits: ConnectionLimits) -> Self {
        Self {
            limits,
            open: Arc::default(),
        }
    }

    pub(super) fn limits(&self) -> &ConnectionLimits {
        &self.limits
    }

    pub(super) fn admit(&self, address: IpAddr) -> Result<Place, Refused> {
        // An IPv4 client of a dual-stack socket counts as the IPv4 client it is.
        let address = address.to_canonical();
        let mut open = self.open.lock();
        if open.total >= self.limits.total {
            return Err(Refused::Total(self.limits.total));
        }
        let here = open.by_address.get(&address).copied().unwrap_or(0);
        if here >= self.limits.per_address {
            return Err(Refused::PerAddress(self.limits.per_address));
        }
        open.total += 1;
        open.by_address.insert(address, here + 1);
        Ok(Place {
            address,
            open: Arc::clone(&self.open),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        open.total -= 1;
        if let Some(here) = open.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_given_back() {
        let gate = ConnectionGate::new(ConnectionLimits {
            total: 3,
            per_address: 2,
            ..ConnectionLimits::default()
        });
        let (one, two): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let first = gate.admit(one).unwrap();
        let _second = gate.admit(one).unwrap();
        assert_eq!(gate.admit(one).unwrap_err(), Refused::PerAddress(2));
        let _third = gate.admit(two).unwrap();
        assert_eq!(gate.admit(two).unwrap_err(), Refused::Total(3));
        drop(first);
        let mapped = "::ffff:10.0.0.1".parse().unwrap();
        let again = gate.admit(mapped).unwrap();
        drop(again);
        assert_eq!(gate.open.lock().by_address[&one], 1);
    }
}
