//! The connection behind a stream: callbacks that put what they are told where the stream's task finds it.

use std::rc::Rc;

use super::shared::{Next, Shared};
use crate::clockwork::Instant;
use crate::conn::{Commands, Conn, Flow, Input, Lost, Protocol};
use crate::mem::Key;

use bytes::Bytes;

/// The protocol of a connection that a task has as a [`Stream`](super::Stream); made by [`in_task`](super::in_task).
pub struct Link(pub(super) Rc<Shared>);

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

/// One that is dropped without a call, because there was no slot for it or its upgrade was refused, has a task that waits.
impl Drop for Link {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Link {
    /// The task that waits for input is polled at once: neither is it listed, nor the input copied, nor the connection looked up again for
    /// what it has written.
    #[inline]
    fn received_by(&self, task: Key, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let shared = &*self.0;
        let mut rest = input.bytes();
        input.advance_all();
        shared.offer(&mut rest, || conn.lend(|| shared.lane().executor().poll_now(shared.lane(), task)));
        if rest.is_empty() && shared.send_draft(conn) {
            return Flow::Continue;
        }
        self.look_behind(conn, rest)
    }

    /// The poll has left more than what leaves at once, or input.
    #[inline(never)]
    fn look_behind(&self, conn: &mut Conn<'_>, rest: &[u8]) -> Flow {
        let is_behind = self.0.is_behind();
        if !rest.is_empty() {
            self.0.receive(conn.pool(), rest);
        }
        if is_behind && conn.is_short_of_memory() {
            return conn.let_go_for_memory();
        }
        match self.look_after(conn) {
            Flow::Continue if self.0.is_paused() => Flow::Pause,
            flow => flow,
        }
    }

    fn look_after(&self, conn: &mut Conn<'_>) -> Flow {
        match self.0.look_after(conn) {
            Next::Unchanged => conn.unchanged_flow(),
            Next::Receive => Flow::Continue,
            Next::Hold => Flow::Pause,
            Next::Close => Flow::Close,
            Next::Linger => Flow::Linger,
            Next::Reset => Flow::Reset,
        }
    }
}

impl Protocol for Link {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        // Who reads is not who writes.
        conn.read_while_backed_up(true);
        conn.give_to_task();
        self.0.opened(conn.key(), conn.is_veiled());
        self.look_after(conn)
    }

    #[inline]
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        if let Some(task) = self.0.take_reader() {
            return self.received_by(task, conn, input);
        }
        // Whoever has taken all that came before is served on, whatever others hold.
        let is_behind = self.0.is_behind();
        let goes_on = self.0.receive(conn.pool(), input.bytes());
        input.advance_all();
        self.0.look_at_grace(conn);
        if is_behind && conn.is_short_of_memory() {
            return conn.let_go_for_memory();
        }
        if goes_on { Flow::Continue } else { Flow::Pause }
    }

    /// The same where the task can take it from the socket.
    fn announced(&mut self, conn: &mut Conn<'_>) -> Option<Flow> {
        let shared = &*self.0;
        let task = shared.take_reader()?;
        shared.announce(|| conn.lend(|| shared.lane().executor().poll_now(shared.lane(), task)));
        Some(if shared.send_draft(conn) { Flow::Continue } else { self.look_behind(conn, &[]) })
    }

    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        if !input.is_empty() {
            self.0.receive(conn.pool(), input.bytes());
            input.advance_all();
        }
        self.0.end();
        conn.unchanged_flow()
    }

    /// Its task reads it in front of the error.
    fn takes_last_input(&mut self) -> bool {
        true
    }

    fn is_of_task(&self) -> bool {
        true
    }

    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.drained();
        conn.unchanged_flow()
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.look_after(conn)
    }

    fn outgoing(&mut self, conn: &mut Conn<'_>, bytes: Bytes) -> Flow {
        self.0.give_way(conn);
        conn.send_common(bytes);
        conn.unchanged_flow()
    }

    fn finishing(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.finish_for_others(conn);
        conn.finish();
        conn.unchanged_flow()
    }

    /// Its task hears of it, and ends it or does not; unless it is idle.
    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.retire_if_idle(conn);
        conn.unchanged_flow()
    }

    fn idle_since(&mut self, _conn: &mut Conn<'_>) -> Option<Instant> {
        self.0.idle_since()
    }

    fn closing(&mut self, conn: &mut Conn<'_>) -> Flow {
        self.0.close(conn);
        if self.0.is_idle_client() { Flow::Close } else { Flow::Linger }
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.0.lost(reason);
    }
}
