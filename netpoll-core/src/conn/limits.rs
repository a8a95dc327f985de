//! Limits of one connection: each with a name, a default, a unit and a reason.

use std::time::Duration;

/// Bounds on what one connection may hold and how long it may take.
///
/// Zero in `connections_max`, `connections_per_address_max`, `write_grace` or `memory_bytes_max`, and `write_low_bytes`
/// above `write_high_bytes`, are errors when a runtime starts (`InvalidInput`), which name them. A simulated world takes
/// them as they are.
///
/// ```
/// use netpoll_core::ConnLimits;
/// let limits = ConnLimits::default().write_high_bytes(1 << 20).connections_max(10_000);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnLimits {
    /// Connections of one worker. Default 1 000 000: the slab holds 16 million, and a connection without buffers costs about 250
    /// bytes with HTTP on it. Outgoing connections count, but are not refused.
    ///
    /// When there are as many, the one that has idled longest ([`Protocol::idle_since`](crate::Protocol::idle_since),
    /// [`Stream::set_idle`](crate::net::Stream::set_idle)), for a
    /// quarter of a second at least, is closed for a newcomer; if none has, the newcomer is. From three
    /// quarters of them on, idle ones are closed the sooner the more there are: who has idled for 60 s at first, for 1 s near the end.
    /// The same happens when there is no descriptor, or no memory of the kernel, for a newcomer.
    pub connections_max: usize,
    /// Connections of one worker with peers of one address (IPv6: of one /64 network). Default `None`: any number. More
    /// are closed as they are accepted. Behind a proxy all have the proxy's address. Peers on Unix sockets have none, and are
    /// not limited.
    pub connections_per_address_max: Option<usize>,
    /// Queued output, in bytes, above which a connection is not read any more. Default 256 KiB: a slow
    /// reader then costs a bounded amount, and one large answer still fits. Of two who both send much before they read, none is read then:
    /// [`Conn::read_while_backed_up`](crate::Conn::read_while_backed_up) is for those. It stops input, not output: what a
    /// callback, a command or another thread sends beyond it is queued all the same; see `output_bytes_max`.
    pub write_high_bytes: usize,
    /// Queued output, in bytes, at which reading goes on. Default 64 KiB, a quarter of high water, so
    /// that the two do not chase each other.
    pub write_low_bytes: usize,
    /// Queued output, in bytes, above which a connection is reset when another connection or thread sends it more.
    /// Default 16 MiB: a few seconds of a fast stream, and a reader who is further behind gets news that is old. All
    /// that is queued counts, files with their length included, but only what others send is refused: a connection's
    /// own callbacks see [`Conn::is_backed_up`](crate::Conn::is_backed_up). One message to an empty queue always fits.
    pub output_bytes_max: usize,
    /// Least rate at which a peer has to take output that waits for it, in bytes per second. Default 256:
    /// the slowest mobile link does better, an attacker who reads a byte now and then does not. Who has taken all that waited
    /// at the last look is not behind, however little it was. Zero cuts nobody, and then nobody else does: a peer that never reads what was queued in front of our
    /// end ([`Flow::Close`](crate::Flow::Close), [`Flow::Linger`](crate::Flow::Linger), a stream that was dropped) stays until it does or is gone, the drain
    /// ends, or somebody resets the connection by its name ([`Commands::reset`](crate::Commands::reset), [`Handle::reset`](crate::Handle::reset)); the times
    /// of a lingering close begin behind that output. Of a peer on a Unix socket the kernel only tells that it
    /// has read a whole piece, of up to 64 KiB, so it is given the time that this takes at the least rate.
    pub write_rate_min: u32,
    /// How long output may wait before the rate is looked at, and how often from then on. Default 10 s.
    pub write_grace: Duration,
    /// Memory, in bytes, that all connections of one worker may hold together: unconsumed input, queued output (files
    /// and bytes that others hold as well do not count), and what protocols say that they keep
    /// ([`Conn::hold_memory`](crate::Conn::hold_memory)), such as uploads. Above it, who wants to hold more is cut
    /// ([`Lost::MemoryOverflow`](crate::Lost::MemoryOverflow)); whoever is served without that goes on being served.
    ///
    /// Default `None`: 256 MiB, but at most a quarter of what the process may use (the machine's memory, its control group's, its
    /// resource limits), divided by the workers. [`Handle::setup`](crate::Handle::setup) says what it is.
    pub memory_bytes_max: Option<usize>,
    /// Input, in bytes, that a protocol may leave when it asks for more; above it its connection is cut. Default 1 MiB. A protocol
    /// that needs larger messages consumes them piece by piece. Who gives way or pauses is not brought more than what its driver has
    /// received by then, one share ([`Budget`](crate::Budget)) as a rule, and is judged when it goes on. Behind a [`Layer`](crate::Layer) it is the protocol above that is
    /// judged, by what the layer has handed on; the layer itself may leave 96 KiB in any case, for records that are not whole yet.
    pub input_bytes_max: usize,
    /// How long a connection that is not in the middle of something may go on when a drain begins: what arrives within that time is
    /// served. Default 1 s: a request that was on its way arrives, with a retransmission. At most half of what is left of the drain, so
    /// that there is time for the end. Behind it an idle peer that does not close has `linger_silence_max`: a drain of such peers takes
    /// the sum, 3 s. See [`Flow::Retire`](crate::Flow::Retire) and [`Conn::drain_grace`](crate::Conn::drain_grace).
    pub drain_grace: Duration,
    /// Input, in bytes, discarded after [`Flow::Linger`](crate::Flow::Linger). Default 16 MiB: a client that writes all
    /// of a refused upload before it reads gets to its answer. Beyond it the connection is not read any more, which
    /// holds the peer back, and is closed when the time is over.
    pub linger_bytes_max: usize,
    /// How long a peer may be silent in a lingering close. Default 2 s: a few round trips and a retransmission.
    pub linger_silence_max: Duration,
    /// How long a lingering close takes at most, while the peer goes on sending. Default 10 s: 16 MiB at 13 Mbit/s.
    pub linger_time_max: Duration,
}

