//! One client: its requests go to the workers that own the keys, and their answers come back to it in order.
//!
//! A request for a key of this worker is answered at once. One for another worker joins the batch that goes there when all
//! input is read; what comes later in the same input waits behind it, answered or not. A worker answers batches in the
//! order in which they come, so a list of workers that owe an answer is all that has to be kept.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use netpoll_core::{Conn, ConnId, Flow, Input, Instant, Local, Message, Protocol};

use crate::resp::{
    self, Malformed, Parsed, write_array, write_bytes, write_error, write_integer, write_request,
};
use crate::shard::{Shard, Verb, WRONG_ARITY};

/// Answers that a client may wait for; it is not read on before they have come.
const OWED_MAX: usize = 1024;
/// Bytes of answers made for a client before others have their turn.
const ANSWER_BYTES_PER_TURN: usize = 64 * 1024;
/// Memory for answers that is kept when all of them were passed on.
const KEPT_BYTES: usize = 16 * 1024;
/// Input of a client that waits: a request that is not complete, and what was read with it.
pub const INPUT_BYTES_MAX: usize = 2 * resp::REQUEST_BYTES_MAX;

/// What a worker keeps: its part of the keys.
pub struct Store {
    worker: usize,
    workers: usize,
    pub shard: RefCell<Shard>,
}

impl Store {
    /// The part of this worker, which takes no more than so many bytes.
    pub fn new(worker: usize, workers: usize, bytes_max: usize) -> Self {
        Self { worker, workers, shard: RefCell::new(Shard::new(bytes_max)) }
    }

    /// The worker that owns a key: the same for all of them.
    fn owner(&self, key: &[u8]) -> usize {
        if self.workers == 1 {
            return 0;
        }
        // FNV-1a.
        let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = key.iter().fold(0xcbf2_9ce4_8422_2325, mix);
        (hash >> 32) as usize % self.workers
    }

    /// Carries out requests of another worker's client, each for one key, and sends it the answers.
    fn serve(local: &mut Local<'_>, client: ConnId, batch: &[u8]) {
        let store = local.state::<Self>();
        let mut answers = Answers::default();
        let (mut words, mut rest) = (Vec::new(), batch);
        while let Ok(Parsed::Request(bytes)) = resp::parse(rest, &mut words) {
            rest = &rest[bytes..];
            if let Some(Name::Keys(verb) | Name::Shards(verb)) = Name::of(words[0]) {
                answers.add(|out| store.shard.borrow_mut().execute(verb, &words, local.now(), out));
            }
        }
        local.commands().tell(client, Answered { worker: store.worker, answers });
    }
}

/// Answers of one worker that were not passed on yet.
#[derive(Default)]
struct Answers {
    bytes: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
    taken: usize,
}

/// What a worker has to say to a client.
struct Answered {
    worker: usize,
    answers: Answers,
}

impl Answers {
    fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.forget();
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// Behind those that are here.
    fn extend(&mut self, other: Self) {
        if self.taken == self.ends.len() {
            *self = other;
            return;
        }
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.ends.extend(other.ends.iter().map(|end| offset + end));
    }

    /// Gives back what was passed on, if that is all.
    fn forget(&mut self) {
        if self.taken == self.ends.len() {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES);
            self.ends.clear();
            self.taken = 0;
        }
    }

    fn next(&mut self) -> Option<&[u8]> {
        let Some(end) = self.ends.get(self.taken).copied() else {
            self.forget();
            return None;
        };
        let start = if self.taken == 0 { 0 } else { self.ends[self.taken - 1] };
        self.taken += 1;
        Some(&self.bytes[start..end])
    }
}

/// The next answer for the client.
enum Owed {
    Text(Vec<u8>),
    /// The next one of this worker.
    Of {
        worker: usize,
        part: Part,
    },
}

/// What an answer is a part of, and whether it is the last one.
#[derive(Clone, Copy)]
enum Part {
    /// Nothing: it is passed on.
    Whole,
    /// A sum of numbers.
    Sum(bool),
    /// An `OK`.
    All(bool),
}

/// What a request is about.
#[derive(Clone, Copy)]
enum Name {
    /// This many keys, and what is done to each.
    Keys(Verb),
    MGet,
    MSet,
    /// All shards.
    Shards(Verb),
    Ping,
    Echo,
    Command,
    Config,
}

