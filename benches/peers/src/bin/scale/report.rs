//! What was measured, as a table, as data and as a chart. Figures are medians of the rounds.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::Failure;
use crate::chart::{Bar, Chart, Role};
use crate::measure::{Plan, Results, Row, Window};

/// From here on the client has no CPU left, and the server waits for it.
const CLIENT_IS_LIMIT: f64 = 0.95;

pub struct Report<'a> {
    pub plan: &'a Plan,
    pub words: &'a [String],
    pub results: &'a Results,
}

fn sorted(row: &Row, of: fn(&Window) -> f64) -> Vec<f64> {
    let mut values: Vec<f64> = row.windows.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(row: &Row, of: fn(&Window) -> f64) -> f64 {
    let values = sorted(row, of);
    (values[values.len() / 2] + values[(values.len() - 1) / 2]) / 2.0
}

fn rate(window: &Window) -> f64 {
    window.requests_per_second
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn processor() -> String {
    let info = read("/proc/cpuinfo");
    let line = info.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| Some(line.split_once(':')?.1.trim())).unwrap_or("processor").to_owned()
}

impl Report<'_> {
    /// Files of these names in a directory, which is made.
    pub fn write(&self, out: &Path) -> Result<(), Failure> {
        fs::create_dir_all(out)?;
        fs::write(out.join("scale.md"), self.markdown())?;
        fs::write(out.join("scale.json"), format!("{:#}\n", self.to_json()))?;
        fs::write(out.join("scale.svg"), self.chart())?;
        Ok(())
    }

    /// With one worker nothing was compared, however many servers there were.
    fn says_how_it_scales(&self) -> bool {
        self.results.rows.iter().any(|row| row.workers > 1)
    }

    fn conditions(&self) -> String {
        let plan = self.plan;
        format!(
            "{}; Linux {}; servers on CPUs {:?}, the client on {:?}; {} connections for each worker, {} at a time on each; {} rounds of {} s",
            processor(),
            read("/proc/sys/kernel/osrelease"),
            plan.halves.servers,
            plan.halves.client,
            plan.connections,
            plan.depth,
            plan.rounds,
            plan.seconds,
        )
    }

    fn notes(&self) -> Vec<&'static str> {
        let rows = &self.results.rows;
        let mut notes = Vec::new();
        if !self.says_how_it_scales() {
            notes.push("One worker was all that was measured, so this says nothing of scaling.");
        }
        if rows.iter().any(|row| median(row, |window| window.client_busy) > CLIENT_IS_LIMIT) {
            notes.push("* The client was busy all the time: the server could do more.");
        }
        notes
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("{}.\n\n", self.conditions());
        text += "| server | workers | requests/s | lowest to highest | beside one worker | CPU, us a request | p50, us | p99, us | least beside most busy worker | client busy |\n";
        text += "|---|---:|---:|---|---:|---:|---:|---:|---:|---:|\n";
        for row in &self.results.rows {
            let rates = sorted(row, rate);
            let one =
                self.results.rows.iter().find(|one| one.workers == 1 && one.server.name == row.server.name);
            let beside =
                one.map_or("–".into(), |one| format!("{:.2}", median(row, rate) / median(one, rate)));
            let busy = median(row, |window| window.client_busy);
            let _ = writeln!(
                text,
                "| {} | {} | {:.0}{} | {:.0} to {:.0} | {beside} | {:.2} | {:.0} | {:.0} | {:.2} | {:.0} % |",
                row.server.name,
                row.workers,
                median(row, rate),
                if busy > CLIENT_IS_LIMIT { "*" } else { "" },
                rates[0],
                rates[rates.len() - 1],
                median(row, |window| window.cpu_us),
                median(row, |window| window.p50_us),
                median(row, |window| window.p99_us),
                median(row, |window| window.evenness),
                busy * 100.0,
            );
        }
        for note in self.notes() {
            let _ = writeln!(text, "\n{note}");
        }
        for (name, why) in &self.results.left_out {
            let _ = writeln!(text, "\n{name} is left out {why}.");
        }
        text
    }

    pub fn to_json(&self) -> Value {
        let figure = |row: &Row, of: fn(&Window) -> f64| {
            let values = sorted(row, of);
            json!({ "median": median(row, of), "min": values[0], "max": values[values.len() - 1] })
        };
        let rows = self.results.rows.iter().map(|row| {
            json!({
                "server": row.server.name, "workers": row.workers, "rounds": row.windows.len(),
                "requests_per_second": figure(row, rate), "cpu_us": figure(row, |window| window.cpu_us),
                "p50_us": figure(row, |window| window.p50_us), "p99_us": figure(row, |window| window.p99_us),
                "least_beside_most_busy_worker": figure(row, |window| window.evenness),
                "client_busy": figure(row, |window| window.client_busy),
            })
        });
        let left_out = self.results.left_out.iter().map(|(name, why)| json!({ "server": name, "why": why }));
        json!({
            "options": self.words, "processor": processor(), "kernel": read("/proc/sys/kernel/osrelease"),
            "server_cpus": self.plan.halves.servers, "client_cpus": self.plan.halves.client,
            "connections_per_worker": self.plan.connections, "depth": self.plan.depth, "seconds": self.plan.seconds,
            "says_how_it_scales": self.says_how_it_scales(),
            "rows": rows.collect::<Vec<_>>(), "left_out": left_out.collect::<Vec<_>>(),
        })
    }

    pub fn chart(&self) -> String {
        let bars = self.results.rows.iter().map(|row| {
            let rates = sorted(row, rate);
            let busy = median(row, |window| window.client_busy);
            Bar {
                label: format!("{} {}", row.workers, row.server.name),
                value: median(row, rate),
                whisker: Some((rates[0], rates[rates.len() - 1])),
                role: if row.server.is_ours() { Role::Ours } else { Role::Peer },
                text: format!(
                    "{:.0} k/s{}",
                    median(row, rate) / 1e3,
                    if busy > CLIENT_IS_LIMIT { "*" } else { "" }
                ),
            }
        });
        let mut notes = vec![format!("{} and {}", processor(), read("/proc/sys/kernel/osrelease"))];
        notes.extend(self.notes().into_iter().map(str::to_owned));
        let notes: Vec<&str> = notes.iter().map(String::as_str).collect();
        Chart { title: "Requests a second, by workers", bars: bars.collect(), line: None, notes: &notes }
            .svg()
    }
}
