//! Looks up names for outgoing connections, on a pool of threads of its own: the system's resolver blocks. What it has found is kept for
//! a moment.
//!
//! A worker only ever waits for the lock around what is known and asked, which nobody holds while a name is looked up. Who asks
//! for a name that is being looked up already waits for that answer. Who gives up before a thread is free leaves the queue,
//! so that names which nobody waits for any more do not stand in front of others.
//!
//! Invariant: a name is in `asked` from its first question until its answer, with somebody who waits or a job that has begun, and
//! `waiting` is how many wait in all.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::blocking::{self, Limits, Pool, Ticket};
use crate::clockwork::{ClockReader, Instant};
use crate::conn::{Letter, Resolve, look_up};
use crate::mem::Key;
use crate::reactor::Sender;
use crate::sys;

/// Names looked up at the same time. A resolver that does not answer takes up one thread for half a minute at most
/// (resolv.conf(5): two attempts of five seconds at up to three servers). Jobs of the program have a pool of their own: one that waits
/// for a connection must not stand in front of its name.
const THREADS_MAX: usize = 4;
/// Connections that may wait for their name. Behind so many one would not be looked up before its connection has timed out.
const WAITING_MAX: usize = 4096;

/// How long answers of the system's resolver are kept, for dials of names ([`Builder::name_cache`](crate::Builder::name_cache)).
///
/// It does not say how long they hold (getaddrinfo(3)), so a moment it is: long enough that a hundred connections to one
/// name, or dials in a row, ask once; short enough that a service which moves is found where it is. Those who dial in
/// that time get the addresses in the same order. Questions for a name that is being looked up share its answer in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NameCache {
    /// How many names; the one that would be forgotten next makes room. Default 256: what one process talks to, some 100 bytes each.
    pub names_max: usize,
    /// How long addresses are kept. Default 5 s.
    pub keep: Duration,
    /// How long it is kept that there is none, or that nobody could say. Default zero, which keeps it for nobody: whoever dials again
    /// does it because it may be different.
    pub keep_failures: Duration,
}

impl Default for NameCache {
    fn default() -> Self {
        Self { names_max: 256, keep: Duration::from_secs(5), keep_failures: Duration::ZERO }
    }
}

setters! {
    NameCache {
        names_max: usize,
        keep: Duration,
        keep_failures: Duration,
    }
}

impl NameCache {
    /// That keeps nothing.
    #[must_use]
    pub fn off() -> Self {
        Self { names_max: 0, ..Self::default() }
    }
}

/// What a name stands for; the addresses have no port. Of a failure its kind and its text, as several may be told.
type Found = Result<Vec<sys::Address>, (io::ErrorKind, Arc<str>)>;

fn with_port(found: &Found, port: u16) -> io::Result<Vec<sys::Address>> {
    match found {
        Ok(addresses) => {
            let mut addresses: Vec<_> = addresses.iter().filter_map(sys::Address::as_socket_addr).collect();
            addresses.iter_mut().for_each(|address| address.set_port(port));
            Ok(addresses.into_iter().map(sys::Address::from).collect())
        }
        Err((kind, text)) => Err(io::Error::new(*kind, text.to_string())),
    }
}

/// A connection that waits for a name.
struct Question {
    key: Key,
    port: u16,
    asker: Sender<Letter>,
}

impl Question {
    fn answer(self, found: &Found) {
        self.asker.send(Letter::Found { key: self.key, found: with_port(found, self.port) });
    }
}

/// A name that is looked up, or will be.
struct Asked {
    questions: Vec<Question>,
    job: Ticket,
}

struct Kept {
    found: Found,
    until: Instant,
}

#[derive(Default)]
struct State {
    asked: HashMap<String, Asked>,
    waiting: usize,
    kept: HashMap<String, Kept>,
}

impl State {
    fn keep(&mut self, name: String, found: &Found, cache: &NameCache, now: Instant) {
        let keep = if found.is_ok() { cache.keep } else { cache.keep_failures };
        if cache.names_max == 0 || keep.is_zero() {
            self.kept.remove(&name);
            return;
        }
        if self.kept.len() >= cache.names_max && !self.kept.contains_key(&name) {
            let next = self.kept.iter().min_by_key(|(_, kept)| kept.until).map(|(name, _)| name.clone());
            next.and_then(|name| self.kept.remove(&name));
        }
        let until = now.saturating_add(keep);
        self.kept.insert(name, Kept { found: found.clone(), until });
    }
}

