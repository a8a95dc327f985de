//! The figures in the documentation are those of the runs that are kept.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const RUNS: [&str; 2] = ["2026-11-22-amd-epyc-2", "2026-11-22-amd-epyc-2-again"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn file(name: &str) -> String {
    std::fs::read_to_string(repository().join(name)).unwrap()
}

fn suite(option: &str, runs: &[&str]) -> Output {
    let kept = repository().join("benches/results");
    Command::new(env!("CARGO_BIN_EXE_suite"))
        .arg(option)
        .args(runs.iter().map(|run| kept.join(run)))
        .output()
        .unwrap()
}

fn printed(option: &str) -> String {
    let output = suite(option, &RUNS);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The cells of every table row, without what surrounds them.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    lines.map(|line| line.split(" | ").collect()).collect()
}

#[test]
fn the_chart_is_what_the_kept_runs_say() {
    let made = printed("--chart");
    assert!(made == file("docs/cpu-per-request.svg"), "make it anew: `cargo bench-suite --chart DIR DIR`");
    for named in ["monoio, io_uring", "floor", "hyper", "Go net/http"] {
        assert!(made.contains(&format!(">{named}<")), "{named} is in it");
    }
}

#[test]
fn the_tables_of_the_results_are_what_the_kept_runs_say() {
    let made = printed("--tables");
    assert!(
        file("docs/RESULTS.md").contains(&made),
        "make them anew: `cargo bench-suite --tables DIR DIR`\n{made}"
    );
}

#[test]
fn every_figure_on_the_front_page_is_in_the_results() {
    let (front, made) = (file("README.md"), printed("--tables"));
    let made = rows(made.split("user time").next().unwrap());
    let front = rows(&front);
    let from = front.iter().position(|row| row[0] == "server").expect("a table of servers");
    let headings = &front[from];
    let shown: Vec<_> = front[from + 1..].iter().take_while(|row| row.len() == headings.len()).collect();
    assert!(shown.len() >= 5, "{shown:?}");
    for row in shown {
        let whole = made.iter().find(|whole| whole[0] == row[0]).unwrap_or_else(|| panic!("no {}", row[0]));
        for (heading, figure) in headings.iter().zip(row).skip(1) {
            let column =
                made[0].iter().position(|one| one == heading).unwrap_or_else(|| panic!("no {heading}"));
            assert_eq!(&whole[column], figure, "{}, {heading}", row[0]);
        }
    }
}

#[test]
fn a_chart_that_cannot_be_drawn_says_why() {
    for (runs, why) in [(&[][..], "want the directories of runs"), (&["nowhere"], "nowhere/results.json")] {
        let output = suite("--chart", runs);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains(why), "{text}");
    }
}
