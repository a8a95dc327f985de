//! Task cells: a future, or what it has left, in one piece of memory with what its worker knows of it; behind its end the next one lies there.
//!
//! An allocation and its end are a third of what a short task costs, and a second table that leads to it costs as much again. So a cell is counted
//! as an `Rc` is, by its worker and by whoever polls it, and what was in it can be dropped while the cell stays, for another one of its class.
//!
//! Invariants: `table` is that of the future that lies in the body, or has lain there, and `state` says what does; the memory is as large as
//! that of its class. Nobody but the call that has made a cell `Busy` refers to its body, and a future lies where it is until it was dropped: a
//! cell that a panic has left `Busy` is leaked.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::any::Any;
use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, offset_of};
use std::ops::Deref;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Poll, Waker};

/// Classes of sizes, of 16 bytes each: cells of the last one have 536 bytes.
pub const CLASSES: usize = 34;
/// Of a cell that is larger: nothing else comes to lie there.
pub const NO_CLASS: u8 = u8::MAX;

/// A future as it lies in a cell.
pub trait Run: 'static {
    /// What it leaves: that lies in its place then.
    type Left: 'static;
    /// Polls it; it has ended if this is ready, and is dropped then.
    fn run(self: Pin<&mut Self>, waker: &Waker) -> Poll<Self::Left>;
    /// Calls `end`, which drops the future, behind what it has left if it has ended. A panic of that leaves the cell as it is for good.
    fn guard(left: Option<&Self::Left>, end: impl FnOnce());
    /// Moves what it has left into an `Option` of that type.
    fn take(left: Self::Left, into: &mut dyn Any);
}

/// What the cell does for one type.
struct Table<H: 'static> {
    run: unsafe fn(NonNull<Head<H>>, &Waker) -> Poll<()>,
    end: unsafe fn(NonNull<Head<H>>),
    take: unsafe fn(NonNull<Head<H>>, &mut dyn Any),
    drop_left: unsafe fn(NonNull<Head<H>>),
    layout: Layout,
    class: u8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Empty,
    Future,
    Left,
    Busy,
}

/// What all cells begin with.
#[repr(C)]
struct Head<H: 'static> {
    table: Cell<&'static Table<H>>,
    /// Those who have the cell.
    count: Cell<u8>,
    state: Cell<State>,
    /// Both are of the owner; they are here because there is room.
    marks: Cell<u16>,
    number: Cell<u32>,
    own: H,
}

#[repr(C)]
struct Whole<H: 'static, B: Run> {
    head: Head<H>,
    body: Body<B>,
}

/// The place of a future, and of what it leaves. Only its size is of use.
#[expect(dead_code, reason = "it is pointed to")]
union Body<B: Run> {
    future: ManuallyDrop<B>,
    left: ManuallyDrop<B::Left>,
}

/// A cell, with an `H` of its owner. Clones are the same one.
pub struct TaskCell<H: 'static>(NonNull<Head<H>>);

/// Constants of one type.
struct Of<H: 'static, B>(PhantomData<(H, B)>);

impl<H: 'static, B: Run> Of<H, B> {
    /// The memory of a class, or what the type takes.
    const LAYOUT: Layout = {
        let whole = Layout::new::<Whole<H, B>>();
        // A piece of the C library holds so many times 16 bytes, and 8.
        match Layout::from_size_align(Self::CLASS as usize * ALIGN + 8, ALIGN) {
            Ok(layout) if Self::CLASS != NO_CLASS => layout,
            _ => whole,
        }
    };

    const CLASS: u8 = {
        let whole = Layout::new::<Whole<H, B>>();
        let class = (whole.size() + 7) / ALIGN;
        if class < CLASSES && whole.align() <= ALIGN { class as u8 } else { NO_CLASS }
    };

    const TABLE: &'static Table<H> = &Table {
        run: run::<H, B>,
        end: end::<H, B>,
        take: take::<H, B>,
        drop_left: drop_left::<H, B>,
        layout: Self::LAYOUT,
        class: Self::CLASS,
    };
}

const ALIGN: usize = 16;

/// Where the body of a cell lies: a `B`, or what that has left.
///
/// # Safety
/// The cell was made for a `B`, or for another type of its class.
#[inline(always)]
unsafe fn body<H: 'static, B: Run>(head: NonNull<Head<H>>) -> NonNull<Body<B>> {
    // SAFETY: the memory is as large as a `Whole<H, B>`, of which this is a field; `TaskCell::new` and `fill` keep that (test:
    // `a_cell_holds_one_future_after_the_other`).
    unsafe { head.byte_add(offset_of!(Whole<H, B>, body)) }.cast()
}

