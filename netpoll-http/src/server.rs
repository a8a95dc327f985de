//! An HTTP server: an address, limits, and a service for each worker.
//!
//! A [`Server`] says where and how, an [`App`] what as well. The same app runs until a signal, in the
//! background, or in memory for tests.
//!
//! Invariant: a service belongs to one worker and is made on it, so nothing in it needs a lock, and what
//! it captures need not be `Send`.

#[cfg(feature = "http2")]
mod http2;
mod on_workers;
#[cfg(feature = "tls")]
mod tls;

use std::any::Any;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use netpoll_core::sim::Options;
use netpoll_core::{
    Address, Builder, Handle, Peer, Protocol, Proxied, Runtime, Target, WorkerInfo, Workers, task,
};

use crate::h1::{Completed, Http, Limits, Personal, ServerHeader, Service, Watcher};
#[cfg(doc)]
use crate::message::errors;
use crate::message::{Error, Renderer, Request, Response};
use crate::test::TestClient;
use on_workers::OnWorkers;

pub use netpoll_core::Report;

/// What answers to operators have to leave in, once their port is the next process's.
const DRAIN_OF_OPERATORS: Duration = Duration::from_secs(1);

/// The worker that a service is made for.
#[derive(Clone)]
pub struct Worker {
    info: WorkerInfo,
}

impl Worker {
    /// Which worker, from zero.
    pub fn index(&self) -> usize {
        self.info.index
    }

    /// How many workers there are.
    pub fn count(&self) -> usize {
        self.info.workers
    }

    /// The CPU that it was to be pinned to, if any.
    pub fn cpu(&self) -> Option<usize> {
        self.info.cpu
    }

    /// A way to all workers from any thread: counters, sending to connections, code for other workers, draining.
    pub fn handle(&self) -> &Handle {
        &self.info.handle
    }

    /// The value of this type that [`Server::state`] made for this worker. A factory hands it to its handlers and hooks.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    #[track_caller]
    pub fn state<S: 'static>(&self) -> Rc<S> {
        self.info.state()
    }
}

impl From<&WorkerInfo> for Worker {
    fn from(info: &WorkerInfo) -> Self {
        Self { info: info.clone() }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("index", &self.index())
            .field("cpu", &self.cpu())
            .finish_non_exhaustive()
    }
}

/// An HTTP server that is being put together.
///
/// ```no_run
/// use netpoll_http::{Request, Router, Server};
///
/// # fn main() -> std::io::Result<()> {
/// let report = Server::bind("127.0.0.1:8080")?
///     .workers(2)
///     .serve(|worker| {
///         let index = worker.index();
///         Router::new().get("/", move |_: &Request| format!("worker {index}"))
///     })?;
/// eprintln!("{report}");
/// # Ok(())
/// # }
/// ```
pub struct Server {
    at: At,
    /// Where the same service always has room.
    reserved: Option<Address>,
    /// Where operators are served.
    admin: Option<Admin>,
    /// Clients of the service come through proxies that say who they are.
    proxied: bool,
    #[cfg(feature = "tls")]
    edge: tls::Edge,
    settings: Settings,
    builder: Builder,
    on_workers: Vec<OnWorkers>,
}

/// Starts a service for operators of a server, with these settings.
type Admin = Box<dyn FnOnce(&Handle, Builder, Settings) -> io::Result<netpoll_core::Running> + Send + Sync>;

/// What every connection is told.
#[derive(Clone, Default)]
struct Settings {
    limits: Limits,
    errors: Option<Renderer>,
    server: ServerHeader,
    watchers: Vec<MakeWatcher>,
    #[cfg(feature = "http2")]
    http2: Option<crate::h2::Http2>,
}

/// What makes a watcher for a worker.
type MakeWatcher = Arc<dyn Fn(&Worker) -> Watcher + Send + Sync>;

