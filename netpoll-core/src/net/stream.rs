//! A connection as a task sees it.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::TcpStream as StdTcpStream;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::connect;
use super::shared::{OUTPUT_BYTES_MAX, Shared};
use crate::conn::{ConnId, ConnectOptions, Target};
use crate::mem::{COPY_MAX, FileRange, ReadBuffer};
use crate::sys::{self, Address};
use crate::task;

/// A connection, of TCP or of the Unix domain, in a task of its worker.
///
/// See the [module](super) for when what is written leaves, and what dropping it does. Reading and writing take `&mut self`; for two tasks
/// there is [`into_split`](Self::into_split).
///
/// While nothing has arrived it owns no buffer, whether a task waits or not: about 160 bytes beside its
/// connection and its task.
pub struct Stream {
    reader: Reader,
    writer: Writer,
}

/// The reading direction. Whoever drops it reads no more.
struct Reader {
    /// A block that was taken out of what is shared, so that a slice of it can be lent.
    held: ReadBuffer,
    /// How often in a row what is held was lent, and nothing of it consumed.
    lent: u8,
    shared: Rc<Shared>,
}

/// Whoever looks at the same input so often in a row gives way: its worker is not held up by a loop that waits for more.
const LENT_MAX: u8 = 128;

/// The writing direction. Whoever drops it ends it.
struct Writer {
    shared: Rc<Shared>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let bytes = self.held.len();
        if bytes > 0 {
            self.shared.advance(&mut self.held, bytes);
        }
        self.shared.stop_reading();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if task::is_panicking() {
            self.shared.reset();
        }
        self.shared.finish();
    }
}

impl Reader {
    fn new(shared: Rc<Shared>) -> Self {
        Self { held: ReadBuffer::new(), lent: 0, shared }
    }

    #[inline]
    fn poll_fill_buf(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        if self.held.is_empty() {
            match self.shared.poll_take(cx.waker(), &mut self.held) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        } else if self.lent > 0 && !self.look_again(cx) {
            return Poll::Pending;
        }
        if !self.held.is_empty() {
            self.lent += 1;
        }
        Poll::Ready(Ok(self.held.bytes()))
    }

    /// Nothing of what was lent was consumed: what has come since is lent with it. False if others come first.
    #[cold]
    fn look_again(&mut self, cx: &mut Context<'_>) -> bool {
        self.shared.take_more(&mut self.held);
        if self.lent < LENT_MAX {
            return true;
        }
        self.lent = 0;
        cx.waker().wake_by_ref();
        false
    }

    #[inline]
    fn consume(&mut self, bytes: usize) {
        if bytes > 0 {
            self.lent = 0;
            self.shared.advance(&mut self.held, bytes);
        }
    }

    /// Up to a byte, with it, behind what `into` has.
    async fn read_until(&mut self, end: u8, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        let (mut seen, mut wanted) = (0, 1);
        loop {
            let there = self.wait_for(wanted).await?;
            let at = self.shared.find(end, seen);
            let length = match at {
                Some(at) => at + 1,
                None if there < wanted => there,
                None if there >= most => return Err(io::ErrorKind::FileTooLarge.into()),
                None => {
                    (seen, wanted) = (there, there + 1);
                    continue;
                }
            };
            if length > most {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            let before = into.len();
            into.resize(before + length, 0);
            self.shared.copy_input(&mut into[before..], false);
            return Ok(length);
        }
    }

    #[inline]
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let room = into.len();
        if room > 0 && self.held.is_empty() {
            return self.shared.poll_read(cx.waker(), into);
        }
        self.poll_copy(cx, room, |bytes| into[..bytes.len()].copy_from_slice(bytes))
    }

