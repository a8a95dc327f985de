//! The report for people.

use crate::results::{Outcome, Results, Table, WIDE};
use benches::runner::{Figure, digits};
use std::fmt::Write;

/// All of it.
pub fn render(results: &Results) -> String {
    let mut text = String::from("# Side by side\n\n");
    let mut line = |args: std::fmt::Arguments<'_>| {
        text.write_fmt(args).expect("memory takes everything");
        text.push('\n');
    };
    for (key, value) in &results.machine {
        line(format_args!("- {key}: {value}"));
    }
    line(format_args!("- command: `{}`", results.command));
    line(format_args!(
        "\nOne worker on core 0, the load client on core 1, over loopback. CPU is the server's, user and system, \
         per request; ± is the standard error of the user part. *Against* the floor, or netpoll where there is none, is \
         taken within each round: the median of the rounds used (its 95 % confidence interval), and beside it the smallest and \
         largest round. *Steal* is the most in a round that was used. *Unstable*: the interval is wider than ±{:.0} %, or \
         no more than half of the rounds were quiet. Read [docs/BENCHMARKING.md](../../../docs/BENCHMARKING.md) first.\n",
        100.0 * WIDE
    ));
    for table in &results.tables {
        line(format_args!("{}", self::table(table)));
    }
    if !results.memory.is_empty() {
        line(format_args!("## Idle connections\n\n![bytes](memory.svg)\n"));
        line(format_args!(
            "| server | bytes each, before a request | after one | connections | process alone |"
        ));
        line(format_args!("|---|---:|---:|---:|---:|"));
        for memory in &results.memory {
            line(format_args!(
                "| {} | {} | {:.0} | {} | {:.1} MiB |",
                memory.contestant,
                memory.fresh_bytes.map_or("-".into(), |bytes| format!("{bytes:.0}")),
                memory.idle_bytes,
                memory.connections,
                memory.empty_bytes as f64 / f64::from(1 << 20),
            ));
        }
        line(format_args!(""));
    }
    if !results.conformance.is_empty() {
        line(format_args!(
            "## Conformance\n\nRaw-byte cases passed: *must* is what the RFCs demand and known ways to smuggle requests, \
             *ours* what netpoll-http chose where they leave a choice. `cargo run --release -p benches --bin conformance -- \
             --to HOST:PORT --verbose` lists the others.\n"
        ));
        line(format_args!("| server | must | ours |\n|---|---:|---:|"));
        for one in &results.conformance {
            line(format_args!(
                "| {} | {}/{} | {}/{} |",
                one.contestant, one.must.0, one.must.1, one.ours.0, one.ours.1
            ));
        }
        line(format_args!(""));
    }
    if !results.scaling.is_empty() {
        line(format_args!(
            "## Two workers\n\nCPU per request with one worker on core 0, and with two on cores 0 and 1, where the \
             second shares its core with the client: what a worker costs the other, not how much they do. A worker that \
             shares its core sleeps after every few requests, at the same price for everybody, which is a larger share of a \
             cheaper server's time. All rounds count, quiet or not.\n"
        ));
        line(format_args!("| server | one worker | two workers | ratio |\n|---|---:|---:|---:|"));
        for scaling in &results.scaling {
            line(format_args!(
                "| {} | {} us | {} us | {} |",
                scaling.contestant,
                digits(scaling.one.median),
                digits(scaling.two.median),
                interval(scaling.ratio),
            ));
        }
        line(format_args!(""));
    }
    line(format_args!("## Who they are\n\n| server | configuration | leaves out |\n|---|---|---|"));
    for (name, configuration, leaves_out) in &results.contestants {
        line(format_args!("| {name} | {configuration} | {leaves_out} |"));
    }
    if !results.skipped.is_empty() {
        line(format_args!("\nNot here:\n"));
        for (name, why) in &results.skipped {
            line(format_args!("- {name}: {why}"));
        }
    }
    text
}

/// One workload. Also what the terminal shows.
pub fn table(table: &Table) -> String {
    let mut text = format!("## {}\n\n![ratios]({}.svg)\n\n", table.title, table.name);
    text.push_str(&format!(
        "| server | CPU us/request | user us | against {} | smallest to largest | requests/s | system calls | \
         switches | resident | p50 / p99 / p99.9 us | quiet rounds | steal | |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|\n",
        if table.scale() == "floor" { "the floor" } else { table.scale() }
    ));
    for outcome in table.ranked() {
        text.push_str(&row(outcome));
    }
    for (name, why) in &table.failures {
        text.push_str(&format!(
            "| {name} | failed: {} | | | | | | | | | | | |\n",
            why.replace(['|', '\n'], " ")
        ));
    }
    if table.is_open_loop {
        text.push_str(&format!("\n![latency]({}-latency.svg)\n", table.name));
        text.push_str("\nLatency counts from the moment at which a request was due, sent or not.\n");
    }
    text
}

fn row(outcome: &Outcome) -> String {
    let mut marks = Vec::new();
    if outcome.is_unstable() {
        marks.push("unstable");
    }
    if outcome.is_client_bound {
        marks.push("client was the limit");
    }
    let ratio = outcome.ratio();
    format!(
        "| {} | {} | {} ± {:.0} % | {} | {} | {:.0} | {} | {} | {:.1} MiB | {:.0} / {:.0} / {:.0} | {}/{} | {:.0} % | {} |\n",
        outcome.contestant,
        digits(outcome.cpu_us.median),
        digits(outcome.user_us),
        outcome.user_error * 100.0,
        ratio.map_or("-".into(), interval),
        ratio.map_or("-".into(), |ratio| format!("{:.2} to {:.2}", ratio.min, ratio.max)),
        outcome.requests_per_second.median,
        outcome.syscalls_per_request.map_or("-".into(), digits),
        digits(outcome.switches_per_request),
        outcome.resident_bytes as f64 / f64::from(1 << 20),
        outcome.p50_us,
        outcome.p99_us,
        outcome.p999_us,
        outcome.kept,
        outcome.rounds,
        outcome.steal * 100.0,
        marks.join(", "),
    )
}

fn interval(ratio: Figure) -> String {
    format!("{:.2} ({:.2} to {:.2})", ratio.median, ratio.low, ratio.high)
}