/// In one box, also what comes in one, as that of the log and that of the figures.
fn boxed<C: Fn(&Completed<'_>) + 'static>(watcher: C) -> Watcher {
    let mut watcher = Some(watcher);
    let as_box = (&mut watcher as &mut dyn Any).downcast_mut::<Option<Watcher>>();
    match as_box.and_then(Option::take) {
        Some(in_box) => in_box,
        None => match watcher {
            Some(watcher) => Box::new(watcher),
            None => unreachable!("it was no box"),
        },
    }
}

impl Settings {
    fn add_watcher<C: Fn(&Completed<'_>) + 'static>(
        &mut self,
        make: impl Fn(&Worker) -> C + Send + Sync + 'static,
    ) {
        self.watchers.push(Arc::new(move |worker| boxed(make(worker))));
    }

    /// What goes for a service of its own as well: how errors look, and what the server calls itself.
    fn for_operators(&self) -> Self {
        Self { errors: self.errors.clone(), server: self.server.clone(), ..Self::default() }
    }

    /// Why there can be no such server.
    fn check(&self) -> Result<(), String> {
        self.limits.check().map_err(|sentence| sentence.to_string())?;
        #[cfg(feature = "http2")]
        self.http2.iter().try_for_each(|http2| http2.check().map_err(str::to_owned))?;
        self.server.check()
    }

    #[cfg(all(feature = "tls", feature = "http2"))]
    fn has_http2(&self) -> bool {
        self.http2.is_some()
    }

    #[cfg(all(feature = "tls", not(feature = "http2")))]
    fn has_http2(&self) -> bool {
        false
    }

    /// What makes the connections of a worker.
    fn acceptor<S: Service>(
        &self,
        worker: &Worker,
        service: S,
    ) -> io::Result<impl FnMut(Peer) -> Http<S> + use<S>> {
        let watchers = self.watchers.iter().map(|make| make(worker)).collect();
        let personal = Personal { errors: self.errors.clone(), server: self.server.clone(), watchers };
        #[cfg(feature = "http2")]
        let second = self.http2.as_ref().map(crate::h2::second);
        #[cfg(not(feature = "http2"))]
        let second = None;
        Http::acceptor_of(service, self.limits.clone(), personal, second)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.limits.fmt(f)
    }
}

/// Where a server listens.
enum At {
    Address(Address),
    /// On what somebody else has opened.
    Socket(OwnedFd),
}

impl At {
    /// Serves these protocols there.
    fn listen<A, P>(
        self,
        builder: Builder,
        proxied: bool,
        protocols: impl Fn(&WorkerInfo) -> io::Result<A> + Send + Sync + 'static,
    ) -> io::Result<Builder>
    where
        A: FnMut(Peer) -> P + 'static,
        P: Protocol,
    {
        if proxied {
            let behind_proxies = move |info: &WorkerInfo| protocols(info).map(Proxied::accept);
            return match self {
                Self::Address(addr) => builder.try_listen(addr, behind_proxies),
                Self::Socket(socket) => builder.try_listen_on(socket, behind_proxies),
            };
        }
        match self {
            Self::Address(addr) => builder.try_listen(addr, protocols),
            Self::Socket(socket) => builder.try_listen_on(socket, protocols),
        }
    }
}

impl fmt::Debug for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(addr) => addr.fmt(f),
            Self::Socket(socket) => socket.fmt(f),
        }
    }
}

impl Server {
    /// A server for this address, which is resolved now; the sockets open when the server starts.
    ///
    /// Takes what a [`Target`] is made of: `"127.0.0.1:8080"`, `("localhost", 8080)`, a [`SocketAddr`](std::net::SocketAddr),
    /// `"unix:/run/app.sock"`. Of several addresses the first is used. Port 0 lets the kernel choose, see [`Running::addr`]. What
    /// holds for Unix sockets is said at [`Builder::listen`].
    ///
    /// # Errors
    /// When the address is malformed or its name cannot be resolved; the error names it.
    pub fn bind(addr: impl Into<Target>) -> io::Result<Self> {
        Ok(Self::at(At::Address(resolve(addr)?)))
    }

