//! HTTPS: the same service behind TLS, to clients that others have written.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use netpoll_core::tls::rustls::crypto::ring;
use netpoll_core::tls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use netpoll_core::tls::rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};
use netpoll_core::tls::{Identity, TlsClient, TlsServer, TlsServerBuilder, roots_from_pem_file};
use netpoll_core::{Lost, Runtime};
use netpoll_http::websocket::{Client, CloseCode, Closed, NotOpened, Opening, OwnedMessage, Socket};
use netpoll_http::{Request, Router, Running, Server};

const PATIENCE: Duration = Duration::from_secs(60);

fn pem(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../netpoll-core/tests/tls/pems").join(name)
}

fn settings(name: &str) -> TlsServerBuilder {
    let identity = Identity::from_pem_files(pem(&format!("{name}.pem")), pem(&format!("{name}-key.pem")));
    TlsServer::builder(identity.unwrap())
}

/// A client that trusts the issuer of these certificates.
fn trusting() -> ClientConfig {
    let roots = roots_from_pem_file(pem("ca.pem")).unwrap();
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

type Stream = BufReader<StreamOwned<ClientConnection, TcpStream>>;

fn connect(to: SocketAddr, config: &ClientConfig, before: &[u8]) -> Stream {
    let mut socket = TcpStream::connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(before).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let tls = ClientConnection::new(Arc::new(config.clone()), name).unwrap();
    BufReader::new(StreamOwned::new(tls, socket))
}

fn served(change: impl FnOnce(Server) -> Server, tls: TlsServer) -> (Running, SocketAddr) {
    let server = Server::bind("127.0.0.1:0").unwrap().workers(1).tls(tls);
    let running = change(server)
        .app(|_worker| {
            Router::new()
                .get("/tls", |req: &Request| facts(req))
                .get("/later", async |req: Request<'static>| facts(&req))
                .post("/echo", |req: &Request| req.body().to_vec())
        })
        .start()
        .unwrap();
    let addr = running.addr().as_socket_addr().unwrap();
    (running, addr)
}

fn facts(req: &Request) -> String {
    let Some(tls) = req.tls() else { return "none".to_owned() };
    let alpn = tls.alpn().map(String::from_utf8_lossy);
    let certificates = tls.peer_certificates().len();
    format!("{} for {:?}, {alpn:?}, {certificates} certificates", req.peer(), tls.server_name())
}

/// The body of an answer that has a length.
fn answer(stream: &mut Stream) -> io::Result<String> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line == "\r\n" {
            break;
        }
        if let Some(bytes) = line.strip_prefix("Content-Length: ") {
            length = bytes.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(String::from_utf8(body).unwrap())
}

fn get(stream: &mut Stream, path: &str) -> io::Result<String> {
    write!(stream.get_mut(), "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    answer(stream)
}

#[test]
fn requests_on_tls_are_answered_and_know_of_it_also_in_a_handler_that_waits() {
    let (running, addr) = served(|server| server, settings("server").build().unwrap());
    let mut config = trusting();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut stream = connect(addr, &config, b"");
    let local = stream.get_ref().sock.local_addr().unwrap();
    let expected = format!("{local} for Some(\"localhost\"), Some(\"http/1.1\"), 0 certificates");
    for path in ["/tls", "/later", "/tls"] {
        assert_eq!(get(&mut stream, path).unwrap(), expected, "{path}");
    }
    // Large enough to fill every buffer on the way, in both directions.
    let body = "0123456789abcdef".repeat(20_000);
    let head = format!("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.get_mut().write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()).unwrap();
    assert_eq!(answer(&mut stream).unwrap(), body);
    drop(stream);
    running.stop(PATIENCE).unwrap();
}

#[test]
fn who_wants_another_protocol_than_http_1_1_is_refused_in_the_handshake() {
    let (running, addr) = served(|server| server, settings("server").build().unwrap());
    let mut config = trusting();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let refused = get(&mut connect(addr, &config, b""), "/tls").unwrap_err();
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    running.stop(PATIENCE).unwrap();
}

#[test]
fn who_speaks_http_to_it_without_tls_gets_no_answer_of_http() {
    let (running, addr) = served(|server| server, settings("server").build().unwrap());
    let mut plain = TcpStream::connect(addr).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    plain.write_all(b"GET /tls HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut heard = Vec::new();
    plain.read_to_end(&mut heard).unwrap();
    assert!(heard.first() == Some(&21), "an alert: {heard:?}");
    assert_eq!(running.stop(PATIENCE).unwrap().stats.layer_failures, 1);
}

#[test]
fn operators_and_health_checks_are_served_without_tls() {
    let change = |server: Server| {
        let server = server.bind_reserved("127.0.0.1:0").unwrap();
        server.admin("127.0.0.1:0", |_worker| Router::new().get("/tls", |req: &Request| facts(req))).unwrap()
    };
    let (running, _) = served(change, settings("server").build().unwrap());
    for addr in [running.reserved_addr().unwrap(), running.admin_addr().unwrap()] {
        let mut plain = TcpStream::connect(addr.as_socket_addr().unwrap()).unwrap();
        plain.write_all(b"GET /tls HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut heard = String::new();
        plain.read_to_string(&mut heard).unwrap();
        assert!(heard.ends_with("\r\n\r\nnone"), "{heard}");
    }
    running.stop(PATIENCE).unwrap();
}

#[test]
fn behind_a_proxy_tls_begins_behind_its_header_and_the_client_is_the_one_that_it_names() {
    let (running, addr) = served(|server| server.proxy_protocol(true), settings("server").build().unwrap());
    let mut stream = connect(addr, &trusting(), b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n");
    let expected = "192.0.2.7:4711 for Some(\"localhost\"), None, 0 certificates";
    assert_eq!(get(&mut stream, "/tls").unwrap(), expected);
    running.stop(PATIENCE).unwrap();
}

#[test]
fn a_client_is_known_by_its_certificate_where_one_is_required() {
    let roots = roots_from_pem_file(pem("ca.pem")).unwrap();
    let tls = settings("server").require_client_certificates(roots.clone()).build().unwrap();
    let (running, addr) = served(|server| server, tls);
    let chain = CertificateDer::pem_file_iter(pem("client.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(pem("client-key.pem")).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    assert!(get(&mut connect(addr, &config, b""), "/tls").unwrap().ends_with("1 certificates"));
    get(&mut connect(addr, &trusting(), b""), "/tls").unwrap_err();
    running.stop(PATIENCE).unwrap();
}

#[test]
fn a_drain_answers_what_is_under_way_and_says_goodbye_in_tls() {
    let (running, addr) = served(|server| server, settings("server").build().unwrap());
    let mut stream = connect(addr, &trusting(), b"");
    get(&mut stream, "/tls").unwrap();
    running.handle().drain(PATIENCE);
    let mut rest = Vec::new();
    // A `close_notify`: without one it would be an error.
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
    drop(stream);
    assert_eq!(running.wait().unwrap().stats.layer_failures, 0);
}

/// The certificate that a client is shown.
fn shown(addr: SocketAddr) -> CertificateDer<'static> {
    let mut stream = connect(addr, &trusting(), b"");
    get(&mut stream, "/tls").unwrap();
    stream.get_ref().conn.peer_certificates().unwrap()[0].clone()
}

/// A certificate and its key that are renewed where they lie.
struct Files {
    directory: PathBuf,
    certificates: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("netpoll-https-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let [certificates, key] = ["a.pem", "a-key.pem"].map(|name| directory.join(name));
        let files = Self { directory, certificates, key };
        files.put("server");
        files
    }

    fn put(&self, name: &str) {
        std::fs::copy(pem(&format!("{name}.pem")), &self.certificates).unwrap();
        std::fs::copy(pem(&format!("{name}-key.pem")), &self.key).unwrap();
    }

    fn server(&self) -> TlsServer {
        let identity = Identity::from_pem_files(&self.certificates, &self.key).unwrap();
        TlsServer::builder(identity).build().unwrap()
    }

    fn remove(&self) {
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

#[test]
fn files_that_were_renewed_are_read_again_and_files_that_are_no_good_change_nothing() {
    let files = Files::new("kept");
    let tls = files.server();
    let (running, addr) = served(|server| server, tls.clone());
    let mut early = connect(addr, &trusting(), b"");
    get(&mut early, "/tls").unwrap();
    let first = shown(addr);
    files.put("renewed");
    assert_eq!(shown(addr), first, "nobody has said that they are to be read");
    tls.reload().unwrap();
    let second = shown(addr);
    assert_ne!(second, first);
    std::fs::write(&files.key, "no key").unwrap();
    let error = tls.reload().unwrap_err().to_string();
    assert!(error.contains("a-key.pem: no private key in PEM"), "{error}");
    assert_eq!(shown(addr), second);
    get(&mut early, "/tls").unwrap();
    files.remove();
    assert!(tls.reload().unwrap_err().to_string().contains("a.pem"), "they are gone");
    running.stop(PATIENCE).unwrap();
}

#[test]
fn nobody_notices_that_certificates_are_read_again_whether_it_comes_anew_or_comes_back() {
    let files = Files::new("renewed");
    let tls = files.server();
    let (running, addr) = served(|server| server.workers(2), tls.clone());
    let done = AtomicBool::new(false);
    let (full, resumed) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // One client, which keeps its tickets: each is good on every worker, and behind a reload.
                let config = trusting();
                while !done.load(Ordering::Relaxed) {
                    let mut stream = connect(addr, &config, b"");
                    for _ in 0..2 {
                        assert!(get(&mut stream, "/tls").unwrap().contains("localhost"));
                    }
                    let kind = stream.get_ref().conn.handshake_kind();
                    let count = if kind == Some(HandshakeKind::Resumed) { &resumed } else { &full };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // One for each handshake of a client at least: the next waits until somebody was served since.
        for round in 0..20 {
            files.put(["renewed", "server"][round % 2]);
            tls.reload().unwrap();
            let before = full.load(Ordering::Relaxed) + resumed.load(Ordering::Relaxed);
            let begin = Instant::now();
            while full.load(Ordering::Relaxed) + resumed.load(Ordering::Relaxed) < before + 8 {
                assert!(begin.elapsed() < PATIENCE, "nobody is served");
                std::thread::yield_now();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    files.remove();
    let (full, resumed) = (full.into_inner(), resumed.into_inner());
    assert_eq!(full, 4, "each came anew once, and back {resumed} times in all");
    let report = running.stop(PATIENCE).unwrap();
    assert_eq!((report.stats.panics, report.stats.layer_failures), (0, 0));
}

#[test]
fn who_leaves_without_a_goodbye_between_two_requests_is_no_failure_and_in_the_middle_of_one_it_is() {
    let (running, addr) = served(|server| server, settings("server").build().unwrap());
    for (rest, failures) in [(&b""[..], 0), (b"GET /tls HT", 1)] {
        let mut stream = connect(addr, &trusting(), b"");
        get(&mut stream, "/tls").unwrap();
        stream.get_mut().write_all(rest).unwrap();
        stream.get_ref().sock.shutdown(Shutdown::Write).unwrap();
        let mut left = Vec::new();
        // Reset, or closed.
        let _ = stream.get_mut().sock.read_to_end(&mut left);
        let begin = Instant::now();
        while running.handle().stats().open() > 0 {
            assert!(begin.elapsed() < PATIENCE, "it has not ended");
            std::thread::yield_now();
        }
        let stats = running.handle().stats();
        assert_eq!((stats.layer_failures, stats.failed), (failures, 0), "behind {rest:?}");
    }
    running.stop(PATIENCE).unwrap();
}

#[test]
fn a_websocket_of_wss_is_opened_to_the_server_that_its_url_names_and_to_nobody_else() {
    let upgrade = |req: &Request| {
        Opening::of(req)?.accept_task(async |mut socket: Socket| {
            while let Ok(Some(message)) = socket.recv().await {
                if let OwnedMessage::Text(text) = message {
                    socket.send(text).await?;
                }
            }
            Ok(())
        })
    };
    let running = Server::bind("127.0.0.1:0")
        .unwrap()
        .workers(1)
        .tls(settings("server").build().unwrap())
        .app(move |_| Router::new().get("/echo", upgrade))
        .start()
        .unwrap();
    let addr = running.addr().to_string();
    let client = |host: &str| {
        let tls = TlsClient::builder(roots_from_pem_file(pem("ca.pem")).unwrap()).build().unwrap();
        Client::new(&format!("wss://{host}/echo")).unwrap().target(&*addr).tls(tls)
    };
    let (named, port) = (client("localhost"), client("localhost:8443"));
    let (stranger, address) = (client("example.org"), client("[::1]:8443"));
    let bare = Client::new(&format!("wss://{addr}/echo")).unwrap();
    Runtime::builder()
        .block_on(async move {
            for client in [named, port] {
                let mut socket = client.connect().await.expect("it is opened");
                socket.send("hello").await.expect("it is open");
                assert_eq!(socket.recv().await.unwrap(), Some(OwnedMessage::Text("hello".to_owned())));
                socket.close(CloseCode::NORMAL, "");
                assert!(matches!(*socket.ended().await, Closed::ByUs { is_answered: true, .. }));
            }
            for client in [stranger, address] {
                let error = client.connect().await.expect_err("it is somebody else");
                assert!(matches!(error, NotOpened::Lost(Lost::LayerFailed(_))), "{error}");
            }
            let error = bare.connect().await.expect_err("it trusts nobody");
            assert!(error.to_string().contains("Client::tls"), "{error}");
        })
        .unwrap();
    running.stop(PATIENCE).unwrap();
}

#[test]
fn what_is_not_from_files_cannot_be_read_again() {
    let chain = vec![CertificateDer::from_pem_file(pem("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(pem("server-key.pem")).unwrap();
    let tls = TlsServer::builder(Identity::new(chain, key).unwrap()).build().unwrap();
    assert_eq!(tls.reload().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    let server = Server::bind("127.0.0.1:0").unwrap().reload_on_hangup(|_read| {});
    let error = server.app(|_worker| Router::new()).start().unwrap_err();
    assert_eq!(error.to_string(), "there is nothing to read again on SIGHUP without `Server::tls`");
}

#[test]
fn curl_is_answered_by_tls_1_2_and_1_3() {
    let (running, addr) = served(|server| server, settings("server").build().unwrap());
    for version in ["1.2", "1.3"] {
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--max-time",
            "60",
            "--noproxy",
            "*",
            "--tls-max",
            version,
            "--cacert",
        ]);
        curl.arg(pem("ca.pem")).arg(format!("https://localhost:{}/tls", addr.port()));
        curl.args(["--resolve", &format!("localhost:{}:127.0.0.1", addr.port())]);
        let said = match curl.output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                println!("skipped: there is no curl");
                break;
            }
            said => said.unwrap(),
        };
        let (out, error) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        assert!(out.contains("for Some(\"localhost\"), Some(\"http/1.1\")"), "{version}: {out}{error}");
    }
    running.stop(PATIENCE).unwrap();
}