setters! {
    ConnLimits {
        connections_max: usize,
        write_high_bytes: usize,
        write_low_bytes: usize,
        output_bytes_max: usize,
        write_rate_min: u32,
        write_grace: Duration,
        input_bytes_max: usize,
        drain_grace: Duration,
        linger_bytes_max: usize,
        linger_silence_max: Duration,
        linger_time_max: Duration,
        connections_per_address_max: impl Into<Option<usize>>,
        memory_bytes_max: impl Into<Option<usize>>,
    }
}

/// The most that one worker's connections hold by default: a thousand uploads of a quarter MiB.
const MEMORY_BYTES: usize = 256 << 20;

impl ConnLimits {
    /// What a peer has to take within this time of output that waits for it, in bytes: [`write_rate_min`](Self::write_rate_min),
    /// rounded up. Zero if nobody is to be cut.
    #[must_use]
    pub fn least_taken_bytes(&self, within: Duration) -> u64 {
        let bytes = (u128::from(self.write_rate_min) * within.as_millis().max(1)).div_ceil(1000);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// What the connections of each of `workers` may hold, if the process may use so much.
    pub(crate) fn memory_bytes(&self, workers: usize, available: Option<u64>) -> usize {
        let share = available.map_or(u64::MAX, |bytes| bytes / 4 / workers.max(1) as u64);
        self.memory_bytes_max
            .unwrap_or_else(|| usize::try_from(share).unwrap_or(usize::MAX).min(MEMORY_BYTES))
    }
}

impl Default for ConnLimits {
    fn default() -> Self {
        Self {
            connections_max: 1_000_000,
            connections_per_address_max: None,
            write_high_bytes: 256 * 1024,
            write_low_bytes: 64 * 1024,
            output_bytes_max: 16 * 1024 * 1024,
            write_rate_min: 256,
            write_grace: Duration::from_secs(10),
            memory_bytes_max: None,
            input_bytes_max: 1024 * 1024,
            drain_grace: Duration::from_secs(1),
            linger_bytes_max: 16 * 1024 * 1024,
            linger_silence_max: Duration::from_secs(2),
            linger_time_max: Duration::from_secs(10),
        }
    }
}