    /// A server on a socket that somebody else has opened, and that listens: a service manager
    /// ([`listen_fds`](netpoll_core::listen_fds)), or the process that was here before. TCP or Unix; see [`Builder::listen_on`].
    ///
    /// ```no_run
    /// use netpoll_http::{Request, Router, Server};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// // Of systemd, if it has one for us; else our own.
    /// let server = match netpoll_core::listen_fds()?.into_iter().next() {
    ///     Some(socket) => Server::on(socket),
    ///     None => Server::bind("127.0.0.1:8080")?,
    /// };
    /// server.serve(|_worker| Router::new().get("/", |_: &Request| "hello"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// That it is no such socket is an error when the server starts.
    pub fn on(socket: impl Into<OwnedFd>) -> Self {
        Self::at(At::Socket(socket.into()))
    }

    fn at(at: At) -> Self {
        Self {
            at,
            reserved: None,
            admin: None,
            proxied: false,
            #[cfg(feature = "tls")]
            edge: tls::Edge::default(),
            settings: Settings::default(),
            builder: Runtime::builder(),
            on_workers: Vec::new(),
        }
    }

    /// A second address of the same service that always has room, for health checks and operators: its clients are
    /// accepted whatever the limits on connections say. Keep it where strangers do not reach it. See [`Builder::reserved`].
    ///
    /// Each worker makes one more service for it.
    ///
    /// # Errors
    /// Those of [`bind`](Self::bind).
    pub fn bind_reserved(mut self, addr: impl Into<Target>) -> io::Result<Self> {
        self.reserved = Some(resolve(addr)?);
        Ok(self)
    }

    /// A service of its own for operators, on an address of its own: health, readiness, figures. Its clients always have room, as those of
    /// [`bind_reserved`](Self::bind_reserved), and what goes for the service does not go for this one: it has [`Limits::default`], none of the
    /// other's hooks, and no [`on_complete`](Self::on_complete). Errors look the same. Keep it where strangers do not reach it.
    ///
    /// It has a thread of its own, so it answers whatever the workers do: while their factories run, while one of them is stuck, in the
    /// [`lame_duck`](Self::lame_duck) time, and until the last of them has drained. Where the port is shared
    /// ([`Builder::share_port`]), or was handed over ([`Builder::handover`]), it closes when the drain begins, because the next process is asked
    /// there by then. The [`Worker`] that the
    /// factory sees is none of the server's: it is number 0 of 1 and has no [`state`](Self::state); its
    /// [`handle`](Worker::handle) is the way to the server's workers.
    ///
    /// ```no_run
    /// use netpoll_http::{Health, Metrics, Request, Router, Server};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let metrics = Metrics::new();
    /// let shown = metrics.clone();
    /// Server::bind("0.0.0.0:8080")?
    ///     .admin("127.0.0.1:9090", move |worker| {
    ///         Health::of(worker).router().get("/metrics", shown.handler())
    ///     })?
    ///     .on_complete(metrics.hook())
    ///     .serve(|_worker| Router::new().get("/", |_: &Request| "hello"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`bind`](Self::bind). That of the factory is one when the server starts.
    pub fn admin<S: IntoService>(
        mut self,
        addr: impl Into<Target>,
        factory: impl Fn(&Worker) -> S + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let addr = resolve(addr)?;
        self.admin = Some(Box::new(move |served, builder, settings| {
            let served = served.clone();
            let protocols = move |info: &WorkerInfo| {
                let mut worker = Worker::from(info);
                worker.info.handle = served.clone();
                settings.acceptor(&worker, factory(&worker).into_service()?)
            };
            builder.try_listen(addr, protocols)?.reserved().start()
        }));
        Ok(self)
    }

