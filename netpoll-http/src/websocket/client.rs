//! A WebSocket that we open: a dial, a request, and the answer judged.
//!
//! What is dialed is a protocol of its own until the 101 is there, and then hands everything on to the [`Connection`]. So it goes under a layer as any other
//! protocol does, and into a simulation.
//!
//! Invariant: nothing that comes is taken for a frame before the answer was judged, and an answer that is not the one that was asked for opens nothing. The head of an
//! answer is bounded, in bytes and in time.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use netpoll_core::{
    Bytes, Commands, Conn, ConnId, ConnectOptions, Flow, Handle, Input, Instant, Lost, Protocol, Target,
};

use super::connection::Connection;
use super::task::{Attached, Shared, Socket};
use super::{Closed, Handler, Settings, masking};
use crate::wire::framing::is_token_byte;
use crate::ws::extension::OFFER;
use crate::ws::{Asking, Key, Role};

/// Bytes of the head of an answer, those of interim answers in front of it included.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Opens WebSockets at one place.
///
/// ```no_run
/// use netpoll_http::websocket::Client;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let mut socket = Client::new("ws://127.0.0.1:8080/echo")?.connect().await?; // in a task of a worker
/// socket.send("hello").await?;
/// let answer = socket.recv().await?;
/// assert_eq!(answer.as_ref().and_then(|message| message.text()), Some("hello"));
/// # Ok(())
/// # }
/// ```
///
/// What it sends is masked, with a key for each frame that nobody can foresee. The answer is judged strictly: a status other than 101, an accept that is not of our key, a
/// subprotocol or an extension that was not offered open nothing. Redirects are not followed, and cookies are not kept.
///
/// With callbacks instead of a task: [`dial`](Self::dial). Under a layer, for `wss://`: [`protocol`](Self::protocol) and [`prepare`](Self::prepare).
#[derive(Clone, Debug)]
pub struct Client {
    target: Target,
    /// `Host`, and the target of the request.
    host: String,
    path: String,
    is_secure: bool,
    protocols: Vec<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
    settings: Settings,
    options: ConnectOptions,
    handshake_within: Duration,
}

