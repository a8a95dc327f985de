//! Looks up names for outgoing connections on threads of its own: the system's resolver blocks.
//!
//! There is no thread until the first name, there are never more than four, and one that has had nothing to do for ten
//! seconds ends. A worker only ever waits for the lock around the queue, which nobody holds while a name is looked up.

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

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    asked: Condvar,
    /// Where its threads run, not only on the CPU of the worker that starts them.
    cpus: Vec<usize>,
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
        let _ = sys::keep_current_thread_on(&self.cpus);
        while let Some(question) = self.next() {
            let found = look_up(&question.name, question.port);
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
#[derive(Clone, Default)]
pub struct Resolver(Arc<Shared>);

impl Resolver {
    /// Its threads run where this one may.
    pub fn new() -> Self {
        let cpus = sys::allowed_cpus().unwrap_or_default();
        Self(Arc::new(Shared { cpus, ..Shared::default() }))
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
}