    /// Whether all clients of the service come through proxies that speak the PROXY protocol, version 1 or 2
    /// ([`Proxied`](netpoll_core::Proxied)): HAProxy's `send-proxy`, nginx's `proxy_protocol on`, balancers of clouds. [`Request::peer`]
    /// is the client then, so logs and limits know it. Who sends no such header is closed without a word; and whoever can reach
    /// the address can say that he is anybody, so only proxies may. Clients of [`bind_reserved`](Self::bind_reserved) and
    /// [`admin`](Self::admin) send none. Off by default. For `X-Forwarded-For` see [`Forwarded`](crate::Forwarded).
    #[must_use]
    pub fn proxy_protocol(mut self, on: bool) -> Self {
        self.proxied = on;
        self
    }

    /// The limits of every connection. Default: [`Limits::default`].
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// How errors look: all that leave, of handlers and hooks, and those of this crate, such as 404, 405, 413, 408 and 431,
    /// the 503 of a handler that is late, the 500 of one that has panicked, and the 400 of what is no request. Default:
    /// [`errors::text`]; [`errors::json`] is one that programs like better.
    ///
    /// The function sees the error with its source, and the request as far as it is known: all of it, or the head, or only where
    /// it came from ([`Request::is_unread`]); a body that was not read is empty. What it returns is sent with the error's status,
    /// unless it has one of 400 or more itself, and with the headers of the error that it has none of (`Allow`, `Retry-After`). If
    /// it panics, the answer is 500 as text. An answer that a handler makes itself, such as a bare `StatusCode`, is none of its
    /// business.
    ///
    /// With one set, the request of an `async` handler is kept until it has answered. Nothing else gets slower.
    ///
    /// ```
    /// use netpoll_http::{App, Error, Json, Request, Response, Router};
    ///
    /// fn page(error: &Error, request: &Request) -> Response {
    ///     Response::html(format!("<h1>{}</h1><p>{} bytes of path", error.status(), request.path().len()))
    /// }
    ///
    /// let client = App::new(|_worker| Router::new()).errors(page).test();
    /// assert_eq!(client.get("/nowhere").text(), "<h1>404 Not Found</h1><p>8 bytes of path");
    /// assert_eq!(client.get("/nowhere").status, 404);
    /// ```
    #[must_use]
    pub fn errors(
        mut self,
        render: impl Fn(&Error, &Request<'_>) -> Response + Send + Sync + 'static,
    ) -> Self {
        self.settings.errors = Some(Arc::new(render));
        self
    }

    /// What the server calls itself, in the `Server` header of every answer, of those too that this crate writes by itself. Default
    /// `netpoll`; `None` leaves the header out, and what a handler sets under that name is dropped in any case. Visible ASCII, spaces
    /// inside, 128 bytes at most; anything else is an error when the server starts, and a panic of [`App::test`].
    ///
    /// ```
    /// use netpoll_http::{App, Request, Router};
    ///
    /// let app = || App::new(|_worker| Router::new().get("/", |_: &Request| "hello"));
    /// assert_eq!(app().test().get("/").header("server"), Some("netpoll"));
    /// assert_eq!(app().server_header("shop/1.4").test().get("/").header("server"), Some("shop/1.4"));
    /// assert_eq!(app().server_header(None).test().get("/nowhere").header("server"), None);
    /// ```
    ///
    /// Answers of the usual kind come from heads that are kept rendered, whose 128 bytes have room for 7 bytes of name beside
    /// `text/plain; charset=utf-8`, 16 beside `application/json`. With a longer one these answers take a hundred instructions more.
    #[must_use]
    pub fn server_header(mut self, name: impl Into<ServerHeader>) -> Self {
        self.settings.server = name.into();
        self
    }

    /// Calls a hook once for each request that is over, in whatever way it ends: answered, [refused](crate::Refusal), panicked,
    /// handed to another protocol, abandoned by its client, broken off, or cut by a drain. For access logs
    /// ([`AccessLog`](crate::AccessLog)), metrics ([`Metrics`](crate::Metrics)) and the like. Called again it adds another hook.
    ///
    /// `make` is called on each worker when it starts, once for each address that the server listens on, and returns what is
    /// called there: a function that belongs to the worker, so it need not be `Send` and may keep what it counts in a `Cell`. It must not
    /// block. If it panics, the panic is counted and nothing else happens.
    ///
    /// A request is one from the moment that its head is there, or was refused. Whoever connects and says nothing, leaves in the
    /// middle of a head, or speaks TLS is none.
    ///
    /// Without a hook a request pays one test. With one, what it sees is copied only if the answer does not leave in the turn that
    /// made it (streams, files, more than 16 KiB, peers that do not read), or if the handler is `async`, whose request is kept. 64 answers
    /// of a connection are followed until they have left; those behind them count as sent when they are queued. A connection is larger by
    /// a box of some hundred bytes.
    ///
    /// ```
    /// use netpoll_http::{App, Completed, Request, Router};
    ///
    /// let (sender, ended) = std::sync::mpsc::channel();
    /// let client = App::new(|_worker| Router::new().get("/orders/{id}", |_: &Request| "an order"))
    ///     .on_complete(move |_worker| {
    ///         let sender = sender.clone();
    ///         move |done: &Completed| {
    ///             let line = format!("{} {:?} {:?} {}", done.request.path(), done.route, done.status, done.outcome);
    ///             sender.send(line).unwrap();
    ///         }
    ///     })
    ///     .test();
    /// client.get("/orders/7");
    /// client.get("/nowhere");
    /// assert_eq!(ended.recv().unwrap(), "/orders/7 Some(\"/orders/{id}\") Some(200) answered");
    /// assert_eq!(ended.recv().unwrap(), "/nowhere None Some(404) not_found");
    /// ```
    #[must_use]
    pub fn on_complete<C: Fn(&Completed<'_>) + 'static>(
        mut self,
        make: impl Fn(&Worker) -> C + Send + Sync + 'static,
    ) -> Self {
        self.settings.add_watcher(make);
        self
    }

    /// So many workers; zero is taken as one. Default: one for each CPU that the process may use.
    #[must_use]
    pub fn workers(self, count: usize) -> Self {
        self.runtime(|builder| builder.workers(Workers::Count(count)))
    }

    /// One worker on each of these CPUs, pinned to it. A CPU that may not be used is an error when it starts.
    #[must_use]
    pub fn cpus(self, cpus: impl IntoIterator<Item = usize>) -> Self {
        let cpus = cpus.into_iter().collect();
        self.runtime(|builder| builder.workers(Workers::Cpus(cpus)))
    }

    /// How long the server goes on behind the first stop signal, or [`Running::stop`], before it drains. Default zero. Meanwhile it is not
    /// ready ([`Health::readyz`](crate::Health::readyz)), so that load balancers find out and send no more. See [`Builder::lame_duck`].
    #[must_use]
    pub fn lame_duck(self, time: Duration) -> Self {
        self.runtime(|builder| builder.lame_duck(time))
    }

    /// Tells the service manager that has started this process, if one has, that the server serves, that it stops, and that it lives: see
    /// [`Builder::sd_notify`].
    #[must_use]
    pub fn sd_notify(self) -> Self {
        self.runtime(Builder::sd_notify)
    }

    /// Any other setting of the runtime below: poll budget, waiting, backlog, other listeners.
    #[must_use]
    pub fn runtime(mut self, change: impl FnOnce(Builder) -> Builder) -> Self {
        self.builder = change(self.builder);
        self
    }

    /// Serves until SIGINT, SIGTERM or SIGHUP ([`Builder::stop_signals`]), then drains: what is under way, or
    /// arrives within a moment ([`ConnLimits::drain_grace`](netpoll_core::ConnLimits::drain_grace)), is answered with
    /// `Connection: close`, and then the connections end. A second signal ends the process at once.
    ///
    /// The factory runs once on each worker, and may return an [`io::Result`]: a server starts whole or not at all.
    ///
    /// ```no_run
    /// use netpoll_http::{Request, Router, Server};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// Server::bind("127.0.0.1:8080")?.serve(|_worker| {
    ///     let page = std::fs::read_to_string("page.html")?;
    ///     Ok(Router::new().get("/", move |_: &Request| page.clone()))
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`App::serve`].
    pub fn serve<S, F>(self, factory: F) -> io::Result<Report>
    where
        S: IntoService,
        F: Fn(&Worker) -> S + Send + Sync + 'static,
    {
        self.app(factory).serve()
    }

    /// The server together with what it serves.
    pub fn app<S, F>(mut self, factory: F) -> App<F>
    where
        S: IntoService,
        F: Fn(&Worker) -> S + Send + Sync + 'static,
    {
        let on_workers = std::mem::take(&mut self.on_workers);
        App { server: Ok(self), factory, on_workers }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("at", &self.at).field("limits", &self.settings).finish_non_exhaustive()
    }
}

/// What a factory may return: a [`Service`], or an [`io::Result`] of one. The error of a factory ends the start of the
/// server.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a service",
    label = "not a service",
    note = "a factory returns a `Router`, what `routes!` makes, another `Service`, or `std::io::Result` of one of them"
)]
pub trait IntoService {
    /// What it serves.
    type Service: Service;

