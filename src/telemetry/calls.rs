//! Counts of calls without a lock: the call path of one function must not wait for another's. The library's own families
//! and histograms take one.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

/// Upper bounds of the latency histogram, in microseconds; one bucket more takes the rest.
const BOUNDS: [u64; 13] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    5_000_000, 30_000_000,
];
/// Statuses are from 100 to 599.
const CODES: usize = 500;

/// Calls by status, and how long they took.
pub struct Calls {
    by_code: [AtomicU64; CODES],
    buckets: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Calls")
    }
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            by_code: [const { AtomicU64::new(0) }; CODES],
            buckets: [const { AtomicU64::new(0) }; BOUNDS.len() + 1],
            microseconds: AtomicU64::new(0),
        }
    }
}

impl Calls {
    /// One more call has the head of its answer.
    pub fn count(&self, code: u16, took: Duration) {
        if let Some(counter) = self.by_code.get(usize::from(code).wrapping_sub(100)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < took);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.microseconds.fetch_add(took, Ordering::Relaxed);
    }

    /// The histogram as the library wants it: count of each bucket by its upper bound in seconds.
    fn histogram(&self) -> Vec<(f64, u64)> {
        let bounds = BOUNDS
            .iter()
            .map(|bound| *bound as f64 / 1e6)
            .chain([f64::INFINITY]);
        bounds
            .zip(
                self.buckets
                    .iter()
                    .map(|bucket| bucket.load(Ordering::Relaxed)),
            )
            .collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: u16,
}

impl Collector for Calls {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let help = "Calls answered, by HTTP status";
        let mut calls = encoder.encode_descriptor("calls", help, None, MetricType::Counter)?;
        for (code, counter) in (100_u16..).zip(&self.by_code) {
            let count = counter.load(Ordering::Relaxed);
            if count > 0 {
                calls
                    .encode_family(&Code { code })?
                    .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        let help = "Time from a call's arrival to the head of its answer";
        let mut durations = encoder.encode_descriptor(
            "call_duration",
            help,
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        let histogram = self.histogram();
        let count = histogram.iter().map(|(_, count)| count).sum();
        let sum = self.microseconds.load(Ordering::Relaxed) as f64 / 1e6;
        durations.encode_histogram::<NoLabelSet>(sum, count, &histogram, None)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::*;

    #[test]
    fn counts_by_code_and_duration() {
        let calls = std::sync::Arc::new(Calls::default());
        calls.count(200, Duration::from_micros(400));
        calls.count(200, Duration::from_millis(3));
        calls.count(504, Duration::from_secs(40));
        let mut registry = Registry::with_prefix("faas");
        registry.register_collector(Box::new(std::sync::Arc::clone(&calls)));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "faas_calls_total{code=\"200\"} 2",
            "faas_calls_total{code=\"504\"} 1",
            "faas_call_duration_seconds_bucket{le=\"0.0005\"} 1",
            "faas_call_duration_seconds_bucket{le=\"0.005\"} 2",
            "faas_call_duration_seconds_bucket{le=\"30.0\"} 2",
            "faas_call_duration_seconds_bucket{le=\"+Inf\"} 3",
            "faas_call_duration_seconds_count 3",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
