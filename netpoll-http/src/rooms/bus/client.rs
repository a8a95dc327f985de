//! One connection to a server, for as long as there are rooms: made, used, and made again when it breaks.
//!
//! What is said is a [`Speech`], which knows bytes and no socket. Both directions are one task: while one waits the other goes on, so a server that does not take
//! anything because it is not read from is read from.
//!
//! Invariant: the line is connected, and so has orders, from when the server has agreed on how to speak until the connection is given up.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::marker::PhantomData;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use netpoll_core::net::{OwnedReadHalf, OwnedWriteHalf, Stream};
use netpoll_core::task::spawn_daemon;
use netpoll_core::time::{now, sleep, timeout};
use netpoll_core::{ConnectOptions, Instant, Local};

use super::url::Url;
use super::{Engine, Line, Order};
use crate::message::chance::unique_8;

/// How long it may take to connect, and to agree on how to speak.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The first wait before it is tried again; each further one is twice as long. A random part of up to half of it is left out, so that not all processes come at once.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A connection that has lasted for so long was a good one, and the next is tried after the first wait again. Servers that agree on how to speak may refuse what is
/// said then.
const GOOD_AFTER: Duration = BACKOFF_MAX;
/// A server that has said nothing for so long is asked whether it is there.
const PING_AFTER: Duration = Duration::from_secs(5);
/// One that has not said anything for so long is gone.
const SILENT_MAX: Duration = Duration::from_secs(15);
/// A server that takes nothing for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
/// Orders that leave together.
const BATCH_BYTES: usize = 64 * 1024;
/// Answers that wait for a server to take them.
const ANSWERS_BYTES_MAX: usize = 128 * 1024;

/// How a server is spoken with, as bytes: of one connection.
pub trait Speech: Sized + 'static {
    fn new(url: &Url, message_bytes_max: usize) -> Self;
    /// What is said first, if that does not wait for the server.
    fn open(&mut self, out: &mut Vec<u8>);
    /// False if the server would not take it.
    fn order(&mut self, order: &Order, out: &mut Vec<u8>) -> bool;
    fn ping(&mut self, out: &mut Vec<u8>);
    /// What the server has said in front, and its length. `None` if that is not whole. What is to be answered is put out.
    fn hear<'a>(&mut self, input: &'a [u8], out: &mut Vec<u8>) -> Result<Option<(usize, Heard<'a>)>, Fault>;
}

#[derive(Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// It takes orders from now on.
    Agreed,
    Message(&'a [u8]),
    /// It has not done what it was told for one room, and why.
    #[cfg_attr(
        not(feature = "rooms-nats"),
        expect(dead_code, reason = "Redis does not say what an error is about")
    )]
    Refused(&'a [u8]),
    Nothing,
}

/// Why a connection is given up.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault(pub String);

impl From<&str> for Fault {
    fn from(why: &str) -> Self {
        Self(why.to_owned())
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

pub struct Client<S> {
    url: Url,
    speech: PhantomData<fn() -> S>,
}

impl<S: Speech> Client<S> {
    pub fn new(url: Url) -> Self {
        Self { url, speech: PhantomData }
    }
}

impl<S: Speech> Engine for Client<S> {
    fn start(&self, line: Line, _local: &mut Local<'_>) {
        spawn_daemon(keep::<S>(self.url.clone(), line)).detach();
    }
}

/// Connects again and again.
async fn keep<S: Speech>(url: Url, line: Line) {
    let mut backoff = BACKOFF_FIRST;
    while !line.is_over() {
        let place = format!("{}:{}", url.host, url.port);
        let talk = Talk {
            place: &place,
            speech: RefCell::new(S::new(&url, line.message_bytes_max())),
            line: line.clone(),
            answers: RefCell::new(Vec::new()),
            has_agreed: Cell::new(false),
            begun_at: now(),
            heard_at: Cell::new(now()),
            pinged_at: Cell::new(now()),
        };
        let Err(Fault(why)) = talk.go(&url).await else { return };
        line.disconnected(&format!("{place}: {why}"));
        if talk.has_agreed.get() && now().duration_since(talk.begun_at) >= GOOD_AFTER {
            backoff = BACKOFF_FIRST;
        }
        let shorter = u64::from_be_bytes(unique_8()) % (backoff.as_millis() as u64 / 2 + 1);
        sleep(backoff - Duration::from_millis(shorter)).await;
        backoff = (2 * backoff).min(BACKOFF_MAX);
    }
}

/// What is said over one connection.
struct Talk<'p, S> {
    /// Where the server is.
    place: &'p str,
    speech: RefCell<S>,
    line: Line,
    /// What the server is to be answered.
    answers: RefCell<Vec<u8>>,
    has_agreed: Cell<bool>,
    begun_at: Instant,
    heard_at: Cell<Instant>,
    pinged_at: Cell<Instant>,
}

impl<S: Speech> Talk<'_, S> {
    /// Until the connection breaks, or the rooms are gone.
    async fn go(&self, url: &Url) -> Result<(), Fault> {
        let options = ConnectOptions::default().timeout(CONNECT_TIMEOUT);
        let stream = Stream::connect_with((url.host.as_str(), url.port), &options).await?;
        let (reader, writer) = stream.into_split();
        self.heard_at.set(now());
        self.speech.borrow_mut().open(&mut self.answers.borrow_mut());
        let (mut read, mut write) = (pin!(self.read(reader)), pin!(self.write(writer)));
        poll_fn(|cx| {
            if let Poll::Ready(fault) = read.as_mut().poll(cx) {
                return Poll::Ready(Err(fault));
            }
            // Behind what was read: it may be answered.
            write.as_mut().poll(cx)
        })
        .await
    }