    /// The service.
    ///
    /// # Errors
    /// Why there is none.
    fn into_service(self) -> io::Result<Self::Service>;
}

impl<S: Service> IntoService for S {
    type Service = S;

    fn into_service(self) -> io::Result<S> {
        Ok(self)
    }
}

impl<S: Service> IntoService for io::Result<S> {
    type Service = S;

    fn into_service(self) -> io::Result<S> {
        self
    }
}

/// A server and the factory of what it serves.
#[derive(Debug)]
pub struct App<F> {
    /// Or what connections are told, when there is no address to serve on.
    server: Result<Server, Settings>,
    factory: F,
    on_workers: Vec<OnWorkers>,
}

impl<F, S> App<F>
where
    F: Fn(&Worker) -> S + Send + Sync + 'static,
    S: IntoService,
{
    /// An app without an address, for [`test`](Self::test).
    pub fn new(factory: F) -> Self {
        Self { server: Err(Settings::default()), factory, on_workers: Vec::new() }
    }

    /// The limits of every connection. Default: [`Limits::default`].
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings().limits = limits;
        self
    }

    /// How errors look, see [`Server::errors`]. Default: [`errors::text`].
    #[must_use]
    pub fn errors(
        mut self,
        render: impl Fn(&Error, &Request<'_>) -> Response + Send + Sync + 'static,
    ) -> Self {
        self.settings().errors = Some(Arc::new(render));
        self
    }

    /// What the server calls itself, see [`Server::server_header`]. Default `netpoll`.
    #[must_use]
    pub fn server_header(mut self, name: impl Into<ServerHeader>) -> Self {
        self.settings().server = name.into();
        self
    }

    /// Calls a hook once for each request that is over, see [`Server::on_complete`].
    #[must_use]
    pub fn on_complete<C: Fn(&Completed<'_>) + 'static>(
        mut self,
        make: impl Fn(&Worker) -> C + Send + Sync + 'static,
    ) -> Self {
        self.settings().add_watcher(make);
        self
    }

    fn settings(&mut self) -> &mut Settings {
        match &mut self.server {
            Ok(server) => &mut server.settings,
            Err(settings) => settings,
        }
    }

    /// Serves until SIGINT, SIGTERM or SIGHUP, then drains; see [`Server::serve`].
    ///
    /// # Errors
    /// What the factory returned on any worker, or that it panicked there; the error names the worker and the cause.
    /// `AddrInUse` when the address is taken, `PermissionDenied` for ports that need a privilege; no descriptors
    /// or threads left; a setting that contradicts itself, or no address at all (`InvalidInput`).
    pub fn serve(self) -> io::Result<Report> {
        self.listen()?.0.run()
    }

    /// Serves in the background until it is stopped or dropped.
    ///
    /// # Errors
    /// Those of [`serve`](Self::serve).
    pub fn start(self) -> io::Result<Running> {
        let has_reserved = self.server.as_ref().is_ok_and(|server| server.reserved.is_some());
        let (builder, admin) = self.listen()?;
        Ok(Running { inner: builder.start()?, has_reserved, admin })
    }

    /// The same service in memory: no socket, one worker unless the options want more, and a clock that stands still until
    /// it is advanced.
    ///
    /// The [`Limits`] are those of the app, and so are states and timers. What was set with [`Server::runtime`] does not count here; a poll budget
    /// or other connection limits go into the options of [`test_with`](Self::test_with).
    ///
    /// # Panics
    /// When the factory, or one of a state, returns an error, or one of the [`Limits`] lets nothing through.
    #[track_caller]
    pub fn test(self) -> TestClient {
        self.test_with(Options::default())
    }

    /// Like [`test`](Self::test), on a network that misbehaves as told; a failure repeats with its seed.
    ///
    /// ```
    /// use netpoll_core::sim::{Faults, Options};
    /// use netpoll_http::{App, Request, Router};
    ///
    /// let options = Options::default().seed(7).faults(Faults::stormy());
    /// let client = App::new(|_| Router::new().get("/", |_: &Request| "hello")).test_with(options);
    /// assert_eq!(client.get("/").text(), "hello");
    /// ```
    ///
    /// # Panics
    /// When the factory returns an error, or one of the [`Limits`] lets nothing through.
    #[track_caller]
    pub fn test_with(self, options: Options) -> TestClient {
        let settings = match self.server {
            Ok(server) => server.settings,
            Err(settings) => settings,
        };
        if let Err(sentence) = settings.check() {
            panic!("{sentence}");
        }
        let make = |info: &WorkerInfo| {
            let worker = Worker::from(info);
            let service = (self.factory)(&worker).into_service();
            let service = service.unwrap_or_else(|error| panic!("the factory failed: {error}"));
            settings.acceptor(&worker, service).expect("they were checked")
        };
        TestClient::new(options, |sim| self.on_workers.into_iter().for_each(|each| each.simulate(sim)), make)
    }

    /// The runtime, and the one of operators, if it has one, once it is started.
    fn listen(self) -> io::Result<(Builder, Beside)> {
        let server = self.server.map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "this app has no address: use Server::bind(..)?.app(..)",
            )
        })?;
        #[cfg(feature = "tls")]
        let edge = server.edge;
        let Server { at, reserved, admin, proxied, settings, mut builder, .. } = server;
        for each in self.on_workers {
            builder = each.build(builder);
        }
        settings.check().map_err(|sentence| io::Error::new(io::ErrorKind::InvalidInput, sentence))?;
        let beside = Beside::default();
        if let Some(admin) = admin {
            builder = beside.clone().add(builder, admin, settings.for_operators());
        }
        #[cfg(feature = "tls")]
        let has_http2 = settings.has_http2();
        let factory = Arc::new(self.factory);
        let protocols = move |info: &WorkerInfo| {
            let worker = Worker::from(info);
            settings.acceptor(&worker, factory(&worker).into_service()?)
        };
        if let Some(addr) = reserved {
            builder = builder.try_listen(addr, protocols.clone())?.reserved();
        }
        #[cfg(feature = "tls")]
        let (builder, tls) = edge.begin(builder, has_http2)?;
        #[cfg(feature = "tls")]
        if let Some(tls) = tls {
            return Ok((at.listen(builder, proxied, tls::behind(tls, protocols))?, beside));
        }
        Ok((at.listen(builder, proxied, protocols)?, beside))
    }
}

