//! HTTPS: hyper over rustls over netpoll, HTTP/1.1 and HTTP/2 as the client likes (ALPN).
//!
//! Run it with `cargo run --release -p async-examples --bin tls -- 127.0.0.1:8443 CERTIFICATES.pem KEY.pem`, and ask it with
//! `curl --cacert CA.pem https://localhost:8443/`: you will see the protocol that both have agreed on, TLS and HTTP. Ctrl-C drains.
//!
//! `tokio-rustls` reads and writes a `net::Stream` by the traits of tokio; what it makes of it has these traits too, and hyper-util's `TokioIo` turns
//! them into hyper's. Nothing of that needs a tokio runtime.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use netpoll_core::bridge::{HyperExecutor, HyperTimer};
use netpoll_core::net::Stream;
use netpoll_core::time::timeout;
use netpoll_core::{Runtime, task};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How long a handshake may take, and the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);

async fn serve(stream: Stream, acceptor: TlsAcceptor) -> io::Result<()> {
    let stream = timeout(PATIENCE, acceptor.accept(stream)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let tls = stream.get_ref().1.protocol_version();
    let mut builder = auto::Builder::new(HyperExecutor);
    builder.http1().timer(HyperTimer).header_read_timeout(PATIENCE);
    builder.http2().timer(HyperTimer).keep_alive_interval(PATIENCE);
    let service = service_fn(move |request: http::Request<_>| async move {
        let tls = tls.map_or("", |version| version.as_str().unwrap_or("unknown"));
        let text = format!("{tls} {:?}\n", request.version());
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let (mut stopping, mut is_stopping) = (pin!(task::stopping()), false);
    let served = poll_fn(|cx| {
        if !is_stopping && stopping.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    });
    served.await.map_err(io::Error::other)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (backend, words) = examples::words()?;
    let words: Vec<String> = words.collect();
    let [addr, certificates, key] = &words[..] else {
        return Err("tls ADDRESS CERTIFICATES.pem KEY.pem".into());
    };
    let certificates = CertificateDer::pem_file_iter(certificates)?.collect::<Result<_, _>>()?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, PrivateKeyDer::from_pem_file(key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let running = Runtime::builder()
        .backend(backend)
        .stop_on_signals(true)
        .listen_tasks(addr.as_str(), move |stream, _peer| {
            let acceptor = acceptor.clone();
            async move {
                // A peer that speaks no TLS, or leaves in the middle, has nobody to tell.
                let _ = serve(stream, acceptor).await;
            }
        })?
        .start()?;
    println!("tls listens on https://{}", running.local_addrs()[0]);
    println!("{}", running.wait()?);
    Ok(())
}