impl Client {
    /// One for this URL: `ws://host:port/path?query`, port 80 if there is none. Of `wss://` (443) what is [prepared](Self::prepare) goes under a layer of the program's.
    ///
    /// # Errors
    /// `InvalidInput`: it is none, has a fragment or a user in it, or what has to be percent-encoded.
    pub fn new(url: &str) -> io::Result<Self> {
        let nothing = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{url:?}: {why}"));
        let scheme = url.find("://").map(|end| &url[..end]).unwrap_or_default();
        let (is_secure, port) = match scheme {
            scheme if scheme.eq_ignore_ascii_case("ws") => (false, 80),
            scheme if scheme.eq_ignore_ascii_case("wss") => (true, 443),
            _ => return Err(nothing("a WebSocket's URL begins with ws:// or wss://")),
        };
        let rest = &url[scheme.len() + 3..];
        let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if !url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(nothing("what is not printable has to be percent-encoded, and there is no fragment"));
        }
        let is_bracketed = host.starts_with('[');
        let name_end = if is_bracketed {
            host.find(']').map_or(0, |end| end + 1)
        } else {
            host.find(':').unwrap_or(host.len())
        };
        let (name, port_text) = host.split_at(name_end);
        let is_name = match is_bracketed {
            true => name.trim_matches(['[', ']']).parse::<std::net::Ipv6Addr>().is_ok(),
            false => !name.is_empty() && !name.bytes().any(|byte| b"@\\\"<>^`{|}[]".contains(&byte)),
        };
        let port = match port_text.strip_prefix(':') {
            Some(text) if text.bytes().all(|digit| digit.is_ascii_digit()) => text.parse::<u16>().ok(),
            Some(_) => None,
            None if port_text.is_empty() => Some(port),
            None => None,
        };
        let (true, Some(port)) = (is_name, port.filter(|port| *port > 0)) else {
            return Err(nothing("not a host, or host:port"));
        };
        Ok(Self {
            target: Target::from(&*format!("{name}:{port}")),
            host: host.to_owned(),
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            is_secure,
            protocols: Vec::new(),
            headers: Vec::new(),
            settings: Settings::default(),
            options: ConnectOptions::default(),
            handshake_within: Duration::from_secs(10),
        })
    }

    /// Dials this place in place of the URL's host, which stays what is asked for: a Unix socket, or a proxy that takes it.
    #[must_use]
    pub fn target(mut self, target: impl Into<Target>) -> Self {
        self.target = target.into();
        self
    }

    /// The subprotocols that the program speaks, the one that it likes best first. The server chooses one, or none.
    ///
    /// # Panics
    /// When one is not a token, or is there twice.
    #[must_use]
    #[track_caller]
    pub fn protocols<P: Into<String>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.protocols = protocols.into_iter().map(Into::into).collect();
        for (at, protocol) in self.protocols.iter().enumerate() {
            let is_token = !protocol.is_empty() && protocol.bytes().all(is_token_byte);
            assert!(
                is_token && !self.protocols[..at].contains(protocol),
                "not a subprotocol, or twice: {protocol:?}"
            );
        }
        self
    }

    /// Adds a header to the request: `Authorization`, `Cookie`, `Origin`.
    ///
    /// # Panics
    /// When it is one of those that make the handshake: `Host`, `Connection`, `Upgrade`, `Content-Length`, `Transfer-Encoding`, and `Sec-WebSocket-..`.
    #[must_use]
    #[track_caller]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        let own = ["host", "connection", "upgrade", "content-length", "transfer-encoding"];
        let is_own = own.contains(&name.as_str()) || name.as_str().starts_with("sec-websocket-");
        assert!(!is_own, "`{name}` is the handshake's");
        self.headers.push((name, value));
        self
    }

    /// Limits, times and compression of the WebSocket. Default: [`Settings::default`].
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// How it is dialed: [`ConnectOptions::timeout`] bounds the dial, 10 s by default.
    #[must_use]
    pub fn connect_options(mut self, options: ConnectOptions) -> Self {
        self.options = options;
        self
    }

    /// How long the answer may take behind the dial. Default 10 s.
    #[must_use]
    pub fn handshake_within(mut self, within: Duration) -> Self {
        self.handshake_within = within;
        self
    }

    /// Opens one for this task. Given up, it leaves nothing behind.
    ///
    /// # Errors
    /// Why it was not opened. Of `wss://` that there is no layer.
    ///
    /// # Panics
    /// On a thread that is no worker.
    pub async fn connect(&self) -> Result<Socket, NotOpened> {
        let (protocol, mut connecting) = self.prepare();
        if self.is_secure {
            return Err(NotOpened::Dial(no_layer()));
        }
        let id = Commands::with(|commands| commands.connect(self.target.clone(), self.options, protocol));
        connecting.id = Some(id);
        connecting.await
    }

    /// Opens one with callbacks. If it is not opened, [`Handler::closed`] says so with [`Closed::NotOpened`], and nothing else is called.
    ///
    /// # Errors
    /// Of `wss://` that there is no layer.
    pub fn dial(&self, commands: &mut Commands, handler: impl Handler) -> io::Result<ConnId> {
        if self.is_secure {
            return Err(no_layer());
        }
        Ok(commands.connect(self.target.clone(), self.options, self.protocol(handler)))
    }

    /// The protocol that opens one with callbacks, to be connected by the program, below a layer: `Commands::connect(target, options, Layered::new(tls, protocol))`.
    pub fn protocol<H: Handler>(&self, handler: H) -> impl Protocol + use<H> {
        self.protocol_of(handler)
    }

    /// The same for a task: the protocol, and what waits until it is open.
    ///
    /// ```
    /// use netpoll_core::sim::{Options, Sim};
    /// use netpoll_core::{Commands, ConnectOptions};
    /// use netpoll_http::websocket::Client;
    ///
    /// let mut sim = Sim::new(Options::default());
    /// let refused = sim.block_on(async {
    ///     let (protocol, connecting) = Client::new("ws://10.0.0.1/").unwrap().prepare();
    ///     // Here in a `Layered`.
    ///     Commands::with(|commands| commands.connect("10.0.0.1:80", ConnectOptions::default(), protocol));
    ///     netpoll_core::time::timeout(std::time::Duration::from_secs(60), connecting).await
    /// });
    /// assert!(refused.unwrap().is_err(), "nobody answers");
    /// ```
    pub fn prepare(&self) -> (impl Protocol + use<>, Connecting) {
        let shared = Rc::<Shared>::default();
        let connecting = Connecting { shared: Some(Rc::clone(&shared)), id: None };
        (self.protocol_of(Attached(shared)), connecting)
    }

    fn protocol_of<H: Handler>(&self, handler: H) -> Dialed<H> {
        let question =
            Question { handler, key: Key::new(masking::nonce()), client: self.clone(), failure: None };
        Dialed::Asking(Box::new(question))
    }

    /// What is sent first.
    fn request(&self, key: &Key) -> Vec<u8> {
        let mut request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n",
            self.path,
            self.host,
            key.as_str()
        )
        .into_bytes();
        let mut line = |name: &str, value: &[u8]| {
            request.extend_from_slice(name.as_bytes());
            request.extend_from_slice(b": ");
            request.extend_from_slice(value);
            request.extend_from_slice(b"\r\n");
        };
        if !self.protocols.is_empty() {
            line("Sec-WebSocket-Protocol", self.protocols.join(", ").as_bytes());
        }
        if self.settings.compression {
            line("Sec-WebSocket-Extensions", OFFER.as_bytes());
        }
        for (name, value) in &self.headers {
            line(name.as_str(), value.as_bytes());
        }
        request.extend_from_slice(b"\r\n");
        request
    }
}