/// The way to the runtime of operators, once it is started.
#[derive(Clone, Default)]
struct Beside(Arc<OnceLock<Handle>>);

impl Beside {
    fn add(self, builder: Builder, admin: Admin, settings: Settings) -> Builder {
        let closes = builder.shares_port() || builder.hands_over();
        let builder = if closes { self.clone().closed_by_a_drain(builder) } else { builder };
        builder.beside(move |served, builder| {
            let running = admin(served, builder, settings)?;
            // A server is started once.
            let _ = self.0.set(running.handle().clone());
            Ok(running)
        })
    }

    /// Who asks at a port that the next process listens on as well is to hear that one.
    fn closed_by_a_drain(self, builder: Builder) -> Builder {
        let shares_port = builder.shares_port();
        // On each worker, because one of them may be stuck.
        builder.on_start(move |info, _commands| {
            let (beside, served) = (self.clone(), info.handle.clone());
            // Nobody waits for it.
            drop(task::spawn_daemon(async move {
                task::stopping().await;
                if let Some(handle) = beside.0.get().filter(|_| shares_port || served.is_handed_over()) {
                    handle.drain(DRAIN_OF_OPERATORS);
                }
            }));
        })
    }
}

/// The first address that a name has.
fn resolve(addr: impl Into<Target>) -> io::Result<Address> {
    let addr = addr.into();
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot bind {addr}: {error}"));
    addr.resolve().map(|mut all| all.swap_remove(0)).map_err(named)
}

