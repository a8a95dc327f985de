//! Who takes part: our own programs, the peers that build here, and programs of the system that are found.
//!
//! The peers are a package of their own, `benches/peers`; its `peers.json` says how each is started and what it leaves
//! out. Each is built with its feature alone, so that one that does not build is only missing itself.

use crate::workloads::{Kind, Workload};
use benches::runner::{Failure, Template};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A server that takes part.
#[derive(Clone, Debug)]
pub struct Spec {
    pub name: String,
    pub kind: Kind,
    /// With `{port}`, `{workers}`, `{cpus}`, and `{json}`, which is `--json` for the JSON workloads.
    command: String,
    /// Version, runtime, allocator.
    pub configuration: String,
    /// What of HTTP it does not do.
    pub leaves_out: String,
    /// Workloads that it can do; `None` for all of its kind.
    workloads: Option<Vec<String>>,
    pub is_floor: bool,
    pub is_ours: bool,
}

impl Spec {
    pub fn can_do(&self, workload: &Workload) -> bool {
        let named = |names: &Vec<String>| names.iter().any(|name| workload.name.starts_with(name.as_str()));
        self.kind == workload.kind && self.workloads.as_ref().is_none_or(named)
    }

    /// For a floor that answers constants, the workload decides which.
    pub fn for_workload(&self, workload: &Workload) -> Self {
        let json = if workload.name.starts_with("json") { "--json" } else { "" };
        Self { command: self.command.replace("{json}", json), ..self.clone() }
    }

    pub fn template(&self, workers: usize, cpus: &[usize]) -> Template {
        let cpus = cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let command = self
            .command
            .replace("{workers}", &workers.to_string())
            .replace("{cpus}", &cpus)
            .replace("{json}", "");
        Template { name: self.name.clone(), command }
    }
}

/// The contestants, and who is left out and why.
pub struct Field {
    pub specs: Vec<Spec>,
    pub skipped: Vec<(String, String)>,
}

/// Builds and lists everybody whose name contains one of `only`; everybody without any.
pub fn field(programs: &Path, only: &[String], kinds: &[Kind]) -> Result<Field, Failure> {
    let mut field = Field { specs: ours(programs), skipped: Vec::new() };
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    let text = std::fs::read_to_string(manifest.join("peers.json"))?;
    let list: Value = serde_json::from_str(&text)?;
    for peer in list.as_array().ok_or("peers.json is not a list")? {
        let (spec, build) = read(peer, &manifest)?;
        let is_wanted = only.is_empty() || only.iter().any(|name| spec.name.contains(name.as_str()));
        if !is_wanted || !kinds.contains(&spec.kind) {
            continue;
        }
        match build.run(&manifest, &spec.name) {
            Ok(()) => field.specs.push(spec),
            Err(why) => field.skipped.push((spec.name, why)),
        }
    }
    Ok(field)
}

fn ours(programs: &Path) -> Vec<Spec> {
    let program = |name: &str| programs.join(name).display().to_string();
    let version = env!("CARGO_PKG_VERSION");
    let spec = |name: &str, command: String, is_floor| Spec {
        name: name.into(),
        kind: Kind::Http,
        command,
        configuration: String::new(),
        leaves_out: String::new(),
        workloads: None,
        is_floor,
        is_ours: !is_floor,
    };
    let floor = Spec {
        configuration: "hand-written epoll loop, constant answers, system allocator".into(),
        leaves_out: "parsing, routes, methods, bodies, limits, deadlines, the clock".into(),
        workloads: Some(["plaintext", "pipelined", "json", "open-loop"].map(String::from).into()),
        ..spec("floor", format!("{} --port {{port}} {{json}}", program("floor")), true)
    };
    let ours = Spec {
        configuration: format!("netpoll-http {version}, epoll, system allocator; the example mini-program"),
        ..spec(
            "netpoll-http",
            format!(
                "{} --addr 127.0.0.1:{{port}} --workers {{workers}} --cpus {{cpus}}",
                program("mini-program")
            ),
            false,
        )
    };
    vec![floor, ours]
}

/// How a peer comes to be.
enum Build {
    Feature {
        feature: String,
        program: String,
    },
    /// A program of the system that has to be there, and where it comes from.
    Found {
        program: String,
        hint: String,
    },
}

impl Build {
    fn run(&self, manifest: &Path, name: &str) -> Result<(), String> {
        match self {
            Self::Found { program, hint } if which(program).is_none() => {
                Err(format!("{program} is not installed: {hint}"))
            }
            Self::Found { .. } => Ok(()),
            Self::Feature { feature, program } => {
                eprintln!("building {name}");
                let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
                let output = Command::new(cargo)
                    .args(["build", "--release", "--quiet", "--features", feature, "--bin", program])
                    .arg("--manifest-path")
                    .arg(manifest.join("Cargo.toml"))
                    .stdin(Stdio::null())
                    .output()
                    .map_err(|error| error.to_string())?;
                if output.status.success() {
                    return Ok(());
                }
                let text = String::from_utf8_lossy(&output.stderr);
                let line = text.lines().find(|line| line.contains("error")).unwrap_or("no reason given");
                Err(format!("does not build here: {line}"))
            }
        }
    }
}

fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/go/bin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

fn read(peer: &Value, manifest: &Path) -> Result<(Spec, Build), Failure> {
    let text = |key: &str| peer.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let name = text("name");
    let kind = match text("kind").as_str() {
        "http" => Kind::Http,
        "echo" => Kind::Echo,
        other => return Err(format!("peers.json: {name} is of kind {other:?}").into()),
    };
    let workloads = peer
        .get("workloads")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect::<Vec<_>>());
    let needs = text("needs");
    let command = text("command")
        .replace("{programs}", &manifest.join("target/release").display().to_string())
        .replace("{dir}", &manifest.display().to_string());
    let spec = Spec {
        kind,
        command,
        configuration: text("configuration"),
        leaves_out: text("leaves_out"),
        workloads,
        is_floor: name == "echo-floor",
        is_ours: name == "echo-netpoll",
        name: name.clone(),
    };
    let build = if needs.is_empty() {
        Build::Feature { feature: text("feature"), program: text("program") }
    } else {
        Build::Found { program: needs, hint: text("hint") }
    };
    Ok((spec, build))
}
