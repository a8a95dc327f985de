//! What a response carries, from nothing to a stream that never ends.
//!
//! Small bodies are copied behind the head in the write queue; `'static` and shared bytes are queued as
//! they are, and a file as a handle; a stream is asked for its next bytes whenever the queue has room.
//!
//! Invariant: a body never touches a socket. A stream gets a [`BodyBuf`] that appends to the queue and can do
//! nothing else, so it cannot spoil what other answers have put there.

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::task::Context;

use bytes::Bytes;
use netpoll_core::FileRange;

use super::Takeover;

/// The body of a [`Response`](crate::Response).
#[derive(Default)]
pub enum Body {
    /// No bytes; sent with `Content-Length: 0` where the status allows one.
    #[default]
    Empty,
    /// Bytes of the program itself, queued without a copy when they are large.
    Static(&'static [u8]),
    /// Shared bytes, queued without a copy when they are large.
    Shared(Bytes),
    /// Owned bytes, queued without a copy when they are large.
    Owned(Vec<u8>),
    /// A part of an open file, which leaves by `sendfile`; see [`Body::file`].
    File(FileRange),
    /// Bytes that are made while they are sent.
    ///
    /// With `length` the answer has that `Content-Length`: what the stream writes beyond it is cut, and a
    /// stream that ends early aborts the connection, so that the peer notices. Without it the answer is
    /// chunked on HTTP/1.1 and ends with the connection on HTTP/1.0.
    Stream {
        /// Where the bytes come from.
        stream: Box<dyn BodyStream>,
        /// How many bytes there will be, if that is known.
        length: Option<u64>,
    },
    /// No bytes, but another protocol behind the head: what [`Upgrade::accept`](crate::Upgrade::accept) makes.
    Upgrade(Takeover),
}

impl Body {
    /// A body that `stream` makes piece by piece.
    pub fn stream(stream: impl BodyStream) -> Self {
        Self::Stream { stream: Box::new(stream), length: None }
    }

    /// A body of exactly `length` bytes that `stream` makes piece by piece.
    pub fn sized_stream(length: u64, stream: impl BodyStream) -> Self {
        Self::Stream { stream: Box::new(stream), length: Some(length) }
    }

    /// A body with one chunk for each item of an iterator.
    ///
    /// The iterator is advanced only when the peer has room for more.
    pub fn chunks<I>(chunks: I) -> Self
    where
        I: IntoIterator,
        I::IntoIter: 'static,
        I::Item: AsRef<[u8]>,
    {
        let mut chunks = chunks.into_iter();
        Self::stream(move |_: &mut Context<'_>, out: &mut BodyBuf<'_>| match chunks.next() {
            Some(chunk) => {
                out.extend(chunk.as_ref());
                Pull::More
            }
            None => Pull::Done,
        })
    }

    /// All of an open file, of the length that it has now. One system call.
    ///
    /// The head leaves with the length and without waiting for the file, then the file by `sendfile`, at most 512 KiB
    /// in a turn and without a copy through the process. If it has become shorter by then, the connection is reset, so
    /// that the peer notices. For a part of a file, or a file that many answers share, see [`FileRange`].
    ///
    /// # Errors
    /// `InvalidInput` for what is no regular file (a directory, a FIFO, a device): its length says nothing. The
    /// kernel's, if it cannot say what it is.
    pub fn file(file: impl Into<Arc<File>>) -> io::Result<Self> {
        let file = file.into();
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "only a regular file can be a body"));
        }
        Ok(Self::File(FileRange::new(file, 0, metadata.len())))
    }

    /// How many bytes it has, unless it is a stream of unknown length.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Empty | Self::Upgrade(_) => Some(0),
            Self::Static(bytes) => Some(bytes.len() as u64),
            Self::Shared(bytes) => Some(bytes.len() as u64),
            Self::Owned(bytes) => Some(bytes.len() as u64),
            Self::File(range) => Some(range.length()),
            Self::Stream { length, .. } => *length,
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.length() {
            Some(length) => write!(f, "Body({length} bytes)"),
            None => f.write_str("Body(stream)"),
        }
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::Static(text.as_bytes())
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Self::Static(bytes)
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Owned(text.into_bytes())
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned(bytes)
    }
}

/// A part of a file; nobody asks whether the file has it before its turn comes.
impl From<FileRange> for Body {
    fn from(range: FileRange) -> Self {
        Self::File(range)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Shared(bytes)
    }
}

/// A body that is made while it is sent.
///
/// `pull` is called whenever the connection's write queue has room, and not while the peer is slow, so
/// a stream never piles up in memory. Closures of the same shape are streams.
pub trait BodyStream: 'static {
    /// Appends the next bytes to `out`, usually a few KiB, and says how to go on.
    ///
    /// The waker of `context` brings the connection back after [`Pull::Wait`].
    fn pull(&mut self, context: &mut Context<'_>, out: &mut BodyBuf<'_>) -> Pull;

    /// Bytes that this crate has compressed of it since it was asked before, which has taken a while.
    #[doc(hidden)]
    fn take_coded_bytes(&mut self) -> usize {
        0
    }
}

impl<F> BodyStream for F
where
    F: FnMut(&mut Context<'_>, &mut BodyBuf<'_>) -> Pull + 'static,
{
    fn pull(&mut self, context: &mut Context<'_>, out: &mut BodyBuf<'_>) -> Pull {
        self(context, out)
    }
}

/// How a [`BodyStream`] goes on after a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull {
    /// There is more; pull again when there is room. A pull that wrote nothing counts as [`Pull::Wait`]
    /// without a waker: it is asked again in a later turn.
    More,
    /// There may be more later; pull again when the waker was woken.
    Wait,
    /// That was all.
    Done,
    /// Something broke: the connection is aborted so that the peer does not take half a body for a whole one.
    Failed,
}

/// Where body bytes are written: the end of the connection's write queue.
///
/// It can only append. It implements [`io::Write`] and [`fmt::Write`].
pub struct BodyBuf<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> BodyBuf<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        Self { out, start }
    }

    /// Where it appends, for who only appends.
    #[cfg_attr(not(feature = "compression"), allow(dead_code))]
    pub(crate) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        self.out
    }

    /// Appends bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Bytes written through this buffer.
    pub fn len(&self) -> usize {
        self.out.len() - self.start
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops what was written through this buffer, and only that.
    pub fn clear(&mut self) {
        self.out.truncate(self.start);
    }
}

impl io::Write for BodyBuf<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend(bytes);
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Write for BodyBuf<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.extend(text.as_bytes());
        Ok(())
    }
}
