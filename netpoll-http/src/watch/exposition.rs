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
    /// The one that a scraper likes better (RFC 9110 section 12.5.1), and OpenMetrics if it likes both alike. Who takes neither, or says
    /// nothing, gets the classic one.
    pub fn of(accept: impl Iterator<Item = impl AsRef<[u8]>>) -> Self {
        let mut open: f32 = 0.0;
        // How exactly the classic one was named, and how much it is liked: the most exact name counts.
        let mut classic: (u8, f32) = (0, 0.0);
        for line in accept {
            for range in String::from_utf8_lossy(line.as_ref()).split(',') {
                let (name, version, weight) = media_range(range);
                match &*name.to_ascii_lowercase() {
                    "application/openmetrics-text" if matches!(version, "" | "0.0.1" | "1.0.0") => {
                        open = open.max(weight);
                    }
                    "text/plain" if matches!(version, "" | "0.0.4") => classic = best(classic, (3, weight)),
                    "text/*" => classic = best(classic, (2, weight)),
                    "*/*" => classic = best(classic, (1, weight)),
                    _ => {}
                }
            }
        }
        if open > 0.0 && open >= classic.1 { Self::Open } else { Self::Classic }
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::Open => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The more exact one, and of two that are as exact the one that is liked better.
fn best(one: (u8, f32), other: (u8, f32)) -> (u8, f32) {
    if other > one { other } else { one }
}

/// Name, version and weight of a part of `Accept`. A weight that is none is zero: it is not known to be wanted.
fn media_range(range: &str) -> (&str, &str, f32) {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let (mut version, mut weight) = ("", 1.0);
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        let value = value.trim_matches('"');
        if name.eq_ignore_ascii_case("version") {
            version = value;
        } else if name.eq_ignore_ascii_case("q") {
            weight = value.parse().ok().filter(|weight| (0.0..=1.0).contains(weight)).unwrap_or(0.0);
        }
    }
    (name, version, weight)
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
