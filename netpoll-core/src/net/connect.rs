//! How a stream comes to be: dialed, or taken over.
//!
//! A place with several addresses is tried as RFC 8305 has it: families take turns, the next address is tried when the last attempt
//! has failed or a quarter of a second has passed without an answer, and whoever answers first is taken.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::link::Link;
use super::shared::Shared;
use super::stream::Stream;
use crate::conn::{
    Command, Commands, ConnId, ConnectOptions, Context, LookUp, Place, Start, Tables, Target, desk, malformed,
};
use crate::driver::Io;
use crate::mem::Key;
use crate::sys::{self, Address};
use crate::task::{self, Lane};
use crate::time::{Sleep, sleep_until, timeout_at};

/// How long an address may leave its attempt without an answer until the next is tried too: "Connection Attempt Delay" of RFC 8305.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Attempts under way at the same time; for one more the oldest is given up.
const ATTEMPTS_MAX: usize = 8;

/// Connects to an address, or to any of the addresses of a name, which is looked up on another thread.
///
/// Several addresses are tried as RFC 8305 says ("happy eyeballs"): IPv6 and IPv4 take turns, each 250 ms behind the one before or as soon
/// as that has failed; the first that answers is taken and the others are given up. Ten seconds in all
/// ([`ConnectOptions::timeout`]). Cancel-safe: given up, it leaves nothing behind.
///
/// ```no_run
/// use netpoll_core::net::Stream;
///
/// # async fn example() -> std::io::Result<()> {
/// let mut stream = Stream::connect("example.org:80").await?; // or "127.0.0.1:80", "unix:/run/x.sock", a `SocketAddr`, ..
/// stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`Lost::ConnectFailed`](crate::Lost::ConnectFailed) says, that of the address that failed last; `TimedOut` if none has answered in time;
/// `Unsupported` outside of tasks and handlers of a worker.
pub async fn connect(to: impl Into<Target>) -> io::Result<Stream> {
    connect_with(to, &ConnectOptions::default()).await
}

/// [`connect`] with options: time, the local address, what is set on the socket.
///
/// # Errors
/// As [`connect`]; `InvalidInput` for options that cannot be meant.
pub async fn connect_with(to: impl Into<Target>, options: &ConnectOptions) -> io::Result<Stream> {
    let lane = lane()?;
    let ends = lane.now().saturating_add(options.timeout);
    if options.timeout.is_zero() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "timeout is zero"));
    }
    let addresses = match to.into().into_place() {
        Place::Known(address, others) if others.is_empty() => {
            let attempt = Attempt::begin(&lane, address, *options)?;
            return attempt.opened().await;
        }
        Place::Known(first, others) => std::iter::once(first).chain(others).collect(),
        Place::Name(name, port) => {
            let found = timeout_at(ends, look_up(&lane, name, port)?).await;
            found.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??
        }
        Place::Nothing(text, why) => return Err(malformed(&text, why)),
    };
    race(&lane, take_turns(addresses), *options, ends).await
}

/// Looks up the addresses of a name with a port, on another thread; an address is its own answer. In the order of the
/// system's resolver, one at least.
///
/// Cancel-safe.
///
/// # Errors
/// As [`Target::resolve`]; `ResourceBusy` when 4096 others wait; `Unsupported` outside of tasks and handlers of a worker.
pub async fn lookup(to: impl Into<Target>) -> io::Result<Vec<Address>> {
    match to.into().into_place() {
        Place::Known(first, others) => Ok(std::iter::once(first).chain(others).collect()),
        Place::Name(name, port) => look_up(&lane()?, name, port)?.await,
        Place::Nothing(text, why) => Err(malformed(&text, why)),
    }
}

