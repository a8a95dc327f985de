//! `--chart` and `--tables`: what several runs of the suite say together. Reads their `results.json`, loads nothing.
//!
//! Every figure is what others take as a multiple of ours: the medians of the runs, from the smallest to the largest. CPU time has its ratio
//! within each round, and is marked where it is less certain than the rest; user time is that of all rounds, and has no marks.
//! `docs/RESULTS.md` and its chart are what this makes of the runs kept in `benches/results`; a test holds them against it.

use crate::chart::{Bar, Chart, Role};
use crate::results::{WIDE, read};
use benches::runner::{Failure, Figure};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;

/// In front of a figure that is less certain.
const MARK: &str = "≈";

/// Who is shown, and as what. Not shown are bounds of others (`http-xitca-barebone`) and second settings of the same library.
const SERVERS: [(&str, &str); 13] = [
    ("http-hyper", "hyper"),
    ("http-axum", "axum"),
    ("http-actix", "actix-web"),
    ("http-ntex", "ntex"),
    ("http-xitca", "xitca"),
    ("http-go", "Go net/http"),
    ("http-fasthttp", "fasthttp"),
    ("http-nginx", "nginx"),
    ("http-may-minihttp", "may_minihttp"),
    ("http-monoio", "monoio, epoll"),
    ("http-monoio-uring", "monoio, io_uring"),
    ("floor", "floor"),
    ("netpoll-http", "netpoll-http"),
];

/// The workloads, and the headings of their columns.
const COLUMNS: [(&str, &str); 8] = [
    ("plaintext-64", "plaintext 64"),
    ("plaintext-512", "plaintext 512"),
    ("pipelined-64", "16 pipelined"),
    ("json-64", "JSON 64"),
    ("json-512", "JSON 512"),
    ("post-1k", "POST 1 KiB"),
    ("churn", "churn"),
    ("open-loop", "20 000/s"),
];

/// CPU time of plaintext with 64 connections, as bars.
pub fn chart(directories: &[String]) -> Result<String, Failure> {
    let runs = runs(directories)?;
    let mut rows: Vec<(&str, Multiple)> = SERVERS
        .iter()
        .filter_map(|&(server, shown)| Some((shown, cpu(&runs, "plaintext-64", server)?)))
        .collect();
    if rows.is_empty() {
        return Err("no run has the workload plaintext-64".into());
    }
    rows.sort_by(|(_, a), (_, b)| a.middle().total_cmp(&b.middle()));
    let bars = rows
        .into_iter()
        .map(|(shown, multiple)| Bar {
            label: shown.to_owned(),
            value: multiple.middle(),
            whisker: Some(multiple.interval).filter(|(low, high)| low < high),
            role: match shown {
                "netpoll-http" => Role::Ours,
                "floor" => Role::Floor,
                _ => Role::Peer,
            },
            text: multiple.to_string(),
        })
        .collect();
    let chart = Chart {
        title: "CPU time of a request, as a multiple of netpoll-http's",
        bars,
        line: Some((1.0, "netpoll-http")),
        notes: &[
            "Plaintext, 64 connections, one worker. Shorter is better. Floor: a loop that answers without parsing.",
            "Bar and figure: medians of the runs. Line: 95 % intervals. ≈: the interval is wider than ±5 %.",
        ],
    };
    Ok(chart.svg())
}

/// CPU time and user time of all workloads, as Markdown.
pub fn tables(directories: &[String]) -> Result<String, Failure> {
    let runs = runs(directories)?;
    let (ours, floor) = ("netpoll-http", "floor");
    let cpu_time = table(&runs, cpu, &[ours]);
    let user_time = table(&runs, user, &[ours, floor]);
    Ok(format!(
        "{cpu_time}\nThe same of user time alone, which is what a server adds to its kernel:\n\n{user_time}"
    ))
}

fn runs(directories: &[String]) -> Result<Vec<Value>, Failure> {
    if directories.is_empty() {
        return Err("--chart and --tables want the directories of runs".into());
    }
    directories.iter().map(|directory| read(Path::new(directory))).collect()
}

/// What one server takes as a multiple of ours, in several runs.
struct Multiple {
    smallest: f64,
    largest: f64,
    /// From the lowest to the highest end of the runs' intervals.
    interval: (f64, f64),
    is_unstable: bool,
}

impl Multiple {
    fn middle(&self) -> f64 {
        f64::midpoint(self.smallest, self.largest)
    }
}

impl std::fmt::Display for Multiple {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (from, to) = (short(self.smallest), short(self.largest));
        f.write_str(if self.is_unstable { MARK } else { "" })?;
        if from == to { f.write_str(&from) } else { write!(f, "{from} to {to}") }
    }
}

/// As many digits as two runs have in common, about.
fn short(multiple: f64) -> String {
    match multiple {
        small if small < 1.995 => format!("{small:.2}"),
        middle if middle < 9.95 => format!("{middle:.1}"),
        large => format!("{large:.0}"),
    }
}

