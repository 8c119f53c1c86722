//! Metrics as text: OpenMetrics 1.0, or the text format of Prometheus, version 0.0.4.

use std::fmt::Write as _;

use super::family::{Family, Kind};

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' own, which is older, and what a person gets who asks for nothing in particular.
    Prometheus,
}

impl Format {
    /// What the head of an answer says of it.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// A text that grows, one metric after the other.
#[derive(Debug)]
pub struct Text {
    out: String,
    format: Format,
}

impl Text {
    /// Nothing yet, with room for `bytes`.
    pub fn new(format: Format, bytes: usize) -> Self {
        Self { out: String::with_capacity(bytes), format }
    }

    /// Begins a metric. All its samples have to follow before the next one begins.
    pub fn family(&mut self, family: &'static Family) -> Samples<'_> {
        let Family { name, kind, help, .. } = family;
        let is_open = self.format == Format::OpenMetrics;
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info if is_open => "info",
            // The older format has no such kind.
            Kind::Info => "gauge",
        };
        // In the older format a metric is called what its samples are.
        let end = if is_open { "" } else { family.suffix() };
        let out = &mut self.out;
        // Writing to a String does not fail.
        let _ = writeln!(out, "# HELP {name}{end} {help}\n# TYPE {name}{end} {kind}");
        if let Some(unit) = family.unit().filter(|_| is_open) {
            let _ = writeln!(out, "# UNIT {name} {unit}");
        }
        Samples { out, family }
    }

    /// All of it.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}

/// The samples of a metric.
#[derive(Debug)]
pub struct Samples<'a> {
    out: &'a mut String,
    family: &'static Family,
}

impl Samples<'_> {
    /// A sample whose labels have these values, in the order of their names.
    pub fn add(&mut self, labels: &[&str], value: impl Into<Number>) {
        debug_assert_eq!(labels.len(), self.family.labels.len(), "{}", self.family.name);
        let separator = self.begin(self.family.suffix(), labels);
        self.out.push_str(if separator == ',' { "} " } else { " " });
        self.end(value.into());
    }

