//! The store in a simulated world, against a model of it.

use std::collections::BTreeMap;
use std::time::Duration;

use netpoll_core::ConnLimits;
use netpoll_core::sim::{Faults, ListenerId, Options, PeerId, Sim};

use crate::resp::{Malformed, Parsed, parse, write_request};
use crate::session::{INPUT_BYTES_MAX, Session, Store};
use crate::{SWEEP_PERIOD, sweep};

#[path = "../../../netpoll-core/tests/it/chance.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod chance;
use chance::{Chance, seeds};

const MEMORY_BYTES: usize = 1 << 20;

/// A store on so many workers.
fn world(options: Options) -> (Sim, ListenerId) {
    let limits = ConnLimits::default().input_bytes_max(INPUT_BYTES_MAX);
    let mut sim = Sim::new(options.limits(limits));
    sim.state(|worker| Store::new(worker.index, worker.workers, MEMORY_BYTES / worker.workers));
    sim.every(SWEEP_PERIOD, |_worker| sweep);
    let listener = sim.listen_each(|worker| {
        let store = worker.state::<Store>();
        move |_peer| Session::new(&store)
    });
    (sim, listener)
}

/// A request as a client sends it, from a line.
fn request(line: &str) -> Vec<u8> {
    let (mut bytes, words) = (Vec::new(), line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
    write_request(&mut bytes, &words);
    bytes
}

fn take(sim: &mut Sim, peer: PeerId) -> String {
    String::from_utf8(sim.take_received(peer)).unwrap()
}

/// Sends lines at once, and returns what comes back.
fn say(sim: &mut Sim, peer: PeerId, lines: &[&str]) -> String {
    let bytes: Vec<u8> = lines.iter().flat_map(|line| request(line)).collect();
    sim.send(peer, &bytes);
    sim.settle();
    take(sim, peer)
}

#[test]
fn commands_are_answered_as_redis_answers_them() {
    let (mut sim, listener) = world(Options::default().workers(3));
    let peer = sim.connect(listener);
    let mut check = |line: &str, answer: &str| assert_eq!(say(&mut sim, peer, &[line]), answer, "{line}");
    check("PING", "+PONG\r\n");
    check("ping hello", "$5\r\nhello\r\n");
    check("ECHO hello", "$5\r\nhello\r\n");
    check("GET a", "$-1\r\n");
    check("SET a 1", "+OK\r\n");
    check("get a", "$1\r\n1\r\n");
    check("INCR a", ":2\r\n");
    check("INCR new", ":1\r\n");
    check("SET b x", "+OK\r\n");
    check("INCR b", "-ERR value is not an integer or out of range\r\n");
    check("SET b 007", "+OK\r\n");
    check("INCR b", "-ERR value is not an integer or out of range\r\n");
    check("SET b 9223372036854775807", "+OK\r\n");
    check("INCR b", "-ERR increment or decrement would overflow\r\n");
    check("EXISTS a b c a", ":3\r\n");
    check("TTL a", ":-1\r\n");
    check("TTL c", ":-2\r\n");
    check("EXPIRE a 10", ":1\r\n");
    check("EXPIRE c 10", ":0\r\n");
    check("EXPIRE a x", "-ERR value is not an integer or out of range\r\n");
    check("TTL a", ":10\r\n");
    check("INCR a", ":3\r\n");
    check("TTL a", ":10\r\n");
    check("SET a 1", "+OK\r\n");
    check("TTL a", ":-1\r\n");
    check("SET a 1 EX 5", "+OK\r\n");
    check("TTL a", ":5\r\n");
    check("SET a 1 px 1400", "+OK\r\n");
    check("TTL a", ":1\r\n");
    check("SET a 1 EX 0", "-ERR invalid expire time in 'set' command\r\n");
    check("SET a 1 EX", "-ERR syntax error\r\n");
    check("SET a 1 XY 1", "-ERR syntax error\r\n");
    check("EXPIRE a -1", ":1\r\n");
    check("EXISTS a", ":0\r\n");
    check("MSET a 1 b 2 c 3", "+OK\r\n");
    check("MGET c nothing a b", "*4\r\n$1\r\n3\r\n$-1\r\n$1\r\n1\r\n$1\r\n2\r\n");
    check("DBSIZE", ":4\r\n");
    check("DEL a b nothing", ":2\r\n");
    check("DBSIZE", ":2\r\n");
    check("FLUSHALL", "+OK\r\n");
    check("DBSIZE", ":0\r\n");
    check("COMMAND DOCS", "*0\r\n");
    check("CONFIG GET save", "*2\r\n$4\r\nsave\r\n$0\r\n\r\n");
    for line in
        ["GET", "GET a b", "SET a", "MSET a", "MSET a 1 b", "MGET", "DEL", "ECHO", "DBSIZE a", "TTL a b"]
    {
        check(line, "-ERR wrong number of arguments\r\n");
    }
    check("BREW tea", "-ERR unknown command\r\n");
    assert_eq!(sim.stats().panics, 0);
}

#[test]
fn a_key_ends_when_its_time_is_over_and_its_memory_is_given_back() {
    let (mut sim, listener) = world(Options::default().workers(2));
    let peer = sim.connect(listener);
    let lines: Vec<String> = (0..2_000).map(|key| format!("SET key{key} value PX {}", 1 + key)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(say(&mut sim, peer, &lines), "+OK\r\n".repeat(2_000));
    sim.advance(Duration::from_millis(1_000));
    assert_eq!(say(&mut sim, peer, &["EXISTS key0 key999 key1000", "DBSIZE"]), ":1\r\n:1000\r\n");
    sim.advance(Duration::from_secs(5));
    for worker in 0..2 {
        sim.handle().run_on(worker, |local| assert_eq!(local.state::<Store>().shard.borrow().bytes(), 0));
    }
    sim.run();
    assert_eq!(sim.stats().panics, 0, "all were swept although nobody asked for them");
}

#[test]
fn a_full_store_refuses_what_is_new_and_takes_what_is_smaller() {
    let (mut sim, listener) = world(Options::default().workers(2));
    let peer = sim.connect(listener);
    let large = "x".repeat(100_000);
    let lines: Vec<String> = (0..20).map(|key| format!("SET key{key} {large}")).collect();
    let answers: String = lines.iter().map(|line| say(&mut sim, peer, &[line])).collect();
    assert_eq!(answers.matches("+OK").count(), 10, "5 on each worker: {answers}");
    assert_eq!(answers.matches("-OOM command not allowed").count(), 10);
    assert!(say(&mut sim, peer, &[&format!("MSET key0 {large} other {large}")]).starts_with("-OOM"));
    assert_eq!(say(&mut sim, peer, &["MSET key0 small key1 small", "GET key0"]), "+OK\r\n$5\r\nsmall\r\n");
}

#[test]
fn a_batch_of_input_is_one_message_to_each_other_worker_and_one_back() {
    let (mut sim, listener) = world(Options::default().workers(3));
    let peer = sim.connect_to(listener, 0);
    sim.settle();
    let before = [0, 1, 2].map(|worker| sim.handle().worker_stats(worker).mailbox_messages);
    let lines: Vec<String> = (0..60).map(|key| format!("INCR key{}", key % 20)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let answers = say(&mut sim, peer, &lines);
    assert_eq!(answers, [1, 2, 3].map(|count| format!(":{count}\r\n").repeat(20)).concat());
    let after = [0, 1, 2].map(|worker| sim.handle().worker_stats(worker).mailbox_messages - before[worker]);
    assert_eq!(after, [2, 1, 1]);
}

#[test]
fn what_is_no_request_is_refused_behind_the_answers_that_are_owed() {
    let long = format!("*2\r\n$4\r\nECHO\r\n${}\r\n", 128 * 1024 + 1);
    for (bytes, why) in [
        ("PING\r\n", "expected '*'"),
        ("*0\r\n", "a request has a name"),
        ("*1025\r\n", "a request has at most 1024 words"),
        ("*01\r\n", "expected a number"),
        ("*+1\r\n", "expected a number"),
        ("*99999999\r\n", "expected a number"),
        ("*1\n$4\r\nPING\r\n", "expected a number"),
        ("*1\rx", "a line ends with CR LF"),
        ("*1\r\n+4\r\nPING\r\n", "expected '$'"),
        ("*1\r\n$4\r\nPINGxx", "a word ends with CR LF"),
        (&long, "a word has at most 128 KiB"),
    ] {
        let (mut sim, listener) = world(Options::default().workers(2));
        let peer = sim.connect(listener);
        let mut sent: Vec<u8> = ["SET a 1", "SET b 2", "SET c 3"].into_iter().flat_map(request).collect();
        sent.extend_from_slice(bytes.as_bytes());
        sent.extend_from_slice(&request("SET a 2"));
        sim.send(peer, &sent);
        sim.settle();
        sim.finish(peer);
        sim.settle();
        let answers = take(&mut sim, peer);
        assert_eq!(answers, format!("+OK\r\n+OK\r\n+OK\r\n-ERR Protocol error: {why}\r\n"), "{bytes:?}");
        assert!(sim.is_closed(peer) && !sim.is_reset(peer));
    }
}

#[test]
fn a_request_is_read_in_whatever_pieces_it_comes_and_told_how_much_it_needs() {
    let bytes = request("SET key value EX 10");
    for end in 0..bytes.len() {
        let (mut words, mut at) = (Vec::new(), end);
        // Whoever waits for as much as it was told does so a few times only.
        for looks in 0.. {
            match parse(&bytes[..at], &mut words) {
                Ok(Parsed::Incomplete(needs)) => {
                    assert!(needs > at && needs <= bytes.len() && looks < 30);
                    at = needs;
                }
                other => {
                    assert_eq!(other, Ok(Parsed::Request(bytes.len())));
                    break;
                }
            }
        }
        assert_eq!(words, [&b"SET"[..], b"key", b"value", b"EX", b"10"]);
    }
    let words = vec![&b"x"[..]; 1025];
    let mut bytes = Vec::new();
    write_request(&mut bytes, &words);
    assert_eq!(parse(&bytes, &mut Vec::new()), Err(Malformed("a request has at most 1024 words")));
    let words = vec![&[b'x'; 100_000][..]; 3];
    bytes.clear();
    write_request(&mut bytes, &words);
    assert_eq!(parse(&bytes, &mut Vec::new()), Err(Malformed("a request has at most 256 KiB")));
}

#[test]
fn whatever_comes_is_a_request_or_refused_and_never_a_panic() {
    for seed in seeds(200) {
        let (mut chance, mut bytes) = (Chance::new(seed), Vec::new());
        for _ in 0..20 {
            bytes.extend_from_slice(&request("SET key value"));
        }
        for _ in 0..1 + chance.below(4) {
            let at = chance.below(bytes.len());
            match chance.below(3) {
                0 => bytes[at] = chance.below(256) as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"0123456789*$\r\n"[chance.below(14)]),
            }
        }
        let (mut sim, listener) = world(Options::default().seed(seed).workers(2).faults(Faults::stormy()));
        let peer = sim.connect(listener);
        sim.send(peer, &bytes);
        sim.finish(peer);
        sim.settle();
        sim.advance(Duration::from_secs(60));
        assert!(sim.is_closed(peer));
        assert_eq!((sim.open(), sim.blocks_in_use(), sim.stats().panics), (0, 0, 0));
    }
}

/// What a store would answer, in the simplest way: one map, and a client after the other.
#[derive(Default)]
struct Model {
    keys: BTreeMap<String, (String, Option<u64>)>,
    now: u64,
}

impl Model {
    fn get(&self, key: &str) -> Option<&(String, Option<u64>)> {
        self.keys.get(key).filter(|(_, ends)| ends.is_none_or(|ends| ends > self.now))
    }

    fn answer(&mut self, line: &str) -> String {
        let bulk = |found: Option<&(String, Option<u64>)>| match found {
            Some((value, _)) => format!("${}\r\n{value}\r\n", value.len()),
            None => "$-1\r\n".to_owned(),
        };
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["GET", key] => bulk(self.get(key)),
            ["SET", key, value] => {
                self.keys.insert(key.to_owned(), (value.to_owned(), None));
                "+OK\r\n".to_owned()
            }
            ["SET", key, value, "PX", millis] => {
                let ends = self.now + millis.parse::<u64>().unwrap();
                self.keys.insert(key.to_owned(), (value.to_owned(), Some(ends)));
                "+OK\r\n".to_owned()
            }
            ["INCR", key] => {
                let (value, ends) = self.get(key).cloned().unwrap_or(("0".to_owned(), None));
                let Ok(value) = value.parse::<i64>() else {
                    return "-ERR value is not an integer or out of range\r\n".to_owned();
                };
                self.keys.insert(key.to_owned(), ((value + 1).to_string(), ends));
                format!(":{}\r\n", value + 1)
            }
            ["TTL", key] => match self.get(key) {
                None => ":-2\r\n".to_owned(),
                Some((_, None)) => ":-1\r\n".to_owned(),
                Some((_, Some(ends))) => format!(":{}\r\n", (ends - self.now + 500) / 1000),
            },
            ["EXPIRE", key, seconds] => {
                let ends = self.now + 1000 * seconds.parse::<u64>().unwrap();
                let found = self.get(key).is_some();
                if found {
                    self.keys.get_mut(key).unwrap().1 = Some(ends);
                }
                format!(":{}\r\n", u8::from(found))
            }
            ["DEL", ref keys @ ..] => {
                let found = keys.iter().filter(|key| {
                    let found = self.get(key).is_some();
                    self.keys.remove(**key);
                    found
                });
                format!(":{}\r\n", found.count())
            }
            ["EXISTS", ref keys @ ..] => {
                format!(":{}\r\n", keys.iter().filter(|key| self.get(key).is_some()).count())
            }
            ["MGET", ref keys @ ..] => {
                let values: String = keys.iter().map(|key| bulk(self.get(key))).collect();
                format!("*{}\r\n{values}", keys.len())
            }
            ["MSET", ref pairs @ ..] => {
                for pair in pairs.chunks(2) {
                    self.keys.insert(pair[0].to_owned(), (pair[1].to_owned(), None));
                }
                "+OK\r\n".to_owned()
            }
            ["DBSIZE"] => format!(
                ":{}\r\n",
                self.keys.values().filter(|(_, ends)| ends.is_none_or(|ends| ends > self.now)).count()
            ),
            ["FLUSHALL"] => {
                self.keys.clear();
                "+OK\r\n".to_owned()
            }
            ["ECHO", text] => format!("${}\r\n{text}\r\n", text.len()),
            _ => unreachable!("{line}"),
        }
    }
}

fn some_line(chance: &mut Chance) -> String {
    let key = |chance: &mut Chance| format!("key{}", chance.below(8));
    let value = |chance: &mut Chance| match chance.below(3) {
        0 => chance.below(1000).to_string(),
        1 => "word".to_owned(),
        _ => "x".repeat(1 + chance.below(3000)),
    };
    let many = |chance: &mut Chance, each: &dyn Fn(&mut Chance) -> String| {
        let count = 1 + chance.below(5);
        (0..count).map(|_| each(chance)).collect::<Vec<_>>().join(" ")
    };
    match chance.below(40) {
        0..10 => format!("GET {}", key(chance)),
        10..18 => format!("SET {} {}", key(chance), value(chance)),
        18..22 => format!("SET {} {} PX {}", key(chance), value(chance), 1 + chance.below(3000)),
        22..25 => format!("INCR {}", key(chance)),
        25..27 => format!("TTL {}", key(chance)),
        27..29 => format!("EXPIRE {} {}", key(chance), 1 + chance.below(4)),
        29..31 => format!("DEL {}", many(chance, &key)),
        31..33 => format!("EXISTS {}", many(chance, &key)),
        33..35 => format!("MGET {}", many(chance, &key)),
        35..37 => format!("MSET {}", many(chance, &|chance| format!("{} {}", key(chance), value(chance)))),
        37 => "DBSIZE".to_owned(),
        38 => format!("ECHO {}", value(chance)),
        _ if chance.below(4) == 0 => "FLUSHALL".to_owned(),
        _ => "DBSIZE".to_owned(),
    }
}

#[test]
fn whatever_a_client_asks_it_gets_what_the_model_says_in_order() {
    for seed in seeds(100) {
        let mut chance = Chance::new(seed);
        let faults = if seed % 2 == 0 { Faults::none() } else { Faults::stormy() };
        let workers = 1 + chance.below(4);
        let (mut sim, listener) = world(Options::default().seed(seed).workers(workers).faults(faults));
        let (peer, mut model) = (sim.connect(listener), Model::default());
        sim.settle();
        for _ in 0..10 {
            // Time stands still while a batch is under way, so that the model knows what is over.
            model.now = sim.now().as_millis();
            let lines: Vec<String> = (0..1 + chance.below(200)).map(|_| some_line(&mut chance)).collect();
            let bytes: Vec<u8> = lines.iter().flat_map(|line| request(line)).collect();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(1 + chance.below(rest.len()));
                sim.send(peer, piece);
                rest = behind;
                if chance.below(2) == 0 {
                    sim.turn();
                }
            }
            sim.settle();
            assert_eq!(sim.now().as_millis(), model.now, "nothing took time");
            let answers = take(&mut sim, peer);
            let mut wanted = String::new();
            for line in &lines {
                wanted.push_str(&model.answer(line));
                assert!(
                    answers.starts_with(&wanted),
                    "seed {seed}, behind {line:.50}: {:.200}",
                    &answers[answers.len().min(wanted.len().saturating_sub(50))..]
                );
            }
            assert_eq!(answers.len(), wanted.len());
            sim.advance(Duration::from_millis(chance.below(1500) as u64));
        }
        assert_eq!(sim.stats().panics, 0);
    }
}