/// A server in the background. Dropping it cuts its connections and waits for its workers.
pub struct Running {
    inner: netpoll_core::Running,
    has_reserved: bool,
    admin: Beside,
}

impl Running {
    /// The address it listens on, with the port that the kernel chose.
    ///
    /// # Panics
    /// Never: a server has one listener of its own at least.
    pub fn addr(&self) -> Address {
        // The server's own listener is added last, after those of `Server::runtime`.
        self.inner.local_addrs().last().expect("a server listens").clone()
    }

    /// The address of [`Server::bind_reserved`], with the port that the kernel chose.
    pub fn reserved_addr(&self) -> Option<Address> {
        // Behind those of `Server::runtime`, before the server's own.
        let addrs = self.inner.local_addrs();
        self.has_reserved.then(|| addrs[addrs.len() - 2].clone())
    }

    /// The address of [`Server::admin`], with the port that the kernel chose.
    pub fn admin_addr(&self) -> Option<Address> {
        self.admin.0.get()?.local_addrs().first().cloned()
    }

    /// Where all of its listeners are, but that of [`Server::admin`], with those of [`Server::runtime`] first, in the order of their calls.
    pub fn local_addrs(&self) -> &[Address] {
        self.inner.local_addrs()
    }

    /// Where it receives datagrams ([`Builder::bind_udp`] in [`Server::runtime`]), in the order of the calls.
    pub fn udp_addrs(&self) -> &[SocketAddr] {
        self.inner.udp_addrs()
    }

