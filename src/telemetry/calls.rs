//! Calls counted without a lock, because every call of every function comes by here.

use std::{
    array, fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter},
    registry::Unit,
};

use super::SECONDS;

/// HTTP has no status of this number or above.
const STATUSES: usize = 1000;

/// How many calls had which status, and how long they took.
#[derive(Debug)]
pub struct Calls {
    codes: [AtomicU64; STATUSES],
    /// One for each of [`SECONDS`], and one for all that took longer.
    buckets: [AtomicU64; SECONDS.len() + 1],
    micros: AtomicU64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: u16,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            codes: array::from_fn(|_| AtomicU64::new(0)),
            buckets: array::from_fn(|_| AtomicU64::new(0)),
            micros: AtomicU64::new(0),
        }
    }
}

impl Calls {
    /// A call has its answer's head.
    pub fn note(&self, code: u16, took: Duration) {
        if let Some(count) = self.codes.get(usize::from(code)) {
            count.fetch_add(1, Relaxed);
        }
        let seconds = took.as_secs_f64();
        self.buckets[SECONDS.partition_point(|bound| *bound < seconds)].fetch_add(1, Relaxed);
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    fn encode_codes(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let help = "Calls answered, by HTTP status";
        let mut family = encoder.encode_descriptor("calls", help, None, MetricType::Counter)?;
        for (code, count) in (0..).zip(&self.codes) {
            let count = count.load(Relaxed);
            if count > 0 {
                ConstCounter::new(count).encode(family.encode_family(&Code { code })?)?;
            }
        }
        Ok(())
    }

    fn encode_seconds(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let help = "Time from a call's arrival to the head of its answer";
        let unit = Some(&Unit::Seconds);
        let mut histogram = encoder.encode_descriptor("call_duration", help, unit, MetricType::Histogram)?;
        let bounds = SECONDS.into_iter().chain([f64::MAX]);
        let buckets: Vec<_> = bounds.zip(self.buckets.iter().map(|count| count.load(Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.micros.load(Relaxed) as f64 / 1e6;
        histogram.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

impl Collector for Calls {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        self.encode_codes(&mut encoder)?;
        self.encode_seconds(&mut encoder)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::*;

    #[test]
    fn calls_are_shown_by_code_and_in_cumulated_buckets() {
        let calls = Arc::new(Calls::default());
        for (code, micros) in [(200, 500), (200, 501), (200, 2_000), (504, 60_000_000)] {
            calls.note(code, Duration::from_micros(micros));
        }
        let mut registry = Registry::with_prefix("faas");
        registry.register_collector(Box::new(calls));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "# TYPE faas_calls counter",
            "faas_calls_total{code=\"200\"} 3",
            "faas_calls_total{code=\"504\"} 1",
            "# TYPE faas_call_duration_seconds histogram",
            "faas_call_duration_seconds_sum 60.003001",
            "faas_call_duration_seconds_count 4",
            "faas_call_duration_seconds_bucket{le=\"0.0005\"} 1",
            "faas_call_duration_seconds_bucket{le=\"0.001\"} 2",
            "faas_call_duration_seconds_bucket{le=\"30.0\"} 3",
            "faas_call_duration_seconds_bucket{le=\"+Inf\"} 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
