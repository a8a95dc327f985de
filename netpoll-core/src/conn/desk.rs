//! What code in a task reaches of its worker while it is polled: orders to the driver, the pool, commands.
//!
//! A future is given nothing but a waker. So whoever polls one lends its worker meanwhile: the worker for its tasks, a protocol for the
//! futures that it polls in its callbacks ([`Conn::lend`]). What is lent is that of one lane: a task of another worker of the same
//! simulation, or a stream that was handed there, does not find it.
//!
//! Rule: no code of the program runs inside [`with`]; whatever calls it from there finds nothing lent.

use super::{Conn, Context};
use crate::driver::Io;
use crate::mem::Pool;
use crate::sys::{Lendable, Lent};
use crate::task::{Lane, share};

/// One worker, as far as its tasks may reach it.
pub struct Desk<'a> {
    pub cx: &'a mut Context,
    pub io: &'a mut dyn Io,
    /// Bytes that were sent past their queues since it was lent: one poll does not send for ever.
    pub sent_at_once: usize,
}

/// That type, for every lifetime.
pub struct Desks;

impl Lendable for Desks {
    type Of<'a> = Desk<'a>;
}

thread_local! {
    static DESK: Lent<Desks> = const { Lent::new() };
}

impl<'a> Desk<'a> {
    /// That of this worker.
    #[inline]
    pub fn new(cx: &'a mut Context, io: &'a mut dyn Io) -> Self {
        Self { cx, io, sent_at_once: 0 }
    }

    /// Lends it to the code that `call` runs: one poll, or what counts as one.
    #[inline]
    pub fn lend<R>(&mut self, call: impl FnOnce() -> R) -> R {
        self.sent_at_once = 0;
        DESK.with(|place| place.lend(self, call))
    }
}

/// Lends a worker to the code that `call` runs.
#[inline]
pub fn lend<R>(cx: &mut Context, io: &mut dyn Io, call: impl FnOnce() -> R) -> R {
    Desk::new(cx, io).lend(call)
}

/// The desk of the lane of this number. `None` if it is not lent just now: the code that asks runs in a callback or a destructor, say.
#[inline]
pub fn with<R>(lane: u64, borrow: impl FnOnce(&mut Desk<'_>) -> R) -> Option<R> {
    let borrow = |desk: &mut Desk<'_>| (desk.cx.lane.number() == lane).then(|| borrow(desk));
    // A thread that ends may have dropped its own of it.
    DESK.try_with(|place| place.with(borrow)).ok().flatten().flatten()
}

/// The pool of the worker of this lane, or one that stands in for it where the worker is not lent.
#[inline]
pub fn with_pool<R>(lane: &Lane, borrow: impl FnOnce(&mut Pool) -> R) -> R {
    let mut borrow = Some(borrow);
    let mut once = |pool: &mut Pool| borrow.take().expect("it is called once")(pool);
    match with(lane.number(), |desk| once(&mut desk.cx.agenda.pool)) {
        Some(result) => result,
        None => lane.with_stand_in(once),
    }
}

impl Conn<'_> {
    /// Lends the worker to `poll`, which polls a future of the program inside this callback: what that does with sockets of
    /// [`net`](crate::net) is done at once then, as in a task. Without it a stream works as well, and costs more: what is written
    /// leaves in the next turn.
    #[inline]
    pub fn lend<R>(&mut self, poll: impl FnOnce() -> R) -> R {
        share::refill();
        lend(self.cx, self.io, poll)
    }
}
