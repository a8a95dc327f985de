//! What code that a worker polls reaches of it without being handed it: tasks, and futures inside of callbacks.
//!
//! Such code has neither a `Conn` nor a `Local`, and the worker may be borrowed around it: a handler of HTTP is polled in a callback.
//! So it finds the lane that its thread is in, and there this. What it orders waits here, and an entry of the lane's list, as of
//! somebody who was woken, brings the worker to it.
//!
//! Invariant: nothing in here is borrowed while code of the program runs. Orders wait here exactly while their entry is on the list.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use super::commands::Command;
use super::{Commands, Handle, States};
use crate::mem::Key;
use crate::task::{Home, Lane, current, try_current};

/// What is reached of one worker.
pub struct Reach {
    handle: Handle,
    /// What is lent is made after these, which nobody gives orders to.
    commands: Commands,
    given: RefCell<Vec<Command>>,
}

impl Reach {
    /// The entry that orders have on the list of the lane: a key that no table issues.
    pub const GIVEN: Key = Key::new(u8::MAX, 0, 2);

    /// Of the worker with these commands.
    pub fn new(commands: &Commands, handle: &Handle) -> Rc<Self> {
        Rc::new(Self { handle: handle.clone(), commands: commands.more(), given: RefCell::default() })
    }

    /// What the lane of that worker keeps.
    pub fn home(self: &Rc<Self>, worker: u16, states: &States) -> Home {
        Home { worker: usize::from(worker), states: states.clone(), above: Rc::<Self>::clone(self) }
    }

    /// That of a lane, whose worker keeps it there.
    fn of(lane: &Lane) -> Option<&Self> {
        let above: &dyn Any = lane.above()?;
        above.downcast_ref()
    }

    /// Takes the orders that wait.
    pub fn take_given(&self) -> Vec<Command> {
        std::mem::take(&mut *self.given.borrow_mut())
    }

    pub fn shrink(&self) {
        self.given.borrow_mut().shrink_to_fit();
    }
}

/// Commands that are lent to code of the program. What it has ordered is handed on whether it returns or panics.
struct Lent<'a> {
    lane: &'a Lane,
    reach: &'a Reach,
    commands: Commands,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if self.commands.is_empty() {
            return;
        }
        let mut given = self.reach.given.borrow_mut();
        if given.is_empty() {
            self.lane.list(Reach::GIVEN);
        }
        self.commands.move_to(&mut given);
    }
}

impl Commands {
    /// Gives commands from code that a worker polls: a task, a handler, any future there. Callbacks have theirs at hand
    /// ([`Conn::commands`](crate::Conn::commands), [`Local::commands`](crate::Local::commands)).
    ///
    /// They are carried out soon after that code has returned to its worker: behind who was woken before, in the same turn unless that
    /// has polled [its share](crate::task#when-they-run), and in front of the output that leaves then. In order, among all that are given in this way.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use netpoll_core::sim::{Options, Sim};
    /// use netpoll_core::task::spawn_local;
    /// use netpoll_core::time::sleep;
    /// use netpoll_core::{Commands, Conn, Flow, Input, Protocol};
    ///
    /// /// Greets its peer a second after it has come, and closes.
    /// struct Greeter;
    /// impl Protocol for Greeter {
    ///     fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
    ///         let id = conn.id();
    ///         let task = spawn_local(async move {
    ///             sleep(Duration::from_secs(1)).await;
    ///             Commands::with(|commands| {
    ///                 commands.send(id, "hello".into());
    ///                 commands.close(id);
    ///             });
    ///         });
    ///         task.detach();
    ///         Flow::Continue
    ///     }
    ///
    ///     fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
    ///         input.advance_all();
    ///         Flow::Continue
    ///     }
    /// }
    ///
    /// let mut sim = Sim::new(Options::default());
    /// let listener = sim.listen(|_peer| Greeter);
    /// let peer = sim.connect(listener);
    /// sim.advance(Duration::from_secs(1));
    /// assert_eq!(sim.take_received(peer), b"hello");
    /// ```
    ///
    /// # Panics
    /// On a thread that is no worker: other threads have a [`Handle`].
    #[track_caller]
    pub fn with<R>(give: impl FnOnce(&mut Self) -> R) -> R {
        let lane = current("`Commands::with`");
        let reach = Reach::of(&lane).expect("a lane of a worker has what is reached of it");
        let mut lent = Lent { lane: &lane, reach, commands: reach.commands.more() };
        give(&mut lent.commands)
    }
}

impl Commands {
    /// Gives a command to the worker of this lane, from wherever on its thread.
    pub(crate) fn give(lane: &Rc<Lane>, command: Command) {
        let Some(reach) = Reach::of(lane) else { return };
        let _inside = lane.visit();
        let mut commands = reach.commands.more();
        commands.push(command);
        drop(Lent { lane, reach, commands });
    }
}

impl Handle {
    /// That of the runtime whose worker this thread is: for tasks, handlers, and whatever else runs there and was not given one.
    ///
    /// ```
    /// use netpoll_core::sim::{Options, Sim};
    /// use netpoll_core::{Handle, task};
    ///
    /// let mut sim = Sim::new(Options::default().workers(2));
    /// let sum = sim.block_on(async {
    ///     let other = Handle::current().spawn_on(1, || async { task::worker() + 40 });
    ///     task::worker() + other.await.unwrap()
    /// });
    /// assert_eq!(sum, 41);
    /// ```
    ///
    /// # Panics
    /// On a thread that is no worker.
    #[must_use]
    #[track_caller]
    pub fn current() -> Self {
        let lane = current("`Handle::current`");
        Reach::of(&lane).expect("a lane of a worker has what is reached of it").handle.clone()
    }

    /// The same; `None` on a thread that is no worker.
    #[must_use]
    pub fn try_current() -> Option<Self> {
        try_current().and_then(|lane| Reach::of(&lane).map(|reach| reach.handle.clone()))
    }
}
