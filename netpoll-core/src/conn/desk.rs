//! What code in a task reaches of its worker while it is polled: orders to the driver, the pool, commands.
//!
//! A future is given nothing but a waker. So whoever polls one lends its worker meanwhile: the worker for its tasks, a protocol for the
//! futures that it polls in its callbacks ([`Conn::lend`]). What is lent is that of one lane: a task of another worker of the same
//! simulation, or a stream that was handed there, does not find it.
//!
//! Rule: no code of the program runs inside [`with`]; whatever calls it from there finds nothing lent.

use std::cell::{Cell, RefCell};

use super::{Conn, Context};
use crate::driver::Io;
use crate::mem::Pool;
use crate::sys::{Lendable, Lent};

/// One worker, as far as its tasks may reach it.
pub struct Desk<'a> {
    pub cx: &'a mut Context,
    pub io: &'a mut dyn Io,
}

/// That type, for every lifetime.
pub struct Desks;

impl Lendable for Desks {
    type Of<'a> = Desk<'a>;
}

thread_local! {
    static DESK: Lent<Desks> = const { Lent::new() };
    /// Stands in for the pool of a worker that is out of reach. It keeps nothing.
    static STAND_IN: RefCell<Pool> = RefCell::new(Pool::new(0));
    /// It was used, and no pool knows of it yet.
    static STOOD_IN: Cell<bool> = const { Cell::new(false) };
}

/// Lends a worker to the code that `call` runs.
#[inline]
pub fn lend<R>(cx: &mut Context, io: &mut dyn Io, call: impl FnOnce() -> R) -> R {
    let mut desk = Desk { cx, io };
    DESK.with(|place| place.lend(&mut desk, call))
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
pub fn with_pool<R>(lane: u64, borrow: impl FnOnce(&mut Pool) -> R) -> R {
    let mut borrow = Some(borrow);
    let mut once = |pool: &mut Pool| borrow.take().expect("it is called once")(pool);
    match with(lane, |desk| once(&mut desk.cx.agenda.pool)) {
        Some(result) => result,
        None => with_stand_in(once),
    }
}

#[cold]
fn with_stand_in<R>(mut borrow: impl FnMut(&mut Pool) -> R) -> R {
    STOOD_IN.set(true);
    let borrowed = STAND_IN.try_with(|pool| pool.try_borrow_mut().ok().map(|mut pool| borrow(&mut pool)));
    // A thread that ends, or a destructor inside the stand-in: what is counted there is lost.
    borrowed.ok().flatten().unwrap_or_else(|| borrow(&mut Pool::new(0)))
}

/// Counts in this pool what others have stood in for.
#[inline]
pub fn settle(pool: &mut Pool) {
    if STOOD_IN.get() {
        STOOD_IN.set(false);
        STAND_IN.with(|stand_in| pool.absorb(&mut stand_in.borrow_mut()));
    }
}

impl Conn<'_> {
    /// Lends the worker to `poll`, which polls a future of the program inside this callback: what that does with sockets of
    /// [`net`](crate::net) is done at once then, as in a task. Without it a stream works as well, and costs more: what is written
    /// leaves in the next turn.
    #[inline]
    pub fn lend<R>(&mut self, poll: impl FnOnce() -> R) -> R {
        lend(self.cx, self.io, poll)
    }
}