#[test]
fn a_client_that_asks_and_does_not_read_costs_what_its_limits_say() {
    let (mut sim, listener) = world(Options::default().workers(2));
    let peer = sim.connect(listener);
    say(&mut sim, peer, &[&format!("MSET a {} b {}", "x".repeat(25_000), "x".repeat(25_000))]);
    sim.stop_reading(peer);
    let lines: Vec<u8> =
        (0..2_000).flat_map(|key| request(if key % 2 == 0 { "GET a" } else { "GET b" })).collect();
    sim.send(peer, &lines);
    sim.settle();
    let queued = sim.blocks_in_use();
    sim.send(peer, &lines);
    sim.settle();
    assert!(
        sim.blocks_in_use() <= queued + 64,
        "it is not read any more: {queued} and {}",
        sim.blocks_in_use()
    );
    sim.start_reading(peer);
    sim.settle();
    assert_eq!(take(&mut sim, peer).len(), 4_000 * 25_010);
}

#[test]
fn a_client_that_does_not_read_a_large_answer_is_not_read_on_for_long_either() {
    for workers in [1, 3] {
        let (mut sim, listener) = world(Options::default().workers(workers));
        let peer = sim.connect(listener);
        let value = "x".repeat(50_000);
        say(&mut sim, peer, &[&format!("MSET a {value} b {value} c {value} d {value}")]);
        sim.stop_reading(peer);
        let keys = " a b c d".repeat(200);
        sim.send(peer, &request(&format!("MGET{keys}")));
        sim.settle();
        let queued = sim.blocks_in_use() * 64 * 1024;
        assert!(queued <= 4 << 20, "of 40 MB in {workers} workers: {queued}");

        // What is answered here has to wait behind it, and is input until then.
        let read = sim.stats().received_bytes;
        sim.send(peer, &request(&format!("ECHO {value}")).repeat(200));
        sim.settle();
        let read = sim.stats().received_bytes - read;
        assert!(read < 3 << 20, "of 10 MB in {workers} workers: {read}");

        sim.start_reading(peer);
        sim.settle();
        let each = format!("$50000\r\n{value}\r\n");
        let answers = take(&mut sim, peer);
        assert!(answers.starts_with("*800\r\n") && answers[6..] == each.repeat(1000), "{workers} workers");
    }
}