    /// [`poll_read`](Self::poll_read) into a place that only takes slices, such as memory that nobody has filled yet.
    #[inline]
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        room: usize,
        copy: impl FnOnce(&[u8]),
    ) -> Poll<io::Result<usize>> {
        if room == 0 {
            return Poll::Ready(Ok(0));
        }
        if self.held.is_empty() {
            return self.shared.poll_copy(cx.waker(), room, copy);
        }
        let count = self.held.len().min(room);
        copy(&self.held.bytes()[..count]);
        self.consume(count);
        Poll::Ready(Ok(count))
    }

    async fn fill_buf(&mut self) -> io::Result<&[u8]> {
        // Twice, because a slice cannot come out of a closure that is called again.
        poll_fn(|cx| self.poll_fill_buf(cx).map_ok(|_| ())).await?;
        Ok(self.held.bytes())
    }

    /// Waits until so many bytes are there, in what is shared.
    async fn wait_for(&mut self, count: usize) -> io::Result<usize> {
        self.lent = 0;
        self.shared.put_back(&mut self.held);
        let _wish = Wish(&self.shared);
        poll_fn(|cx| self.shared.poll_wanted(cx.waker(), count)).await
    }

    async fn peek(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        self.wait_for(1).await?;
        Ok(self.shared.copy_input(into, true))
    }

    async fn peek_exact(&mut self, into: &mut [u8]) -> io::Result<()> {
        if self.wait_for(into.len()).await? < into.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.shared.copy_input(into, true);
        Ok(())
    }

    async fn read_exact(&mut self, into: &mut [u8]) -> io::Result<()> {
        if into.len() <= self.held.len() {
            into.copy_from_slice(&self.held.bytes()[..into.len()]);
            self.consume(into.len());
            return Ok(());
        }
        if self.wait_for(into.len()).await? < into.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.shared.copy_input(into, false);
        Ok(())
    }

    async fn read_to_end(&mut self, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        let before = into.len();
        loop {
            let input = self.fill_buf().await?;
            if input.is_empty() {
                return Ok(into.len() - before);
            }
            if into.len() - before + input.len() > most {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            into.extend_from_slice(input);
            let count = input.len();
            self.consume(count);
        }
    }
}

/// Somebody waits for more bytes than any: until this is dropped.
struct Wish<'a>(&'a Shared);

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        self.0.want_any();
    }
}

impl Writer {
    #[inline]
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.shared.poll_room(cx.waker()) {
            Poll::Ready(Ok(())) => {
                let count = bytes.len().min(OUTPUT_BYTES_MAX);
                self.shared.write(&bytes[..count]);
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    #[inline]
    fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.shared.poll_room(cx.waker()) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(self.shared.write_vectored(slices))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    #[inline]
    async fn room(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.shared.poll_room(cx.waker())).await
    }

    async fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_write_vectored(cx, slices)).await
    }

    #[inline]
    fn poll_write_all(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<()>> {
        match self.shared.poll_room(cx.waker()) {
            Poll::Ready(Ok(())) => {
                self.shared.write(bytes);
                Poll::Ready(Ok(()))
            }
            waits_or_failed => waits_or_failed,
        }
    }

    async fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        self.room().await?;
        if bytes.len() <= COPY_MAX {
            self.shared.write(&bytes);
        } else {
            self.shared.queue(|out, pool| out.write_shared(pool, bytes));
        }
        Ok(())
    }

    async fn send_file(&mut self, range: FileRange) -> io::Result<()> {
        self.room().await?;
        self.shared.queue(|out, pool| out.write_file(pool, range));
        Ok(())
    }
}

