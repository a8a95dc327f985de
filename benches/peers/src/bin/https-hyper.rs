//! hyper 1 on tokio-rustls with ring, one ticket for each handshake: see [`peers::http_hyper`]. Its certificate is that of the core's tests.

use std::sync::Arc;

use peers::http_hyper::serve;
use peers::{Options, on_each_worker};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

const CERTIFICATE: &[u8] = include_bytes!("../../../../netpoll-core/tests/tls/pems/server.pem");
const KEY: &[u8] = include_bytes!("../../../../netpoll-core/tests/tls/pems/server-key.pem");

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let options = Options::from_args();
    let chain = CertificateDer::pem_slice_iter(CERTIFICATE).map(|it| it.expect("a certificate")).collect();
    let key = PrivateKeyDer::from_pem_slice(KEY).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().expect("ring has them").with_no_client_auth();
    let mut config = config.with_single_cert(chain, key).expect("the key is the certificate's");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Stateless, as netpoll's are.
    config.ticketer = ring::Ticketer::new().expect("random numbers");
    config.send_tls13_tickets = 1;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    on_each_worker(&options, |listener| {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(LocalSet::new().run_until(async {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                let acceptor = acceptor.clone();
                tokio::task::spawn_local(async move {
                    let _ = stream.set_nodelay(true);
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream).await;
                    }
                });
            }
        }))
    })
}