impl Name {
    fn of(word: &[u8]) -> Option<Self> {
        const NAMES: &[(&[u8], Name)] = &[
            (b"GET", Name::Keys(Verb::Get)),
            (b"SET", Name::Keys(Verb::Set)),
            (b"DEL", Name::Keys(Verb::Del)),
            (b"INCR", Name::Keys(Verb::Incr)),
            (b"TTL", Name::Keys(Verb::Ttl)),
            (b"EXISTS", Name::Keys(Verb::Exists)),
            (b"EXPIRE", Name::Keys(Verb::Expire)),
            (b"MGET", Name::MGet),
            (b"MSET", Name::MSet),
            (b"PING", Name::Ping),
            (b"ECHO", Name::Echo),
            (b"DBSIZE", Name::Shards(Verb::DbSize)),
            (b"FLUSHALL", Name::Shards(Verb::FlushAll)),
            (b"CONFIG", Name::Config),
            (b"COMMAND", Name::Command),
        ];
        NAMES.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, name)| *name)
    }
}

/// The connection of one client.
pub struct Session {
    store: Rc<Store>,
    /// What it is owed, in the order in which it asked.
    owed: VecDeque<Owed>,
    /// Answers that came before others that are owed first, by worker.
    arrived: Vec<Answers>,
    sum: i64,
    failure: Option<Vec<u8>>,
    /// Input that has to be there before it is worth looking at.
    needs: usize,
    /// It has said its last, or something that makes no sense: it ends when it has got what it is owed.
    is_ending: bool,
}

/// Where requests leave what they lead to.
struct Outcome {
    now: Instant,
    /// For the client.
    out: Vec<u8>,
    /// For other workers, in the protocol of the requests themselves.
    batches: Vec<Vec<u8>>,
}

impl Session {
    pub fn new(store: &Rc<Store>) -> Self {
        Self {
            store: Rc::clone(store),
            owed: VecDeque::new(),
            arrived: (0..store.workers).map(|_| Answers::default()).collect(),
            sum: 0,
            failure: None,
            needs: 0,
            is_ending: false,
        }
    }

    fn request(&mut self, words: &[&[u8]], to: &mut Outcome) {
        match (Name::of(words[0]), &words[1..]) {
            // By far the most: one key, which is ours, and nothing to wait for.
            (Some(Name::Keys(verb)), [key, ..]) if !is_list(verb) => {
                let owner = self.store.owner(key);
                if owner == self.store.worker && self.owed.is_empty() {
                    self.store.shard.borrow_mut().execute(verb, words, to.now, &mut to.out);
                } else {
                    self.ask(owner, verb, words, Part::Whole, to);
                }
            }
            (Some(Name::Keys(verb)), [keys @ .., last]) => {
                keys.iter().for_each(|key| self.ask_owner(verb, &[words[0], key], Part::Sum(false), to));
                self.ask_owner(verb, &[words[0], last], Part::Sum(true), to);
            }
            (Some(Name::MGet), keys @ [_, ..]) => {
                self.say(to, |out| write_array(out, keys.len()));
                keys.iter().for_each(|key| self.ask_owner(Verb::Get, &[b"GET", key], Part::Whole, to));
            }
            (Some(Name::MSet), [pairs @ .., key, value]) if pairs.len().is_multiple_of(2) => {
                for pair in pairs.chunks_exact(2) {
                    self.ask_owner(Verb::Set, &[b"SET", pair[0], pair[1]], Part::All(false), to);
                }
                self.ask_owner(Verb::Set, &[b"SET", key, value], Part::All(true), to);
            }
            (Some(Name::Shards(verb)), []) => {
                let last = self.store.workers - 1;
                for worker in 0..=last {
                    let is_last = worker == last;
                    let part = if verb == Verb::DbSize { Part::Sum(is_last) } else { Part::All(is_last) };
                    self.ask(worker, verb, words, part, to);
                }
            }
            (Some(Name::Ping), []) => self.say(to, |out| out.extend_from_slice(b"+PONG\r\n")),
            (Some(Name::Ping | Name::Echo), [text]) => self.say(to, |out| write_bytes(out, Some(text))),
            // What clients ask first, and can do without.
            (Some(Name::Command), _) => self.say(to, |out| write_array(out, 0)),
            (Some(Name::Config), [get, name]) if get.eq_ignore_ascii_case(b"GET") => self.say(to, |out| {
                write_array(out, 2);
                write_bytes(out, Some(name));
                write_bytes(out, Some(b""));
            }),
            (Some(_), _) => self.say(to, |out| write_error(out, WRONG_ARITY)),
            (None, _) => self.say(to, |out| write_error(out, "ERR unknown command")),
        }
        self.settle(&mut to.out);
    }

    /// An answer of our own, behind those that are owed.
    fn say(&mut self, to: &mut Outcome, write: impl FnOnce(&mut Vec<u8>)) {
        if self.owed.is_empty() {
            return write(&mut to.out);
        }
        let mut text = Vec::new();
        write(&mut text);
        self.owed.push_back(Owed::Text(text));
    }

