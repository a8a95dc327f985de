//! TLS as a layer: records from the wire to plain text and back, on the machine of rustls that has no buffers of its own.
//!
//! rustls is given whole records, one at a time, where they lie in the read block; what it has taken is consumed. What it has not is a
//! part of a handshake message that goes on in the next record: it lies at the front of the input, rustls knows where, and wants it in front of whatever
//! it is given next.
//!
//! Invariant: `held` bytes at the front of the input are whole records of that kind. Whoever asks rustls for anything else, to seal or to say the last
//! word, shows it as many bytes of no meaning, because it cuts off so many without looking; fewer would be a panic that a peer can bring
//! about.
//!
//! An idle connection owns the machine, which is boxed, and nothing else. rustls allocates for each record that is received and for each that
//! is sent.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};

use super::facts::TlsFacts;
use super::side::Side;
use crate::clockwork::Instant;
use crate::conn::{Conn, Flow, Input, Layer, Upper};

/// Type, version and length of a record.
const HEADER_BYTES: usize = 5;
/// The most that a record may carry, sealed, in TLS 1.2 (RFC 5246, section 6.2.3); 1.3 allows less.
const SEALED_BYTES_MAX: usize = 16 * 1024 + 2048;
/// What sealing adds to a record, whatever the suite: header, nonce, type and tag are 29 bytes at most.
const SEAL_BYTES: usize = 32;
/// Of a last word, or of a message of the handshake at a first guess.
const MESSAGE_BYTES: usize = 256;

/// How a handshake is bounded.
#[derive(Debug, Clone, Copy)]
pub struct HandshakeLimits {
    pub time: Duration,
    pub bytes_max: usize,
    pub steps_per_turn: usize,
}

impl Default for HandshakeLimits {
    fn default() -> Self {
        Self { time: Duration::from_secs(10), bytes_max: 64 * 1024, steps_per_turn: 16 }
    }
}

/// TLS as a [`Layer`]: of [`TlsServer::layer`](super::TlsServer::layer) or [`TlsClient::layer`](super::TlsClient::layer).
///
/// The protocol above opens when the handshake is done, and closes behind a `close_notify`. Its `eof` is the peer's `close_notify`; a connection that
/// ends without one was cut, and is reset.
pub struct Tls<S: Side> {
    machine: Box<S>,
    limits: HandshakeLimits,
    /// Bytes at the front of the input of which rustls has a part of a message.
    held: usize,
    /// The host that the client has named, until the protocol above is told.
    named_host: Option<Box<str>>,
    /// Something has come.
    is_addressed: bool,
    /// The peer has said its last word.
    has_ended: bool,
}

impl<S: Side> Tls<S> {
    pub(super) fn new(machine: S, limits: HandshakeLimits) -> Self {
        Self {
            machine: Box::new(machine),
            limits,
            held: 0,
            named_host: None,
            is_addressed: false,
            has_ended: false,
        }
    }