/// What both a stream and its reading half do.
macro_rules! reading {
    ($($reader:ident).+) => {
        /// Reads what is there, at least one byte, and waits until there is; 0 is the peer's end (or `into` is empty).
        ///
        /// Cancel-safe: a read that was given up has read nothing.
        ///
        /// # Errors
        /// The connection's, behind what had arrived before: `ConnectionReset`, `TimedOut` and what else the kernel says; `TimedOut` too for a
        /// peer that reads too slowly, `OutOfMemory` above
        /// [`ConnLimits::memory_bytes_max`](crate::ConnLimits::memory_bytes_max), `ConnectionAborted` if its worker ends.
        pub async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            poll_fn(|cx| self.$($reader).+.poll_read(cx, into)).await
        }

        /// Waits until something is there, and lends it where it lies, without a copy; an empty slice is the peer's end. What of it
        /// was used is said by [`consume`](Self::consume), and the rest comes again, *at once*: with what has come meanwhile, but nothing waits for
        /// more. Who needs more than a part asks [`read_exact`](Self::read_exact), [`peek_exact`](Self::peek_exact) or
        /// [`read_until`](Self::read_until).
        ///
        /// Cancel-safe: nothing is consumed.
        ///
        /// # Errors
        /// As [`read`](Self::read).
        pub async fn fill_buf(&mut self) -> io::Result<&[u8]> {
            // Twice, because a slice cannot come out of a closure that is called again.
            poll_fn(|cx| self.$($reader).+.poll_fill_buf(cx).map_ok(|_| ())).await?;
            Ok(self.$($reader).+.held.bytes())
        }

        /// Reads up to a byte, such as `b'\n'`, and with it, behind what `into` has; `most` bytes at most. How many they were. Without that byte at the
        /// end only where the peer has ended before it: then that is what was left, 0 if nothing was.
        ///
        /// ```
        /// use netpoll_core::sim::{Options, Sim};
        ///
        /// let mut sim = Sim::new(Options::default());
        /// let listener = sim.listen_tasks(|mut stream, _peer| async move {
        ///     let mut line = Vec::new();
        ///     while let Ok(1..) = stream.read_until(b'\n', &mut line, 1000).await {
        ///         line.make_ascii_uppercase();
        ///         let _ = stream.write_all(&line).await;
        ///         line.clear();
        ///     }
        /// });
        /// let peer = sim.connect(listener);
        /// sim.send(peer, b"one\ntw");
        /// sim.send(peer, b"o\n");
        /// sim.settle();
        /// assert_eq!(sim.take_received(peer), b"ONE\nTWO\n");
        /// ```
        ///
        /// Cancel-safe: given up, it has read nothing.
        ///
        /// # Errors
        /// `FileTooLarge` if it does not come within `most`; what came is still there. Else as [`read`](Self::read).
        pub async fn read_until(&mut self, end: u8, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
            self.$($reader).+.read_until(end, into, most).await
        }

        /// Says that nothing is under way on this stream from now on, or that something is. Nobody else knows whether it waits for the next request or
        /// for the rest of one. While it is idle:
        ///
        /// - a drain closes it a moment after it has begun ([`ConnLimits::drain_grace`](crate::ConnLimits::drain_grace)), as it does idle
        ///   connections of callbacks, and not at the end of `drain_within`. What comes within that moment counts: it is idle no more, and
        ///   the drain waits for its answer; once idle again, it goes the same way;
        /// - it may have to make room for newcomers ([`ConnLimits::connections_max`](crate::ConnLimits::connections_max)), those that have been idle for longest first.
        ///
        /// Whoever reads hears of either by `ConnectionAborted`. No time ends a stream that is idle: put a [`timeout`](crate::time::timeout) around the read.
        ///
        /// It is over when something comes, when something is written, or by `false`: so who serves says `true` whenever it waits for the next request, and no more.
        /// With input there that nobody has read, which is a request under way, `true` does nothing. Costs some loads and stores.
        ///
        /// ```
        /// use std::time::Duration;
        ///
        /// use netpoll_core::sim::{Options, Sim};
        ///
        /// let mut sim = Sim::new(Options::default());
        /// let listener = sim.listen_tasks(|mut stream, _peer| async move {
        ///     let mut request = [0; 4];
        ///     loop {
        ///         stream.set_idle(true);
        ///         if stream.read_exact(&mut request).await.is_err() || stream.write_all(b"pong").await.is_err() {
        ///             return;
        ///         }
        ///     }
        /// });
        /// let peer = sim.connect(listener);
        /// sim.send(peer, b"ping");
        /// sim.settle();
        /// sim.begin_drain(Duration::from_secs(3600));
        /// sim.advance(Duration::from_secs(4)); // a grace of 1 s, and 2 s for a peer that does not close
        /// assert!(sim.is_finished());
        /// ```
        pub fn set_idle(&mut self, idle: bool) {
            let reader = &self.$($reader).+;
            if !idle || reader.held.is_empty() {
                reader.shared.set_idle(idle);
            }
        }

        /// Consumes so many bytes of what [`fill_buf`](Self::fill_buf) has lent.
        ///
        /// # Panics
        /// If that was less.
        pub fn consume(&mut self, bytes: usize) {
            self.$($reader).+.consume(bytes);
        }

        /// Reads as much as `into` takes, and waits until all of that is there.
        ///
        /// Cancel-safe, other than elsewhere: it takes nothing before everything is there. So it holds as much memory meanwhile
        /// as it is to read; who reads megabytes reads them in pieces.
        ///
        /// # Errors
        /// `UnexpectedEof` if the peer ends before that; what came is still there to be read. Else as [`read`](Self::read).
        pub async fn read_exact(&mut self, into: &mut [u8]) -> io::Result<()> {
            self.$($reader).+.read_exact(into).await
        }

        /// Reads up to the peer's end, `most` bytes at most, behind what `into` has. How many they were.
        ///
        /// Given up, it has left in `into` what it has read.
        ///
        /// # Errors
        /// `FileTooLarge` if more than `most` came; the first are in `into`, and the rest is still there. Else as [`read`](Self::read).
        pub async fn read_to_end(&mut self, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
            self.$($reader).+.read_to_end(into, most).await
        }

        /// Copies what is there, at least one byte, and leaves it there; 0 is the peer's end (or `into` is empty). What it has seen it sees
        /// again, at once: who waits for more asks for so many by [`peek_exact`](Self::peek_exact). Cancel-safe.
        ///
        /// # Errors
        /// As [`read`](Self::read).
        pub async fn peek(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.$($reader).+.peek(into).await
        }

        /// Copies as much as `into` takes, waits until all of that is there, and leaves it there: for who has to see how a stream begins before
        /// somebody else reads it. Cancel-safe; holds as much memory meanwhile as it is to see.
        ///
        /// # Errors
        /// As [`read_exact`](Self::read_exact).
        pub async fn peek_exact(&mut self, into: &mut [u8]) -> io::Result<()> {
            self.$($reader).+.peek_exact(into).await
        }

        /// [`read`](Self::read), for futures that are written by hand. The last waker is the one that is woken.
        ///
        /// # Errors
        /// As [`read`](Self::read).
        pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
            self.$($reader).+.poll_read(cx, into)
        }

        /// [`poll_read`](Self::poll_read) into a place that only takes slices.
        #[cfg(any(feature = "hyper", feature = "tokio-io"))]
        #[inline]
        pub(crate) fn poll_copy(
            &mut self,
            cx: &mut Context<'_>,
            room: usize,
            copy: impl FnOnce(&[u8]),
        ) -> Poll<io::Result<usize>> {
            self.$($reader).+.poll_copy(cx, room, copy)
        }

        /// [`fill_buf`](Self::fill_buf), for futures that are written by hand. The last waker is the one that is woken.
        ///
        /// # Errors
        /// As [`read`](Self::read).
        pub fn poll_fill_buf(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
            self.$($reader).+.poll_fill_buf(cx)
        }
    };
}

