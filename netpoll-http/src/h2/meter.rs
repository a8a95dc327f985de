//! What kinds of frames come, counted from their heads: how much of it is data, and how much asks for nothing.
//!
//! The frames themselves are read by others, which answer each PING and each SETTINGS for as long as somebody sends them. Here is what bounds that.
//!
//! Invariant: what is counted does not depend on how the bytes were cut. Touched by the connection only; nine bytes of state, and a few
//! operations a frame.

use std::time::Duration;

use netpoll_core::Instant;

/// Bytes in front of the first frame: the preface of a client.
const PREFACE_BYTES: u64 = 24;

/// Bytes of the head of a frame: its length in three, its type, its flags, its stream.
const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;

/// `END_STREAM` of a DATA frame: an empty one that has it says something.
const END_STREAM: u8 = 1;

/// `PADDED` of a DATA frame: its first byte says how much.
const PADDED: u8 = 8;

/// `END_HEADERS` of a frame with fields: no more of them follow.
const END_HEADERS: u8 = 4;

/// Idle frames that are let pass for each request beside those of the limit.
const FOR_A_REQUEST: u64 = 2;

/// Bytes that were sent, for each of which one more is let pass: a client that takes them says so.
const SENT_BYTES: u64 = 1024;

/// In which as many as the limit are let pass once more.
const PERIOD: Duration = Duration::from_secs(10);

/// Counts frames.
pub(super) struct Meter {
    head: [u8; HEAD_BYTES],
    /// Of `head`, what has come.
    head_bytes: usize,
    /// What is to be skipped in front of the next head.
    skip_bytes: u64,
    /// Bytes of DATA frames, without their padding.
    pub(super) data_bytes: u64,
    /// The next byte says how much padding a DATA frame has.
    is_at_padding: bool,
    /// More fields are to come.
    is_in_fields: bool,
    /// Since when a frame that is no DATA, or a block of fields, is there in part.
    half_since: Option<Instant>,
    /// The last stream that a request has come on.
    pub(super) last_stream: u32,
    idle_frames_max: u64,
    /// Idle frames that may still come.
    left: u64,
    /// When there were that many.
    looked_at: Instant,
    /// Bytes sent that were not counted.
    sent_bytes: u64,
}

impl Meter {
    pub(super) fn new(idle_frames_max: u32, now: Instant) -> Self {
        let idle_frames_max = u64::from(idle_frames_max);
        Self {
            head: [0; HEAD_BYTES],
            head_bytes: 0,
            skip_bytes: PREFACE_BYTES,
            data_bytes: 0,
            is_at_padding: false,
            is_in_fields: false,
            half_since: None,
            last_stream: 0,
            idle_frames_max,
            left: idle_frames_max,
            looked_at: now,
            sent_bytes: 0,
        }
    }

    /// Not even a frame has come.
    pub(super) fn is_fresh(&self) -> bool {
        self.skip_bytes > 0 && self.head == [0; HEAD_BYTES]
    }

    /// Since when it is waited for the rest of a frame, or of a block of fields: nothing else can come in front of that. The data of a body
    /// is its handler's to wait for.
    pub(super) fn half_since(&self) -> Option<Instant> {
        self.half_since
    }

