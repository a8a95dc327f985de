//! One client: its requests go to the workers that own the keys, and their answers come back to it in order.
//!
//! A request for a key of this worker is answered at once, if nothing is owed. One for another worker joins the batch that goes
//! there when all input is read; what comes later waits behind it, answered or not. A worker has one batch of a client at a
//! time and carries out requests in the order in which they come, so a list of workers that owe an answer is all that has to be
//! kept.
//!
//! Requests are small beside what they may lead to, so they wait as requests, and are carried out as there is room for their
//! answers. For one client there are at most: [`WAITING_BYTES_MAX`] of requests and one more; of answers, [`ANSWER_BYTES_MAX`] and
//! one more from each worker; and what the connection's own queue takes before it is backed up.

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
/// Bytes of its requests, and of answers behind them, that may wait; it is not read on before they are fewer.
const WAITING_BYTES_MAX: usize = resp::REQUEST_BYTES_MAX;
/// Bytes of answers that are made for a client at once, before others have their turn or it has got them.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
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

    /// Carries out requests of another worker's client, each for one key, and sends it the answers. When these are enough for now it
    /// sends back what is left of the requests.
    fn serve(local: &mut Local<'_>, client: ConnId, mut batch: Requests) {
        let (store, now) = (local.state::<Self>(), local.now());
        let mut answers = Answers::default();
        let done = batch.carry_out(&store, now, ANSWER_BYTES_MAX, &mut answers);
        local.commands().tell(client, Answered { worker: store.worker, answers, done, rest: batch });
    }
}

/// Requests for one worker, each for one key or for its whole shard, in the protocol of the requests themselves.
#[derive(Default)]
struct Requests {
    bytes: Vec<u8>,
    /// Bytes of those that were carried out.
    done: usize,
}

impl Requests {
    fn is_empty(&self) -> bool {
        self.done == self.bytes.len()
    }

    /// Adds one; how long it is.
    fn add(&mut self, words: &[&[u8]]) -> usize {
        let before = self.bytes.len();
        write_request(&mut self.bytes, words);
        self.bytes.len() - before
    }

    /// Puts what was asked before in front.
    fn put_back(&mut self, mut earlier: Self) {
        earlier.bytes.extend_from_slice(&self.bytes[self.done..]);
        earlier.bytes.drain(..earlier.done);
        *self = Self { bytes: earlier.bytes, done: 0 };
    }

    /// Carries requests out until they are done, or the answers take so many bytes. How many bytes of requests that were.
    fn carry_out(&mut self, store: &Store, now: Instant, bytes_max: usize, answers: &mut Answers) -> usize {
        let (mut words, mut at) = (Vec::new(), self.done);
        while answers.bytes.len() < bytes_max
            && let Ok(Parsed::Request(bytes)) = resp::parse(&self.bytes[at..], &mut words)
        {
            at += bytes;
            let Some(Name::Keys(verb) | Name::Shards(verb)) = Name::of(words[0]) else {
                unreachable!("nothing else is asked of a worker")
            };
            answers.add(|out| store.shard.borrow_mut().execute(verb, &words, now, out));
        }
        let done = at - std::mem::replace(&mut self.done, at);
        if self.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT_BYTES);
            self.done = 0;
        }
        done
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
    /// Bytes of requests that these are the answers to.
    done: usize,
    /// Requests behind them, to be asked again.
    rest: Requests,
}

impl Answers {
    fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.forget();
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    fn is_empty(&self) -> bool {
        self.taken == self.ends.len()
    }