/// What both a stream and its writing half do.
macro_rules! writing {
    ($($writer:ident).+) => {
        /// Writes some of these bytes, up to 64 KiB, and waits until there is room. How many were taken: all that fit in.
        ///
        /// Cancel-safe: a write that was given up has written nothing.
        ///
        /// # Errors
        /// `BrokenPipe` behind [`shutdown`](Self::shutdown), and if the connection is over; the connection's as
        /// with [`read`](Stream::read), of what was written before.
        pub async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            poll_fn(|cx| self.$($writer).+.poll_write(cx, bytes)).await
        }

        /// Writes all of these bytes: waits until there is room for more, and then takes them whole, however many they are.
        ///
        /// Cancel-safe, other than elsewhere: given up, it has written nothing. They are copied, but for what the socket takes at once of
        /// pieces of 4 KiB and more; memory that is shared anyway goes by [`send`](Self::send).
        ///
        /// # Errors
        /// As [`write`](Self::write).
        pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
            poll_fn(|cx| self.$($writer).+.poll_write_all(cx, bytes)).await
        }

        /// Writes some bytes of several slices, up to 64 KiB in all. How many were taken. Cancel-safe as [`write`](Self::write).
        ///
        /// # Errors
        /// As [`write`](Self::write).
        pub async fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            self.$($writer).+.write_vectored(slices).await
        }

        /// Writes shared bytes ([`netpoll_core::Bytes`](crate::Bytes)) whole. Above 4 KiB they are not copied. Cancel-safe
        /// as [`write_all`](Self::write_all).
        ///
        /// # Errors
        /// As [`write`](Self::write).
        pub async fn send(&mut self, bytes: Bytes) -> io::Result<()> {
            self.$($writer).+.send(bytes).await
        }

        /// Writes a part of a file, which the kernel reads (`sendfile`): see [`Conn::send_file`](crate::Conn::send_file). If it
        /// turns out to be shorter, the connection is reset. Cancel-safe as [`write_all`](Self::write_all).
        ///
        /// # Errors
        /// As [`write`](Self::write).
        pub async fn send_file(&mut self, range: FileRange) -> io::Result<()> {
            self.$($writer).+.send_file(range).await
        }

        /// Ends our direction behind what was written: the peer reads it, and then the end. Nothing can be written any more; reading
        /// goes on. Returns at once; nothing happens the second time.
        pub fn shutdown(&mut self) {
            self.$($writer).+.shared.finish();
        }

        /// [`write`](Self::write), for futures that are written by hand. The last waker is the one that is woken.
        ///
        /// # Errors
        /// As [`write`](Self::write).
        pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.$($writer).+.poll_write(cx, bytes)
        }

        /// [`write_vectored`](Self::write_vectored), for futures that are written by hand. The last waker is the one that is woken.
        ///
        /// # Errors
        /// As [`write`](Self::write).
        pub fn poll_write_vectored(
            &mut self,
            cx: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.$($writer).+.poll_write_vectored(cx, slices)
        }

        /// Waits until there is room to write. Cancel-safe.
        ///
        /// # Errors
        /// As [`write`](Self::write).
        pub async fn writable(&mut self) -> io::Result<()> {
            self.$($writer).+.room().await
        }
    };
}