/// Takes over a connected socket.
pub fn adopt(socket: OwnedFd) -> io::Result<Stream> {
    let lane = lane()?;
    if !has_sockets(&lane)? {
        let text = "there are no sockets of the system in a simulation";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    sys::set_nonblocking(socket.as_fd())?;
    let shared = Shared::new(Rc::clone(&lane));
    shared.set_socket(socket);
    let adopted = Adopt(Link(Rc::clone(&shared)));
    order(&lane, |cx| cx.commands.push(Command::Connect(Box::new(adopted))))?;
    Ok(Stream::of(shared))
}

/// The name of a stream's connection.
pub fn id_of(shared: &Shared) -> Option<ConnId> {
    let key = shared.open_key()?;
    let worker = shared.lane().home()?.worker as u16;
    Some(ConnId { worker, key })
}

/// The lane that this thread is in.
pub fn lane() -> io::Result<Rc<Lane>> {
    task::try_current().ok_or_else(out_of_reach)
}

/// Orders something from the worker of this lane.
pub fn order<R>(lane: &Lane, order: impl FnOnce(&mut Context) -> R) -> io::Result<R> {
    desk::with(lane.number(), |desk| order(desk.cx)).ok_or_else(out_of_reach)
}

/// Whether the sockets of this lane's worker are the system's; they are not in a simulation.
fn has_sockets(lane: &Lane) -> io::Result<bool> {
    desk::with(lane.number(), |desk| desk.io.has_sockets()).ok_or_else(out_of_reach)
}

/// The same, or soon if the worker is out of reach just now.
pub fn later(lane: &Rc<Lane>, order: impl FnOnce(&mut Context) + 'static) {
    let mut order = Some(order);
    let mut now = |cx: &mut Context| {
        if let Some(order) = order.take() {
            order(cx);
        }
    };
    let is_done = desk::with(lane.number(), |desk| now(desk.cx)).is_some();
    if let Some(order) = order.filter(|_| !is_done) {
        Commands::give(lane, Command::Install(Box::new(move |_listeners, cx, _io| order(cx))));
    }
}

fn out_of_reach() -> io::Error {
    let text = "sockets are made in tasks and handlers of a worker";
    io::Error::new(io::ErrorKind::Unsupported, text)
}

/// A connected socket on its way to its worker.
struct Adopt(Link);

impl Start for Adopt {
    fn start(self: Box<Self>, tables: &mut Tables, cx: &mut Context, io: &mut dyn Io) {
        let link = self.0;
        let shared = Rc::clone(&link.0);
        let Some(socket) = shared.take_socket() else { return };
        let key = tables.of::<Link>().and_then(|table| table.admit(link));
        let full = || io::Error::new(io::ErrorKind::QuotaExceeded, "the worker has no slot left");
        let Some(key) = key else { return shared.lost(crate::conn::Lost::Failed(full())) };
        let adopted = io.adopt(key, socket);
        cx.agenda.stats.connected += u64::from(adopted.is_ok());
        if let Some(table) = tables.get(key) {
            table.opened(cx, io, key, adopted);
        }
    }
}

/// A connection that is being made to one address. Dropped, it is given up.
struct Attempt {
    shared: Option<Rc<Shared>>,
    lane: Rc<Lane>,
    id: ConnId,
}

impl Attempt {
    fn begin(lane: &Rc<Lane>, to: Address, options: ConnectOptions) -> io::Result<Self> {
        let shared = Shared::new(Rc::clone(lane));
        shared.set_dialed();
        let link = Link(Rc::clone(&shared));
        let id = order(lane, |cx| cx.commands.connect(to, options, link))?;
        Ok(Self { shared: Some(shared), lane: Rc::clone(lane), id })
    }

    fn poll(&mut self, cx: &mut std::task::Context<'_>) -> Poll<io::Result<Stream>> {
        let shared = self.shared.as_ref().expect("it was not polled behind its end");
        match shared.poll_opened(cx.waker()) {
            Poll::Ready(opened) => {
                let shared = self.shared.take().expect("it is there");
                Poll::Ready(opened.map(|()| Stream::of(shared)))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    async fn opened(mut self) -> io::Result<Stream> {
        poll_fn(|cx| self.poll(cx)).await
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else { return };
        shared.reset();
        let id = self.id;
        later(&self.lane, move |cx| cx.commands.reset(id));
    }
}

/// Tries these addresses, one a little behind the other.
async fn race(
    lane: &Rc<Lane>,
    mut addresses: VecDeque<Address>,
    options: ConnectOptions,
    ends: crate::Instant,
) -> io::Result<Stream> {
    let mut under_way: Vec<Attempt> = Vec::new();
    let mut failure = io::Error::from(io::ErrorKind::TimedOut);
    let mut next = pin!(sleep_until(lane.now()));
    let mut end = pin!(sleep_until(ends));
    poll_fn(|cx| {
        loop {
            let mut place = 0;
            let mut has_failed = false;
            while let Some(attempt) = under_way.get_mut(place) {
                match attempt.poll(cx) {
                    Poll::Ready(Ok(stream)) => return Poll::Ready(Ok(stream)),
                    Poll::Ready(Err(error)) => {
                        failure = error;
                        has_failed = true;
                        under_way.remove(place);
                    }
                    Poll::Pending => place += 1,
                }
            }
            if end.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            let may_begin = has_failed || under_way.is_empty() || poll_sleep(&mut next, cx);
            if !may_begin {
                return Poll::Pending;
            }
            let Some(address) = addresses.pop_front() else {
                if under_way.is_empty() {
                    return Poll::Ready(Err(std::mem::replace(&mut failure, io::ErrorKind::TimedOut.into())));
                }
                return Poll::Pending;
            };
            if under_way.len() >= ATTEMPTS_MAX {
                // It has had two seconds; who comes behind may be there.
                under_way.remove(0);
            }
            let now = lane.now();
            let left = ends.duration_since(now).max(Duration::from_millis(1));
            match Attempt::begin(lane, address, options.timeout(left)) {
                Ok(attempt) => under_way.push(attempt),
                Err(error) => return Poll::Ready(Err(error)),
            }
            next.as_mut().get_mut().reset(now.saturating_add(ATTEMPT_DELAY));
        }
    })
    .await
}

fn poll_sleep(sleep: &mut std::pin::Pin<&mut Sleep>, cx: &mut std::task::Context<'_>) -> bool {
    sleep.as_mut().poll(cx).is_ready()
}

/// The families take turns, beginning with that of the first address; each keeps its order.
fn take_turns(addresses: Vec<Address>) -> VecDeque<Address> {
    let is_first_family = |address: &Address| address.ip().map(|ip| ip.is_ipv6());
    let family = addresses.first().and_then(is_first_family);
    let (firsts, others): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| is_first_family(address) == family);
    let mut turns = VecDeque::with_capacity(firsts.len() + others.len());
    let (mut firsts, mut others) = (firsts.into_iter(), others.into_iter());
    loop {
        let (first, other) = (firsts.next(), others.next());
        if first.is_none() && other.is_none() {
            return turns;
        }
        turns.extend(first);
        turns.extend(other);
    }
}

/// A name that is being looked up. Dropped, nobody waits for it any more.
struct Looked {
    lane: Rc<Lane>,
    key: Key,
    look_up: Rc<LookUp>,
}

impl Future for Looked {
    type Output = io::Result<Vec<Address>>;

    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        self.look_up.poll(cx.waker())
    }
}

impl Drop for Looked {
    fn drop(&mut self) {
        let key = self.key;
        later(&self.lane, move |cx| {
            cx.lookups.forget(key);
            cx.resolver.forget(key);
        });
    }
}

fn look_up(lane: &Rc<Lane>, name: String, port: u16) -> io::Result<Looked> {
    order(lane, |cx| {
        let (key, look_up) = cx.lookups.begin();
        cx.resolver.look_up(key, name, port);
        Looked { lane: Rc::clone(lane), key, look_up }
    })
}