type LookUp = dyn Fn(&str) -> io::Result<Vec<sys::Address>> + Send + Sync;

struct Shared {
    state: Mutex<State>,
    pool: Pool,
    cache: NameCache,
    clock: ClockReader,
    /// The system's resolver, or one that a test has made up.
    look_up: Box<LookUp>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(self: &Arc<Self>, name: String, question: Question) {
        // It is one name in whatever letters (RFC 4343). An address with the interface that it is reached at is none.
        let name = if name.contains('%') { name } else { name.to_ascii_lowercase() };
        let mut state = self.state();
        let known = state.kept.get(&name).filter(|kept| self.clock.now() < kept.until);
        if let Some(kept) = known {
            let found = kept.found.clone();
            drop(state);
            return question.answer(&found);
        }
        if state.waiting >= WAITING_MAX {
            drop(state);
            let text = "too many connections wait for their names to be looked up";
            return question.answer(&Err((io::ErrorKind::ResourceBusy, text.into())));
        }
        let failure = match state.asked.entry(name) {
            Entry::Occupied(mut asked) => {
                asked.get_mut().questions.push(question);
                state.waiting += 1;
                return;
            }
            Entry::Vacant(place) => {
                // Its thread waits for the lock before it tells what it has found.
                let job = (Arc::clone(self), place.key().clone());
                match self.pool.put(blocking::Entry::New, job, |(shared, name)| shared.answer(name)) {
                    Ok(job) => {
                        place.insert(Asked { questions: vec![question], job });
                        state.waiting += 1;
                        return;
                    }
                    Err((_, error)) => error,
                }
            }
        };
        drop(state);
        question.answer(&Err((failure.kind(), failure.to_string().into())));
    }

    /// On a thread of the pool.
    fn answer(&self, name: String) {
        let found = (self.look_up)(&name).map_err(|error| (error.kind(), error.to_string().into()));
        let mut state = self.state();
        let asked = state.asked.remove(&name).map_or(Vec::new(), |asked| asked.questions);
        state.waiting -= asked.len();
        state.keep(name, &found, &self.cache, self.clock.now());
        drop(state);
        for question in asked {
            question.answer(&found);
        }
    }

    fn forget(&self, key: Key, asker: &Sender<Letter>) {
        let mut state = self.state();
        let is_it = |question: &Question| question.key == key && question.asker.is_same(asker);
        let left = state.asked.iter_mut().find_map(|(name, asked)| {
            let at = asked.questions.iter().position(is_it)?;
            let question = asked.questions.swap_remove(at);
            Some((question, asked.questions.is_empty().then(|| (name.clone(), asked.job))))
        });
        let Some((_question, last)) = left else { return };
        state.waiting -= 1;
        // What has begun goes on, and is kept for the next.
        if let Some((name, job)) = last
            && self.pool.abort(job)
        {
            state.asked.remove(&name);
        }
    }
}

/// What knows names, of one runtime.
#[derive(Clone)]
pub struct Resolver(Arc<Shared>);

impl Resolver {
    /// Its threads run where this one may.
    pub fn new(cache: NameCache, clock: ClockReader) -> Self {
        Self::asking(cache, clock, Box::new(|name| look_up(name, 0)))
    }

    fn asking(cache: NameCache, clock: ClockReader, look_up: Box<LookUp>) -> Self {
        let limits = Limits { name: "netpoll-resolve", threads_max: THREADS_MAX, jobs_max: WAITING_MAX };
        let pool = Pool::new(limits);
        Self(Arc::new(Shared { state: Mutex::default(), pool, cache, clock, look_up }))
    }

    /// For one worker.
    pub fn of(&self, worker: Sender<Letter>) -> Rc<dyn Resolve> {
        Rc::new(Asker { resolver: self.clone(), worker })
    }

