//! What one worker has done: the ledger.
//!
//! The worker counts in plain integers and publishes them once a turn; any thread reads the published
//! copy. One writer, relaxed stores, no cross-core read-modify-write: a turn pays about one store per
//! counter, a request pays nothing. Figures of one snapshot may be a turn apart from each other. When the present turn began is
//! published when it does, so that one that does not end is seen from outside.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::clockwork::Instant;
use crate::driver::IoCounts;

macro_rules! ledger {
    (
        driver: { $($(#[doc = $io_doc:expr])+ $io_field:ident,)* }
        worker: { $($(#[doc = $doc:expr])+ $field:ident,)* }
    ) => {
        /// Counters of one worker, or the sum over several, since start.
        ///
        /// All of them only grow, but `budget_events`, `held_input_bytes`, `held_output_bytes` and `pool_blocks_in_use`, which are
        /// gauges: what they are now. [`Stats::since`] gives the difference of two snapshots, which is how to get figures per request
        /// for a known load.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[doc = $io_doc])+ pub $io_field: u64,)*
            $($(#[doc = $doc])+ pub $field: u64,)*
        }

        impl Stats {
            /// Name and value of every counter, in a fixed order, for exporters.
            pub fn fields(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [
                    $((stringify!($io_field), self.$io_field),)*
                    $((stringify!($field), self.$field),)*
                ]
                .into_iter()
            }

            /// These, which a worker counts itself, with what its driver had counted at another time.
            pub(crate) fn with_io_of(&self, other: &Self) -> Self {
                Self { $($io_field: other.$io_field,)* ..*self }
            }

            /// Adds another worker's counters to these.
            pub fn merge(&mut self, other: &Self) {
                $(self.$io_field = self.$io_field.wrapping_add(other.$io_field);)*
                $(self.$field = self.$field.wrapping_add(other.$field);)*
            }

            /// What was counted after `earlier` was taken.
            #[must_use]
            pub fn since(&self, earlier: &Self) -> Self {
                Self {
                    $($io_field: self.$io_field.wrapping_sub(earlier.$io_field),)*
                    $($field: self.$field.wrapping_sub(earlier.$field),)*
                }
            }
        }

        /// The copy of a worker's counters that other threads read.
        #[derive(Default)]
        pub struct Published {
            /// When the work of the present turn began, in nanoseconds; zero while the worker waits.
            working_since: AtomicU64,
            $($io_field: AtomicU64,)*
            $($field: AtomicU64,)*
        }

        impl Published {
            /// By the worker that owns the counters, at the end of each turn's work. What the driver counts is taken from it.
            pub fn store(&self, stats: &Stats, io: &IoCounts) {
                $(self.$io_field.store(io.$io_field, Relaxed);)*
                $(self.$field.store(stats.$field, Relaxed);)*
                self.working_since.store(0, Relaxed);
            }

            /// By the worker, when the work of a turn begins, which in a world may be at zero: then it is none. It ends when the counters
            /// are published.
            #[inline]
            pub fn begin_turn(&self, now: Instant) {
                self.working_since.store(now.as_nanos(), Relaxed);
            }

            /// When the work of the present turn began, if there is one. By anybody.
            pub fn working_since(&self) -> Option<Instant> {
                match self.working_since.load(Relaxed) {
                    0 => None,
                    nanos => Some(Instant::from_nanos(nanos)),
                }
            }

            /// Behind the last time that the worker has published.
            pub fn count_panics(&self, panics: u64) {
                self.panics.fetch_add(panics, Relaxed);
            }

            /// By anybody.
            pub fn load(&self) -> Stats {
                Stats {
                    $($io_field: self.$io_field.load(Relaxed),)*
                    $($field: self.$field.load(Relaxed),)*
                }
            }
        }
    };
}

ledger! {
    driver: {
        /// System calls that waited for events (`epoll_pwait`, `epoll_pwait2`).
        syscalls_wait,
        /// `recv` calls.
        syscalls_recv,
        /// `send` and `sendmsg` calls.
        syscalls_send,
        /// `sendfile` calls, and `pread` calls for files that the kernel cannot send by itself.
        syscalls_sendfile,
        /// `splice` calls, and `read` calls for what a target left of them.
        syscalls_splice,
        /// `recvmmsg` calls, each of which receives a batch of datagrams.
        syscalls_recvmmsg,
        /// `sendmmsg` calls, each of which sends a batch of datagrams.
        syscalls_sendmmsg,
        /// `accept4` calls.
        syscalls_accept,
        /// `epoll_ctl` calls: one for each listener, at most one for each connection, none for its requests; two for each time
        /// that a listener is paused, or that a datagram socket has to wait for room.
        syscalls_ctl,
        /// `close` calls.
        syscalls_close,
        /// `shutdown` calls.
        syscalls_shutdown,
        /// `socket` and `connect` calls.
        syscalls_connect,
        /// `setsockopt`, `getsockopt`, `ioctl` and the reserve descriptor's `eventfd` and `close`.
        syscalls_other,
        /// Bytes received from peers.
        received_bytes,
        /// Bytes sent to peers, those of files included.
        sent_bytes,
        /// Bytes of relays that the kernel moved from one connection to another. They are counted as received and as sent too.
        spliced_bytes,
        /// Reads cut off because the connection's share of the turn was used up.
        quantum_hits,
        /// Reads that found nothing.
        receives_empty,
        /// Sends cut short by the peer's window.
        sends_blocked,
        /// Datagrams received.
        datagrams_received,
        /// Datagrams sent.
        datagrams_sent,
        /// Datagrams that the kernel would not send: no way there, forbidden, too long.
        datagrams_refused,
        /// Datagrams received that were longer than they may be, and were cut
        /// ([`UdpOptions::datagram_bytes_max`](crate::UdpOptions)).
        datagrams_truncated,
        /// Errors that the kernel told of datagram sockets, such as ICMP messages. None of them ends a socket.
        datagram_errors,
        /// Times that no file descriptor was left for a peer (EMFILE, ENFILE, ENOMEM, ENOBUFS).
        descriptors_exhausted,
    }
    worker: {
        /// Requests answered, as the protocol above counts them (`Conn::count_requests`).
        requests,
        /// `write` calls to an eventfd to wake a worker.
        syscalls_wake,
        /// Turns of the loop.
        turns,
        /// Turns that waited without a bound or until a deadline.
        waits_blocked,
        /// Turns that only looked, because work was left.
        waits_polled,
        /// Turns that only looked, because the wait strategy was spinning.
        waits_spun,
        /// Spins that an event ended before the worker would have slept.
        spins_paid,
        /// Spins that ended in sleep.
        spins_unpaid,
        /// Events delivered by the driver. Divided by the waits this is the batching factor.
        events,
        /// Waits that brought as many events as the budget allows.
        waits_saturated,
        /// Events per turn that the poll budget allows now (a gauge; summed over workers).
        budget_events,
        /// Bytes of input copied because a callback left them unconsumed.
        copied_bytes,
        /// Blocks taken from the buffer pool's free lists.
        pool_hits,
        /// Blocks that had to be allocated.
        pool_misses,
        /// Blocks of the buffer pool that connections have now (a gauge): zero when all of them are idle.
        pool_blocks_in_use,
        /// Memory of input that protocols have not consumed, in whole blocks, in bytes (a gauge).
        held_input_bytes,
        /// Memory of output that waits to leave, in whole blocks and shared bytes; not of files (a gauge).
        held_output_bytes,
        /// Sources resumed from the ready list.
        ready_resumed,
        /// Times that a protocol gave way to others with input left (`Flow::Yield`).
        yields,
        /// Wake-ups sent to this worker by a system call.
        wakeups_sent,
        /// Wake-ups of this worker that needed none, because it was awake or already told.
        wakeups_suppressed,
        /// Messages taken from the mailbox: wakes, and what other threads and workers have asked for.
        mailbox_messages,
        /// Timers that fired.
        timers_fired,
        /// Timers that came up early because activity had moved the deadline.
        timers_moved,
        /// Datagrams that were to be sent and were lost here: the socket's queue was full
        /// ([`UdpOptions::queue_bytes_max`](crate::UdpOptions)), the datagram longer than any may be, or the socket closed before the
        /// kernel took it. And those that came for a task and were not kept: nobody received what waited
        /// ([`UdpOptions::unread_bytes_max`](crate::UdpOptions)), or they were of another than the socket's peer.
        datagrams_dropped,
        /// Connections accepted.
        accepted,
        /// Outgoing connections established.
        connected,
        /// Outgoing connections that failed or timed out.
        connect_failures,
        /// Connections turned away: limit reached, or the accept function panicked.
        shed,
        /// Connections that ended, for whatever reason.
        closed,
        /// Connections that ended by a failure of the stream, such as the peer's reset, or of a file on its way.
        failed,
        /// Connections that a layer has ended because it failed, such as handshakes of TLS that came to nothing
        /// ([`Lost::LayerFailed`](crate::Lost::LayerFailed)).
        layer_failures,
        /// Connections cut because the peer read too slowly.
        stalled,
        /// Connections cut because unconsumed input reached its limit.
        input_overflows,
        /// Connections cut because others sent them more than they take.
        output_overflows,
        /// Idle connections closed to make room for newcomers.
        evicted,
        /// Connections turned away because their address had as many as it may have.
        shed_by_address,
        /// Connections cut, and requests refused, because the worker's connections held more memory than they may.
        memory_overflows,
        /// Times that memory was given back to the system because a spike was over.
        spikes,
        /// Answers that a protocol gave up because their client had left, as it counts them (`Conn::count_abandoned`).
        abandoned,
        /// Times that a connection's queue passed high water and did not leave at once: its reading was paused.
        backed_up,
        /// Panics caught: in callbacks, each of which cost one connection, and in destructors of what the program handed over.
        panics,
        /// Turns whose work took at least the long-turn limit (10 ms by default).
        long_turns,
        /// Time spent in turns, waiting not included, in nanoseconds.
        busy_nanos,
    }
}

impl Stats {
    /// System calls of all kinds.
    #[must_use]
    pub fn syscalls(&self) -> u64 {
        self.syscalls_wait
            + self.syscalls_recv
            + self.syscalls_send
            + self.syscalls_sendfile
            + self.syscalls_splice
            + self.syscalls_recvmmsg
            + self.syscalls_sendmmsg
            + self.syscalls_accept
            + self.syscalls_ctl
            + self.syscalls_close
            + self.syscalls_shutdown
            + self.syscalls_connect
            + self.syscalls_wake
            + self.syscalls_other
    }

    /// Connections that were open when these counters were read.
    #[must_use]
    pub fn open(&self) -> u64 {
        (self.accepted + self.connected).saturating_sub(self.closed)
    }

    /// A figure divided by the requests answered; zero before the first request.
    #[must_use]
    pub fn per_request(&self, figure: u64) -> f64 {
        if self.requests == 0 { 0.0 } else { figure as f64 / self.requests as f64 }
    }

    /// Events delivered per wait; zero before the first wait.
    #[must_use]
    pub fn events_per_wait(&self) -> f64 {
        let waits = self.waits_blocked + self.waits_polled + self.waits_spun;
        if waits == 0 { 0.0 } else { self.events as f64 / waits as f64 }
    }
}

/// The ledger line: what a request cost.
impl std::fmt::Display for Stats {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "{} requests; per request: {:.3} syscalls, {:.1} B copied, {:.4} pool blocks allocated, \
             {:.4} wake-ups; {:.2} events per wait",
            self.requests,
            self.per_request(self.syscalls()),
            self.per_request(self.copied_bytes),
            self.per_request(self.pool_misses),
            self.per_request(self.wakeups_sent),
            self.events_per_wait(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_what_others_read() {
        let stats = Stats { requests: 3, busy_nanos: 7, ..Stats::default() };
        let published = Published::default();
        let io = IoCounts { sent_bytes: 9, ..IoCounts::default() };
        published.store(&stats, &io);
        assert_eq!(published.load(), Stats { sent_bytes: 9, ..stats });
    }

    #[test]
    fn a_difference_leaves_what_came_later() {
        let earlier = Stats { requests: 3, ..Stats::default() };
        let mut later = earlier;
        later.merge(&Stats { requests: 4, events: 1, ..Stats::default() });
        let between = later.since(&earlier);
        assert_eq!((between.requests, between.events), (4, 1));
    }

    #[test]
    fn every_counter_has_a_field_name_once() {
        let mut names: Vec<_> = Stats::default().fields().map(|(name, _)| name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
