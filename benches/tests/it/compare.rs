//! Two runs of the suite are compared without any load.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A run in which a server took so many times the floor's CPU time, in a directory of its own.
fn run(directory: &str, ratio: f64) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(directory);
    fs::create_dir_all(&directory).unwrap();
    let results = format!(
        r#"{{"workloads": [{{"name": "plain", "outcomes": [
            {{"contestant": "f", "role": "floor", "to_floor": {{"median": 1.0}}, "user_us": 0.3, "unstable": false}},
            {{"contestant": "us", "role": "ours", "to_floor": {{"median": 1.1}}, "user_us": 0.6, "unstable": false}},
            {{"contestant": "a", "role": "peer", "to_floor": {{"median": {ratio}}}, "user_us": 1.2, "unstable": true}}
        ]}}]}}"#
    );
    fs::write(directory.join("results.json"), results).unwrap();
    directory
}

fn compare(directories: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_suite")).arg("--compare").args(directories).output().unwrap()
}

#[test]
fn two_runs_of_the_suite_are_compared_row_by_row() {
    let output = compare(&[&run("first", 1.5), &run("second", 1.2)]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("2 rows differ by 12.5 % in the median, 25.0 % at the 90th percentile"), "{text}");
    assert!(text.contains("25.0 %  plain, a: 1.500 and 1.200, unstable in both"), "{text}");
}

#[test]
fn a_comparison_that_cannot_be_made_says_why() {
    let one = run("alone", 1.0);
    for (directories, why) in [
        (vec![one.as_path()], "--compare wants two directories"),
        (vec![one.as_path(), Path::new("/nowhere")], "/nowhere/results.json"),
    ] {
        let output = compare(&directories);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains(why), "{text}");
    }
}
