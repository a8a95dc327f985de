//! Threads that take jobs from one queue: those of the program, and in a pool of their own names that are looked up.
//!
//! There is no thread until the first job, there are never more than the pool may have, and one that has had nothing to do for ten
//! seconds ends. A worker only ever waits for the lock around the queue, which nobody holds while code of the program
//! runs: jobs, wakers and their destructors are taken out first.
//!
//! Invariant: `jobs.len() + reserved <= jobs_max`; somebody stands in line only while they are equal, or the pool is closed and the line
//! about to be told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use crate::mem::{self, Guarded};
use crate::sys;

/// How long a thread waits for the next job before it ends.
const REST: Duration = Duration::from_secs(10);

type Job = Guarded<Box<dyn FnOnce() + Send>>;

/// Names a job of its pool; later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// A place in the line of those who wait for room.
pub type Place = u64;

/// How a job comes into the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    New,
    /// It has a place already.
    Reserved,
}

#[derive(Default)]
struct State {
    /// Ascending by ticket.
    jobs: VecDeque<(Ticket, Job)>,
    tickets: u64,
    /// Places kept for jobs that are yet to come.
    reserved: usize,
    /// Who waits for a place, and who was given one and has not been told.
    line: BTreeMap<Place, Waker>,
    granted: BTreeSet<Place>,
    places: u64,
    /// The numbers of the threads.
    threads: BTreeSet<usize>,
    resting: usize,
    is_closed: bool,
}

impl State {
    /// Gives the places that have become free to those who came first.
    fn grant(&mut self, jobs_max: usize) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while self.is_closed || self.jobs.len() + self.reserved < jobs_max {
            let Some((place, waker)) = self.line.pop_first() else { break };
            self.granted.insert(place);
            self.reserved += 1;
            wakers.push(waker);
        }
        wakers
    }
}

fn wake(wakers: Vec<Waker>) {
    for waker in wakers {
        mem::guarded(|| waker.wake());
    }
}

/// What a pool may have, and what its threads are called.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A number follows.
    pub name: &'static str,
    /// None at all: somebody calls [`Pool::run_next`].
    pub threads_max: usize,
    /// Jobs that may wait for a thread.
    pub jobs_max: usize,
}

struct Shared {
    state: Mutex<State>,
    news: Condvar,
    limits: Limits,
    /// Where its threads run, not only on the CPU of the worker that starts them.
    affinity: sys::Affinity,
}

/// A pool; a clone is the same one.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