fn no_layer() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "wss:// takes a layer: see `Client::prepare`")
}

/// Why a [`Client`] has opened nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum NotOpened {
    /// It could not be dialed.
    Dial(io::Error),
    /// The server has answered something else: the status.
    Refused(u16),
    /// The answer is a 101 that is not the one that was asked for, and why.
    Mistrusted(&'static str),
    /// The answer is none of HTTP/1.1, or too long.
    Malformed,
    /// There was no answer in time.
    TooLate,
    /// The connection ended before.
    Lost(Lost),
}

impl fmt::Display for NotOpened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(error) => write!(f, "no connection: {error}"),
            Self::Refused(status) => write!(f, "the server has answered {status}"),
            Self::Mistrusted(why) => f.write_str(why),
            Self::Malformed => f.write_str("the server's answer is not HTTP, or too long"),
            Self::TooLate => f.write_str("the server has not answered in time"),
            Self::Lost(lost) => write!(f, "the connection has ended before the server's answer: {lost}"),
        }
    }
}

impl std::error::Error for NotOpened {}

impl From<NotOpened> for io::Error {
    fn from(why: NotOpened) -> Self {
        match why {
            NotOpened::Dial(error) => error,
            NotOpened::TooLate => Self::new(io::ErrorKind::TimedOut, why),
            NotOpened::Lost(_) => Self::new(io::ErrorKind::ConnectionReset, why),
            _ => Self::new(io::ErrorKind::InvalidData, why),
        }
    }
}

/// Waits for a WebSocket that is being opened; made by [`Client::prepare`]. Dropped, it is given up.
#[must_use = "dropped, it gives up"]
pub struct Connecting {
    /// There until it has come to something.
    shared: Option<Rc<Shared>>,
    id: Option<ConnId>,
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connecting").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Future for Connecting {
    type Output = Result<Socket, NotOpened>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(shared) = &self.shared else { panic!("polled behind its end") };
        if let Some(why) = shared.take_failure() {
            self.shared = None;
            return Poll::Ready(Err(why));
        }
        if shared.has_opened() {
            let shared = self.shared.take().expect("it was looked at");
            return Poll::Ready(Ok(Socket::of(shared)));
        }
        shared.await_end(cx.waker());
        Poll::Pending
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else { return };
        shared.leave();
        if let Some(id) = self.id
            && Handle::try_current().is_some()
        {
            Commands::with(|commands| commands.reset(id));
        }
    }
}

