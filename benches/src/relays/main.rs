//! `cargo bench-relays`: the TCP proxy of `examples` beside HAProxy in TCP mode and nginx `stream`, in one run.
//!
//! Each relay runs on one core, both far ends on the other. In each round every relay has its turn, in another order each time:
//! first bulk data, then short connections. What counts is the CPU time of the relay's process, as the scheduler measures it,
//! per MiB and per connection; the ratio is the median of the rounds' ratios. Relays that are not installed are left out, and named.
//!
//! Options: `--rounds N` (9); `--programs DIR` use the programs there and build nothing; `--json` one object for each figure;
//! `--backend auto|epoll|uring|mio` what ours runs on \[its own choice\].

mod load;

use benches::runner::{
    CpuTime, Failure, LOAD_CPU, SERVER_CPU, Server, Template, build, digits, median, order, range,
};
use benches::{known_options, option, sys};
use load::{Ends, Task};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const BULK: Task = Task { connections: 4, at_once: 4, bytes: 8 << 20 };
const SHORT: Task = Task { connections: 1000, at_once: 16, bytes: 0 };
const NGINX_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A program that relays.
struct Relay {
    name: &'static str,
    command: String,
    /// Its configuration, with words to be replaced: by settings of the program, and by options of the relay.
    configuration: Option<(&'static str, &'static str, &'static str)>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relays: {error}");
            ExitCode::from(2)
        }
    }
}

/// All of them, and why some are left out.
fn relays(programs: &Path) -> Vec<Relay> {
    let ours = programs.join("tcp_proxy");
    let mut relays = vec![Relay {
        name: "netpoll tcp_proxy",
        command: format!("{} 127.0.0.1:{{port}} {{backend}}", ours.display()),
        configuration: None,
    }];
    let mut add = |name, command: &str, file, settings, options| {
        relays.push(Relay { name, command: command.into(), configuration: Some((file, settings, options)) });
    };
    if is_installed("haproxy") {
        let (command, file) = ("haproxy -db -q -f {conf}", include_str!("haproxy.cfg.in"));
        add("HAProxy", command, file, "", "");
        add("HAProxy, 64 KiB buffers", command, file, "tune.bufsize 65536", "");
        add("HAProxy, splicing", command, file, "", "option splice-response");
    } else {
        println!("HAProxy is left out: it is not installed");
    }
    if is_installed("nginx") && Path::new(NGINX_MODULE).exists() {
        let (command, file) = ("nginx -e stderr -p {dir} -c {conf}", include_str!("nginx.conf.in"));
        add("nginx stream", command, file, "", "");
        add("nginx stream, 64 KiB buffers", command, file, "proxy_buffer_size 64k;", "");
    } else {
        println!("nginx is left out: it is not installed, or {NGINX_MODULE} is not there");
    }
    relays
}

fn is_installed(program: &str) -> bool {
    ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .iter()
        .any(|dir| Path::new(dir).join(program).exists())
}

impl Relay {
    /// Starts it in front of this backend.
    fn start(&self, backend: SocketAddr) -> Result<Server, Failure> {
        let fill = |text: &str, settings: &str, options: &str| {
            text.replace("{backend}", &backend.to_string())
                .replace("{settings}", settings)
                .replace("{options}", options)
                .replace("{module}", &format!("load_module {NGINX_MODULE};"))
        };
        let configuration = self.configuration.map(|(text, settings, options)| {
            let file = std::env::temp_dir().join(format!("netpoll-relay-{}.conf", std::process::id()));
            std::fs::write(&file, fill(text, settings, options)).map(|()| file)
        });
        let configuration: Option<PathBuf> = configuration.transpose()?;
        let template = Template {
            name: self.name.into(),
            command: fill(&self.command, "", ""),
            configuration: configuration.clone(),
        };
        let probe = |port| TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(Into::into);
        let server = Server::start_on(&[SERVER_CPU], &template, "", probe);
        if let Some(file) = configuration {
            std::fs::remove_file(file)?;
        }
        server
    }
}

/// What one relay has used, in each round, for one task.
struct Figures {
    relay: &'static str,
    cpu_us: Vec<f64>,
}

fn run() -> Result<(), Failure> {
    let arguments = benches::runner::arguments(include_str!("main.rs"))?;
    known_options(&arguments, &["--rounds", "--programs"], &["--json"])?;
    let rounds = option(&arguments, "--rounds", 9)?;
    let has = |name| arguments.iter().any(|argument| argument == name);
    let programs = match has("--programs") {
        true => option(&arguments, "--programs", PathBuf::new())?,
        false => build(&[&["-p", "examples", "--bin", "tcp_proxy"]])?,
    };
    let is_json = has("--json");
    sys::pin_current_thread(&[LOAD_CPU])?;
    let relays = relays(&programs);
    let tasks = [BULK, SHORT];
    let ends = Ends::start(&tasks)?;
    for (nth, (task, what, per)) in
        [(BULK, "µs of CPU per MiB, bulk", 4.0 * 8.0), (SHORT, "µs of CPU per short connection", 1000.0)]
            .into_iter()
            .enumerate()
    {
        let backend = ends.backends()[nth];
        let servers = relays.iter().map(|relay| relay.start(backend)).collect::<Result<Vec<_>, _>>()?;
        let mut figures: Vec<Figures> =
            relays.iter().map(|relay| Figures { relay: relay.name, cpu_us: Vec::new() }).collect();
        // The first round warms caches, pools and routes, and does not count.
        for round in 0..=rounds {
            for index in order(round, servers.len()) {
                let (server, name) = (&servers[index], relays[index].name);
                let before = CpuTime::of(server.pid())?;
                ends.round(server.port, task).map_err(|error| format!("{name}, {what}: {error}"))?;
                let used = CpuTime::of(server.pid())?.since(before);
                if round > 0 {
                    figures[index].cpu_us.push(used.total_ns as f64 / 1000.0 / per);
                }
            }
        }
        show(what, &figures, is_json);
    }
    Ok(())
}

fn show(what: &str, figures: &[Figures], is_json: bool) {
    if !is_json {
        println!("\n| {what} | median | range | beside ours |\n|---|---:|---:|---:|");
    }
    let ours = &figures[0].cpu_us;
    for Figures { relay, cpu_us } in figures {
        let ratios: Vec<f64> = cpu_us.iter().zip(ours).map(|(theirs, ours)| theirs / ours).collect();
        let (Some(middle), Some(ratio), Some((least, most))) =
            (median(cpu_us), median(&ratios), range(cpu_us))
        else {
            continue;
        };
        if is_json {
            let object = serde_json::json!({
                "figure": what, "relay": relay, "median": middle, "min": least, "max": most, "ratio": ratio,
            });
            println!("{object}");
        } else {
            println!("| {relay} | {} | {}–{} | {ratio:.2} |", digits(middle), digits(least), digits(most));
        }
    }
}