fn outcome<'r>(run: &'r Value, workload: &str, server: &str) -> Option<&'r Value> {
    let named = |list: &'r Value, key: &str, name: &str| list.as_array()?.iter().find(|one| one[key] == name);
    named(&named(&run["workloads"], "name", workload)?["outcomes"], "contestant", server)
}

fn cpu(runs: &[Value], workload: &str, server: &str) -> Option<Multiple> {
    let figures: Vec<(Figure, bool)> = runs
        .iter()
        .filter_map(|run| {
            let outcome = outcome(run, workload, server)?;
            let figure = Figure::from_json(&outcome["to_ours"])?;
            let is_quiet = 2 * outcome["kept"].as_u64()? > outcome["rounds"].as_u64()?;
            Some((figure, figure.is_wider_than(WIDE) || !is_quiet))
        })
        .collect();
    let all = |pick: fn(&Figure) -> f64| figures.iter().map(move |(figure, _)| pick(figure));
    Some(Multiple {
        smallest: all(|figure| figure.median).reduce(f64::min)?,
        largest: all(|figure| figure.median).reduce(f64::max)?,
        interval: (all(|figure| figure.low).reduce(f64::min)?, all(|figure| figure.high).reduce(f64::max)?),
        is_unstable: figures.iter().any(|&(_, is_unstable)| is_unstable),
    })
}

fn user(runs: &[Value], workload: &str, server: &str) -> Option<Multiple> {
    let of = |run, server| outcome(run, workload, server)?["user_us"].as_f64();
    let figures = runs.iter().filter_map(|run| Some(of(run, server)? / of(run, "netpoll-http")?));
    let figures: Vec<f64> = figures.collect();
    let smallest = figures.iter().copied().reduce(f64::min)?;
    let largest = figures.iter().copied().reduce(f64::max)?;
    Some(Multiple { smallest, largest, interval: (smallest, largest), is_unstable: false })
}

fn table(runs: &[Value], figure: fn(&[Value], &str, &str) -> Option<Multiple>, left_out: &[&str]) -> String {
    let mut text = String::from("| server |");
    COLUMNS.iter().for_each(|(_, heading)| text.push_str(&format!(" {heading} |")));
    text.push_str("\n|---|");
    COLUMNS.iter().for_each(|_| text.push_str("---:|"));
    text.push('\n');
    for (server, shown) in SERVERS.iter().filter(|(server, _)| !left_out.contains(server)) {
        let shown = if *server == "floor" { "*floor*" } else { shown };
        let _ = write!(text, "| {shown} |");
        for (workload, _) in COLUMNS {
            let cell =
                figure(runs, workload, server).map_or("–".to_owned(), |multiple| multiple.to_string());
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A run in which hyper took so many times our CPU time, within an interval of so much to either side.
    fn run(median: f64, around: f64, kept: u64) -> Value {
        let figure = json!({
            "median": median, "low": median - around, "high": median + around, "min": 0.1, "max": 9.0, "rounds": 100,
        });
        let outcomes = json!([
            { "contestant": "http-hyper", "to_ours": figure, "user_us": 2.0 * median, "kept": kept, "rounds": 100 },
            { "contestant": "netpoll-http", "user_us": 1.0 },
        ]);
        json!({ "workloads": [{ "name": "churn", "outcomes": outcomes }] })
    }

    fn shown(runs: &[Value]) -> String {
        cpu(runs, "churn", "http-hyper").unwrap().to_string()
    }

    #[test]
    fn runs_are_shown_from_the_smallest_to_the_largest() {
        assert_eq!(shown(&[run(1.52, 0.01, 99), run(1.4, 0.01, 99)]), "1.40 to 1.52");
        assert_eq!(shown(&[run(1.401, 0.01, 99), run(1.4, 0.01, 99)]), "1.40");
        assert_eq!(shown(&[run(1.96, 0.01, 99), run(2.02, 0.01, 99)]), "1.96 to 2.0");
        assert_eq!(shown(&[run(9.99, 0.01, 99), run(36.7, 0.01, 99)]), "10 to 37");
        assert_eq!(user(&[run(1.5, 0.01, 99)], "churn", "http-hyper").unwrap().to_string(), "3.0");
        assert!(cpu(&[run(1.5, 0.01, 99)], "post-1k", "http-hyper").is_none(), "no run has that workload");
    }

    #[test]
    fn a_figure_is_marked_where_one_run_was_unsure_of_it() {
        assert_eq!(shown(&[run(1.4, 0.01, 99), run(1.4, 0.08, 99)]), "≈1.40", "6 % to either side");
        assert_eq!(
            shown(&[run(1.4, 0.01, 99), run(1.4, 0.01, 50)]),
            "≈1.40",
            "half of the rounds were disturbed"
        );
        assert_eq!(shown(&[run(1.4, 0.06, 51)]), "1.40");
    }
}
