//! Latencies, every single one kept: percentiles are exact.

use std::time::Duration;

use serde_json::{Value, json};

/// Microseconds each; an hour and more is all the same.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<u32>);

impl Latencies {
    pub(crate) fn add(&mut self, latency: Duration) {
        self.0
            .push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    /// Takes over what another thread has measured.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Percentiles in milliseconds; null where nothing was measured.
    pub(crate) fn summary(mut self) -> Value {
        if self.0.is_empty() {
            return Value::Null;
        }
        self.0.sort_unstable();
        json!({
            "p50": self.percentile(0.5),
            "p99": self.percentile(0.99),
            "p999": self.percentile(0.999),
            "max": self.percentile(1.0),
        })
    }

    /// Of sorted values: the least that at least this share of all does not exceed.
    fn percentile(&self, share: f64) -> f64 {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        f64::from(self.0[rank.clamp(1, self.0.len()) - 1]) / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(millis: impl IntoIterator<Item = u64>) -> Value {
        let mut latencies = Latencies::default();
        for value in millis {
            latencies.add(Duration::from_millis(value));
        }
        latencies.summary()
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        assert_eq!(
            of((1..=100).rev()),
            json!({"p50": 50.0, "p99": 99.0, "p999": 100.0, "max": 100.0})
        );
        assert_eq!(of([7]), json!({"p50": 7.0, "p99": 7.0, "p999": 7.0, "max": 7.0}));
        assert_eq!(of([]), Value::Null);
    }
}
