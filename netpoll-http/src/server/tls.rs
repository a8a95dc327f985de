//! A server behind TLS: what stands between its connections and HTTP, and certificates that are read again.
//!
//! Invariant: HTTP is the same with TLS and without, and knows of it only what a request can be asked ([`Request::tls`]).

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use netpoll_core::blocking::spawn_blocking;
use netpoll_core::tls::rustls::server::UnbufferedServerConnection;
use netpoll_core::tls::{Tls, TlsServer};
use netpoll_core::{Builder, Layered, Peer, Protocol, StopSignal, WorkerInfo, signal, task};

use super::Server;
#[cfg(doc)]
use crate::message::Request;

/// What may be spoken above, as ALPN names it, the preferred first.
const ALPN: [&str; 2] = ["h2", "http/1.1"];

/// TLS of a server, and who hears when certificates were read again.
#[derive(Default)]
pub struct Edge {
    tls: Option<TlsServer>,
    told: Option<Told>,
}

type Told = Arc<dyn Fn(io::Result<()>) + Send + Sync>;

impl Edge {
    /// Has SIGHUP read certificates again, if it is to, and returns what connections have in front of HTTP.
    pub fn begin(self, builder: Builder, has_http2: bool) -> io::Result<(Builder, Option<TlsServer>)> {
        let offered = if has_http2 { &ALPN[..] } else { &ALPN[1..] };
        let tls = self.tls.map(|tls| tls.or_alpn(offered));
        let Some(told) = self.told else { return Ok((builder, tls)) };
        let tls = tls.ok_or_else(|| {
            let why = "there is nothing to read again on SIGHUP without `Server::tls`";
            io::Error::new(io::ErrorKind::InvalidInput, why)
        })?;
        // From here on the signal ends nobody: the workers hear it later, and miss none.
        let hangups = Mutex::new(Some(signal::hangup()?));
        let renewed = tls.clone();
        let builder = builder.without_stop_signal(StopSignal::HangUp).on_start(move |_info, _commands| {
            // The first worker that starts listens for all.
            let Some(mut hangups) = hangups.lock().unwrap_or_else(PoisonError::into_inner).take() else {
                return;
            };
            let (tls, told) = (renewed.clone(), Arc::clone(&told));
            drop(task::spawn_daemon(async move {
                loop {
                    hangups.recv().await;
                    let (tls, told) = (tls.clone(), Arc::clone(&told));
                    // Files are read, and whoever is told may write one. If it panics, it is told the next time all the same.
                    let _ = spawn_blocking(move || told(tls.reload())).await;
                }
            }));
        });
        Ok((builder, Some(tls)))
    }
}

/// What makes connections behind TLS.
type Accept<P> = Box<dyn FnMut(Peer) -> Layered<Tls<UnbufferedServerConnection>, P>>;

/// The same connections behind TLS.
pub fn behind<A, P>(
    tls: TlsServer,
    protocols: impl Fn(&WorkerInfo) -> io::Result<A> + Send + Sync + 'static,
) -> impl Fn(&WorkerInfo) -> io::Result<Accept<P>> + Send + Sync + 'static
where
    A: FnMut(Peer) -> P + 'static,
    P: Protocol,
{
    move |info| {
        let (tls, mut accept) = (tls.clone(), protocols(info)?);
        Ok(Box::new(move |peer| Layered::new(tls.layer(), accept(peer))))
    }
}

impl Server {
    /// Speaks TLS with the clients of the service: `https` and `wss`. Those of [`bind_reserved`](Self::bind_reserved) and [`admin`](Self::admin) are served without,
    /// and so is a test client. Behind proxies that speak the [PROXY protocol](Self::proxy_protocol) TLS begins behind their header.
    ///
    /// What was agreed upon, and who the client is where it has a certificate, is [`Request::tls`]. Of protocols (ALPN) `http/1.1` is offered, and in front of it `h2` where the server
    /// speaks that, unless the settings offer something. What a handshake may take is bounded by [`TlsServerBuilder`](netpoll_core::tls::TlsServerBuilder)'s limits, before those of HTTP begin.
    ///
    /// ```no_run
    /// use netpoll_core::tls::{Identity, TlsServer};
    /// use netpoll_http::{Request, Router, Server};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let identity = Identity::from_pem_files("certificates.pem", "key.pem")?;
    /// Server::bind("0.0.0.0:8443")?
    ///     .tls(TlsServer::builder(identity).build()?)
    ///     .reload_on_hangup(|read| match read {
    ///         Ok(()) => eprintln!("the certificates were read again"),
    ///         Err(error) => eprintln!("the certificates are the old ones: {error}"),
    ///     })
    ///     .serve(|_worker| Router::new().get("/", |_: &Request| "hello"))?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn tls(mut self, tls: TlsServer) -> Self {
        self.edge.tls = Some(tls);
        self
    }

    /// Has SIGHUP read the files of the certificates again ([`TlsServer::reload`]), and stop nobody: the other
    /// [stop signals](netpoll_core::Builder::stop_signals) do. Connections go on, and those that begin see what is in the files now; if that is no good, they see
    /// what they saw before.
    ///
    /// `told` hears what has come of it, on a thread that may block. Without [`tls`](Self::tls) it is an error when the server starts. By default nothing is read
    /// again, and SIGHUP stops. Programs that have another way to find out call [`TlsServer::reload`] themselves.
    #[must_use]
    pub fn reload_on_hangup(mut self, told: impl Fn(io::Result<()>) + Send + Sync + 'static) -> Self {
        self.edge.told = Some(Arc::new(told));
        self
    }
}
