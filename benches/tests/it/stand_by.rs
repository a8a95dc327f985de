//! On stand-by the generator keeps its connections, and measures when it is told to.

use crate::server::{Act, GOOD, echo, load, serve};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// A generator that waits for orders; ended when dropped.
struct StandBy {
    child: Child,
    orders: Option<ChildStdin>,
    words: BufReader<ChildStdout>,
}

impl StandBy {
    fn start(to: SocketAddr, options: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_load"));
        command.args(["--stand-by", "--to", &to.to_string()]).args(options.split_whitespace());
        command.args(["--seconds", "20"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let words = BufReader::new(child.stdout.take().unwrap());
        Self { orders: child.stdin.take(), words, child }
    }

    /// Starts it and waits until it is ready.
    fn ready(to: SocketAddr, options: &str) -> Self {
        let mut ready = Self::start(to, options);
        assert_eq!(ready.word().unwrap()["ready"], true);
        ready
    }

    fn order(&mut self, line: &str) {
        writeln!(self.orders.as_ref().unwrap(), "{line}").unwrap();
    }

    /// The next thing it says; `None` when it has ended.
    fn word(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.words.read_line(&mut line).unwrap();
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    /// Orders a window of this length; its report.
    fn window(&mut self, line: &str) -> Value {
        self.order(line);
        self.word().expect("a report")
    }

    fn complaint(&mut self) -> String {
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Stops it, and waits until it stands still: the signal alone says that it will.
    fn stop(&self) {
        self.signal("STOP");
        let stands_still = || {
            let mut tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
            tasks.all(|task| {
                let text = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
                // Its name may have blanks, and stands in brackets.
                text.rsplit_once(") ").unwrap().1.starts_with('T')
            })
        };
        while !stands_still() {
            thread::yield_now();
        }
    }

    fn cpu_ns(&self) -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let run_time = |task: std::io::Result<std::fs::DirEntry>| -> u64 {
            let text = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
            text.split_whitespace().next().unwrap().parse().unwrap()
        };
        tasks.map(run_time).sum()
    }
}

impl Drop for StandBy {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended by itself
        let _ = self.child.wait();
    }
}

fn answers(report: &Value) -> (u64, u64) {
    let pairs = report["histogram"].as_array().unwrap().iter();
    (report["requests"].as_u64().unwrap(), pairs.map(|pair| pair[1].as_u64().unwrap()).sum())
}

#[test]
fn each_line_is_one_window_with_counts_of_its_own() {
    let mut client = StandBy::ready(
        serve(|_| Act::Answer(GOOD.to_vec())),
        "--connections 2 --requests 40 --warmup 0.05 --histogram",
    );
    for line in ["", "10", ""] {
        let report = client.window(line);
        assert_eq!(answers(&report), (40, 40), "{report}");
        assert_eq!((&report["connections_opened"], &report["reconnected"]), (&0.into(), &0.into()));
    }
    let (first, second) = (client.window("0.000001"), client.window("0.05"));
    assert!(first["requests"].as_u64().unwrap() <= 40, "its time may be up before its requests are");
    assert!(second["seconds"].as_f64().unwrap() < 20.0, "the line says how long");
}

#[test]
fn every_kind_of_load_can_stand_by() {
    let good = || serve(|_| Act::Answer(GOOD.to_vec()));
    for (to, kind) in [
        (good(), "--spin"),
        (good(), "--depth 8"),
        (good(), "--rate 2000"),
        (good(), "--rate 2000 --depth 4 --spin"),
        (good(), "--pause-us 1000"),
        (serve(|_| Act::AnswerAndClose(GOOD.to_vec())), "--churn --spin"),
        (serve(|_| Act::AnswerAndClose(GOOD.to_vec())), "--churn --rate 2000"),
        (serve(|_| Act::Echo), "--post 3000"),
        (echo(|_| {}), "--echo 5000 --depth 2"),
    ] {
        let mut client = StandBy::ready(to, &format!("--connections 4 --requests 80 --histogram {kind}"));
        for _ in 0..3 {
            let report = client.window("");
            assert_eq!(answers(&report), (80, 80), "{kind}: {report}");
            assert_eq!((&report["unsent"], &report["unanswered"]), (&0.into(), &0.into()), "{kind}");
            let opened = if kind.contains("churn") { 80 } else { 0 };
            assert_eq!(report["connections_opened"], opened, "{kind}: {report}");
        }
    }
}

#[test]
fn a_lie_is_counted_in_the_window_in_which_it_was_told() {
    let lies = [25, 26, 47];
    let to = serve(move |nth| match lies.contains(&nth) {
        true => Act::Answer(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n".to_vec()),
        false => Act::Answer(GOOD.to_vec()),
    });
    let mut client = StandBy::ready(to, "--connections 2 --requests 20 --count-errors");
    let counts: Vec<Value> =
        std::iter::repeat_with(|| client.window("")["errors"]["wrong_status"].clone()).take(4).collect();
    assert_eq!(counts, [0, 2, 1, 0].map(Value::from));
}

#[test]
fn the_first_error_ends_it_with_its_name() {
    let to = serve(|nth| Act::Answer(if nth == 30 { b"nonsense".to_vec() } else { GOOD.to_vec() }));
    let mut client = StandBy::ready(to, "--connections 2 --requests 20");
    assert_eq!(client.window("")["requests"], 20);
    client.order("");
    assert_eq!(client.word(), None);
    let said = client.complaint();
    assert!(said.contains("framing") && said.contains("nonsense"), "{said}");
}

/// A server that knows its connections, so that it can close them.
fn closes_when_told() -> (SocketAddr, Arc<Mutex<Vec<TcpStream>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (to, open) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let kept = Arc::clone(&open);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            kept.lock().unwrap().push(stream.try_clone().unwrap());
            thread::spawn(move || {
                let mut piece = [0; 1024];
                while let Ok(read @ 1..) = stream.read(&mut piece) {
                    if stream.write_all(&piece[..read]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (to, open)
}

/// Clients of this server that its end has arrived at, and that have not closed.
fn ends_at_clients_of(to: SocketAddr) -> usize {
    const CLOSE_WAIT: &str = "08";
    let (table, port) = (std::fs::read_to_string("/proc/net/tcp").unwrap(), format!(":{:04X}", to.port()));
    let is_one = |line: &&str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields[2].ends_with(&port) && fields[3] == CLOSE_WAIT
    };
    table.lines().skip(1).filter(is_one).count()
}

#[test]
fn connections_that_the_server_closed_meanwhile_are_made_anew_before_the_window() {
    let (to, open) = closes_when_told();
    let mut client = StandBy::ready(to, "--connections 200 --echo 8 --requests 1000");
    assert_eq!(client.window("")["reconnected"], 0);
    while open.lock().unwrap().len() < 200 {
        thread::yield_now();
    }
    // It finds the ends and the order at the same time.
    client.stop();
    for stream in open.lock().unwrap().drain(..).skip(50) {
        stream.shutdown(Shutdown::Both).unwrap();
    }
    while ends_at_clients_of(to) < 150 {
        thread::yield_now();
    }
    client.order("");
    client.signal("CONT");

    let report = client.word().unwrap();

    assert_eq!((&report["requests"], &report["reconnected"]), (&1000.into(), &150.into()), "{report}");
    assert_eq!(report["connections_opened"], 0, "none of them in the window");
    assert_eq!(client.window("")["reconnected"], 0);
}

#[test]
fn a_server_that_is_gone_is_an_error_with_a_name() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = StandBy::start(listener.local_addr().unwrap(), "--connections 1 --echo 8");
    let (stream, _) = listener.accept().unwrap();
    assert_eq!(client.word().unwrap()["ready"], true);
    drop(listener);
    drop(stream);
    client.order("");
    assert_eq!(client.word(), None);
    let said = client.complaint();
    assert!(said.contains("connect"), "{said}");
}

#[test]
fn what_is_not_answered_in_its_window_does_not_count_in_the_next() {
    let to = serve(|nth| if nth < 2 { Act::Ignore } else { Act::Answer(GOOD.to_vec()) });
    let mut client = StandBy::ready(to, "--connections 2 --requests 20 --drain-ms 20");
    let first = client.window("0.05");
    assert_eq!((&first["requests"], &first["unanswered"]), (&0.into(), &2.into()), "{first}");
    let second = client.window("");
    assert_eq!((&second["requests"], &second["unanswered"]), (&20.into(), &0.into()), "{second}");
    assert_eq!(second["reconnected"], 2);
}

#[test]
fn between_windows_nothing_is_asked_and_it_sleeps_even_if_it_spins_within() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let to = serve(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Act::Answer(GOOD.to_vec())
    });
    let mut client = StandBy::ready(to, "--connections 4 --spin --warmup 0.05");
    let report = client.window("0.1");
    let (cpu_ns, requests) = (client.cpu_ns(), asked.load(Ordering::Relaxed));

    // Somebody else's window is how the time passes.
    load(serve(|_| Act::Answer(GOOD.to_vec())), "--connections 2 --rate 100 --requests 30");

    assert!(client.cpu_ns() - cpu_ns < 20_000_000, "of 300 ms");
    assert_eq!(asked.load(Ordering::Relaxed), requests);
    assert!(report["requests"].as_u64().unwrap() > 0);
}

#[test]
fn the_end_of_its_input_ends_it_after_the_windows_that_were_ordered() {
    let mut client = StandBy::ready(serve(|_| Act::Answer(GOOD.to_vec())), "--connections 2 --requests 20");
    client.order("");
    client.order("");
    drop(client.orders.take());
    assert_eq!(client.word().unwrap()["requests"], 20);
    assert_eq!(client.word().unwrap()["requests"], 20);
    assert_eq!(client.word(), None);
    assert!(client.child.wait().unwrap().success());
}

#[test]
fn a_line_that_is_no_length_ends_it_with_a_sentence() {
    let mut client = StandBy::ready(serve(|_| Act::Answer(GOOD.to_vec())), "--connections 2");
    client.order("soon");
    assert_eq!(client.word(), None);
    assert!(client.complaint().contains("soon is not a number of seconds"));
}

#[test]
fn loads_that_cannot_be_quiet_cannot_stand_by() {
    for option in ["--hold", "--flood 1"] {
        let mut client = StandBy::start("127.0.0.1:9".parse().unwrap(), option);
        assert_eq!(client.word(), None);
        assert!(client.complaint().contains("--stand-by is quiet"), "{option}");
    }
}