    /// Samples that differ in their last label only, with the values of that. Those are words of this
    /// program, in which nothing has to be escaped.
    pub fn add_each(&mut self, labels: &[&str], values: impl Iterator<Item = (&'static str, u64)>) {
        if let Some(last) = self.family.labels.get(labels.len()) {
            self.each(self.family.suffix(), labels, last, values);
        }
    }

    /// A histogram: how many there are up to each bound, up to any, and the sum of all.
    pub fn histogram(&mut self, labels: &[&str], buckets: &[(&'static str, u64)], sum: u64) {
        let count = buckets.last().map_or(0, |(_, count)| *count);
        self.each("_bucket", labels, "le", buckets.iter().copied());
        for (end, value) in [("_sum", sum), ("_count", count)] {
            self.begin(end, labels);
            self.out.push_str("} ");
            self.end(value.into());
        }
    }

    /// Most of a page is lines that begin alike, so what they have in common is copied.
    fn each(
        &mut self,
        end: &str,
        labels: &[&str],
        last: &str,
        values: impl Iterator<Item = (&'static str, u64)>,
    ) {
        let start = self.out.len();
        let separator = self.begin(end, labels);
        self.out.push(separator);
        self.out.push_str(last);
        self.out.push_str("=\"");
        let head = start..self.out.len();
        for (value, count) in values {
            self.out.extend_from_within(head.clone());
            debug_assert!(!has_special(value), "{value}");
            self.out.push_str(value);
            self.out.push_str("\"} ");
            self.end(count.into());
        }
        // It was a pattern only.
        self.out.replace_range(head, "");
    }

    /// Begins a line: the name and these labels. Returns what stands before another label.
    fn begin(&mut self, end: &str, labels: &[&str]) -> char {
        let Self { out, family } = self;
        out.push_str(family.name);
        out.push_str(end);
        let mut separator = '{';
        for (name, value) in family.labels.iter().zip(labels) {
            out.push(separator);
            separator = ',';
            out.push_str(name);
            out.push_str("=\"");
            push_escaped(out, value);
            out.push('"');
        }
        separator
    }

    fn end(&mut self, value: Number) {
        match value {
            Number::Whole(value) => self.out.push_str(itoa::Buffer::new().format(value)),
            // Writing to a String does not fail.
            Number::Real(value) => _ = write!(self.out, "{value}"),
        }
        self.out.push('\n');
    }
}

/// The value of a sample.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// A whole number.
    Whole(u64),
    /// Any.
    Real(f64),
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<usize> for Number {
    fn from(value: usize) -> Self {
        Self::Whole(u64::try_from(value).unwrap_or(u64::MAX))
    }
}

impl From<bool> for Number {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

fn has_special(value: &str) -> bool {
    value.bytes().any(|byte| matches!(byte, b'\\' | b'"' | b'\n'))
}

/// Backslashes, quotes and line breaks would end a label's value or its line.
fn push_escaped(out: &mut String, value: &str) {
    if !has_special(value) {
        out.push_str(value);
        return;
    }
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::family;

    fn written(format: Format) -> String {
        let mut text = Text::new(format, 0);
        text.family(&family::BUILD).add(&["1.0", "a\\b\"c\nd"], 1_u64);
        text.family(&family::UPTIME).add(&[], 1.5);
        let mut samples = text.family(&family::PORT_BYTES);
        samples.add(&["vm1", "rx"], 7_u64);
        samples.add(&["vm1", "tx"], u64::MAX);
        text.family(&family::PORT_WAITING);
        let buckets = [("63.0", 1), ("64.0", 3), ("+Inf", 4)];
        text.family(&family::PORT_SIZES).histogram(&["vm1", "rx"], &buckets, 300);
        text.finish()
    }

    #[test]
    fn open_metrics_have_units_and_an_end() {
        let expected = r#"# HELP ringway_build Version of the program, and the commit that it was built of.
# TYPE ringway_build info
ringway_build_info{version="1.0",commit="a\\b\"c\nd"} 1
# HELP ringway_uptime_seconds How long the switch has run.
# TYPE ringway_uptime_seconds gauge
# UNIT ringway_uptime_seconds seconds
ringway_uptime_seconds 1.5
# HELP ringway_port_bytes Bytes of those frames, without frame check sequences.
# TYPE ringway_port_bytes counter
# UNIT ringway_port_bytes bytes
ringway_port_bytes_total{port="vm1",direction="rx"} 7
ringway_port_bytes_total{port="vm1",direction="tx"} 18446744073709551615
# HELP ringway_port_waiting A port or vDPA device that cannot be opened yet and is tried again; always 1.
# TYPE ringway_port_waiting gauge
# HELP ringway_port_frame_size_bytes The frames by their size without frame check sequence.
# TYPE ringway_port_frame_size_bytes histogram
# UNIT ringway_port_frame_size_bytes bytes
ringway_port_frame_size_bytes_bucket{port="vm1",direction="rx",le="63.0"} 1
ringway_port_frame_size_bytes_bucket{port="vm1",direction="rx",le="64.0"} 3
ringway_port_frame_size_bytes_bucket{port="vm1",direction="rx",le="+Inf"} 4
ringway_port_frame_size_bytes_sum{port="vm1",direction="rx"} 300
ringway_port_frame_size_bytes_count{port="vm1",direction="rx"} 4
# EOF
"#;
        assert_eq!(written(Format::OpenMetrics), expected);
    }

    #[test]
    fn the_older_format_calls_metrics_what_their_samples_are() {
        let text = written(Format::Prometheus);
        for line in [
            "# TYPE ringway_build_info gauge",
            "# TYPE ringway_port_bytes_total counter",
            "ringway_port_bytes_total{port=\"vm1\",direction=\"rx\"} 7",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}: {text}");
        }
        assert!(!text.contains("# UNIT") && !text.contains("# EOF"));
    }
}