    async fn read(&self, mut reader: OwnedReadHalf) -> Fault {
        let mut kept = Vec::new();
        loop {
            let came = match reader.fill_buf().await {
                Ok([]) => return "the server has ended the connection".into(),
                Ok(came) => came,
                Err(error) => return error.into(),
            };
            self.heard_at.set(now());
            let bytes = came.len();
            let done = if kept.is_empty() {
                let used = self.hear(came);
                used.map(|used| kept.extend_from_slice(&came[used..]))
            } else {
                kept.extend_from_slice(came);
                self.hear(&kept).map(|used| drop(kept.drain(..used)))
            };
            reader.consume(bytes);
            if let Err(fault) = done {
                return fault;
            }
            if kept.is_empty() && kept.capacity() > BATCH_BYTES {
                kept = Vec::new();
            }
        }
    }

    /// All that is whole, and how much that is.
    fn hear(&self, input: &[u8]) -> Result<usize, Fault> {
        let mut used = 0;
        while used < input.len() {
            let mut answers = self.answers.borrow_mut();
            let heard = self.speech.borrow_mut().hear(&input[used..], &mut answers)?;
            if answers.len() > ANSWERS_BYTES_MAX {
                return Err("the server takes no answers".into());
            }
            drop(answers);
            let Some((bytes, heard)) = heard else { break };
            match heard {
                Heard::Agreed => {
                    self.has_agreed.set(true);
                    self.line.connected();
                }
                Heard::Message(payload) => self.line.received(payload),
                Heard::Refused(why) => {
                    self.line.failed(&format!("{}: {}", self.place, String::from_utf8_lossy(why)));
                }
                Heard::Nothing => {}
            }
            used += bytes;
        }
        Ok(used)
    }

    async fn write(&self, mut writer: OwnedWriteHalf) -> Result<(), Fault> {
        let mut alarm = pin!(sleep(PING_AFTER));
        loop {
            let batch = poll_fn(|cx| {
                let mut out = std::mem::take(&mut *self.answers.borrow_mut());
                while out.len() < BATCH_BYTES {
                    match self.line.poll_next(cx) {
                        Poll::Ready(Some(order)) => {
                            if !self.speech.borrow_mut().order(&order, &mut out) {
                                self.line.dropped();
                            }
                        }
                        Poll::Ready(None) => return Poll::Ready(Ok::<_, Fault>(None)),
                        Poll::Pending => break,
                    }
                }
                let now = now();
                let silent = now.duration_since(self.heard_at.get());
                if silent >= SILENT_MAX {
                    return Poll::Ready(Err("the server is silent".into()));
                }
                if !self.has_agreed.get() && now.duration_since(self.begun_at) >= 2 * CONNECT_TIMEOUT {
                    return Poll::Ready(Err("the server does not say that it is ready".into()));
                }
                let has_asked = self.pinged_at.get() > self.heard_at.get();
                if self.has_agreed.get() && silent >= PING_AFTER && !has_asked {
                    self.pinged_at.set(now);
                    self.speech.borrow_mut().ping(&mut out);
                }
                if !out.is_empty() {
                    return Poll::Ready(Ok(Some(out)));
                }
                while alarm.as_mut().poll(cx).is_ready() {
                    alarm.as_mut().reset(now.saturating_add(PING_AFTER));
                }
                Poll::Pending
            })
            .await?;
            let Some(batch) = batch else { return Ok(()) };
            match timeout(WRITE_TIMEOUT, writer.write_all(&batch)).await {
                Ok(written) => written?,
                Err(_) => return Err("the server takes nothing".into()),
            }
        }
    }
}
