//! What an idle connection behind TLS costs, counted by the allocator: in pieces as the C library cuts them.

#[path = "idle/counting.rs"]
mod counting;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use netpoll_core::tls::rustls::crypto::ring;
use netpoll_core::tls::rustls::pki_types::ServerName;
use netpoll_core::tls::rustls::{ClientConfig, ClientConnection, StreamOwned};
use netpoll_core::tls::{Identity, TlsServer, roots_from_pem_file};
use netpoll_core::{Conn, Flow, Input, Layered, Protocol, Runtime, Workers};

use counting::BYTES;

struct Echo;

impl Protocol for Echo {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send(input.bytes());
        input.advance_all();
        Flow::Continue
    }
}

/// Connects so many clients that have each had an answer of two records, and keeps their sockets alone.
fn connect(count: usize, config: &Arc<ClientConfig>, addr: SocketAddr) -> Vec<TcpStream> {
    let one = |_| {
        let socket = TcpStream::connect(addr).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), socket);
        let mut answer = [0; 20_000];
        tls.write_all(&answer).unwrap();
        tls.read_exact(&mut answer).unwrap();
        tls.sock
    };
    (0..count).map(one).collect()
}

#[test]
fn an_idle_connection_behind_tls_takes_less_than_4000_bytes_and_no_buffer() {
    // Tables double: between two powers of two each has grown by one place for each.
    const COUNT: usize = 1024;
    netpoll_core::raise_open_files(8192).unwrap();
    let pems = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls/pems");
    let identity = Identity::from_pem_files(pems.join("server.pem"), pems.join("server-key.pem")).unwrap();
    let tls = TlsServer::builder(identity).alpn(["http/1.1"]).build().unwrap();
    let builder = Runtime::builder().workers(Workers::Count(1)).pin(false);
    let listening = builder.listen("127.0.0.1:0", move |_worker| {
        let tls = tls.clone();
        move |_peer| Layered::new(tls.layer(), Echo)
    });
    let server = listening.unwrap().start().unwrap();
    let addr = server.local_addrs()[0].as_socket_addr().unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots_from_pem_file(pems.join("ca.pem")).unwrap());
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);

    let first = connect(COUNT, &config, addr);
    let before = BYTES.load(Ordering::Relaxed);
    let others = connect(COUNT, &config, addr);
    let after = BYTES.load(Ordering::Relaxed);
    let each = (after - before) as f64 / COUNT as f64;
    println!("{each:.1} bytes for each");
    assert!(each < 4000.0, "{each} bytes for each");
    drop((first, others));
    server.stop(Duration::from_secs(20)).unwrap();
}
