//! Looks up names for outgoing connections on threads of its own: the system's resolver blocks.
//!
//! There is no thread until the first name, there are never more than four, and one that has had nothing to do for ten
//! seconds ends. A worker only ever waits for the lock around the queue, which nobody holds while a name is looked up. Who gives up
//! before a thread is free leaves the queue, so that names which nobody waits for any more do not stand in front of others.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::conn::{Letter, Resolve, look_up};
use crate::mem::Key;
use crate::reactor::Sender;
use crate::sys;

/// Names looked up at the same time. A resolver that does not answer takes up one thread for half a minute at most
/// (resolv.conf(5): two attempts of five seconds at up to three servers).
const THREADS_MAX: usize = 4;
/// Names that may wait. Behind so many one would not be looked up before its connection has timed out.
const NAMES_MAX: usize = 4096;
/// How long a thread waits for the next name before it ends.
const REST: Duration = Duration::from_secs(10);

struct Question {
    name: String,
    port: u16,
    key: Key,
    asker: Sender<Letter>,
}

impl Question {
    fn answer(self, found: io::Result<Vec<sys::Address>>) {
        self.asker.send(Letter::Found { key: self.key, found });
    }
}

#[derive(Default)]
struct State {
    questions: VecDeque<Question>,
    threads: usize,
    resting: usize,
    closed: bool,
}

type LookUp = dyn Fn(&str, u16) -> io::Result<Vec<sys::Address>> + Send + Sync;

struct Shared {
    state: Mutex<State>,
    asked: Condvar,
    /// Where its threads run, not only on the CPU of the worker that starts them.
    affinity: sys::Affinity,
    /// The system's resolver, or one that a test has made up.
    look_up: Box<LookUp>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(self: &Arc<Self>, question: Question) {
        let mut state = self.state();
        if state.closed || state.questions.len() >= NAMES_MAX {
            drop(state);
            return question.answer(Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "too many names wait to be looked up",
            )));
        }
        state.questions.push_back(question);
        if state.questions.len() > state.resting && state.threads < THREADS_MAX {
            let shared = Arc::clone(self);
            let name = "netpoll-resolve".to_owned();
            match std::thread::Builder::new().name(name).spawn(move || shared.serve()) {
                Ok(_) => state.threads += 1,
                Err(_) if state.threads > 0 => {}
                Err(error) => {
                    let question = state.questions.pop_back();
                    drop(state);
                    if let Some(question) = question {
                        question.answer(Err(error));
                    }
                    return;
                }
            }
        }
        self.asked.notify_one();
    }

    fn serve(&self) {
        // A kernel that refuses leaves it on the CPU of the worker, where it takes its turns.
        let _ = self.affinity.apply();
        while let Some(question) = self.next() {
            let found = (self.look_up)(&question.name, question.port);
            question.answer(found);
        }
    }

    fn next(&self) -> Option<Question> {
        let mut state = self.state();
        state.resting += 1;
        loop {
            let question = state.questions.pop_front();
            if question.is_some() || state.closed {
                state.resting -= 1;
                state.threads -= usize::from(question.is_none());
                return question;
            }
            let (now, waited) = self.asked.wait_timeout(state, REST).unwrap_or_else(PoisonError::into_inner);
            state = now;
            if waited.timed_out() && state.questions.is_empty() {
                (state.resting, state.threads) = (state.resting - 1, state.threads - 1);
                return None;
            }
        }
    }
}

/// The threads that look names up, of one runtime.
#[derive(Clone)]
pub struct Resolver(Arc<Shared>);

impl Resolver {
    /// Its threads run where this one may.
    pub fn new() -> Self {
        Self::asking(Box::new(look_up))
    }

    fn asking(look_up: Box<LookUp>) -> Self {
        let affinity = sys::Affinity::of_this_thread().unwrap_or_default();
        Self(Arc::new(Shared { state: Mutex::default(), asked: Condvar::new(), affinity, look_up }))
    }

    /// For one worker.
    pub fn of(&self, worker: Sender<Letter>) -> Rc<dyn Resolve> {
        Rc::new(Asker { resolver: self.clone(), worker })
    }

    /// The runtime has ended: what waits is not looked up any more. A thread that is looking up goes on until it has an answer.
    pub fn close(&self) {
        let mut state = self.0.state();
        state.closed = true;
        state.questions.clear();
        drop(state);
        self.0.asked.notify_all();
    }
}

struct Asker {
    resolver: Resolver,
    worker: Sender<Letter>,
}

impl Resolve for Asker {
    fn look_up(&self, key: Key, name: String, port: u16) {
        sys::assert_not_forked();
        self.resolver.0.ask(Question { name, port, key, asker: self.worker.clone() });
    }

    fn forget(&self, key: Key) {
        let is_other = |question: &Question| question.key != key || !question.asker.is_same(&self.worker);
        self.resolver.0.state().questions.retain(is_other);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::mpsc;

    use super::*;
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
        /// A name that begins with "slow" says here that it is being looked up, and waits for the other end.
        begun: mpsc::Receiver<String>,
        go: mpsc::Sender<()>,
    }