/// A connection that was dialed.
enum Dialed<H> {
    /// The answer is not there.
    Asking(Box<Question<H>>),
    Open(Connection<H>),
    /// Between the two, in which nothing is called.
    Turning,
}

struct Question<H> {
    handler: H,
    key: Key,
    client: Client,
    failure: Option<NotOpened>,
}

/// What the head of an answer comes to.
enum Answer {
    /// More is needed.
    Partial,
    /// It is open, behind so many bytes.
    Open {
        bytes: usize,
        protocol: Option<String>,
        deflate: Option<crate::ws::Deflate>,
    },
    Not(NotOpened),
}

impl<H> Question<H> {
    /// Reads the answer, and passes over interim ones (RFC 9110 section 15.2).
    fn read(&self, input: &[u8]) -> Answer {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            let Some(end) = rest.windows(4).position(|window| window == b"\r\n\r\n") else {
                let is_too_long = input.len() >= HEAD_BYTES_MAX;
                // Whoever speaks something else is found out by its first bytes.
                let start = b"HTTP/1.1 ";
                let is_other = !start.starts_with(&rest[..rest.len().min(start.len())]);
                return if is_too_long || is_other {
                    Answer::Not(NotOpened::Malformed)
                } else {
                    Answer::Partial
                };
            };
            let bytes = at + end + 4;
            if bytes > HEAD_BYTES_MAX {
                return Answer::Not(NotOpened::Malformed);
            }
            let Some((status, fields)) = head(&rest[..end]) else { return Answer::Not(NotOpened::Malformed) };
            match status {
                101 => return self.judge(bytes, &fields),
                100..=199 => at = bytes,
                status => return Answer::Not(NotOpened::Refused(status)),
            }
        }
    }

    fn judge(&self, bytes: usize, fields: &[(&str, &[u8])]) -> Answer {
        let protocols: Vec<&str> = self.client.protocols.iter().map(String::as_str).collect();
        let asking =
            Asking { key: self.key, protocols: &protocols, compression: self.client.settings.compression };
        match asking.judge(101, fields.iter().copied()) {
            Ok(agreed) => {
                Answer::Open { bytes, protocol: agreed.protocol.map(str::to_owned), deflate: agreed.deflate }
            }
            Err(why) => Answer::Not(NotOpened::Mistrusted(why.reason())),
        }
    }
}

/// The fields of a head, in their order.
type Fields<'h> = Vec<(&'h str, &'h [u8])>;

/// The status and the fields of a head; `None` if it is none (RFC 9112 sections 4 and 5).
fn head(bytes: &[u8]) -> Option<(u16, Fields<'_>)> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    lines.push(rest);
    if lines.iter().any(|line| line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))) {
        return None;
    }
    let mut lines = lines.into_iter();
    // A reason may be missing, and the space in front of it with some.
    let (status, [] | [b' ', ..]) = lines.next()?.strip_prefix(b"HTTP/1.1 ")?.split_at_checked(3)? else {
        return None;
    };
    if !matches!(status, [b'1'..=b'5', b'0'..=b'9', b'0'..=b'9']) {
        return None;
    }
    let status = std::str::from_utf8(status).ok()?.parse().ok()?;
    let mut fields = Vec::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.is_empty() || !name.iter().copied().all(is_token_byte) {
            return None;
        }
        fields.push((std::str::from_utf8(name).ok()?, value.trim_ascii()));
    }
    Some((status, fields))
}

impl<H: Handler> Dialed<H> {
    /// It comes to nothing.
    #[cold]
    fn give_up(&mut self, why: NotOpened) -> Flow {
        if let Self::Asking(question) = self {
            question.failure.get_or_insert(why);
        }
        Flow::Reset
    }