    /// So much was sent.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent_bytes += bytes as u64;
        self.earn(self.sent_bytes / SENT_BYTES);
        self.sent_bytes %= SENT_BYTES;
    }

    fn earn(&mut self, frames: u64) {
        self.left = self.left.saturating_add(frames).min(self.idle_frames_max.saturating_mul(2));
    }

    /// Time has passed.
    fn refill(&mut self, now: Instant) {
        let passed = now.duration_since(self.looked_at).min(PERIOD).as_millis();
        let earned = u128::from(self.idle_frames_max) * passed / PERIOD.as_millis();
        // What is less than one frame goes on adding up.
        if earned > 0 {
            self.left = self.left.max(self.idle_frames_max.min(self.left.saturating_add(earned as u64)));
            self.looked_at = now;
        }
    }

    /// Looks at what has come. False if too many frames have come in vain.
    pub(super) fn came(&mut self, mut bytes: &[u8], now: Instant) -> bool {
        self.refill(now);
        let mut is_well = true;
        while !bytes.is_empty() {
            if self.skip_bytes > 0 {
                if std::mem::take(&mut self.is_at_padding) {
                    let padding = 1 + u64::from(bytes[0]);
                    self.data_bytes -= padding.min(self.skip_bytes);
                }
                let skipped = bytes.len().min(usize::try_from(self.skip_bytes).unwrap_or(usize::MAX));
                self.skip_bytes -= skipped as u64;
                bytes = &bytes[skipped..];
                self.look_at_half(now);
                continue;
            }
            let taken = bytes.len().min(HEAD_BYTES - self.head_bytes);
            self.head[self.head_bytes..][..taken].copy_from_slice(&bytes[..taken]);
            self.head_bytes += taken;
            bytes = &bytes[taken..];
            if self.head_bytes == HEAD_BYTES {
                self.head_bytes = 0;
                is_well &= self.frame();
            }
            self.look_at_half(now);
        }
        is_well
    }

    fn look_at_half(&mut self, now: Instant) {
        let is_half =
            self.head_bytes > 0 || (self.skip_bytes > 0 && self.head[3] != DATA) || self.is_in_fields;
        match is_half {
            true => _ = self.half_since.get_or_insert(now),
            false => self.half_since = None,
        }
    }

    /// Counts what has come in vain. False if it is too much.
    fn spend(&mut self, frames: u64) -> bool {
        let left = self.left.checked_sub(frames);
        self.left = left.unwrap_or(0);
        left.is_some()
    }

    /// Counts the frame whose head is there.
    fn frame(&mut self) -> bool {
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.skip_bytes = u64::from(length);
        match kind {
            DATA if length > 0 || flags & END_STREAM != 0 => {
                self.data_bytes += u64::from(length);
                self.is_at_padding = length > 0 && flags & PADDED != 0;
            }
            HEADERS => {
                self.is_in_fields = flags & END_HEADERS == 0;
                let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
                if stream <= self.last_stream {
                    // Fields behind a body, or of a stream that is over, which are read for nobody.
                    return self.spend(1);
                }
                self.last_stream = stream;
                self.earn(FOR_A_REQUEST);
            }
            CONTINUATION => self.is_in_fields &= flags & END_HEADERS == 0,
            // A request that is taken back has earned nothing.
            RST_STREAM => return self.spend(1 + FOR_A_REQUEST),
            _ => return self.spend(1),
        }
        true
    }
}

/// Why a connection ends (RFC 9113 section 7).
#[derive(Clone, Copy)]
pub(super) enum Reason {
    NoError = 0,
    EnhanceYourCalm = 11,
}

