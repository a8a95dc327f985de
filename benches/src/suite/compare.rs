//! `--compare`: how far two runs of the suite agree. Reads their `results.json`, loads nothing.
//!
//! What is compared is what a run claims: each row's ratio to the floor within its rounds, or to ours where no floor takes
//! part, and user time as a multiple of ours. The scales themselves are left out, for they are 1 in any run. Two figures
//! differ by the larger one over the smaller one, less 1.

use crate::results::{WIDE, read};
use benches::runner::{Failure, median};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;

/// Compares the runs in two directories; what to print.
pub fn directories(first: &Path, second: &Path) -> Result<String, Failure> {
    results(&read(first)?, &read(second)?)
}

/// Compares two runs.
fn results(first: &Value, second: &Value) -> Result<String, Failure> {
    let (firsts, seconds) = (rows(first)?, rows(second)?);
    let mut pairs = Vec::new();
    let mut alone = Vec::new();
    for row in &firsts {
        match seconds.iter().find(|other| other.name == row.name) {
            Some(other) => pairs.push((row, other)),
            None => alone.push(format!("{} is in the first run only", row.name)),
        }
    }
    let unmatched = seconds.iter().filter(|row| !firsts.iter().any(|other| other.name == row.name));
    alone.extend(unmatched.map(|row| format!("{} is in the second run only", row.name)));
    let mut text = String::new();
    for (what, pick) in [
        (
            "CPU time against the floor, or against ours where there is none",
            (|row| row.ratio) as fn(&Row) -> _,
        ),
        ("User time against ours", |row| row.user),
    ] {
        let differences: Vec<Difference<'_>> = pairs
            .iter()
            .filter_map(|(row, other)| Difference::of(row, other, pick(row)?, pick(other)?))
            .collect();
        summary(&mut text, what, &differences)?;
    }
    alone.iter().try_for_each(|line| writeln!(text, "{line}"))?;
    Ok(text)
}

/// One contestant under one workload in one run; `None` where it is the scale itself, or there was none.
struct Row {
    name: String,
    ratio: Option<f64>,
    user: Option<f64>,
    is_unstable: bool,
}

fn rows(results: &Value) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for workload in results["workloads"].as_array().ok_or("no workloads in a results.json")? {
        let outcomes = workload["outcomes"].as_array().ok_or("a workload without outcomes")?;
        let ours = outcomes.iter().find(|outcome| outcome["role"] == "ours");
        let our_user = ours.and_then(|outcome| outcome["user_us"].as_f64());
        for outcome in outcomes {
            let (key, scale) =
                if outcome["to_floor"].is_null() { ("to_ours", "ours") } else { ("to_floor", "floor") };
            let name = |value: &Value| value.as_str().unwrap_or("?").to_owned();
            rows.push(Row {
                name: format!("{}, {}", name(&workload["name"]), name(&outcome["contestant"])),
                ratio: outcome[key]["median"].as_f64().filter(|_| outcome["role"] != scale),
                user: our_user
                    .filter(|_| outcome["role"] != "ours")
                    .and_then(|ours| Some(outcome["user_us"].as_f64()? / ours)),
                is_unstable: outcome["unstable"] == true,
            });
        }
    }
    Ok(rows)
}

/// The same row of two runs.
struct Difference<'a> {
    name: &'a str,
    figures: (f64, f64),
    /// As a share; not below zero.
    size: f64,
    unstable: (bool, bool),
}

impl<'a> Difference<'a> {
    /// Figures that are none have no difference.
    fn of(row: &'a Row, other: &Row, first: f64, second: f64) -> Option<Self> {
        let size = first.max(second) / first.min(second) - 1.0;
        let unstable = (row.is_unstable, other.is_unstable);
        size.is_finite().then_some(Self { name: &row.name, figures: (first, second), size, unstable })
    }
}

