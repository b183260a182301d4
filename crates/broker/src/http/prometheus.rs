//! What `/metrics` shows: the recorder's metrics, and series that come and go.

use std::{sync::Arc, time::Duration};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

/// Upper bounds of every histogram of seconds: from an fsync on a quiet disk to a request's time-out.
const SECONDS: [f64; 18] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0, 60.0,
];
/// How often recorded samples are folded into their histograms; until then each takes memory.
const UPKEEP: Duration = Duration::from_secs(5);

/// A recorder for this process; the binary installs it once, before anything records.
pub fn recorder() -> PrometheusRecorder {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix(String::from("_seconds")), &SECONDS)
        .expect("the table of bounds is not empty")
        .build_recorder()
}

/// The page, as it is now. A clone shows the same.
#[derive(Clone, Debug)]
pub struct MetricsPage {
    recorder: PrometheusHandle,
    passing: PassingSeries,
}

/// Series that come and go, in Prometheus' text format: a recorder keeps for ever what it was told once. A
/// clone is a handle to the same.
#[derive(Clone, Debug, Default)]
pub struct PassingSeries(Arc<RwLock<Arc<str>>>);

impl From<PrometheusHandle> for MetricsPage {
    fn from(recorder: PrometheusHandle) -> Self {
        Self {
            recorder,
            passing: PassingSeries::default(),
        }
    }
}

impl MetricsPage {
    /// The page with these behind the recorder's.
    pub fn with(self, passing: PassingSeries) -> Self {
        Self { passing, ..self }
    }

    /// The text.
    pub(super) fn render(&self) -> String {
        let passing = self.passing.text();
        let mut page = self.recorder.render();
        page.push_str(&passing);
        page
    }
}

impl PassingSeries {
    /// Shows whole families instead of those before; the last line is ended.
    pub fn show(&self, families: &str) {
        *self.0.write() = Arc::from(families);
    }

    /// What is shown.
    pub fn text(&self) -> Arc<str> {
        Arc::clone(&self.0.read())
    }
}

/// Folds samples into histograms until `stop`, so that memory stays bounded where nobody scrapes.
pub async fn keep_up(metrics: PrometheusHandle, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => metrics.run_upkeep(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_come_and_go_behind_what_is_recorded() {
        let recorder = recorder();
        metrics::with_local_recorder(&recorder, || metrics::counter!("recorded_total").increment(3));
        let passing = PassingSeries::default();
        let page = MetricsPage::from(recorder.handle()).with(passing.clone());
        let recorded = page.render();
        assert!(recorded.contains("recorded_total 3"), "{recorded}");
        let family = "# TYPE passing gauge\npassing 1\n\n";
        passing.show(family);
        assert_eq!(page.render(), format!("{recorded}{family}"));
        passing.show("");
        assert_eq!(page.render(), recorded);
    }
}
