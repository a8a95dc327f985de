//! The program that says how servers scale, for a second on this machine.

use std::process::Command;

use serde_json::Value;

#[test]
fn every_server_that_can_be_had_is_measured_with_one_worker() {
    let out = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("scale-{}", std::process::id()));
    let output = Command::new(env!("CARGO_BIN_EXE_scale"))
        .args(["--workers", "1", "--rounds", "1", "--seconds", "0.2", "--connections", "4", "--out"])
        .arg(&out)
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let read = |name: &str| std::fs::read_to_string(out.join(name)).expect("it was written");
    let results: Value = serde_json::from_str(&read("scale.json")).expect("JSON");
    let (table, chart) = (read("scale.md"), read("scale.svg"));
    assert!(chart.starts_with("<svg") && said.starts_with(&table), "{said}");
    let rows = results["rows"].as_array().expect("a list");
    // What needs io_uring, or an nginx, may be missing here.
    for name in ["netpoll-epoll", "tokio-multi", "tokio-per-core", "monoio-epoll"] {
        let row =
            rows.iter().find(|row| row["server"] == name).unwrap_or_else(|| panic!("no {name}: {results:#}"));
        for figure in ["requests_per_second", "cpu_us", "p50_us", "p99_us"] {
            let value = row[figure]["median"].as_f64().expect("a number");
            assert!(value > 0.0 && value.is_finite(), "{name} {figure}: {value}");
        }
        assert!(
            table.contains(&format!("| {name} | 1 |")) && chart.contains(&format!("1 {name}")),
            "{table}"
        );
    }
    let all = rows.len() + results["left_out"].as_array().expect("a list").len();
    assert_eq!(all, 7, "{results:#}");
    assert_eq!(results["says_how_it_scales"], false);
    assert!(
        table.contains("this says nothing of scaling") && chart.contains("this says nothing of scaling"),
        "{table}"
    );
    std::fs::remove_dir_all(out).expect("it is there");
}

#[test]
fn what_is_not_understood_is_refused_before_anything_runs() {
    for (words, why) in [
        (&["--colour", "red"][..], "--colour"),
        (&["--workers", "9999"], "CPUs for servers"),
        (&["--workers", "0"], "CPUs for servers"),
        (&["--only", "apache"], "no such server"),
        (&["--seconds", "x"], "--seconds x"),
        (&["--workers", "one"], "--workers one"),
        (&["--rounds"], "--rounds wants a value"),
        (&["--rounds", "0"], "--rounds 0: it is 1 to 51"),
        (&["--seconds", "NaN"], "--seconds NaN: it is 0.1 to 30"),
        (&["--connections", "2000"], "--connections 2000: it is 1 to 1024"),
        (&["--depth", "65"], "--depth 65: it is 1 to 64"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_scale")).args(words).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(why), "{words:?}: {said}");
    }
}