/// What every part of a stream can be asked.
macro_rules! asking {
    ($($part:ident).+) => {
        /// The address of the peer. One system call.
        ///
        /// # Errors
        /// `NotConnected` if the connection is over, and the connection's own; `Unsupported` outside of tasks and handlers of its worker.
        pub fn peer_addr(&self) -> io::Result<Address> {
            let shared = &self.$($part).+.shared;
            if let Some(addr) = shared.ask_early(sys::peer_addr) {
                return addr;
            }
            let addr = shared.ask(|io, key| io.peer_addr(key))?;
            addr.ok_or_else(|| io::ErrorKind::NotConnected.into())
        }

        /// Our own address. One system call.
        ///
        /// # Errors
        /// As [`peer_addr`](Self::peer_addr).
        pub fn local_addr(&self) -> io::Result<Address> {
            let shared = &self.$($part).+.shared;
            if let Some(addr) = shared.ask_early(sys::local_addr) {
                return addr;
            }
            let addr = shared.ask(|io, key| io.local_addr(key))?;
            addr.ok_or_else(|| io::ErrorKind::NotConnected.into())
        }

        /// The name of the connection, for [`Commands`](crate::Commands) and [`Handle`](crate::Handle): others may send to it, and close it.
        /// What they send comes behind what was written here before. `None` if it is over, or not open yet.
        #[must_use]
        pub fn id(&self) -> Option<ConnId> {
            connect::id_of(&self.$($part).+.shared)
        }

        /// Lets `call` use the socket, to ask it or to set options (`socket2::SockRef` takes it). What reads, writes, closes or registers
        /// it disturbs the driver. Inside, sockets of this module cannot be asked.
        ///
        /// # Errors
        /// As [`peer_addr`](Self::peer_addr); `Unsupported` in a simulation.
        pub fn with_socket<R>(&self, call: impl FnOnce(BorrowedFd<'_>) -> R) -> io::Result<R> {
            let shared = &self.$($part).+.shared;
            let mut call = Some(call);
            let mut once = |socket: BorrowedFd<'_>| call.take().map(|call| call(socket));
            if let Some(called) = shared.ask_early(&mut once) {
                return called.ok_or_else(|| io::ErrorKind::Unsupported.into());
            }
            let called = shared.ask(|io, key| io.socket(key).and_then(once))?;
            called.ok_or_else(|| io::ErrorKind::Unsupported.into())
        }
    };
}

impl Stream {
    /// Of what is shared with its connection.
    pub(super) fn of(shared: Rc<Shared>) -> Self {
        Self { reader: Reader::new(Rc::clone(&shared)), writer: Writer { shared } }
    }

    /// Connects: see [`connect`](super::connect()).
    ///
    /// # Errors
    /// As [`connect`](super::connect()).
    pub async fn connect(to: impl Into<Target>) -> io::Result<Self> {
        connect::connect(to).await
    }

    /// The same with options: see [`connect_with`](super::connect_with).
    ///
    /// # Errors
    /// As [`connect`](super::connect()).
    pub async fn connect_with(to: impl Into<Target>, options: &ConnectOptions) -> io::Result<Self> {
        connect::connect_with(to, options).await
    }

    /// Takes over a connected socket. It is made non-blocking.
    ///
    /// # Errors
    /// The kernel's; `Unsupported` in a simulation, and outside of tasks and handlers of a worker.
    pub fn from_std(socket: impl Into<OwnedSocket>) -> io::Result<Self> {
        connect::adopt(socket.into().0)
    }

    /// Two ends of a new connection in the Unix domain.
    ///
    /// # Errors
    /// As [`from_std`](Self::from_std).
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = StdUnixStream::pair()?;
        Ok((Self::from_std(one)?, Self::from_std(other)?))
    }

    reading!(reader);
    writing!(writer);
    asking!(writer);

    /// What says for somebody else that this stream is idle, as [`set_idle`](Self::set_idle) does: for a pool whose streams are in the hands of a crate.
    #[must_use]
    pub fn idle_mark(&self) -> IdleMark {
        IdleMark { shared: Rc::clone(&self.reader.shared) }
    }

    /// Ends the connection with a reset. What was written and has not left is lost.
    pub fn reset(self) {
        self.writer.shared.reset();
    }

    /// Two halves for two tasks or branches that borrow it. Dropping them ends nothing.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        (ReadHalf { reader: &mut self.reader }, WriteHalf { writer: &mut self.writer })
    }

    /// Two halves for two tasks. Dropping the writing one ends our direction; dropping the reading one holds the peer back; behind both
    /// the stream ends as if it was dropped.
    #[must_use]
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        (OwnedReadHalf { reader: self.reader }, OwnedWriteHalf { writer: self.writer })
    }

    /// Whether small pieces leave at once (`TCP_NODELAY`), which is so unless the listener, or
    /// [`ConnectOptions::nodelay`] said otherwise. One system call.
    ///
    /// # Errors
    /// As [`with_socket`](Self::with_socket), and the kernel's, for a Unix socket.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.with_socket(|socket| socket2::SockRef::from(&socket).set_tcp_nodelay(on))?
    }

    /// Whether that is so. One system call.
    ///
    /// # Errors
    /// As [`set_nodelay`](Self::set_nodelay).
    pub fn nodelay(&self) -> io::Result<bool> {
        self.with_socket(|socket| socket2::SockRef::from(&socket).tcp_nodelay())?
    }
}

