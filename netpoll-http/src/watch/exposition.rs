//! The text format of Prometheus, and OpenMetrics, which it became: names, labels, values, a line each.
//!
//! The two differ in how a counter's family is called, in the media type, and in the last line.

use std::fmt::{Display, Write};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Text format 0.0.4.
    Classic,
    /// OpenMetrics 1.0.0.
    Open,
}

impl Dialect {
    /// The one that a scraper asks for.
    pub fn of(accept: impl Iterator<Item = impl AsRef<[u8]>>) -> Self {
        let mut accept = accept;
        let wants = |line: &[u8]| memchr::memmem::find(line, b"application/openmetrics-text").is_some();
        if accept.any(|line| wants(line.as_ref())) { Self::Open } else { Self::Classic }
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::Open => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A page that is being written.
pub struct Page {
    text: String,
    dialect: Dialect,
    suffix: &'static str,
    name: String,
}

impl Page {
    pub fn new(dialect: Dialect) -> Self {
        Self { text: String::with_capacity(16 * 1024), dialect, suffix: "", name: String::new() }
    }

    /// Begins a counter, whose samples end with `_total`.
    pub fn counter(&mut self, name: &str, help: &str) {
        self.begin(name, "counter", "_total", help);
    }

    pub fn gauge(&mut self, name: &str, help: &str) {
        self.begin(name, "gauge", "", help);
    }

    pub fn histogram(&mut self, name: &str, help: &str) {
        self.begin(name, "histogram", "", help);
    }

    fn begin(&mut self, name: &str, kind: &str, suffix: &'static str, help: &str) {
        let in_head = if self.dialect == Dialect::Classic { suffix } else { "" };
        // Writing to memory does not fail, here and below.
        let _ = writeln!(self.text, "# HELP {name}{in_head} {help}\n# TYPE {name}{in_head} {kind}");
        self.name.clear();
        self.name.push_str(name);
        self.suffix = suffix;
    }

    /// A sample of what was begun last.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let suffix = self.suffix;
        self.sample_of(suffix, labels, value);
    }

    /// One of the samples of a histogram.
    pub fn sample_of(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        for (number, (name, value)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{name}=\"", if number == 0 { '{' } else { ',' });
            for letter in value.chars() {
                match letter {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    pub fn finish(mut self) -> String {
        if self.dialect == Dialect::Open {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}