    /// The runtime has ended: what waits is not looked up any more. A thread that is looking up goes on until it has an answer.
    pub fn close(&self) {
        self.0.pool.close();
        let mut state = self.0.state();
        let asked = std::mem::take(&mut *state);
        drop(state);
        drop(asked);
    }
}

struct Asker {
    resolver: Resolver,
    worker: Sender<Letter>,
}

impl Resolve for Asker {
    fn look_up(&self, key: Key, name: String, port: u16) {
        sys::assert_not_forked();
        self.resolver.0.ask(name, Question { key, port, asker: self.worker.clone() });
    }

    fn forget(&self, key: Key) {
        self.resolver.0.forget(key, &self.worker);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::mpsc;

    use super::*;
    use crate::clockwork::Clock;
    use crate::reactor::{Bell, Mailbox};

    /// Nobody sleeps here.
    struct Silent;

    impl Bell for Silent {
        fn ring(&self) -> io::Result<()> {
            Ok(())
        }
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A resolver, and a worker who asks it.
    struct World {
        resolver: Resolver,
        mailbox: Mailbox<Letter>,
        clock: Clock,
        /// Each name says here that it is being looked up; one that begins with "slow" then waits for the other end.
        begun: mpsc::Receiver<String>,
        go: mpsc::Sender<()>,
    }

    impl World {
        fn new(cache: NameCache) -> Self {
            let ((begin, begun), (go, going)) = (mpsc::channel(), mpsc::channel());
            let (begin, going) = (Mutex::new(begin), Mutex::new(going));
            let clock = Clock::manual(0);
            let look_up = move |name: &str| {
                let _ = begin.lock().unwrap().send(name.to_owned());
                if name.starts_with("slow") {
                    let _ = going.lock().unwrap().recv();
                }
                if name.ends_with("none") {
                    return Err(io::Error::new(io::ErrorKind::NotFound, "there is none"));
                }
                Ok(vec![(Ipv4Addr::LOCALHOST, 0).into()])
            };
            let resolver = Resolver::asking(cache, clock.reader(), Box::new(look_up));
            Self { resolver, mailbox: Mailbox::new(Silent), clock, begun, go }
        }

        fn worker(&self) -> Rc<dyn Resolve> {
            self.resolver.of(self.mailbox.sender())
        }

        /// Asks for a name; the answer has the number, as its key and as its port.
        fn ask(&self, name: &str, number: usize) {
            self.worker().look_up(Key::new(1, 1, number), name.to_owned(), number as u16);
        }

        /// The number of the next answer, and the kind of its error.
        fn answered(&self) -> (usize, Option<io::ErrorKind>) {
            let began = std::time::Instant::now();
            loop {
                match self.mailbox.take() {
                    Some(Letter::Found { key, found: Ok(found) }) => {
                        assert_eq!(found, [sys::Address::from((Ipv4Addr::LOCALHOST, key.index() as u16))]);
                        return (key.index(), None);
                    }
                    Some(Letter::Found { key, found: Err(error) }) => {
                        return (key.index(), Some(error.kind()));
                    }
                    Some(_) => unreachable!("nobody else writes"),
                    None => assert!(began.elapsed() < PATIENCE, "no answer"),
                }
                std::thread::yield_now();
            }
        }

        /// The next name that is looked up.
        fn begun(&self) -> String {
            self.begun.recv_timeout(PATIENCE).unwrap()
        }

        /// Asks and waits; whether the resolver was asked.
        fn is_looked_up(&self, name: &str, number: usize) -> bool {
            self.ask(name, number);
            assert_eq!(self.answered().0, number);
            self.begun.try_recv().is_ok()
        }
    }

    impl Drop for World {
        fn drop(&mut self) {
            self.resolver.close();
        }
    }

    #[test]
    fn what_waits_when_the_runtime_ends_is_not_looked_up() {
        let world = World::new(NameCache::default());
        for number in 0..5 {
            world.ask(&format!("slow{number}"), number);
        }
        for _ in 0..4 {
            world.begun();
        }
        world.resolver.close();
        world.ask("late", 5);
        assert_eq!(world.answered(), (5, Some(io::ErrorKind::NotConnected)));
        for _ in 0..4 {
            world.go.send(()).unwrap();
        }
        assert!(world.begun.try_recv().is_err(), "the fifth never began");
    }

    #[test]
    fn who_gives_up_leaves_the_line_and_nobody_else_does() {
        let world = World::new(NameCache::default());
        for number in 0..4 {
            world.ask(&format!("slow{number}"), number);
            world.begun();
        }
        // All threads are busy. Two ask for one name, one for another, and another worker has the same keys.
        let others = Mailbox::new(Silent);
        let key = |number| Key::new(1, 1, number);
        for (name, number) in [("a", 10), ("b", 11), ("c", 12), ("c", 13)] {
            world.ask(name, number);
        }
        world.resolver.of(others.sender()).look_up(key(10), "d".to_owned(), 10);
        world.worker().forget(key(10));
        world.worker().forget(key(12));
        world.worker().forget(key(99));
        assert_eq!(world.resolver.0.state().waiting, 4 + 3);
        for _ in 0..4 {
            world.go.send(()).unwrap();
        }
        let mut answered: Vec<_> = (0..6).map(|_| world.answered().0).collect();
        answered.sort_unstable();
        assert_eq!(answered, [0, 1, 2, 3, 11, 13]);
        let mut looked_up: Vec<_> = (0..3).map(|_| world.begun()).collect();
        looked_up.sort_unstable();
        assert_eq!(looked_up, ["b", "c", "d"], "once each, and never `a`");
        let state = world.resolver.0.state();
        assert_eq!((state.waiting, state.asked.len()), (0, 0));
        drop(state);
    }

    #[test]
    fn who_asks_for_a_name_that_is_being_looked_up_waits_for_that_answer() {
        let world = World::new(NameCache::off());
        for number in 1..=3 {
            world.ask(if number == 2 { "SLOW.example" } else { "slow.example" }, number);
        }
        assert_eq!(world.begun(), "slow.example");
        world.go.send(()).unwrap();
        let mut answered: Vec<_> = (0..3).map(|_| world.answered().0).collect();
        answered.sort_unstable();
        assert_eq!(answered, [1, 2, 3]);
        assert!(world.begun.try_recv().is_err(), "it was looked up once");
    }

    #[test]
    fn what_was_found_is_kept_for_its_time_and_no_longer() {
        let mut world = World::new(NameCache::default().keep_failures(Duration::from_secs(1)));
        assert!(world.is_looked_up("name", 1) && world.is_looked_up("none", 2));
        assert!(!world.is_looked_up("Name", 3) && !world.is_looked_up("none", 4));
        world.clock.advance(Duration::from_secs(1));
        assert!(!world.is_looked_up("name", 5) && world.is_looked_up("none", 6));
        world.clock.advance(Duration::from_secs(4));
        assert!(world.is_looked_up("name", 7), "five seconds later");
    }

    #[test]
    fn failures_are_kept_for_nobody_and_without_a_cache_nothing_is() {
        let world = World::new(NameCache::default());
        assert!(world.is_looked_up("none", 1) && world.is_looked_up("none", 2));
        let world = World::new(NameCache::off());
        assert!(world.is_looked_up("name", 1) && world.is_looked_up("name", 2));
    }

    #[test]
    fn the_name_that_would_be_forgotten_next_makes_room() {
        let mut world = World::new(NameCache::default().names_max(2));
        for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
            assert!(world.is_looked_up(name, number));
            world.clock.advance(Duration::from_millis(1));
        }
        assert!(!world.is_looked_up("b", 4) && !world.is_looked_up("c", 5));
        assert!(world.is_looked_up("a", 6));
        assert_eq!(world.resolver.0.state().kept.len(), 2);
    }

    #[test]
    fn an_address_with_an_interface_is_asked_for_as_it_was_written() {
        let world = World::new(NameCache::default());
        world.ask("Example.ORG", 1);
        assert_eq!(world.begun.recv_timeout(PATIENCE).unwrap(), "example.org");
        world.ask("fe80::1%enP2p1s0", 2);
        assert_eq!(world.begun.recv_timeout(PATIENCE).unwrap(), "fe80::1%enP2p1s0");
    }
}
