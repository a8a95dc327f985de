//! What goes wrong on a simulated network, and chance.

/// How often the network misbehaves, each in thousandths. Zero is never, 1000 always.
///
/// The default is a perfect network: whole chunks, immediate sends.
///
/// ```
/// use netpoll_core::sim::Faults;
///
/// let faults = Faults::stormy().descriptor_shortages(0).failed_files(20);
/// assert_eq!(faults.partial_sends, Faults::stormy().partial_sends);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Faults {
    /// Input arrives in pieces of random length.
    pub partial_receives: u16,
    /// Output leaves in pieces of random length, later: taken out of the queue at once and sent bit by bit, or left there
    /// but for a piece until there is room again, as chance will have it.
    pub partial_sends: u16,
    /// A connection stops delivering with input left, and has to be resumed.
    pub interrupted_receives: u16,
    /// Nothing is delivered for a connection in this turn. At 1000 nothing ever is.
    pub delays: u16,
    /// A wait brings fewer events than there are, or none at all, as one that a signal interrupts.
    pub short_waits: u16,
    /// Accepting fails for want of a descriptor (EMFILE), so that the listener rests: time has to pass, see
    /// [`Sim::settle`](struct.Sim.html#method.settle).
    pub descriptor_shortages: u16,
    /// Room to send is announced although nothing was sent.
    pub spurious_sent: u16,
    /// A chunk had left the socket already when its connection was paused, and comes in a later turn.
    pub late_receives: u16,
    /// A connection cannot be registered (ENOSPC): an accepted one is lost before its first callback, an outgoing one
    /// fails at once.
    pub failed_registrations: u16,
    /// A part of a file that is to be sent cannot be read (EIO): its connection is reset.
    pub failed_files: u16,
    /// A datagram is lost on its way, in either direction. The network is asked, not the peer's own faults, as for the other
    /// faults of datagrams.
    pub datagram_losses: u16,
    /// A datagram that is not lost arrives twice.
    pub datagram_duplicates: u16,
    /// A datagram gets in line before others that came earlier.
    pub datagram_reorders: u16,
    /// A peer is accepted without its address, as some interfaces of the kernel do it: [`Peer::addr`](crate::Peer::addr) is
    /// [`Address::Unknown`](crate::Address::Unknown), and [`Conn::peer_addr`](crate::Conn::peer_addr) says it.
    pub unsaid_addresses: u16,
    /// Who stands in the queue of a listener that is about to close is accepted in later turns, as by a driver whose accepts
    /// complete when they like.
    pub late_accepts: u16,
}

macro_rules! setters {
    ($($name:ident)*) => {
        impl Faults {$(
            #[doc = concat!("Sets [`", stringify!($name), "`](Self::", stringify!($name), "), in thousandths.")]
            #[must_use]
            pub const fn $name(mut self, per_mille: u16) -> Self {
                self.$name = per_mille;
                self
            }
        )*}
    };
}

setters! {
    partial_receives partial_sends interrupted_receives delays short_waits descriptor_shortages spurious_sent
    late_receives failed_registrations failed_files datagram_losses datagram_duplicates datagram_reorders
    unsaid_addresses late_accepts
}

impl Faults {
    /// A perfect network.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            partial_receives: 0,
            partial_sends: 0,
            interrupted_receives: 0,
            delays: 0,
            short_waits: 0,
            descriptor_shortages: 0,
            spurious_sent: 0,
            late_receives: 0,
            failed_registrations: 0,
            failed_files: 0,
            datagram_losses: 0,
            datagram_duplicates: 0,
            datagram_reorders: 0,
            unsaid_addresses: 0,
            late_accepts: 0,
        }
    }

    /// Whatever changes when something happens, and in which pieces, goes wrong often. What loses a connection
    /// (`failed_registrations`, `failed_files`) does not; datagrams are lost, doubled and overtaken.
    #[must_use]
    pub const fn stormy() -> Self {
        Self {
            partial_receives: 700,
            partial_sends: 600,
            interrupted_receives: 300,
            delays: 300,
            short_waits: 200,
            descriptor_shortages: 100,
            spurious_sent: 100,
            late_receives: 500,
            failed_registrations: 0,
            failed_files: 0,
            datagram_losses: 50,
            datagram_duplicates: 50,
            datagram_reorders: 200,
            unsaid_addresses: 300,
            late_accepts: 500,
        }
    }
}

/// Sebastiano Vigna's SplitMix64: tiny, and good enough to shuffle a network.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Another generator, whose numbers have nothing to do with those of this one.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// A number below this bound; zero for zero.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// A number in this range, both ends included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        if least < most { least + self.next() % (most - least + 1) } else { least }
    }

    /// Whether something happens that does so often in a thousand times.
    pub fn happens(&mut self, per_mille: u16) -> bool {
        per_mille > 0 && self.below(1000) < usize::from(per_mille)
    }

    /// All of it, or a part of at least one.
    pub fn part(&mut self, whole: usize, per_mille: u16) -> usize {
        if whole > 1 && self.happens(per_mille) { 1 + self.below(whole - 1) } else { whole }
    }
}