impl Pool {
    /// Its threads will run where this one may.
    pub fn new(limits: Limits) -> Self {
        let affinity = sys::Affinity::of_this_thread().unwrap_or_default();
        Self(Arc::new(Shared { state: Mutex::default(), news: Condvar::new(), limits, affinity }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a thread call `run` with `with`, which comes back if there is no room, no thread to be had, or the pool is closed.
    pub fn put<W: Send + 'static>(
        &self,
        entry: Entry,
        with: W,
        run: impl FnOnce(W) + Send + 'static,
    ) -> Result<Ticket, (W, io::Error)> {
        sys::assert_not_forked();
        let Limits { name, threads_max, jobs_max } = self.0.limits;
        let mut state = self.state();
        state.reserved -= usize::from(entry == Entry::Reserved);
        if state.is_closed {
            drop(state);
            return Err((with, io::Error::new(io::ErrorKind::NotConnected, "the runtime has ended")));
        }
        if state.jobs.len() + state.reserved >= jobs_max {
            drop(state);
            let message = format!("{jobs_max} jobs wait for a thread of {name} already");
            return Err((with, io::Error::new(io::ErrorKind::ResourceBusy, message)));
        }
        state.tickets += 1;
        let ticket = Ticket(state.tickets);
        if state.jobs.len() >= state.resting && state.threads.len() < threads_max {
            let number =
                (0..).find(|number| !state.threads.contains(number)).expect("fewer threads than numbers");
            let pool = self.clone();
            let name = format!("{name}-{number}");
            let thread = std::thread::Builder::new().name(name.clone());
            match thread.spawn(move || pool.serve(number)) {
                Ok(_) => {
                    state.threads.insert(number);
                }
                // Those that there are will come to it.
                Err(_) if !state.threads.is_empty() => {}
                Err(error) => {
                    let wakers = state.grant(jobs_max);
                    drop(state);
                    wake(wakers);
                    return Err((with, sys::no_thread(&name, error)));
                }
            }
        }
        let job: Box<dyn FnOnce() + Send> = Box::new(move || run(with));
        state.jobs.push_back((ticket, Guarded::new(job)));
        drop(state);
        self.0.news.notify_one();
        Ok(ticket)
    }

    /// Drops a job that has not begun; false if it has.
    pub fn abort(&self, ticket: Ticket) -> bool {
        let mut state = self.state();
        let Ok(at) = state.jobs.binary_search_by_key(&ticket, |(ticket, _)| *ticket) else { return false };
        let job = state.jobs.remove(at);
        let wakers = state.grant(self.0.limits.jobs_max);
        drop(state);
        wake(wakers);
        drop(job);
        true
    }

    /// Takes a place for a job, or waits for one; true if it has one.
    pub fn wait_for_room(&self, place: &mut Option<Place>, waker: &Waker) -> bool {
        // Code of the program, as is the end of the one before.
        let waker = waker.clone();
        let mut state = self.state();
        let before = match *place {
            Some(known) if state.granted.remove(&known) => {
                *place = None;
                return true;
            }
            Some(known) => state.line.insert(known, waker),
            None if state.is_closed || state.jobs.len() + state.reserved < self.0.limits.jobs_max => {
                state.reserved += 1;
                return true;
            }
            None => {
                state.places += 1;
                *place = Some(state.places);
                let new = state.places;
                state.line.insert(new, waker)
            }
        };
        drop(state);
        drop(before);
        false
    }

    /// Whoever waited at this place has given up.
    pub fn leave(&self, place: Place) {
        let mut state = self.state();
        let was_granted = state.granted.remove(&place);
        let waker = state.line.remove(&place);
        drop(state);
        drop(waker);
        if was_granted {
            self.give_back();
        }
    }

    /// A place that was kept is not needed.
    pub fn give_back(&self) {
        let mut state = self.state();
        state.reserved -= 1;
        let wakers = state.grant(self.0.limits.jobs_max);
        drop(state);
        wake(wakers);
    }

    /// Runs the job that has waited longest, on this thread; false if none waits.
    pub fn run_next(&self) -> bool {
        let mut state = self.state();
        let Some((_, job)) = state.jobs.pop_front() else { return false };
        let wakers = state.grant(self.0.limits.jobs_max);
        drop(state);
        wake(wakers);
        run(job);
        true
    }

    /// Jobs that wait for a thread.
    pub fn waiting(&self) -> usize {
        self.state().jobs.len()
    }

    /// The runtime has ended: what waits is dropped, and what comes now as well. A thread that has a job goes on to its end.
    pub fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        let jobs = std::mem::take(&mut state.jobs);
        let wakers = state.grant(self.0.limits.jobs_max);
        drop(state);
        self.0.news.notify_all();
        wake(wakers);
        drop(jobs);
    }

    fn serve(&self, number: usize) {
        // A kernel that refuses leaves it on the CPU of the worker, where it takes its turns.
        let _ = self.0.affinity.apply();
        while let Some((job, wakers)) = self.next(number) {
            wake(wakers);
            run(job);
        }
    }

    fn next(&self, number: usize) -> Option<(Job, Vec<Waker>)> {
        let mut state = self.state();
        state.resting += 1;
        let job = loop {
            let job = state.jobs.pop_front();
            if job.is_some() || state.is_closed {
                break job;
            }
            let (now, waited) = self.0.news.wait_timeout(state, REST).unwrap_or_else(PoisonError::into_inner);
            state = now;
            if waited.timed_out() && state.jobs.is_empty() {
                break None;
            }
        };
        state.resting -= 1;
        let Some((_, job)) = job else {
            state.threads.remove(&number);
            return None;
        };
        Some((job, state.grant(self.0.limits.jobs_max)))
    }

    /// Threads that there are, and those of them that have nothing to do.
    #[cfg(test)]
    pub fn threads(&self) -> (usize, usize) {
        let state = self.state();
        (state.threads.len(), state.resting)
    }
}

fn run(job: Job) {
    mem::guarded(job.into_inner());
    end_forked_child();
}

/// A child that was forked in a job, and came back from it, ends here: what it would go on with is its parent's.
pub fn end_forked_child() {
    if sys::is_child() {
        sys::end_child();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn pool(threads_max: usize, jobs_max: usize) -> Pool {
        Pool::new(Limits { name: "netpoll-test", threads_max, jobs_max })
    }

    /// Jobs that say that they have begun, and wait to be let go.
    struct Slow {
        begun: (mpsc::Sender<usize>, mpsc::Receiver<usize>),
        go: mpsc::Sender<()>,
        going: Arc<Mutex<mpsc::Receiver<()>>>,
    }

    impl Slow {
        fn new() -> Self {
            let (go, going) = mpsc::channel();
            Self { begun: mpsc::channel(), go, going: Arc::new(Mutex::new(going)) }
        }

        fn put(&self, pool: &Pool, number: usize) -> Result<Ticket, io::Error> {
            let with = (self.begun.0.clone(), Arc::clone(&self.going));
            let put = pool.put(Entry::New, with, move |(begun, going)| {
                begun.send(number).unwrap();
                let _ = going.lock().unwrap().recv();
            });
            put.map_err(|(_, error)| error)
        }

        fn begun(&self) -> usize {
            self.begun.1.recv_timeout(PATIENCE).unwrap()
        }
    }

    /// Puts a job and waits for it.
    fn quick(pool: &Pool) {
        let (done, is_done) = mpsc::channel();
        pool.put(Entry::New, done, |done| done.send(()).unwrap()).map_err(|(_, error)| error).unwrap();
        is_done.recv_timeout(PATIENCE).unwrap();
    }

    fn rested(pool: &Pool, threads: usize) {
        let began = std::time::Instant::now();
        while pool.threads().1 < threads {
            assert!(began.elapsed() < PATIENCE, "they do not rest");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_job_does_not_wait_behind_a_slow_one_while_there_may_be_another_thread() {
        for _ in 0..50 {
            let (pool, slow) = (pool(4, 16), Slow::new());
            quick(&pool);
            // The thread that rests is promised to the slow one, whether it has woken by now or not.
            rested(&pool, 1);
            slow.put(&pool, 1).unwrap();
            quick(&pool);
            slow.begun();
            assert_eq!(pool.threads().0, 2);
            slow.go.send(()).unwrap();
            pool.close();
        }
    }

    #[test]
    fn there_are_never_more_threads_than_the_pool_may_have_and_who_waits_has_its_turn() {
        let (pool, slow) = (pool(4, 16), Slow::new());
        for number in 0..6 {
            slow.put(&pool, number).unwrap();
        }
        for _ in 0..4 {
            assert!(slow.begun() < 4);
        }
        assert_eq!((pool.threads(), pool.waiting()), ((4, 0), 2));
        slow.go.send(()).unwrap();
        assert_eq!(slow.begun(), 4);
        slow.go.send(()).unwrap();
        assert_eq!(slow.begun(), 5);
        drop(slow.go);
        pool.close();
    }

    #[test]
    fn a_pool_that_is_closed_drops_what_has_not_begun_and_takes_nothing() {
        let (pool, slow) = (pool(1, 16), Slow::new());
        slow.put(&pool, 0).unwrap();
        slow.begun();
        let (end, ended) = mpsc::channel::<()>();
        pool.put(Entry::New, end, drop).map_err(|(_, error)| error).unwrap();
        pool.close();
        assert_eq!(ended.try_recv(), Err(mpsc::TryRecvError::Disconnected), "dropped by now");
        assert_eq!(slow.put(&pool, 1).unwrap_err().kind(), io::ErrorKind::NotConnected);
        drop(slow.go);
        let began = std::time::Instant::now();
        while pool.threads().0 > 0 {
            assert!(began.elapsed() < PATIENCE, "its thread ends");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_place_that_is_given_back_in_whatever_way_goes_to_who_came_first() {
        let pool = pool(0, 1);
        let waker = Waker::noop();
        let mut places = [None; 4];
        assert!(pool.wait_for_room(&mut places[0], waker));
        for place in &mut places[1..] {
            assert!(!pool.wait_for_room(place, waker));
        }
        let refused = pool.put(Entry::New, (), drop).unwrap_err().1;
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy, "{refused}");
        pool.give_back();
        assert!(!pool.wait_for_room(&mut places[2], waker), "it is not its turn");
        // The next has it, and gives up before it hears of it.
        pool.leave(places[1].take().unwrap());
        assert!(pool.wait_for_room(&mut places[2], waker));
        assert!(pool.put(Entry::Reserved, (), drop).is_ok());
        assert!(!pool.wait_for_room(&mut places[3], waker));
        assert!(pool.run_next());
        assert!(pool.wait_for_room(&mut places[3], waker));
        let job = pool.put(Entry::Reserved, (), drop).unwrap();
        assert!(pool.abort(job) && !pool.abort(job) && !pool.run_next());
        assert!(pool.wait_for_room(&mut places[0], waker));
    }
}