    fn ask_owner(&mut self, verb: Verb, words: &[&[u8]], part: Part, to: &mut Outcome) {
        self.ask(self.store.owner(words[1]), verb, words, part, to);
    }

    /// Has a worker carry out a command on one key.
    fn ask(&mut self, worker: usize, verb: Verb, words: &[&[u8]], part: Part, to: &mut Outcome) {
        if worker == self.store.worker {
            let mut shard = self.store.shard.borrow_mut();
            self.arrived[worker].add(|out| shard.execute(verb, words, to.now, out));
        } else {
            write_request(&mut to.batches[worker], words);
        }
        self.owed.push_back(Owed::Of { worker, part });
    }

    /// Passes on what has come, up to the first answer that has not.
    fn settle(&mut self, out: &mut Vec<u8>) {
        while let Some(owed) = self.owed.front() {
            match owed {
                Owed::Text(text) => out.extend_from_slice(text),
                Owed::Of { worker, part } => {
                    let Some(answer) = self.arrived[*worker].next() else { return };
                    match (part, answer) {
                        (Part::Whole, _) => out.extend_from_slice(answer),
                        (_, [b'-', ..]) => self.failure = Some(answer.to_vec()),
                        (_, [b':', number @ .., b'\r', b'\n']) => {
                            self.sum +=
                                std::str::from_utf8(number).map_or(0, |text| text.parse().unwrap_or(0));
                        }
                        _ => {}
                    }
                    if let Part::Sum(true) | Part::All(true) = part {
                        let sum = std::mem::take(&mut self.sum);
                        match (self.failure.take(), part) {
                            (Some(failure), _) => out.extend_from_slice(&failure),
                            (None, Part::Sum(_)) => write_integer(out, sum),
                            (None, _) => out.extend_from_slice(b"+OK\r\n"),
                        }
                    }
                }
            }
            self.owed.pop_front();
        }
    }

    /// Whether it is read on.
    fn flow(&self) -> Flow {
        match (self.is_ending, self.owed.len()) {
            (true, 0) => Flow::Linger,
            (false, 0..OWED_MAX) => Flow::Continue,
            _ => Flow::Pause,
        }
    }
}

/// Whether a command takes any number of keys, each by itself.
fn is_list(verb: Verb) -> bool {
    matches!(verb, Verb::Del | Verb::Exists)
}

impl Protocol for Session {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        if conn.is_backed_up() {
            return Flow::Yield; // the client does not read: the rest is offered when it has
        }
        let (bytes, mut words, mut read) = (input.bytes(), Vec::new(), 0);
        let mut to =
            Outcome { now: conn.now(), out: Vec::new(), batches: vec![Vec::new(); self.store.workers] };
        let mut left = conn.turn_budget();
        let mut gives_way = false;
        while bytes.len() - read >= self.needs && self.flow() == Flow::Continue && !gives_way {
            match resp::parse(&bytes[read..], &mut words) {
                Ok(Parsed::Request(bytes)) => {
                    (read, self.needs, left) = (read + bytes, 0, left - 1);
                    self.request(&words, &mut to);
                    gives_way = left == 0 || to.out.len() >= ANSWER_BYTES_PER_TURN;
                }
                Ok(Parsed::Incomplete(needs)) => self.needs = needs,
                Err(Malformed(why)) => {
                    self.say(&mut to, |out| write_error(out, &format!("ERR Protocol error: {why}")));
                    self.is_ending = true;
                }
            }
        }
        conn.count_requests((conn.turn_budget() - left) as u64);
        input.advance(read);
        conn.send(&to.out);
        let client = conn.id();
        for (worker, batch) in to.batches.into_iter().enumerate().filter(|(_, batch)| !batch.is_empty()) {
            conn.commands().run_on(worker, move |local| Store::serve(local, client, &batch));
        }
        if gives_way && self.flow() == Flow::Continue { Flow::Yield } else { self.flow() }
    }

    fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
        if let Ok(Answered { worker, answers }) = message.downcast() {
            self.arrived[worker].extend(answers);
            let mut out = Vec::new();
            self.settle(&mut out);
            conn.send(&out);
        }
        self.flow()
    }

    /// The client has asked for all it wants, and waits for the answers.
    fn eof(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        self.is_ending = true;
        self.flow()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_were_passed_on_take_no_memory() {
        let mut answers = Answers::default();
        for _ in 0..1000 {
            answers.add(|out| out.extend_from_slice(&[b'x'; 1000]));
            assert_eq!(answers.next().map(<[u8]>::len), Some(1000));
        }
        assert!(answers.bytes.len() <= 1000 && answers.ends.len() <= 1);
        answers.add(|out| out.resize(1 << 20, b'x'));
        assert!(answers.next().is_some() && answers.next().is_none());
        assert!(answers.bytes.capacity() <= KEPT_BYTES);
    }
}