    /// Gives back what was passed on, if that is all.
    fn forget(&mut self) {
        if self.is_empty() {
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

/// What is between a client and one worker.
#[derive(Default)]
struct Lane {
    /// Requests that it has not got yet.
    asked: Requests,
    /// It has a batch, and the next one has to wait: what it leaves of the first comes before it.
    is_under_way: bool,
    /// Answers that came before others that are owed first.
    answers: Answers,
}

/// The connection of one client.
pub struct Session {
    store: Rc<Store>,
    /// What it is owed, in the order in which it asked.
    owed: VecDeque<Owed>,
    /// By worker; that of our own never has a batch under way.
    lanes: Vec<Lane>,
    /// Bytes of requests that were not carried out, and of texts that are owed.
    waiting_bytes: usize,
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
}

impl Session {
    pub fn new(store: &Rc<Store>) -> Self {
        Self {
            store: Rc::clone(store),
            owed: VecDeque::new(),
            lanes: (0..store.workers).map(|_| Lane::default()).collect(),
            waiting_bytes: 0,
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
                    self.ask(owner, words, Part::Whole);
                }
            }
            (Some(Name::Keys(_)), [keys @ .., last]) => {
                keys.iter().for_each(|key| self.ask_owner(&[words[0], key], Part::Sum(false)));
                self.ask_owner(&[words[0], last], Part::Sum(true));
            }
            (Some(Name::MGet), keys @ [_, ..]) => {
                self.say(to, |out| write_array(out, keys.len()));
                keys.iter().for_each(|key| self.ask_owner(&[b"GET", key], Part::Whole));
            }
            (Some(Name::MSet), [pairs @ .., key, value]) if pairs.len().is_multiple_of(2) => {
                for pair in pairs.chunks_exact(2) {
                    self.ask_owner(&[b"SET", pair[0], pair[1]], Part::All(false));
                }
                self.ask_owner(&[b"SET", key, value], Part::All(true));
            }
            (Some(Name::Shards(verb)), []) => {
                let last = self.store.workers - 1;
                for worker in 0..=last {
                    let is_last = worker == last;
                    let part = if verb == Verb::DbSize { Part::Sum(is_last) } else { Part::All(is_last) };
                    self.ask(worker, words, part);
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
        self.settle(to);
    }

    /// An answer of our own, behind those that are owed.
    fn say(&mut self, to: &mut Outcome, write: impl FnOnce(&mut Vec<u8>)) {
        if self.owed.is_empty() {
            return write(&mut to.out);
        }
        let mut text = Vec::new();
        write(&mut text);
        self.waiting_bytes += text.len();
        self.owed.push_back(Owed::Text(text));
    }

    fn ask_owner(&mut self, words: &[&[u8]], part: Part) {
        self.ask(self.store.owner(words[1]), words, part);
    }

    /// Has a worker carry out a command on one key, when there is room for its answer.
    fn ask(&mut self, worker: usize, words: &[&[u8]], part: Part) {
        self.waiting_bytes += self.lanes[worker].asked.add(words);
        self.owed.push_back(Owed::Of { worker, part });
    }

    /// Passes on what has come, up to the first answer that has not, and as much as is passed on at once.
    fn settle(&mut self, to: &mut Outcome) {
        while to.out.len() < ANSWER_BYTES_MAX
            && let Some(owed) = self.owed.front()
        {
            match owed {
                Owed::Text(text) => {
                    to.out.extend_from_slice(text);
                    self.waiting_bytes -= text.len();
                }
                Owed::Of { worker, part } => {
                    let lane = &mut self.lanes[*worker];
                    if *worker == self.store.worker && lane.answers.is_empty() {
                        let room = ANSWER_BYTES_MAX - to.out.len();
                        lane.answers.forget();
                        self.waiting_bytes -=
                            lane.asked.carry_out(&self.store, to.now, room, &mut lane.answers);
                    }
                    let Some(answer) = lane.answers.next() else { return };
                    match (part, answer) {
                        (Part::Whole, _) => to.out.extend_from_slice(answer),
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
                            (Some(failure), _) => to.out.extend_from_slice(&failure),
                            (None, Part::Sum(_)) => write_integer(&mut to.out, sum),
                            (None, _) => to.out.extend_from_slice(b"+OK\r\n"),
                        }
                    }
                }
            }
            self.owed.pop_front();
        }
    }

    /// Sends the client what it is owed and can be had, as long as it reads, and asks the workers for more.
    fn go_on(&mut self, conn: &mut Conn<'_>) -> Flow {
        let mut to = Outcome { now: conn.now(), out: Vec::new() };
        while !conn.is_backed_up() {
            self.settle(&mut to);
            if to.out.is_empty() {
                self.ask_others(conn);
                break;
            }
            conn.send(&to.out);
            to.out.clear();
        }
        self.flow()
    }

    /// Hands requests to other workers whose answers were all passed on.
    fn ask_others(&mut self, conn: &mut Conn<'_>) {
        if self.owed.is_empty() {
            return;
        }
        let client = conn.id();
        for (worker, lane) in self.lanes.iter_mut().enumerate() {
            let is_due = worker != self.store.worker && !lane.is_under_way && lane.answers.is_empty();
            if is_due && !lane.asked.is_empty() {
                let batch = std::mem::take(&mut lane.asked);
                lane.is_under_way = true;
                conn.commands().run_on(worker, move |local| Store::serve(local, client, batch));
            }
        }
    }

    /// Whether it is read on.
    fn flow(&self) -> Flow {
        match (self.is_ending, self.owed.len()) {
            (true, 0) => Flow::Linger,
            (false, 0..OWED_MAX) if self.waiting_bytes < WAITING_BYTES_MAX => Flow::Continue,
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
        let mut to = Outcome { now: conn.now(), out: Vec::new() };
        let mut left = conn.turn_budget();
        let mut gives_way = false;
        while bytes.len() - read >= self.needs && self.flow() == Flow::Continue && !gives_way {
            match resp::parse(&bytes[read..], &mut words) {
                Ok(Parsed::Request(bytes)) => {
                    (read, self.needs, left) = (read + bytes, 0, left - 1);
                    self.request(&words, &mut to);
                    gives_way = left == 0 || to.out.len() >= ANSWER_BYTES_MAX;
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
        let flow = self.go_on(conn);
        if gives_way && flow == Flow::Continue { Flow::Yield } else { flow }
    }

    fn told(&mut self, conn: &mut Conn<'_>, message: Message) -> Flow {
        if let Ok(Answered { worker, answers, done, rest }) = message.downcast() {
            let lane = &mut self.lanes[worker];
            lane.is_under_way = false;
            lane.answers = answers;
            self.waiting_bytes -= done;
            if !rest.is_empty() {
                lane.asked.put_back(rest);
            }
        }
        self.go_on(conn)
    }

    /// The client reads again.
    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.go_on(conn)
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