#[test]
fn an_end_of_a_key_is_refused_where_there_is_no_memory_for_it() {
    let (mut sim, listener) = world(Options::default());
    let peer = sim.connect(listener);
    let lines: Vec<String> = (0..20_000).map(|key| format!("SET key{key} value")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let answers = say(&mut sim, peer, &lines);
    let stored = answers.matches("+OK").count();
    assert!(stored > 1000 && answers.matches("-OOM").count() == 20_000 - stored);
    // A few fit into what is too little for a key.
    let ends = say(&mut sim, peer, &["EXPIRE key0 10"; 2])
        + &say(
            &mut sim,
            peer,
            &["EXPIRE key1 10", "EXPIRE key2 10", "EXPIRE key3 10", "EXPIRE key4 10", "EXPIRE key5 10"],
        );
    assert!(ends.starts_with(":1\r\n:1\r\n") && ends.ends_with("used memory > 'maxmemory'.\r\n"), "{ends}");
    assert_eq!(say(&mut sim, peer, &["TTL key5", "EXISTS key5"]), ":-1\r\n:1\r\n", "it is as it was");
    assert_eq!(say(&mut sim, peer, &["DEL key1", "EXPIRE key5 10", "TTL key5"]), ":1\r\n:1\r\n:10\r\n");
    assert_eq!(say(&mut sim, peer, &["EXPIRE key0 0", "FLUSHALL", "DBSIZE"]), ":1\r\n+OK\r\n:0\r\n");
    sim.handle().run_on(0, |local| assert_eq!(local.state::<Store>().shard.borrow().bytes(), 0));
    sim.run();
    assert_eq!(sim.stats().panics, 0);
}
