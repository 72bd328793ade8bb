//! Metrics in Prometheus' text format (version 0.0.4), written when they are asked for.
//!
//! Whoever counts owns its counters; here they are only read and named. Names begin with `casemate_`, but for those
//! of the process, which every Prometheus client names alike. Units are bytes and seconds.

use std::fmt::{Display, Write};

/// What adds its metrics to a page.
pub trait Collect: Send + Sync {
    fn collect(&self, out: &mut MetricsWriter);
}

impl<F: Fn(&mut MetricsWriter) + Send + Sync> Collect for F {
    fn collect(&self, out: &mut MetricsWriter) {
        self(out);
    }
}

/// Name and value of a label.
pub type Label<'a> = (&'a str, &'a str);

/// Durations or sizes in buckets, read from somebody's counters.
#[derive(Clone, Copy, Debug)]
pub struct Buckets<'a> {
    /// Upper bounds, ascending, in the unit of the metric.
    pub bounds: &'a [f64],
    /// Observations in each bucket, not cumulated; one more than bounds.
    pub counts: &'a [u64],
    /// Sum of all observations, in the unit of the metric.
    pub sum: f64,
}

/// Writes a page. All samples of one metric are written by one call to its family.
#[derive(Default)]
pub struct MetricsWriter {
    text: String,
}

/// One metric being written: its samples differ by their labels.
pub struct Family<'a> {
    out: &'a mut String,
    name: &'a str,
}

impl MetricsWriter {
    pub fn new() -> Self {
        Self::default()
    }

    /// A single number that only grows. Its name ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.counters(name, help).sample(&[], value);
    }

    /// A single number that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.gauges(name, help).sample(&[], value);
    }

    /// Numbers that only grow, told apart by labels.
    pub fn counters<'a>(&'a mut self, name: &'a str, help: &str) -> Family<'a> {
        self.family(name, help, "counter")
    }

    /// Numbers that go up and down, told apart by labels.
    pub fn gauges<'a>(&'a mut self, name: &'a str, help: &str) -> Family<'a> {
        self.family(name, help, "gauge")
    }

    /// Histograms, told apart by labels.
    pub fn histograms<'a>(&'a mut self, name: &'a str, help: &str) -> Family<'a> {
        self.family(name, help, "histogram")
    }

    fn family<'a>(&'a mut self, name: &'a str, help: &str, kind: &str) -> Family<'a> {
        debug_assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
        self.text.push_str("# HELP ");
        self.text.push_str(name);
        self.text.push(' ');
        escape(&mut self.text, help, false);
        put(&mut self.text, format_args!("\n# TYPE {name} {kind}\n"));
        Family { out: &mut self.text, name }
    }

    pub fn finish(self) -> String {
        self.text
    }
}

impl Family<'_> {
    /// One number.
    pub fn sample(&mut self, labels: &[Label], value: impl Display) -> &mut Self {
        self.line("", labels, None, value);
        self
    }

    /// One histogram.
    pub fn buckets(&mut self, labels: &[Label], buckets: Buckets) -> &mut Self {
        let mut cumulated = 0u64;
        for (i, count) in buckets.counts.iter().enumerate() {
            cumulated = cumulated.saturating_add(*count);
            match buckets.bounds.get(i) {
                Some(bound) => self.line("_bucket", labels, Some(&bound.to_string()), cumulated),
                None => self.line("_bucket", labels, Some("+Inf"), cumulated),
            }
        }
        self.line("_sum", labels, None, buckets.sum);
        self.line("_count", labels, None, cumulated);
        self
    }

    fn line(&mut self, suffix: &str, labels: &[Label], bound: Option<&str>, value: impl Display) {
        self.out.push_str(self.name);
        self.out.push_str(suffix);
        let mut separator = '{';
        for (name, value) in labels.iter().copied().chain(bound.map(|bound| ("le", bound))) {
            put(self.out, format_args!("{separator}{name}=\""));
            escape(self.out, value, true);
            self.out.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.out.push('}');
        }
        put(self.out, format_args!(" {value}\n"));
    }
}

/// Writing to a string cannot fail.
fn put(out: &mut String, text: std::fmt::Arguments) {
    let _ = out.write_fmt(text);
}

fn escape(out: &mut String, text: &str, quotes: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_prometheus_reads() {
        let mut out = MetricsWriter::new();
        out.counter("casemate_bytes_total", "Bytes\nof all.", 7u64);
        out.gauges("casemate_x", "X.").sample(&[("topic", "a\"b\\c\nd"), ("n", "1")], 0.5).sample(&[], -1);
        let buckets = Buckets { bounds: &[0.001, 0.5], counts: &[2, 0, 3], sum: 4.25 };
        out.histograms("casemate_seconds", "S.").buckets(&[("api", "Fetch")], buckets);
        assert_eq!(
            out.finish(),
            "# HELP casemate_bytes_total Bytes\\nof all.\n\
             # TYPE casemate_bytes_total counter\n\
             casemate_bytes_total 7\n\
             # HELP casemate_x X.\n\
             # TYPE casemate_x gauge\n\
             casemate_x{topic=\"a\\\"b\\\\c\\nd\",n=\"1\"} 0.5\n\
             casemate_x -1\n\
             # HELP casemate_seconds S.\n\
             # TYPE casemate_seconds histogram\n\
             casemate_seconds_bucket{api=\"Fetch\",le=\"0.001\"} 2\n\
             casemate_seconds_bucket{api=\"Fetch\",le=\"0.5\"} 2\n\
             casemate_seconds_bucket{api=\"Fetch\",le=\"+Inf\"} 5\n\
             casemate_seconds_sum{api=\"Fetch\"} 4.25\n\
             casemate_seconds_count{api=\"Fetch\"} 5\n"
        );
    }
}