/// # Safety
/// A `B` lies in the cell, which is `Busy`, and nobody else has asked for it since it is. If this is ready, what it has left lies there.
unsafe fn run<H: 'static, B: Run>(head: NonNull<Head<H>>, waker: &Waker) -> Poll<()> {
    // SAFETY: as our caller's promise has it.
    let body = unsafe { body::<H, B>(head) };
    let mut future = body.cast::<B>();
    // SAFETY: a `B` lies there; nobody else refers to it, because the state says so and all ways to it ask (test:
    // `nobody_gets_at_what_is_being_polled`).
    let future = unsafe { future.as_mut() };
    // SAFETY: it lies there until it is dropped, in `end_behind`; a cell that is `Busy` for good is leaked (test:
    // `what_has_panicked_stays_where_it_is`).
    let future = unsafe { Pin::new_unchecked(future) };
    let Poll::Ready(left) = future.run(waker) else { return Poll::Pending };
    // SAFETY: as our caller's promise has it; the reference is gone.
    unsafe { end_behind::<H, B>(head, Some(&left)) };
    // SAFETY: nothing lies there any more, and the place is large enough and aligned for both (test:
    // `a_cell_holds_one_future_after_the_other`).
    unsafe { body.cast::<B::Left>().write(left) };
    Poll::Ready(())
}

/// Drops the future.
///
/// # Safety
/// A `B` lies in the cell, which is `Busy`, and nobody else has asked for it since it is; none does behind it.
#[inline(always)]
unsafe fn end_behind<H: 'static, B: Run>(head: NonNull<Head<H>>, left: Option<&B::Left>) {
    let mut is_there = true;
    B::guard(left, || {
        is_there = false;
        // SAFETY: as our caller's promise has it.
        let future = unsafe { body::<H, B>(head) }.cast::<B>();
        // SAFETY: a `B` lies there, nobody refers to it, and nobody drops it again: this runs once, and the state is `Busy` until it is
        // another (test: `a_cell_holds_one_future_after_the_other`).
        unsafe { future.drop_in_place() };
    });
    // It must not lie in what is used again.
    assert!(!is_there, "a guard lets the future be dropped");
}

/// # Safety
/// As [`end_behind`].
unsafe fn end<H: 'static, B: Run>(head: NonNull<Head<H>>) {
    // SAFETY: as our caller's promise has it.
    unsafe { end_behind::<H, B>(head, None) };
}

/// # Safety
/// What a `B` has left lies in the cell, which is `Busy`, and nobody else has asked for it since it is; nothing does behind it.
unsafe fn take<H: 'static, B: Run>(head: NonNull<Head<H>>, into: &mut dyn Any) {
    // SAFETY: as our caller's promise has it.
    let left = unsafe { body::<H, B>(head) }.cast::<B::Left>();
    // SAFETY: it lies there, and nobody looks there again (test: `a_cell_holds_one_future_after_the_other`).
    let left = unsafe { left.read() };
    B::take(left, into);
}

/// # Safety
/// As [`take`].
unsafe fn drop_left<H: 'static, B: Run>(head: NonNull<Head<H>>) {
    // SAFETY: as our caller's promise has it.
    let left = unsafe { body::<H, B>(head) }.cast::<B::Left>();
    // SAFETY: it lies there, and nobody looks there again (test: `a_cell_holds_one_future_after_the_other`).
    unsafe { left.drop_in_place() };
}

