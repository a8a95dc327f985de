//! The outcome as a table for people or as JSON for programs.

use std::fmt::Write;
use std::net::SocketAddrV4;

use serde_json::{Value, json};

use crate::Judged;
use crate::cases::{Level, SECTIONS};
use crate::judge::{Verdict, short};
use crate::site;

/// All that was found.
pub struct Report {
    pub name: String,
    pub to: SocketAddrV4,
    pub has_echo: bool,
    pub judged: Vec<Judged>,
}

#[derive(Default)]
struct Counts {
    /// Passed and judged, for each level.
    must: (usize, usize),
    ours: (usize, usize),
    stricter: usize,
    not_judged: usize,
}

impl Report {
    /// A table, and the failures where they are asked for.
    pub fn text(&self, verbose: bool) -> String {
        let mut text = format!("{} at {}\n", self.name, self.to);
        line(&mut text, ["section", "must", "ours", "stricter", "not judged"]);
        let sections = SECTIONS.into_iter().map(|(section, _)| (section, self.counts(Some(section))));
        for (section, counts) in sections.chain([("all", self.counts(None))]) {
            let of = |(passed, total): (usize, usize)| format!("{passed}/{total}");
            let (must, ours) = (of(counts.must), of(counts.ours));
            let (stricter, not_judged) = (counts.stricter.to_string(), counts.not_judged.to_string());
            line(&mut text, [section, &must, &ours, &stricter, &not_judged]);
        }
        if !self.has_echo {
            text.push_str("no POST /echo: its cases are not judged\n");
        }
        if verbose {
            self.failures().for_each(|failure| failure.show(&mut text));
        }
        text
    }

    /// The same, and always with the failures.
    pub fn json(&self) -> Value {
        let of = |(passed, total): (usize, usize)| json!({ "passed": passed, "total": total });
        let counted = |section: Option<&'static str>| {
            let counts = self.counts(section);
            json!({
                "section": section.unwrap_or("all"),
                "must": of(counts.must),
                "ours": of(counts.ours),
                "stricter": counts.stricter,
                "not_judged": counts.not_judged,
            })
        };
        let sections = SECTIONS.into_iter().map(|(section, _)| Some(section)).chain([None]).map(counted);
        json!({
            "name": self.name,
            "to": self.to.to_string(),
            "has_echo": self.has_echo,
            "sections": sections.collect::<Vec<_>>(),
            "failures": self.failures().map(|failure| failure.json()).collect::<Vec<_>>(),
        })
    }

    fn counts(&self, section: Option<&str>) -> Counts {
        let mut counts = Counts::default();
        for judged in self.judged.iter().filter(|judged| section.is_none_or(|name| judged.section == name)) {
            let place = match judged.level {
                Level::Must => &mut counts.must,
                Level::Ours | Level::Fixture => &mut counts.ours,
            };
            match judged.verdict {
                Verdict::NotJudged => counts.not_judged += 1,
                Verdict::Failed { .. } => place.1 += 1,
                Verdict::Passed { is_stricter } => {
                    place.0 += 1;
                    place.1 += 1;
                    counts.stricter += usize::from(is_stricter);
                }
            }
        }
        counts
    }

    /// Those that bind every server first.
    fn failures(&self) -> impl Iterator<Item = Failure<'_>> {
        let at = |level| self.judged.iter().filter(move |judged| judged.level == level);
        at(Level::Must).chain(at(Level::Ours)).filter_map(|judged| match &judged.verdict {
            Verdict::Failed { expected, got, .. } => Some(Failure { judged, expected, got }),
            _ => None,
        })
    }
}

struct Failure<'a> {
    judged: &'a Judged,
    expected: &'a str,
    got: &'a str,
}

impl Failure<'_> {
    fn level(&self) -> &'static str {
        if self.judged.level == Level::Must { "must" } else { "ours" }
    }

    fn request(&self) -> String {
        short(&site::request(&self.judged.case))
    }

    fn show(&self, text: &mut String) {
        let Self { judged, expected, got } = self;
        let (level, section, row) = (self.level(), judged.section, judged.row.name.replace('_', " "));
        let (basis, case, request) = (judged.row.basis, short(judged.case.name.as_bytes()), self.request());
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n{level} | {section} | {row} ({basis}) | {case}\n  sent      {request}\n  expected  {expected}\n  got       {got}\n"
        );
    }

    fn json(&self) -> Value {
        json!({
            "level": self.level(),
            "section": self.judged.section,
            "row": self.judged.row.name,
            "basis": self.judged.row.basis,
            "case": self.judged.case.name,
            "request": self.request(),
            "expected": self.expected,
            "got": self.got,
        })
    }
}

fn line(text: &mut String, [section, must, ours, stricter, not_judged]: [&str; 5]) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{section:<14}{must:>9}{ours:>9}{stricter:>10}{not_judged:>12}");
}