/// The reading half of a [`Stream`] that is borrowed.
pub struct ReadHalf<'a> {
    reader: &'a mut Reader,
}

impl ReadHalf<'_> {
    reading!(reader);
    asking!(reader);

    /// Hands what was lent over to be written as it is. How much that was: nothing at the end.
    pub(super) fn move_to(&mut self, to: &mut WriteHalf<'_>) -> usize {
        self.reader.lent = 0;
        let block = std::mem::take(&mut self.reader.held);
        let count = block.len();
        if count > 0 {
            to.writer.shared.queue(|out, pool| out.write_kept(pool, block));
        }
        count
    }
}

/// The writing half of a [`Stream`] that is borrowed.
pub struct WriteHalf<'a> {
    writer: &'a mut Writer,
}

impl WriteHalf<'_> {
    writing!(writer);
    asking!(writer);
}

/// The reading half of a [`Stream`] ([`Stream::into_split`]).
pub struct OwnedReadHalf {
    reader: Reader,
}

impl OwnedReadHalf {
    reading!(reader);
    asking!(reader);

    /// Puts both halves of one stream together again.
    ///
    /// # Errors
    /// They are not of one stream: both come back.
    pub fn reunite(self, other: OwnedWriteHalf) -> Result<Stream, (Self, OwnedWriteHalf)> {
        if Rc::ptr_eq(&self.reader.shared, &other.writer.shared) {
            Ok(Stream { reader: self.reader, writer: other.writer })
        } else {
            Err((self, other))
        }
    }
}

