//! A WebSocket that we open: a dial, a request, and the answer judged.
//!
//! What is dialed is a protocol of its own until the 101 is there, and then hands everything on to the connection that a server's WebSocket has as well. So it goes
//! under a layer as any other protocol does, and into a simulation.
//!
//! Invariant: what is asked for is well formed, whatever the program gives, and bounded in time: the dial, and the answer behind it.

mod answer;
mod dialed;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
#[cfg(feature = "tls")]
use netpoll_core::Layered;
#[cfg(feature = "tls")]
use netpoll_core::tls::TlsClient;
use netpoll_core::{Commands, ConnId, ConnectOptions, Handle, Lost, Protocol, Target};

use self::dialed::{Dialed, Question};
use super::task::{Attached, Shared, Socket};
use super::{Handler, Settings};
use crate::wire::framing::is_token_byte;
use crate::ws::Key;
use crate::ws::extension::OFFER;

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
/// `wss://` takes [`tls`](Self::tls). With callbacks instead of a task: [`dial`](Self::dial). Under a layer of the program's: [`protocol`](Self::protocol) and
/// [`prepare`](Self::prepare).
#[derive(Clone, Debug)]
pub struct Client {
    target: Target,
    /// `Host`, and the target of the request.
    host: String,
    path: String,
    is_secure: bool,
    #[cfg(feature = "tls")]
    tls: Option<TlsClient>,
    protocols: Vec<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
    settings: Settings,
    options: ConnectOptions,
    handshake_within: Duration,
}

impl Client {
    /// One for this URL: `ws://host:port/path?query`, port 80 if there is none; `wss://` with 443, which takes [`tls`](Self::tls).
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
            #[cfg(feature = "tls")]
            tls: None,
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

    /// Whom it trusts where the URL is of `wss://`; the server has to show that it is the URL's host, whatever the [target](Self::target). One of
    /// `ws://` is opened without.
    ///
    /// ```no_run
    /// use netpoll_core::tls::{TlsClient, roots_from_pem_file};
    /// use netpoll_http::websocket::Client;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let tls = TlsClient::builder(roots_from_pem_file("/etc/ssl/certs/ca-certificates.crt")?).build()?;
    /// let mut socket = Client::new("wss://example.com/echo")?.tls(tls).connect().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: TlsClient) -> Self {
        self.tls = Some(tls);
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
    /// Why it was not opened. Of `wss://` without [`tls`](Self::tls) that there is no layer; a server that is somebody else is [`NotOpened::Lost`].
    ///
    /// # Panics
    /// On a thread that is no worker.
    pub async fn connect(&self) -> Result<Socket, NotOpened> {
        let (protocol, mut connecting) = self.prepare();
        let id =
            Commands::with(|commands| self.dial_protocol(commands, protocol)).map_err(NotOpened::Dial)?;
        connecting.id = Some(id);
        connecting.await
    }

    /// Opens one with callbacks. If it is not opened, [`Handler::closed`] says so with [`Closed::NotOpened`](super::Closed::NotOpened), and nothing else is called.
    ///
    /// # Errors
    /// Of `wss://` without [`tls`](Self::tls) that there is no layer, or that its host is no name that a certificate may have.
    pub fn dial(&self, commands: &mut Commands, handler: impl Handler) -> io::Result<ConnId> {
        self.dial_protocol(commands, self.protocol_of(handler))
    }

    fn dial_protocol(&self, commands: &mut Commands, protocol: impl Protocol) -> io::Result<ConnId> {
        let (target, options) = (self.target.clone(), self.options);
        if !self.is_secure {
            return Ok(commands.connect(target, options, protocol));
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let layer = tls.layer(self.server_name())?;
            return Ok(commands.connect(target, options, Layered::new(layer, protocol)));
        }
        Err(io::Error::new(io::ErrorKind::Unsupported, "wss:// takes a layer: see `Client::tls`"))
    }

    /// The URL's host without its port, and an address of IPv6 without its brackets.
    #[cfg(feature = "tls")]
    fn server_name(&self) -> &str {
        match self.host.strip_prefix('[') {
            Some(host) => host.split(']').next().unwrap_or(host),
            None => self.host.split(':').next().unwrap_or(&self.host),
        }
    }

    /// The protocol that opens one with callbacks, to be connected by the program, below a layer of its own: `Commands::connect(target, options, Layered::new(tls, protocol))`.
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
        Dialed::Asking(Box::new(Question::new(self.clone(), handler)))
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