impl<H: 'static> TaskCell<H> {
    /// The class of the cells that a `B` fits into.
    pub const fn class_of<B: Run>() -> u8 {
        Of::<H, B>::CLASS
    }

    /// A cell with this future. One allocation.
    pub fn new<B: Run>(own: H, future: B) -> Self {
        let table = Of::<H, B>::TABLE;
        // SAFETY: the size is that of a head at least (test: `a_cell_holds_one_future_after_the_other`).
        let memory = unsafe { alloc(table.layout) };
        let Some(head) = NonNull::new(memory.cast::<Head<H>>()) else { handle_alloc_error(table.layout) };
        let whole = Head {
            table: Cell::new(table),
            count: Cell::new(1),
            state: Cell::new(State::Empty),
            marks: Cell::new(0),
            number: Cell::new(0),
            own,
        };
        // SAFETY: the memory is new, and as large and as aligned as a head (test: `a_cell_holds_one_future_after_the_other`).
        unsafe { head.write(whole) };
        let cell = Self(head);
        // SAFETY: nothing is there yet, and it was made for a `B` (test: `a_cell_holds_one_future_after_the_other`).
        unsafe { cell.put(future) };
        cell
    }

    /// Puts a future where nothing is.
    ///
    /// # Panics
    /// If there is something, or if the cell is not of its class, or of none.
    #[inline]
    pub fn fill<B: Run>(&self, future: B) {
        let class = Self::class_of::<B>();
        assert!(class != NO_CLASS && self.class() == class, "a cell is of a class");
        assert!(self.is_empty(), "a cell holds one future");
        self.head().table.set(Of::<H, B>::TABLE);
        // SAFETY: it is empty, and all cells of a class have room for what is of that class (test:
        // `a_cell_holds_one_future_after_the_other`).
        unsafe { self.put(future) };
    }

    /// # Safety
    /// The cell is empty, and was made for a `B` or for another type of its class.
    #[inline]
    unsafe fn put<B: Run>(&self, future: B) {
        // SAFETY: as our caller's promise has it.
        let place = unsafe { body::<H, B>(self.0) }.cast::<B>();
        // SAFETY: nothing is there, and the place is large enough and aligned for a `B`: the layout of its class is (test:
        // `a_cell_holds_one_future_after_the_other`).
        unsafe { place.write(future) };
        self.head().state.set(State::Future);
    }

    #[inline]
    fn head(&self) -> &Head<H> {
        // SAFETY: the memory is there as long as somebody is counted, and we are; it is changed through cells alone, as `body` lies
        // beside it (test: `a_cell_is_there_until_the_last_one_has_gone`).
        unsafe { self.0.as_ref() }
    }

    /// Makes it busy if it is in this state. False if it is not.
    #[inline]
    fn begin(&self, state: State) -> bool {
        let is = self.head().state.get() == state;
        if is {
            self.head().state.set(State::Busy);
        }
        is
    }

    /// Polls the future that is in it, and drops it if that is ready; pending if there is none, or somebody is at it.
    #[inline]
    pub fn run(&self, waker: &Waker) -> Poll<()> {
        if !self.begin(State::Future) {
            return Poll::Pending;
        }
        // SAFETY: the table is that of the future, and the cell is ours (test: `nobody_gets_at_what_is_being_polled`).
        let run = unsafe { (self.head().table.get().run)(self.0, waker) };
        self.head().state.set(if run.is_ready() { State::Left } else { State::Future });
        run
    }

    /// Moves what the future has left into an `Option` of its type. Nothing happens if there is nothing.
    pub fn take(&self, into: &mut dyn Any) {
        if self.begin(State::Left) {
            // SAFETY: the table is that of the future, and the cell is ours (test: `nobody_gets_at_what_is_being_polled`).
            unsafe { (self.head().table.get().take)(self.0, into) };
            self.head().state.set(State::Empty);
        }
    }

    /// Drops what is in it, unless somebody is at it.
    #[inline]
    pub fn empty(&self) {
        let drop = match self.head().state.get() {
            State::Future => self.head().table.get().end,
            State::Left => self.head().table.get().drop_left,
            State::Empty | State::Busy => return,
        };
        self.head().state.set(State::Busy);
        // SAFETY: the table is that of the future, the cell is ours, and the state was the one of this function (test:
        // `nobody_gets_at_what_is_being_polled`).
        unsafe { drop(self.0) };
        self.head().state.set(State::Empty);
    }

    /// Somebody polls what is in it, or drops it.
    #[inline]
    pub fn is_busy(&self) -> bool {
        self.head().state.get() == State::Busy
    }

    /// Nothing is in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.head().state.get() == State::Empty
    }

    /// The class of what it can be filled with.
    #[inline]
    pub fn class(&self) -> u8 {
        self.head().table.get().class
    }

    /// Whether it has one of these marks. They are the owner's; a new cell has none.
    #[inline]
    pub fn has(&self, marks: u16) -> bool {
        self.head().marks.get() & marks != 0
    }

    /// From now on it has these marks too.
    #[inline]
    pub fn mark(&self, marks: u16) {
        self.head().marks.set(self.head().marks.get() | marks);
    }

    /// From now on it has none of these.
    #[inline]
    pub fn unmark(&self, marks: u16) {
        self.head().marks.set(self.head().marks.get() & !marks);
    }

    /// From now on it has these marks and no others.
    #[inline]
    pub fn set_marks(&self, marks: u16) {
        self.head().marks.set(marks);
    }

    /// A number of the owner; zero in a new cell.
    #[inline]
    pub fn number(&self) -> u32 {
        self.head().number.get()
    }

    #[inline]
    pub fn set_number(&self, number: u32) {
        self.head().number.set(number);
    }
}