/// What ends a connection, for somebody who cannot be asked to say so: GOAWAY, with the last stream that was looked at.
pub(super) fn goodbye(last_stream: u32, reason: Reason) -> [u8; HEAD_BYTES + 8] {
    let mut frame = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, reason as u8];
    frame[HEAD_BYTES..][..4].copy_from_slice(&last_stream.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, length: usize) -> Vec<u8> {
        let [.., a, b, c] = length.to_be_bytes();
        let head = [a, b, c, kind, flags, 0, 0, 0, stream];
        [&head[..], &vec![7; length]].concat()
    }

    fn meter(idle_frames_max: u32) -> Meter {
        let mut meter = Meter::new(idle_frames_max, Instant::ZERO);
        assert!(meter.came(&[0; PREFACE_BYTES as usize], Instant::ZERO));
        meter
    }

    #[test]
    fn frames_are_counted_however_they_are_cut() {
        let frames = [frame(1, 4, 1, 20), frame(0, 0, 1, 300), frame(0, 1, 1, 0), frame(6, 0, 0, 8)].concat();
        for piece in [1, 2, 8, 9, 10, 500] {
            let mut meter = meter(1);
            let well = frames.chunks(piece).filter(|bytes| meter.came(bytes, Instant::ZERO)).count();
            assert_eq!(well, frames.len().div_ceil(piece), "{piece}");
            assert_eq!((meter.data_bytes, meter.last_stream, meter.left), (300, 1, 1 + 1 - 1), "{piece}");
        }
    }

    #[test]
    fn idle_frames_run_out_and_come_back_with_time_with_requests_and_with_what_is_sent() {
        let ping = frame(6, 0, 0, 8);
        let mut meter = meter(10);
        assert!(meter.came(&ping.repeat(10), Instant::ZERO));
        assert!(!meter.came(&ping, Instant::ZERO));
        let later = Instant::ZERO.saturating_add(Duration::from_secs(2));
        assert!(meter.came(&ping.repeat(2), later) && !meter.came(&ping, later));
        assert!(meter.came(&frame(1, 4, 3, 1), later) && meter.came(&ping.repeat(2), later));
        assert!(!meter.came(&ping, later));
        meter.sent(3 * 1024);
        assert!(meter.came(&ping.repeat(3), later) && !meter.came(&ping, later));
        // An empty DATA that is no end brings nothing, and an unknown frame neither.
        meter.sent(1024);
        assert!(meter.came(&frame(0, 0, 1, 0), later) && !meter.came(&frame(99, 0, 0, 1), later));
    }

    #[test]
    fn fields_of_a_stream_that_is_known_are_no_request() {
        let mut meter = meter(10);
        assert!(meter.came(&[frame(1, 4, 3, 4), frame(1, 5, 3, 4)].concat(), Instant::ZERO));
        assert_eq!(meter.left, 10 + 2 - 1);
        assert!(meter.came(&frame(1, 5, 1, 4).repeat(11), Instant::ZERO));
        assert!(!meter.came(&frame(1, 5, 3, 4), Instant::ZERO));
    }

    #[test]
    fn padding_is_no_data_however_it_is_cut() {
        let mut padded = frame(0, 8, 1, 300);
        padded[9] = 99;
        let too_much = frame(0, 8, 1, 3);
        for piece in [1, 9, 10, 500] {
            let mut meter = meter(1);
            assert!(
                [&padded[..], &too_much].concat().chunks(piece).all(|bytes| meter.came(bytes, Instant::ZERO))
            );
            assert_eq!(meter.data_bytes, 200, "{piece}");
        }
    }

    #[test]
    fn a_request_that_is_taken_back_is_an_idle_frame() {
        let mut meter = meter(10);
        let mut taken_back = |n: u8| {
            let frames = [frame(1, 5, 2 * n + 1, 4), frame(3, 0, 2 * n + 1, 4)].concat();
            meter.came(&frames, Instant::ZERO)
        };
        assert!((0..10).all(&mut taken_back));
        assert!(!taken_back(10));
    }

    #[test]
    fn what_is_there_in_part_is_so_since_its_first_byte() {
        let at = |seconds| Instant::ZERO.saturating_add(Duration::from_secs(seconds));
        let mut meter = meter(10);
        let fields = frame(1, 0, 1, 5);
        for (second, byte) in fields.iter().enumerate() {
            assert!(meter.came(&[*byte], at(second as u64)));
            assert_eq!(meter.half_since(), Some(at(0)), "{second}");
        }
        // More of them are to come, until they say that they are all.
        assert!(meter.came(&frame(9, 0, 1, 5), at(20)));
        assert_eq!(meter.half_since(), Some(at(0)));
        assert!(meter.came(&frame(9, 4, 1, 5), at(21)));
        assert_eq!(meter.half_since(), None);
        // Data in part is no such thing, and what ends something begins something.
        assert!(meter.came(&frame(0, 0, 1, 50)[..20], at(22)));
        assert_eq!(meter.half_since(), None);
        assert!(meter.came(&[[0; 39].as_slice(), &fields[..12]].concat(), at(23)));
        assert_eq!(meter.half_since(), Some(at(23)));
    }

    #[test]
    fn the_goodbye_names_the_last_stream() {
        assert_eq!(goodbye(5, Reason::EnhanceYourCalm), [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 11]);
    }
}
