//! The outcome as a table for people or as JSON for programs.

use std::fmt::Write;
use std::net::SocketAddrV4;

use serde_json::{Value, json};

use crate::Judged;

/// All that was found.
pub struct Report {
    pub name: String,
    pub to: SocketAddrV4,
    pub judged: Vec<Judged>,
    /// What was measured, and in which unit.
    pub memory: Vec<(&'static str, i64, &'static str)>,
}

/// Passed and judged.
type Count = (usize, usize);

impl Report {
    fn sections(&self) -> Vec<&'static str> {
        let mut sections: Vec<&str> = self.judged.iter().map(|judged| judged.case.section).collect();
        sections.dedup();
        sections
    }

    fn counts(&self, section: Option<&str>) -> (Count, Count, usize) {
        let (mut must, mut should, mut not_judged) = ((0, 0), (0, 0), 0);
        let count = |count: &mut Count, result: &Result<(), String>| {
            *count = (count.0 + usize::from(result.is_ok()), count.1 + 1);
        };
        for Judged { case, verdict } in &self.judged {
            if section.is_some_and(|section| section != case.section) {
                continue;
            }
            verdict.must.iter().for_each(|result| count(&mut must, result));
            verdict.should.iter().for_each(|result| count(&mut should, result));
            not_judged += usize::from(verdict.must.is_none() && verdict.should.is_none());
        }
        (must, should, not_judged)
    }

    /// Those of all: must, should, not judged.
    #[cfg(test)]
    pub fn totals(&self) -> (Count, Count, usize) {
        self.counts(None)
    }

    /// A table, and the failures where they are asked for.
    pub fn text(&self, verbose: bool) -> String {
        let mut text = format!("{} at {}\n", self.name, self.to);
        line(&mut text, ["section", "must", "should", "not judged"]);
        let sections = self.sections().into_iter().map(|section| (section, self.counts(Some(section))));
        for (section, (must, should, not_judged)) in sections.chain([("all", self.counts(None))]) {
            let of = |(passed, judged): Count| format!("{passed}/{judged}");
            line(&mut text, [section, &of(must), &of(should), &not_judged.to_string()]);
        }
        for (what, figure, unit) in &self.memory {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{what}: {figure} {unit}");
        }
        if verbose {
            for (level, case, why) in self.failures() {
                let _ =
                    writeln!(text, "\n{level} | {} | {} ({})\n  {why}", case.section, case.name, case.basis);
            }
        }
        text
    }

    /// The same, and always with the failures.
    pub fn json(&self) -> Value {
        let of = |(passed, judged): Count| json!({ "passed": passed, "judged": judged });
        let counted = |section: Option<&'static str>| {
            let (must, should, not_judged) = self.counts(section);
            json!({
                "section": section.unwrap_or("all"),
                "must": of(must),
                "should": of(should),
                "not_judged": not_judged,
            })
        };
        let sections: Vec<Value> = self.sections().into_iter().map(Some).chain([None]).map(counted).collect();
        let failures = self.failures().map(|(level, case, why)| {
            json!({ "level": level, "section": case.section, "case": case.name, "basis": case.basis, "why": why })
        });
        let memory = self.memory.iter();
        let memory =
            memory.map(|(what, figure, unit)| json!({ "what": what, "figure": figure, "unit": unit }));
        json!({
            "name": self.name,
            "to": self.to.to_string(),
            "sections": sections,
            "failures": failures.collect::<Vec<_>>(),
            "memory": memory.collect::<Vec<_>>(),
        })
    }

    /// Those that bind everybody first.
    fn failures(&self) -> impl Iterator<Item = (&'static str, &crate::cases::Case, &str)> {
        let must = self.judged.iter().filter_map(|Judged { case, verdict }| {
            verdict.must.as_ref()?.as_ref().err().map(|why| ("must", case, why.as_str()))
        });
        let should = self.judged.iter().filter_map(|Judged { case, verdict }| {
            verdict.should.as_ref()?.as_ref().err().map(|why| ("should", case, why.as_str()))
        });
        must.chain(should)
    }
}

fn line(text: &mut String, [section, must, should, not_judged]: [&str; 4]) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{section:<14}{must:>9}{should:>9}{not_judged:>12}");
}
