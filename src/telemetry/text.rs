//! The two text formats of `/metrics` (pure): the library writes `OpenMetrics`; the older one of Prometheus, which everything
//! reads, is made of that.

/// A scraper that can read it asks for this.
const OPEN_METRICS: &str = "application/openmetrics-text";

/// One of the formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    OpenMetrics,
    Prometheus,
}

impl Format {
    /// What is sent to a caller with this `Accept`.
    pub fn accepted(accept: &str) -> Self {
        let asked = accept.split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let named = parts
                .next()
                .is_some_and(|name| name.eq_ignore_ascii_case(OPEN_METRICS));
            named && !parts.any(|part| matches!(part, "q=0" | "q=0.0"))
        });
        if asked {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Its name for `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The same metrics in the format of Prometheus: a counter's whole name stands in its descriptions too, units are in names
/// alone, and nothing marks the end.
pub fn prometheus(open_metrics: &str) -> String {
    let counters: Vec<&str> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        let (hash, kind, name) = (words.next(), words.next(), words.next());
        match (hash, kind, name) {
            (Some("#"), Some("EOF" | "UNIT"), _) => continue,
            (Some("#"), Some(kind), Some(name)) if counters.contains(&name) => {
                let rest = words.next().unwrap_or_default();
                text.push_str(&format!("# {kind} {name}_total {rest}"));
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_are_for_those_who_ask() {
        for (accept, format) in [
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("text/plain", Format::Prometheus),
            ("application/openmetrics-text;q=0, */*", Format::Prometheus),
            ("application/openmetrics-text", Format::OpenMetrics),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
                Format::OpenMetrics,
            ),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }

    #[test]
    fn descriptions_are_those_that_prometheus_expects() {
        let open_metrics = "# HELP calls Calls, all.\n# TYPE calls counter\ncalls_total{code=\"200\"} 2\n\
                            # HELP up_seconds Time.\n# TYPE up_seconds gauge\n# UNIT up_seconds seconds\nup_seconds 1\n# EOF\n";
        assert_eq!(
            prometheus(open_metrics),
            "# HELP calls_total Calls, all.\n# TYPE calls_total counter\ncalls_total{code=\"200\"} 2\n\
             # HELP up_seconds Time.\n# TYPE up_seconds gauge\nup_seconds 1\n"
        );
    }
}
