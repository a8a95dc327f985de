//! Who takes part: our own programs, the peers that build here, and programs of the system that are found.
//!
//! The peers are a package of their own, `benches/peers`; its `peers.json` says how each is built, started, what it can do and
//! what it leaves out. Each is built with its feature alone, so that one that does not build is only missing itself.

use crate::workloads::{Kind, Workload};
use benches::runner::{Failure, Template, backend, feature};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A server that takes part.
#[derive(Clone, Debug)]
pub struct Spec {
    pub name: String,
    pub kind: Kind,
    /// With `{port}`, `{workers}`, `{cpu}`, and `{json}`, which is `--json` for the JSON workloads.
    command: String,
    template: Option<PathBuf>,
    /// Version, runtime, allocator.
    pub configuration: String,
    /// What of HTTP it does not do.
    pub leaves_out: String,
    /// What it can do; `None` for all of its kind.
    workloads: Option<Vec<String>>,
    workers_max: usize,
    pub is_floor: bool,
    pub is_ours: bool,
}

impl Spec {
    /// Whether it can do what `needs` says: `plaintext`, `idle`, ..
    pub fn can(&self, needs: &str) -> bool {
        self.workloads.as_ref().is_none_or(|names| names.iter().any(|name| name == needs))
    }

    /// What others are held against: the floor, ours, or nobody.
    pub fn role(&self) -> &'static str {
        match (self.is_floor, self.is_ours) {
            (true, _) => "floor",
            (_, true) => "ours",
            _ => "peer",
        }
    }

    pub fn can_do(&self, workload: &Workload) -> bool {
        self.kind == workload.kind && self.can(workload.needs)
    }

    pub fn can_have(&self, workers: usize) -> bool {
        workers <= self.workers_max
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
            .replace("{cpu}", &cpus)
            .replace("{json}", "");
        Template { name: self.name.clone(), command, configuration: self.template.clone() }
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
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    let text = std::fs::read_to_string(peers.join("peers.json"))?;
    let list: Value = serde_json::from_str(&text)?;
    for peer in list["peers"].as_array().ok_or("peers.json has no list of peers")? {
        let (spec, build) = read(&list, peer, &peers)?;
        let is_wanted = only.is_empty() || only.iter().any(|name| spec.name.contains(name.as_str()));
        if !is_wanted || !kinds.contains(&spec.kind) {
            continue;
        }
        match build.run(&peers, &spec.name) {
            Ok(()) => field.specs.push(spec),
            Err(why) => field.skipped.push((spec.name, why)),
        }
    }
    Ok(field)
}

fn ours(programs: &Path) -> Vec<Spec> {
    let program = |name: &str| programs.join(name).display().to_string();
    let version = env!("CARGO_PKG_VERSION");
    let driver = backend().filter(|&name| name != "auto").unwrap_or("epoll");
    let spec = |name: &str, command: String, is_floor| Spec {
        name: name.into(),
        kind: Kind::Http,
        command,
        configuration: String::new(),
        leaves_out: String::new(),
        template: None,
        workloads: None,
        workers_max: usize::MAX,
        is_floor,
        is_ours: !is_floor,
    };
    let floor = Spec {
        configuration: "hand-written epoll loop, constant answers, system allocator".into(),
        leaves_out: "parsing, routes, methods, bodies, limits, deadlines, the clock".into(),
        workloads: Some(["plaintext", "pipelined", "json", "idle"].map(String::from).into()),
        workers_max: 1,
        ..spec("floor", format!("{} --port {{port}} {{json}}", program("floor")), true)
    };
    let ours = Spec {
        configuration: format!(
            "netpoll-http {version}, {driver}, system allocator; the example mini-program"
        ),
        ..spec(
            "netpoll-http",
            format!(
                "{} --addr 127.0.0.1:{{port}} --workers {{workers}} --cpus {{cpu}}",
                program("mini-program")
            ),
            false,
        )
    };
    if backend() != Some("uring") {
        return vec![floor, ours];
    }
    // A driver is held against the least that can be done by the same means.
    let floor = Spec {
        configuration: "hand-written io_uring loop, constant answers, system allocator".into(),
        command: format!("{} --port {{port}} {{json}}", program("floor-uring")),
        ..floor
    };
    let echo = Spec {
        kind: Kind::Echo,
        command: format!("{} --port {{port}} --echo", program("floor-uring")),
        leaves_out: "deadlines, limits on slow readers but one".into(),
        workloads: Some(["echo-64", "echo-4096", "idle"].map(String::from).into()),
        ..floor.clone()
    };
    vec![floor, ours, echo]
}

/// How a peer comes to be: a command of cargo or of another compiler, or a program that has to be there.
struct Build {
    /// Run in the directory of the peers; empty for what is only found.
    command: String,
    needs: String,
    out: PathBuf,
}

impl Build {
    fn run(&self, peers: &Path, name: &str) -> Result<(), String> {
        if !self.needs.is_empty() && which(&self.needs).is_none() {
            return Err(format!("{} is not installed; your package manager has it", self.needs));
        }
        let mut words = self.command.split_whitespace();
        let Some(program) = words.next() else { return Ok(()) };
        eprintln!("building {name}");
        let program = match program {
            "cargo" => std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
            other => which(other).map_or_else(|| other.into(), PathBuf::into_os_string),
        };
        let out = self.out.display().to_string();
        let output = Command::new(program)
            .args(words.map(|word| word.replace("{out}", &out)))
            .current_dir(peers)
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

fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/go/bin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

fn read(list: &Value, peer: &Value, peers: &Path) -> Result<(Spec, Build), Failure> {
    let text_of = |from: &Value, key: &str| from[key].as_str().unwrap_or_default().to_owned();
    let text = |key: &str| text_of(peer, key);
    let name = text("name");
    let kind = match text("kind").as_str() {
        "http" => Kind::Http,
        "echo" => Kind::Echo,
        other => return Err(format!("peers.json: {name} is of kind {other:?}").into()),
    };
    let (profile, program, needs) = (text("profile"), text("feature"), text("program"));
    let out = peers.join("target").join(&name);
    let mut command = text("command").replace("{out}", &out.display().to_string());
    let build = if needs.is_empty() {
        command = peers.join("target").join(&profile).join(command).display().to_string();
        // A peer that is ours has the driver that was asked for.
        let driver = feature().filter(|_| name == "echo-netpoll");
        let features = driver.map_or_else(|| program.clone(), |driver| format!("{program},{driver}"));
        let build = text_of(list, "build").replace("--features {feature}", &format!("--features {features}"));
        build.replace("{profile}", &profile).replace("{feature}", &program)
    } else {
        if let Some((program, rest)) = command.clone().split_once(' ')
            && let Some(found) = which(program)
        {
            command = format!("{} {rest}", found.display());
        }
        text("build")
    };
    let template = text("template");
    let spec = Spec {
        kind,
        command,
        template: (!template.is_empty()).then(|| peers.join(template)),
        configuration: "[benches/peers](../../peers/README.md)".into(),
        leaves_out: text("leaves_out"),
        workloads: peer["workloads"]
            .as_array()
            .map(|names| names.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect()),
        workers_max: peer["workers_max"].as_u64().map_or(usize::MAX, |most| most as usize),
        is_floor: name == "echo-floor" && backend() != Some("uring"),
        is_ours: name == "echo-netpoll",
        name: name.clone(),
    };
    Ok((spec, Build { command: build, needs, out }))
}