    /// Has rustls work on these bytes until it wants more. Returns how many it is done with.
    fn process(
        &mut self,
        conn: &mut Conn<'_>,
        records: &mut [u8],
        upper: &mut Upper<'_>,
    ) -> Result<usize, rustls::Error> {
        let mut done = 0;
        loop {
            let UnbufferedStatus { mut discard, state } = self.machine.process(&mut records[done..]);
            let wants_more = match state {
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    encode(conn, data);
                    false
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    false
                }
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        upper.received_copy(conn, record.payload);
                    }
                    false
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.has_ended = true;
                    upper.eof(conn);
                    false
                }
                Ok(_) => true,
                Err(error) => {
                    done += discard;
                    self.say_alert(conn, &mut records[done..]);
                    return Err(error);
                }
            };
            done += discard;
            if wants_more {
                return Ok(done);
            }
        }
    }

    /// What rustls has to say about a failure. It is not asked for more than that: it would fail again.
    fn say_alert(&mut self, conn: &mut Conn<'_>, records: &mut [u8]) {
        while self.machine.wants_write() {
            let UnbufferedStatus { state, .. } = self.machine.process(records);
            let Ok(ConnectionState::EncodeTlsData(data)) = state else { return };
            encode(conn, data);
        }
    }

    /// Has something sealed.
    fn write(
        &mut self,
        conn: &mut Conn<'_>,
        reserve: usize,
        mut seal: impl FnMut(&mut WriteTraffic<'_, S::Data>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Flow {
        let mut no_records = vec![0; self.held];
        loop {
            let UnbufferedStatus { state, .. } = self.machine.process(&mut no_records);
            match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let sealed = conn.append(reserve, |out| {
                        let (queued, mut room) = (out.len(), reserve);
                        loop {
                            out.resize(queued + room, 0);
                            match seal(&mut traffic, &mut out[queued..]) {
                                // An answer to a key update goes in front, and was not reckoned with.
                                Err(EncryptError::InsufficientSize(size)) => room = size.required_size,
                                Ok(bytes) => {
                                    out.truncate(queued + bytes);
                                    return true;
                                }
                                Err(EncryptError::EncryptExhausted) => {
                                    out.truncate(queued);
                                    return false;
                                }
                            }
                        }
                    });
                    // Nothing can be said any more under this key.
                    return if sealed { Flow::Continue } else { Flow::Reset };
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(conn, data),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                _ => return Flow::Reset,
            }
        }
    }

    /// The handshake is done, unless it is not.
    fn open(&mut self, conn: &mut Conn<'_>, upper: &mut Upper<'_>) {
        if upper.is_open() {
            return;
        }
        self.named_host = S::take_named_host().or(self.named_host.take());
        if self.machine.is_handshaking() {
            return;
        }
        conn.clear_deadline();
        if let Some(facts) = TlsFacts::of(&*self.machine, self.named_host.take()) {
            upper.tell_facts(Arc::new(facts));
        }
        upper.open(conn);
    }

    /// The connection ends for this reason. Who has an alert on its way is read meanwhile, or what it still sends would destroy it.
    #[cold]
    fn fail(&mut self, conn: &mut Conn<'_>, upper: &mut Upper<'_>, error: rustls::Error) -> Flow {
        upper.fail(conn, io::Error::new(io::ErrorKind::InvalidData, error));
        self.has_ended = true;
        Flow::Linger
    }
}

/// Puts a message of rustls on the wire.
fn encode<D>(conn: &mut Conn<'_>, mut data: EncodeTlsData<'_, D>) {
    conn.append(MESSAGE_BYTES, |out| {
        let (queued, mut room) = (out.len(), MESSAGE_BYTES);
        loop {
            out.resize(queued + room, 0);
            match data.encode(&mut out[queued..]) {
                Ok(bytes) => return out.truncate(queued + bytes),
                Err(EncodeError::InsufficientSize(size)) => room = size.required_size,
                Err(EncodeError::AlreadyEncoded) => unreachable!("a message is encoded once"),
            }
        }
    });
}

/// How many of these bytes, the first of which begin a record, rustls is given. None while there is only a part of a record.
fn next_record(bytes: &[u8]) -> Option<usize> {
    let [kind, major, _, high, low, ..] = *bytes else { return None };
    let carried = usize::from(u16::from_be_bytes([high, low]));
    if !matches!(kind, 20..=23) || major != 3 || carried > SEALED_BYTES_MAX {
        // It is no record, and rustls says so without waiting for the rest.
        return Some(bytes.len());
    }
    let record = HEADER_BYTES + carried;
    (record <= bytes.len()).then_some(record)
}

