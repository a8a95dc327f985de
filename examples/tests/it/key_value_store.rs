//! The store on real sockets, several workers and clients at the same time.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

use crate::support::Program;

fn start() -> Program {
    Program::start(env!("CARGO_BIN_EXE_key_value_store"), &["127.0.0.1:0", "--workers", "3"])
}

/// A request as a client of Redis sends it.
fn request(words: &[&str]) -> String {
    let words = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
    format!("*{}\r\n{}", words.len(), words.collect::<String>())
}

/// Sends everything, ends, and returns what came back.
fn told(program: &Program, requests: &str) -> String {
    let mut stream = program.connect();
    stream.write_all(requests.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).unwrap();
    back
}

#[test]
fn a_key_set_through_one_worker_is_found_through_all() {
    let program = start();
    for key in 0..20 {
        let (key, value) = (format!("key{key}"), format!("value{key}"));
        assert_eq!(told(&program, &request(&["SET", &key, &value])), "+OK\r\n");
        let found = format!("${}\r\n{value}\r\n", value.len());
        assert_eq!(told(&program, &request(&["GET", &key]).repeat(3)), found.repeat(3));
    }
    assert_eq!(told(&program, &request(&["DBSIZE"])), ":20\r\n");
    assert!(program.printed.starts_with("3 shards"), "{}", program.printed);
    let (printed, status) = program.terminate();
    // 20 times SET and three times GET, and one DBSIZE.
    assert!(status.success() && printed.contains("81 requests"), "{printed}");
}

#[test]
fn clients_that_count_at_the_same_time_lose_nothing_and_each_gets_its_answers_in_order() {
    const CLIENTS: usize = 8;
    const ROUNDS: usize = 50;
    let program = start();
    // 16 keys in a pipeline, as many as there are places to mix them up.
    let batch: String = (0..16).map(|key| request(&["INCR", &format!("counter{key}")])).collect();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (program, batch) = (&program, &batch);
            scope.spawn(move || {
                let mut stream = program.connect();
                let name = format!("client{client}");
                let own = request(&["SET", &name, &name]) + &request(&["GET", &name]);
                let own_answer = format!("+OK\r\n${}\r\n{name}\r\n", name.len());
                let (mut last, mut bytes) = ([0; 16], Vec::new());
                for _ in 0..ROUNDS {
                    stream.write_all((batch.clone() + &own).as_bytes()).unwrap();
                    bytes.clear();
                    while bytes.iter().filter(|byte| **byte == b'\n').count() < 16 + 3 {
                        let mut piece = [0; 4096];
                        let read = stream.read(&mut piece).unwrap();
                        assert!(read > 0, "closed");
                        bytes.extend_from_slice(&piece[..read]);
                    }
                    let text = std::str::from_utf8(&bytes).unwrap();
                    let mut rest = text;
                    for last in &mut last {
                        let (line, behind) = rest.split_once("\r\n").unwrap();
                        let count: usize = line.strip_prefix(':').unwrap().parse().unwrap();
                        assert!(count > *last, "it only goes up");
                        (*last, rest) = (count, behind);
                    }
                    assert_eq!(rest, own_answer);
                }
            });
        }
    });
    let all: String = (0..16).map(|key| request(&["GET", &format!("counter{key}")])).collect();
    let total = (CLIENTS * ROUNDS).to_string();
    assert_eq!(told(&program, &all), format!("${}\r\n{total}\r\n", total.len()).repeat(16));
    assert!(program.terminate().1.success());
}

#[test]
fn a_request_for_large_values_a_thousand_times_costs_the_store_no_more_than_its_queue() {
    const TIMES: usize = 1020;
    let program = start();
    // Of all workers, so that some are at home and some come from elsewhere.
    let keys: Vec<String> = (0..6).map(|key| format!("key{key}")).collect();
    let value = "x".repeat(128 * 1024);
    for key in &keys {
        assert_eq!(told(&program, &request(&["SET", key, &value])), "+OK\r\n");
    }
    let words: Vec<&str> = ["MGET"].into_iter().chain((0..TIMES).map(|nth| &*keys[nth % 6])).collect();
    let mut stream = program.connect();
    stream.write_all((request(&words) + &request(&["PING"])).as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let each = format!("$131072\r\n{value}\r\n");
    let mut bytes = vec![0; 7];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, b"*1020\r\n");
    bytes.resize(each.len(), 0);
    for nth in 0..TIMES {
        stream.read_exact(&mut bytes).unwrap();
        assert!(bytes == each.as_bytes(), "answer {nth}");
    }
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "+PONG\r\n");
    let peak = program.peak_resident_bytes();
    assert!(peak < 64 << 20, "134 MB were never there at once: {peak}");
}

#[test]
fn a_full_store_takes_the_memory_that_it_was_given_whatever_its_keys_are() {
    const MIB: u64 = 1 << 20;
    let tail = "x".repeat(1000);
    for (tail, expires) in [("", true), (&*tail, true), ("", false), (&*tail, false)] {
        let program =
            Program::start(env!("CARGO_BIN_EXE_key_value_store"), &["127.0.0.1:0", "--memory-mib", "16"]);
        let before = program.own_resident_bytes();
        // More than fit, whatever they take.
        let mut refused = 0;
        for batch in 0..(if tail.is_empty() { 200 } else { 20 }) {
            let sets = (0..1000).map(|nth| {
                let key = format!("key{}{tail}", 1000 * batch + nth);
                let set = request(&["SET", &key, "v"]);
                // The end comes in a request of its own, so that a full store has to refuse it as well.
                if expires { set + &request(&["EXPIRE", &key, "1000"]) } else { set }
            });
            refused += told(&program, &sets.collect::<String>()).matches("-OOM").count();
        }
        assert!(refused > 0, "it is full");
        let taken = program.own_resident_bytes().saturating_sub(before);
        // On a ring a worker may hold 2 MiB of blocks for what arrives.
        assert!(
            (8 * MIB..24 * MIB + MIB / 2).contains(&taken),
            "{taken} for 16 MiB, {} {expires}",
            tail.len()
        );
    }
}

#[test]
fn what_is_no_request_is_answered_and_ends_the_connection() {
    let program = start();
    let answer = told(&program, &(request(&["PING"]) + "GET / HTTP/1.1\r\n\r\n"));
    assert_eq!(answer, "+PONG\r\n-ERR Protocol error: expected '*'\r\n");
    assert!(program.terminate().1.success());
}
