//! PostgreSQL and Redis, each started for a test of its own.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use crate::clients::{Scratch, has};
use crate::support::{Answer, PATIENCE, Program, send_request};

const PROGRAM: &str = env!("CARGO_BIN_EXE_databases");
const NOTES: &str = env!("CARGO_BIN_EXE_notes");

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

/// Whose PostgreSQL it is: that does not run as root, then it runs as `nobody`.
fn prefix() -> Vec<String> {
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let as_nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"];
    if is_root { as_nobody.map(str::to_owned).to_vec() } else { Vec::new() }
}

fn postgres_command(programs: &Path, program: &str) -> Command {
    let (path, prefix) = (programs.join(program), prefix());
    let mut words = prefix.iter().map(std::ffi::OsStr::new).chain([path.as_os_str()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command
}

/// A new PostgreSQL on a socket in this directory.
fn postgres(programs: &Path, scratch: &Scratch) -> (Store, String) {
    let data = scratch.0.join("data");
    std::fs::create_dir_all(&data).unwrap();
    if !prefix().is_empty() {
        for path in [&scratch.0, &data] {
            assert!(Command::new("chown").arg("nobody:nogroup").arg(path).status().unwrap().success());
        }
    }
    let made = postgres_command(programs, "initdb")
        .args(["--no-sync", "--auth", "trust", "--username", "test", "--encoding", "UTF8", "--locale", "C"])
        .arg("--pgdata")
        .arg(&data)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let url = format!("postgres://test@{}/postgres", scratch.0.to_str().unwrap().replace('/', "%2F"));
    (serve(programs, scratch), url)
}

/// The one that was made there, started.
fn serve(programs: &Path, scratch: &Scratch) -> Store {
    let mut child = postgres_command(programs, "postgres")
        .args(["-F", "-c", "listen_addresses=", "-k"])
        .arg(&scratch.0)
        .arg("-D")
        .arg(scratch.0.join("data"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.stderr.take().unwrap();
    let store = Store { child, tell: prefix() };
    until_ready(output, "ready to accept connections");
    store
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

/// Asks until the status is this one, as long as that may take.
fn until(program: &Program, addr: SocketAddr, target: &str, status: u16) {
    let patience = Instant::now() + PATIENCE;
    loop {
        let mut stream = TcpStream::connect(addr).unwrap();
        send_request(&mut stream, "GET", target, &["Connection: close"], "");
        let answer = Answer::read(&mut stream);
        if answer.status == status {
            return;
        }
        assert!(
            Instant::now() < patience,
            "{target}: {} and not {status}: {}",
            answer.status,
            program.printed
        );
        thread::yield_now();
    }
}

#[test]
fn a_service_on_postgresql_says_when_it_is_away_and_why_and_goes_on_when_it_is_back() {
    let Some(programs) = postgres_programs() else {
        return println!("skipped: there is no initdb");
    };
    let scratch = Scratch::new("notes");
    let (store, url) = postgres(&programs, &scratch);
    let mut program = Program::start(NOTES, &["127.0.0.1:0", "127.0.0.1:0", &url]);
    let line = program.line();
    let operators: SocketAddr = line.trim_end().rsplit('/').next().unwrap().parse().unwrap();
    let addr = program.addr;
    let mut stream = program.connect();
    send_request(&mut stream, "POST", "/notes", &[], "tea");
    let added = Answer::read(&mut stream);
    assert_eq!((added.status, added.header("location")), (201, Some("/notes/1")));
    assert_eq!(program.get("/notes/1").said(), (200, "tea"));
    assert_eq!(program.get("/notes/2").status, 404);
    until(&program, operators, "/readyz", 200);
    drop(store);
    let answer = program.get("/notes/1");
    assert_eq!(answer.said(), (503, "the notes are away, try again\n"));
    assert_eq!(answer.header("retry-after"), Some("5"));
    until(&program, operators, "/readyz", 503);
    let store = serve(&programs, &scratch);
    until(&program, operators, "/readyz", 200);
    until(&program, addr, "/notes/1", 200);
    let (printed, status) = program.terminate();
    assert!(status.success() && printed.contains(" 0 of them cut"), "{printed}");
    assert!(
        printed
            .contains("\"status\":503,\"outcome\":\"answered\",\"error\":\"the notes are away, try again: "),
        "{printed}"
    );
    drop(store);
}

/// The code of a page, without the indent that it has in its program.
fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).collect()
}

#[test]
fn the_code_of_the_recipe_on_postgresql_is_the_programs() {
    let program = lines(include_str!("../../src/bin/notes.rs"));
    let (_, behind) =
        include_str!("../../../../docs/COOKBOOK.md").split_once("\n## PostgreSQL on the worker\n").unwrap();
    let (recipe, _) = behind.split_once("\n## ").unwrap();
    let mut blocks = 0;
    // Each is some pieces of the program, with an empty line between them.
    for piece in recipe
        .split("```rust,ignore\n")
        .skip(1)
        .flat_map(|block| block.split("```").next().unwrap().split("\n\n"))
    {
        let piece = lines(piece.trim());
        assert!(program.windows(piece.len()).any(|window| window == piece), "{piece:#?}");
        blocks += 1;
    }
    assert!(blocks > 8, "{blocks}");
}