    /// A way to the running workers from any thread: counters, sending to connections, draining.
    pub fn handle(&self) -> &Handle {
        self.inner.handle()
    }

    /// Waits for a stop signal, if [`Builder::stop_on_signals`] is on, or for a drain that [`Handle::drain`] began; then
    /// drains, within [`Builder::drain_within`], and reports. There is no bound if a handler does not return.
    ///
    /// ```no_run
    /// use netpoll_http::{Request, Router, Server};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let running = Server::bind("127.0.0.1:0")?
    ///     .runtime(|builder| builder.stop_on_signals(true))
    ///     .app(|_worker| Router::new().get("/", |_: &Request| "Hello, World!"))
    ///     .start()?;
    /// println!("http://{}", running.addr());
    /// println!("{}", running.wait()?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When a worker had ended by itself.
    pub fn wait(self) -> io::Result<Report> {
        self.inner.wait()
    }

    /// Drains, waits for the workers and reports. What is still open after `within` is cut. There is no bound if a handler
    /// does not return: a worker sees to the drain between them.
    ///
    /// # Errors
    /// When a worker had ended by itself.
    pub fn stop(self, within: Duration) -> io::Result<Report> {
        self.inner.stop(within)
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("addr", &self.addr()).finish_non_exhaustive()
    }
}