impl<S: Side> Layer for Tls<S> {
    fn opened(&mut self, conn: &mut Conn<'_>, upper: &mut Upper<'_>) -> Flow {
        conn.set_deadline(self.limits.time);
        match self.process(conn, &mut [], upper) {
            Ok(_) => Flow::Continue,
            Err(error) => self.fail(conn, upper, error),
        }
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>, upper: &mut Upper<'_>) -> Flow {
        self.is_addressed = true;
        while !self.has_ended && (!upper.is_open() || upper.takes_more(conn)) {
            let bytes = input.bytes_mut();
            let Some(record) = next_record(&bytes[self.held..]) else { break };
            if !upper.is_open() && !conn.takes_handshake_step(self.limits.steps_per_turn) {
                return Flow::Yield;
            }
            if !upper.is_open() {
                // What a handshake that has failed, or a resolver that has panicked, has left is of another connection.
                drop(S::take_named_host());
            }
            let given = self.held + record;
            let done = match self.process(conn, &mut bytes[..given], upper) {
                Ok(done) => done,
                Err(error) => return self.fail(conn, upper, error),
            };
            input.advance(done);
            self.held = given - done;
            self.open(conn, upper);
            if self.held > self.limits.bytes_max {
                break;
            }
        }
        if self.has_ended {
            // Behind its last word a peer has nothing to say.
            input.advance_all();
            if !upper.is_open() {
                return self.leave(conn, upper);
            }
        }
        let waits = if upper.is_open() { self.held } else { input.len() };
        if waits > self.limits.bytes_max {
            let why = "more of a handshake has come than may wait for the rest";
            upper.fail(conn, io::Error::new(io::ErrorKind::QuotaExceeded, why));
            return Flow::Close;
        }
        conn.unchanged_flow()
    }

    fn send(&mut self, conn: &mut Conn<'_>, plain: &[u8]) -> Flow {
        self.write(conn, plain.len() + SEAL_BYTES, |traffic, out| traffic.encrypt(plain, out))
    }

    fn finish(&mut self, conn: &mut Conn<'_>) {
        // If it cannot be sealed, nothing can: the connection ends without it.
        let _ = self.write(conn, MESSAGE_BYTES, |traffic, out| traffic.queue_close_notify(out));
    }

    fn eof(&mut self, conn: &mut Conn<'_>, _input: &mut Input<'_>, upper: &mut Upper<'_>) -> Flow {
        if self.has_ended {
            return conn.unchanged_flow();
        }
        if !upper.is_open() {
            return self.leave(conn, upper);
        }
        if upper.is_idle(conn) {
            return Flow::Close;
        }
        let why = "the connection was cut: the peer has not said that it ends";
        upper.fail(conn, io::Error::new(io::ErrorKind::UnexpectedEof, why));
        Flow::Reset
    }

    fn deadline(&mut self, conn: &mut Conn<'_>, upper: &mut Upper<'_>) -> Flow {
        upper.fail(conn, io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long"));
        Flow::Close
    }

    fn idle_since(&mut self, conn: &mut Conn<'_>) -> Option<Instant> {
        if !S::IS_ACCEPTED {
            return None;
        }
        // The deadline was set when the connection opened.
        let deadline = conn.deadline()?.duration_since(Instant::ZERO);
        Some(Instant::ZERO.saturating_add(deadline.saturating_sub(self.limits.time)))
    }
}

impl<S: Side> Tls<S> {
    /// The peer has left in front of the end of the handshake. Who has not said anything only wanted to see whether somebody listens.
    fn leave(&mut self, conn: &mut Conn<'_>, upper: &mut Upper<'_>) -> Flow {
        if self.is_addressed {
            let why = "the peer has left in the middle of the handshake";
            upper.fail(conn, io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        Flow::Close
    }
}

impl<S: Side> fmt::Debug for Tls<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("is_handshaking", &self.machine.is_handshaking())
            .field("has_ended", &self.has_ended)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_given_when_it_is_whole_and_what_is_none_at_once() {
        assert_eq!(next_record(b"\x16\x03\x01\x00"), None, "a part of a header");
        assert_eq!(next_record(b"\x16\x03\x01\x00\x03ab"), None, "a part of a record");
        assert_eq!(next_record(b"\x16\x03\x01\x00\x03abc\x16"), Some(8), "one, and the next one begins");
        assert_eq!(next_record(b"GET / HTTP/1.1"), Some(14));
        assert_eq!(next_record(b"\x17\x03\x03\x48\x01"), Some(5), "longer than any");
    }
}