/// The writing half of a [`Stream`] ([`Stream::into_split`]).
pub struct OwnedWriteHalf {
    writer: Writer,
}

impl OwnedWriteHalf {
    writing!(writer);
    asking!(writer);
}

/// Says of a [`Stream`] that it is idle, wherever that is ([`Stream::idle_mark`]).
///
/// It keeps nothing open, and does nothing once the connection is over. What was lent by [`Stream::fill_buf`] and not consumed it does not see.
#[derive(Clone)]
pub struct IdleMark {
    shared: Rc<Shared>,
}

impl fmt::Debug for IdleMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdleMark").field("id", &connect::id_of(&self.shared)).finish_non_exhaustive()
    }
}

impl IdleMark {
    /// See [`Stream::set_idle`].
    pub fn set(&self, idle: bool) {
        self.shared.set_idle(idle);
    }
}

/// A connected stream socket from elsewhere.
#[derive(Debug)]
pub struct OwnedSocket(OwnedFd);

macro_rules! sockets {
    ($($kind:ty),*) => {$(
        impl From<$kind> for OwnedSocket {
            fn from(socket: $kind) -> Self {
                Self(socket.into())
            }
        }
    )*};
}

sockets!(StdTcpStream, StdUnixStream, OwnedFd);

macro_rules! debugged {
    ($($kind:ident $(<$life:lifetime>)?: $($part:ident).+;)*) => {$(
        impl fmt::Debug for $kind $(<$life>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let id = connect::id_of(&self.$($part).+.shared);
                f.debug_struct(stringify!($kind)).field("id", &id).finish_non_exhaustive()
            }
        }
    )*};
}

debugged! {
    Stream: writer;
    ReadHalf<'_>: reader;
    WriteHalf<'_>: writer;
    OwnedReadHalf: reader;
    OwnedWriteHalf: writer;
}