fn summary(text: &mut String, what: &str, differences: &[Difference<'_>]) -> Result<(), Failure> {
    let mut sizes: Vec<f64> = differences.iter().map(|difference| difference.size).collect();
    sizes.sort_by(f64::total_cmp);
    let (Some(middle), Some(worst)) = (median(&sizes), sizes.last()) else {
        writeln!(text, "{what}: no row is in both runs\n")?;
        return Ok(());
    };
    // Nearest rank: nine tenths of all rows are at most so large.
    let tenth = sizes[(sizes.len() * 9).div_ceil(10) - 1];
    let percent = |share: f64| 100.0 * share;
    writeln!(
        text,
        "{what}: {} rows differ by {:.1} % in the median, {:.1} % at the 90th percentile, {:.1} % at worst",
        sizes.len(),
        percent(middle),
        percent(tenth),
        percent(*worst)
    )?;
    let mut far: Vec<&Difference<'_>> = differences.iter().filter(|one| one.size > WIDE).collect();
    far.sort_by(|a, b| b.size.total_cmp(&a.size));
    for Difference { name, figures: (first, second), size, unstable } in far {
        let mark = match unstable {
            (true, true) => "unstable in both",
            (true, false) => "unstable in the first",
            (false, true) => "unstable in the second",
            (false, false) => "not marked",
        };
        writeln!(text, "  {:5.1} %  {name}: {first:.3} and {second:.3}, {mark}", percent(*size))?;
    }
    writeln!(text)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Name, ratio to the floor, ratio to ours, user time, mark.
    type Given<'a> = (&'a str, Option<f64>, f64, f64, bool);

    fn run(workloads: &[(&str, &[Given<'_>])]) -> Value {
        let figure = |value: f64| json!({ "median": value });
        let outcome = |&(name, to_floor, to_ours, user_us, unstable): &Given<'_>| {
            json!({
                "contestant": name, "to_floor": to_floor.map(figure), "to_ours": figure(to_ours),
                "role": if ["floor", "ours"].contains(&name) { name } else { "peer" },
                "user_us": user_us, "unstable": unstable,
            })
        };
        let workload = |&(name, outcomes): &(&str, &[Given<'_>])| {
            let outcomes: Vec<Value> = outcomes.iter().map(outcome).collect();
            json!({ "name": name, "outcomes": outcomes })
        };
        json!({ "workloads": workloads.iter().map(workload).collect::<Vec<_>>() })
    }

    #[test]
    fn rows_are_compared_by_their_ratios_and_the_scale_is_not() {
        let floor = ("floor", Some(1.0), 0.9, 0.3, false);
        let first = run(&[(
            "plain",
            &[floor, ("ours", Some(1.1), 1.0, 1.0, false), ("a", Some(1.5), 1.4, 3.0, true)],
        )]);
        let second = run(&[(
            "plain",
            &[floor, ("ours", Some(1.133), 1.0, 2.0, false), ("a", Some(1.8), 1.4, 6.6, false)],
        )]);

        let text = results(&first, &second).unwrap();

        assert!(
            text.contains(
                "2 rows differ by 11.5 % in the median, 20.0 % at the 90th percentile, 20.0 % at worst"
            ),
            "{text}"
        );
        assert!(text.contains("20.0 %  plain, a: 1.500 and 1.800, unstable in the first"), "{text}");
        assert!(text.contains("User time against ours: 2 rows"), "the floor has one as well: {text}");
        assert!(text.contains("10.0 %  plain, a: 3.000 and 3.300"), "ours took twice as long: {text}");
        assert!(!text.contains("plain, ours: 1.1"), "3 % is no news: {text}");
    }

    #[test]
    fn without_a_floor_the_ratio_to_ours_is_compared() {
        let of = |ratio| run(&[("post", &[("ours", None, 1.0, 1.0, false), ("a", None, ratio, 1.0, true)])]);
        let text = results(&of(1.0), &of(1.25)).unwrap();
        assert!(text.contains("1 rows differ by 25.0 %"), "{text}");
        assert!(text.contains("post, a: 1.000 and 1.250, unstable in both"), "{text}");
    }

    #[test]
    fn a_row_that_only_one_run_has_is_named() {
        let (both, more) = (("ours", None, 1.0, 1.0, false), ("a", None, 2.0, 1.0, false));
        let text = results(&run(&[("x", &[both])]), &run(&[("x", &[both, more])])).unwrap();
        assert!(text.contains("x, a is in the second run only"), "{text}");
        assert!(text.contains("no row is in both runs"), "but the scale: {text}");
    }
}