impl<H: 'static> Clone for TaskCell<H> {
    /// # Panics
    /// With 255 of one cell.
    #[inline]
    fn clone(&self) -> Self {
        let count = &self.head().count;
        count.set(count.get().checked_add(1).expect("a cell is counted up to 255"));
        Self(self.0)
    }
}

impl<H: 'static> Deref for TaskCell<H> {
    type Target = H;

    #[inline]
    fn deref(&self) -> &H {
        &self.head().own
    }
}

impl<H: 'static> Drop for TaskCell<H> {
    #[inline]
    fn drop(&mut self) {
        let count = &self.head().count;
        count.set(count.get() - 1);
        if count.get() == 0 {
            self.free();
        }
    }
}

impl<H: 'static> TaskCell<H> {
    /// The last one has gone.
    #[cold]
    #[inline(never)]
    fn free(&mut self) {
        self.empty();
        if !self.is_empty() {
            // A panic has left it so.
            return;
        }
        let layout = self.head().table.get().layout;
        // SAFETY: nobody else has the cell, and we do not look at it again (test: `a_cell_is_there_until_the_last_one_has_gone`).
        unsafe { self.0.drop_in_place() };
        // SAFETY: it was allocated with the layout of its class, or of the type that lay there last if that has none, which is the one that
        // lay there first (test: `a_cell_is_there_until_the_last_one_has_gone`).
        unsafe { dealloc(self.0.as_ptr().cast(), layout) };
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::rc::Rc;

    use super::*;

    /// Notes its ends; ready when it has been polled so often.
    struct Body<const WORDS: usize> {
        polls_left: usize,
        ended: Rc<Cell<usize>>,
        dropped: Rc<Cell<usize>>,
        _words: [u64; WORDS],
    }

    impl<const WORDS: usize> Run for Body<WORDS> {
        type Left = Left;

        fn run(mut self: Pin<&mut Self>, waker: &Waker) -> Poll<Left> {
            waker.wake_by_ref();
            self.polls_left = self.polls_left.checked_sub(1).expect("polled too often");
            let left = || Left { words: WORDS, ended: Rc::clone(&self.ended) };
            if self.polls_left == 0 { Poll::Ready(left()) } else { Poll::Pending }
        }

        fn guard(_left: Option<&Left>, end: impl FnOnce()) {
            end();
        }

        fn take(left: Left, into: &mut dyn Any) {
            *into.downcast_mut::<Option<usize>>().unwrap() = Some(left.words);
        }
    }

    impl<const WORDS: usize> Drop for Body<WORDS> {
        fn drop(&mut self) {
            self.dropped.set(self.dropped.get() + 1);
        }
    }

    struct Left {
        words: usize,
        ended: Rc<Cell<usize>>,
    }

    impl Drop for Left {
        fn drop(&mut self) {
            self.ended.set(self.ended.get() + 1);
        }
    }

    #[derive(Default)]
    struct Counts {
        ended: Rc<Cell<usize>>,
        dropped: Rc<Cell<usize>>,
    }

    impl Counts {
        fn body<const WORDS: usize>(&self, polls_left: usize) -> Body<WORDS> {
            let (ended, dropped) = (Rc::clone(&self.ended), Rc::clone(&self.dropped));
            Body { polls_left, ended, dropped, _words: [7; WORDS] }
        }

        /// What futures have left that is dropped, and futures that are.
        fn are(&self, ended: usize, dropped: usize) -> bool {
            (self.ended.get(), self.dropped.get()) == (ended, dropped)
        }
    }

    type Own = Rc<Cell<u8>>;

    #[test]
    fn a_cell_holds_one_future_after_the_other() {
        let counts = Counts::default();
        let cell = TaskCell::new(Own::default(), counts.body::<3>(2));
        assert_eq!(cell.class(), TaskCell::<Own>::class_of::<Body<3>>());
        let mut words = None::<usize>;
        assert_eq!(cell.run(Waker::noop()), Poll::Pending);
        cell.take(&mut words);
        assert!(words.is_none() && counts.are(0, 0));
        assert_eq!(cell.run(Waker::noop()), Poll::Ready(()));
        assert!(counts.are(0, 1) && cell.run(Waker::noop()).is_pending());
        let filled = catch_unwind(AssertUnwindSafe(|| cell.fill(counts.body::<3>(1))));
        assert!(filled.is_err() && !cell.is_empty());
        assert!(counts.are(0, 2), "what found no room");
        cell.take(&mut words);
        assert!(words == Some(3) && cell.is_empty() && counts.are(1, 2));
        cell.empty();

        // Of another type, and of the same class.
        assert_eq!(cell.class(), TaskCell::<Own>::class_of::<Body<2>>());
        cell.fill(counts.body::<2>(1));
        assert_eq!(cell.run(Waker::noop()), Poll::Ready(()));
        assert!(counts.are(1, 3));
        cell.empty();
        assert!(counts.are(2, 3) && cell.is_empty());
        cell.fill(counts.body::<2>(1));
        cell.empty();
        assert!(counts.are(2, 4), "it has left nothing");
        let filled = catch_unwind(AssertUnwindSafe(|| cell.fill(counts.body::<20>(1))));
        assert!(filled.is_err() && counts.are(2, 5), "it has no room for that");
    }

    #[test]
    fn a_cell_is_there_until_the_last_one_has_gone() {
        let (counts, own) = (Counts::default(), Own::default());
        // One of its class, and one that is larger than all classes.
        let small = TaskCell::new(Rc::clone(&own), counts.body::<0>(1));
        let large = TaskCell::new(Rc::clone(&own), counts.body::<200>(1));
        assert!(small.class() != NO_CLASS && large.class() == NO_CLASS);
        large.empty();
        let filled = catch_unwind(AssertUnwindSafe(|| large.fill(counts.body::<200>(1))));
        assert!(filled.is_err() && counts.are(0, 2), "it is of no class");
        let ended = TaskCell::new(Rc::clone(&own), counts.body::<1>(1));
        assert!(ended.run(Waker::noop()).is_ready());
        let others = (small.clone(), large.clone(), ended.clone());
        small.set(9);
        small.set_number(5);
        small.mark(4);
        small.mark(1);
        small.unmark(4);
        drop((small, large, ended));
        assert!(others.0.has(1) && !others.0.has(4) && others.0.number() == 5);
        assert_eq!((others.1.get(), Rc::strong_count(&own)), (9, 4));
        assert!(counts.are(0, 3));
        drop(others);
        assert!(counts.are(1, 4), "with what was in them");
        assert_eq!(Rc::strong_count(&own), 1);
    }

    #[test]
    fn nobody_gets_at_what_is_being_polled() {
        /// Does all that can be done to its own cell.
        struct Curious(Rc<Cell<Option<TaskCell<Own>>>>);

        impl Curious {
            fn try_all(&self) {
                let cell = self.0.take().unwrap();
                assert!(cell.is_busy() && !cell.is_empty() && cell.run(Waker::noop()).is_pending());
                let mut taken = None::<usize>;
                cell.take(&mut taken);
                cell.empty();
                assert!(cell.is_busy() && taken.is_none());
                self.0.set(Some(cell));
            }
        }

        impl Drop for Curious {
            fn drop(&mut self) {
                self.try_all();
            }
        }

        impl Run for Curious {
            type Left = Self;

            fn run(self: Pin<&mut Self>, _waker: &Waker) -> Poll<Self> {
                self.try_all();
                Poll::Ready(Self(Rc::clone(&self.0)))
            }

            fn guard(left: Option<&Self>, end: impl FnOnce()) {
                left.inspect(|left| left.try_all());
                end();
                left.inspect(|left| left.try_all());
            }

            fn take(left: Self, into: &mut dyn Any) {
                drop(left);
                *into.downcast_mut::<Option<usize>>().unwrap() = Some(1);
            }
        }

        let place = Rc::default();
        let cell = TaskCell::new(Own::default(), Curious(Rc::clone(&place)));
        place.set(Some(cell.clone()));
        assert!(cell.run(Waker::noop()).is_ready() && !cell.is_busy());
        let mut taken = None::<usize>;
        cell.take(&mut taken);
        assert!(taken == Some(1) && cell.is_empty());
        cell.fill(Curious(Rc::clone(&place)));
        cell.empty();
        cell.fill(Curious(Rc::clone(&place)));
        assert!(cell.run(Waker::noop()).is_ready());
        cell.empty();
        assert!(cell.is_empty());
        drop(place.take());
    }

    #[test]
    fn what_has_panicked_stays_where_it_is() {
        let counts = Counts::default();
        let cell = TaskCell::new(Own::default(), counts.body::<1>(0));
        let run = catch_unwind(AssertUnwindSafe(|| cell.run(Waker::noop())));
        assert!(run.is_err() && cell.is_busy());
        cell.empty();
        let filled = catch_unwind(AssertUnwindSafe(|| cell.fill(counts.body::<1>(1))));
        assert!(filled.is_err() && counts.are(0, 1));
        // Miri would call the rest a leak, which it is.
        if cfg!(miri) {
            cell.head().state.set(State::Future);
        }
        drop(cell);
        assert!(counts.are(0, if cfg!(miri) { 2 } else { 1 }));
    }
}
