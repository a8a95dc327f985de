//! PostgreSQL and Redis, each started for a test of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::clients::{Scratch, has};
use crate::support::{Answer, Program, send_request};

const PROGRAM: &str = env!("CARGO_BIN_EXE_databases");

/// A server that was started for a test. It is told to end as `kill` does, and is waited for.
struct Store {
    child: Child,
    /// As it says of itself, with its signals on: for PostgreSQL its own process.
    tell: Vec<String>,
}

impl Drop for Store {
    fn drop(&mut self) {
        let id = self.child.id().to_string();
        let mut tell = self.tell.clone();
        tell.extend(["kill".to_owned(), "-INT".to_owned(), id]);
        // It may have ended by itself.
        let _ = Command::new(&tell[0]).args(&tell[1..]).status();
        let _ = self.child.wait();
    }
}

/// Waits until a server says that it is ready. Reads on behind that, so that it never waits for us.
fn until_ready(output: impl std::io::Read + Send + 'static, ready: &'static str) {
    let mut lines = BufReader::new(output).lines().map_while(Result::ok);
    let mut said = Vec::new();
    while said.last().is_none_or(|line: &String| !line.contains(ready)) {
        said.push(lines.next().unwrap_or_else(|| panic!("it did not start: {said:#?}")));
    }
    thread::spawn(move || lines.for_each(drop));
}

/// Where the programs of PostgreSQL are. `None` if they are not.
fn postgres_programs() -> Option<PathBuf> {
    if Command::new("initdb").arg("--version").stdout(Stdio::null()).status().is_ok() {
        return Some(PathBuf::new());
    }
    // Debian keeps them to itself.
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(Result::ok);
    versions.map(|version| version.path().join("bin")).find(|path| path.join("initdb").exists())
}

/// PostgreSQL on a socket in this directory. It does not run as root: then it runs as `nobody`.
fn postgres(programs: &Path, scratch: &Scratch) -> (Store, String) {
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let mut prefix = Vec::new();
    let data = scratch.0.join("data");
    std::fs::create_dir_all(&data).unwrap();
    if is_root {
        let as_nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"];
        prefix.extend(as_nobody.map(str::to_owned));
        for path in [&scratch.0, &data] {
            assert!(Command::new("chown").arg("nobody:nogroup").arg(path).status().unwrap().success());
        }
    }
    let of = |program: &str| {
        let path = programs.join(program);
        let mut words = prefix.iter().map(std::ffi::OsStr::new).chain([path.as_os_str()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        command
    };
    let made = of("initdb")
        .args([
            "--no-sync",
            "--auth",
            "trust",
            "--username",
            "test",
            "--encoding",
            "UTF8",
            "--locale",
            "C",
            "--pgdata",
        ])
        .arg(&data)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut child = of("postgres")
        .args(["-F", "-c", "listen_addresses=", "-k"])
        .arg(&scratch.0)
        .arg("-D")
        .arg(&data)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.stderr.take().unwrap();
    let url = format!("postgres://test@{}/postgres", scratch.0.to_str().unwrap().replace('/', "%2F"));
    let store = Store { child, tell: prefix };
    until_ready(output, "ready to accept connections");
    (store, url)
}

fn redis(scratch: &Scratch) -> (Store, String) {
    let socket = scratch.0.join("redis.sock");
    let mut child = Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
        .arg(&socket)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.stdout.take().unwrap();
    let store = Store { child, tell: vec!["env".to_owned()] };
    until_ready(output, "eady to accept connections");
    (store, format!("redis+unix://{}", socket.display()))
}

/// Four clients at the same time, each on a connection of its own: on one worker they share the store's.
fn ask_at_once(program: &Program, ask: impl Fn(u32, u32) -> (String, String) + Sync) {
    thread::scope(|scope| {
        for client in 0..4 {
            let ask = &ask;
            scope.spawn(move || {
                let mut stream = program.connect();
                for request in 1..=50 {
                    let (target, wanted) = ask(client, request);
                    send_request(&mut stream, "GET", &target, &[], "");
                    assert_eq!(Answer::read(&mut stream).said(), (200, wanted.as_str()));
                }
            });
        }
    });
}

#[test]
fn postgresql_is_asked_by_handlers_on_their_worker() {
    let Some(programs) = postgres_programs() else {
        return println!("skipped: there is no initdb");
    };
    let scratch = Scratch::new("postgres");
    let (store, url) = postgres(&programs, &scratch);
    let program = Program::start(PROGRAM, &["127.0.0.1:0", &url, "redis://127.0.0.1:1"]);
    assert_eq!(program.get("/add/2/3").said(), (200, "5\n"));
    ask_at_once(&program, |client, request| {
        (format!("/add/{client}/{request}"), format!("{}\n", client + request))
    });
    assert_eq!(program.get("/add/9223372036854775807/1").status, 502, "out of range, says PostgreSQL");
    drop(store);
    assert_eq!(program.get("/add/2/3").status, 502, "it is gone");
    let (printed, status) = program.terminate();
    assert!(status.success() && printed.contains(" 0 of them cut"), "{printed}");
}

#[test]
fn redis_is_asked_by_handlers_on_their_worker() {
    if !has("redis-server") {
        return;
    }
    let scratch = Scratch::new("redis");
    let (store, url) = redis(&scratch);
    let program = Program::start(PROGRAM, &["127.0.0.1:0", "postgres://test@127.0.0.1:1/none", &url]);
    assert_eq!(program.get("/count/tea").said(), (200, "1\n"));
    ask_at_once(&program, |client, request| (format!("/count/client-{client}"), format!("{request}\n")));
    assert_eq!(program.get("/count/tea").said(), (200, "2\n"));
    drop(store);
    assert_eq!(program.get("/count/tea").status, 502, "it is gone");
    let (_store, _url) = redis(&scratch);
    let counted = (0..100).map(|_| program.get("/count/tea")).find(|answer| answer.status == 200);
    assert_eq!(counted.unwrap().body, "1\n", "it is back, and has forgotten all");
    let (printed, status) = program.terminate();
    assert!(status.success() && printed.contains(" 0 of them cut"), "{printed}");
}