    fn begin(&mut self, protocol: Option<&str>, deflate: Option<crate::ws::Deflate>) {
        let Self::Asking(question) = std::mem::replace(self, Self::Turning) else {
            unreachable!("it was asking")
        };
        let Question { mut handler, client, .. } = *question;
        handler.agreed(protocol);
        *self = Self::Open(Connection::new(Role::Client, handler, &client.settings, deflate));
    }
}

impl<H: Handler> Protocol for Dialed<H> {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        if let Self::Asking(question) = self {
            conn.send(&question.client.request(&question.key));
            conn.set_deadline(question.client.handshake_within);
        }
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        let question = match self {
            Self::Asking(question) => question,
            Self::Open(open) => return open.received(conn, input),
            Self::Turning => return Flow::Reset,
        };
        match question.read(input.bytes()) {
            Answer::Partial => Flow::Continue,
            Answer::Not(why) => self.give_up(why),
            Answer::Open { bytes, protocol, deflate } => {
                input.advance(bytes);
                self.begin(protocol.as_deref(), deflate);
                let Self::Open(open) = self else { unreachable!("it has begun") };
                match open.opened(conn) {
                    // In a callback of its own, as frames are unmasked where they lie.
                    Flow::Continue if !input.is_empty() => Flow::Yield,
                    flow => flow,
                }
            }
        }
    }

    fn eof(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        match self {
            Self::Open(open) => open.eof(conn, input),
            _ => {
                input.advance_all();
                Flow::Close
            }
        }
    }

    fn deadline(&mut self, conn: &mut Conn<'_>) -> Flow {
        match self {
            Self::Open(open) => open.deadline(conn),
            _ => self.give_up(NotOpened::TooLate),
        }
    }

    fn drained(&mut self, conn: &mut Conn<'_>) -> Flow {
        match self {
            Self::Open(open) => open.drained(conn),
            _ => conn.unchanged_flow(),
        }
    }

    fn woken(&mut self, conn: &mut Conn<'_>) -> Flow {
        match self {
            Self::Open(open) => open.woken(conn),
            _ => conn.unchanged_flow(),
        }
    }

    fn told(&mut self, conn: &mut Conn<'_>, message: netpoll_core::Message) -> Flow {
        match self {
            Self::Open(open) => open.told(conn, message),
            _ => conn.unchanged_flow(),
        }
    }

    fn outgoing(&mut self, conn: &mut Conn<'_>, bytes: Bytes) -> Flow {
        match self {
            Self::Open(open) => open.outgoing(conn, bytes),
            _ => conn.unchanged_flow(),
        }
    }

    fn finishing(&mut self, conn: &mut Conn<'_>) -> Flow {
        match self {
            Self::Open(open) => open.finishing(conn),
            _ => Flow::Reset,
        }
    }

    fn stopping(&mut self, conn: &mut Conn<'_>) -> Flow {
        match self {
            Self::Open(open) => open.stopping(conn),
            // Its answer may be on its way, and its deadline is set.
            _ => conn.unchanged_flow(),
        }
    }

    fn closing(&mut self, conn: &mut Conn<'_>) -> Flow {
        match self {
            Self::Open(open) => open.closing(conn),
            _ => Flow::Close,
        }
    }

    fn idle_since(&mut self, conn: &mut Conn<'_>) -> Option<Instant> {
        match self {
            Self::Open(open) => open.idle_since(conn),
            _ => None,
        }
    }

    fn lost(&mut self, reason: Lost, commands: &mut Commands) {
        match self {
            Self::Open(open) => open.lost(reason, commands),
            Self::Asking(question) => {
                let why = question.failure.take().unwrap_or(match reason {
                    Lost::ConnectFailed(error) => NotOpened::Dial(error),
                    lost => NotOpened::Lost(lost),
                });
                question.handler.closed(Closed::NotOpened(why), commands);
            }
            Self::Turning => {}
        }
    }
}