    impl World {
        fn new() -> Self {
            let ((begin, begun), (go, going)) = (mpsc::channel(), mpsc::channel());
            let (begin, going) = (Mutex::new(begin), Mutex::new(going));
            let resolver = Resolver::asking(Box::new(move |name, port| {
                if name.starts_with("slow") {
                    begin.lock().unwrap().send(name.to_owned()).unwrap();
                    let _ = going.lock().unwrap().recv();
                }
                Ok(vec![(Ipv4Addr::LOCALHOST, port).into()])
            }));
            Self { resolver, mailbox: Mailbox::new(Silent), begun, go }
        }

        /// Asks for a name; the answer has the number.
        fn ask(&self, name: &str, number: usize) {
            self.resolver.of(self.mailbox.sender()).look_up(Key::new(1, 1, number), name.to_owned(), 80);
        }

        /// The number of the next answer.
        fn answered(&self) -> usize {
            let began = std::time::Instant::now();
            loop {
                match self.mailbox.take() {
                    Some(Letter::Found { key, found }) => {
                        assert_eq!(found.unwrap(), [sys::Address::from((Ipv4Addr::LOCALHOST, 80))]);
                        return key.index();
                    }
                    Some(_) => unreachable!("nobody else writes"),
                    None => assert!(began.elapsed() < PATIENCE, "no answer"),
                }
                std::thread::yield_now();
            }
        }

        /// Waits until so many threads have nothing to do.
        fn rested(&self, threads: usize) {
            let began = std::time::Instant::now();
            while self.resolver.0.state().resting < threads {
                assert!(began.elapsed() < PATIENCE, "they do not rest");
                std::thread::yield_now();
            }
        }

        fn threads(&self) -> usize {
            self.resolver.0.state().threads
        }
    }

    impl Drop for World {
        fn drop(&mut self) {
            self.resolver.close();
        }
    }

    #[test]
    fn a_name_does_not_wait_behind_a_slow_one_while_there_may_be_another_thread() {
        for round in 0..50 {
            let world = World::new();
            world.ask("first", 1);
            assert_eq!(world.answered(), 1);
            // The thread that rests is promised to the slow one, whether it has woken by now or not.
            world.rested(1);
            world.ask("slow", 2);
            world.ask("quick", 3);
            assert_eq!(world.answered(), 3, "round {round}");
            world.begun.recv_timeout(PATIENCE).unwrap();
            world.go.send(()).unwrap();
            assert_eq!(world.answered(), 2);
            assert_eq!(world.threads(), 2);
        }
    }

    #[test]
    fn there_are_never_more_than_four_threads_and_who_waits_is_answered_when_one_is_free() {
        let world = World::new();
        for number in 0..4 {
            world.ask("slow", number);
        }
        for _ in 0..4 {
            world.begun.recv_timeout(PATIENCE).unwrap();
        }
        world.ask("quick", 4);
        assert_eq!((world.threads(), world.mailbox.is_empty()), (4, true));
        world.go.send(()).unwrap();
        let mut answered = [world.answered(), world.answered()];
        answered.sort_unstable();
        assert!(answered[0] < 4 && answered[1] == 4, "{answered:?}");
        for _ in 0..3 {
            world.go.send(()).unwrap();
            assert!(world.answered() < 4);
        }
        assert_eq!(world.threads(), 4);
    }

    #[test]
    fn what_waits_when_the_runtime_ends_is_not_looked_up() {
        let world = World::new();
        for number in 0..5 {
            world.ask("slow", number);
        }
        for _ in 0..4 {
            world.begun.recv_timeout(PATIENCE).unwrap();
        }
        world.resolver.close();
        world.ask("late", 5);
        let Some(Letter::Found { found: Err(error), .. }) = world.mailbox.take() else { panic!("an answer") };
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        for _ in 0..4 {
            world.go.send(()).unwrap();
            world.answered();
        }
        assert!(world.begun.try_recv().is_err(), "the fifth never began");
    }

    #[test]
    fn who_gives_up_leaves_the_line_and_nobody_else_does() {
        let resolver = Resolver::new();
        // All of them hang.
        resolver.0.state().threads = THREADS_MAX;
        let mailboxes: Vec<Mailbox<Letter>> = (0..2).map(|_| Mailbox::new(Silent)).collect();
        let workers: Vec<_> = mailboxes.iter().map(|mailbox| resolver.of(mailbox.sender())).collect();
        let (one, other) = (Key::new(1, 0, 1), Key::new(1, 0, 2));
        for (worker, key) in [(0, one), (1, one), (0, other)] {
            workers[worker].look_up(key, format!("{worker}.example"), 80);
        }
        workers[0].forget(one);
        workers[1].forget(other);
        let left: Vec<_> = resolver.0.state().questions.drain(..).map(|left| (left.name, left.key)).collect();
        assert_eq!(left, [("1.example".to_owned(), one), ("0.example".to_owned(), other)]);
    }
}
