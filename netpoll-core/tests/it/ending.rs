//! What becomes of what is handed to a runtime that has ended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use netpoll_core::sim::{Options, Sim};
use netpoll_core::{
    Commands, Conn, ConnId, ConnectOptions, Flow, Handle, Input, Lost, Protocol, Runtime, Workers,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Reports its name, and why it was lost.
#[derive(Clone)]
struct Reporter(mpsc::Sender<Result<ConnId, String>>);

impl Protocol for Reporter {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        let _ = self.0.send(Ok(conn.id()));
        Flow::Continue
    }

    fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        let _ = self.0.send(Err(format!("{reason:?}")));
    }
}

/// The handle of a runtime that has ended, the name of a connection that it had, and reports.
fn ended() -> (Handle, ConnId, mpsc::Receiver<Result<ConnId, String>>, Reporter) {
    let (sender, reports) = mpsc::channel();
    let reporter = Reporter(sender);
    let protocol = reporter.clone();
    let server = Runtime::builder()
        .workers(Workers::Count(1))
        .listen("127.0.0.1:0", move |_worker| {
            let protocol = protocol.clone();
            move |_peer| protocol.clone()
        })
        .unwrap()
        .start()
        .unwrap();
    let _client = std::net::TcpStream::connect(server.local_addrs()[0].as_socket_addr().unwrap()).unwrap();
    let id = reports.recv_timeout(PATIENCE).unwrap().unwrap();
    let handle = server.handle().clone();
    server.stop(Duration::ZERO).unwrap();
    reports.recv_timeout(PATIENCE).unwrap().expect_err("the connection is lost");
    (handle, id, reports, reporter)
}

const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

/// Counts how many of it are there.
struct Counted(#[expect(dead_code, reason = "it counts")] Arc<()>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &[b'x'; 8192]
    }
}

#[test]
fn bytes_for_a_runtime_that_has_ended_are_dropped() {
    let (handle, id, ..) = ended();
    let alive = Arc::new(());
    for _ in 0..1000 {
        handle.send(id, Bytes::from_owner(Counted(Arc::clone(&alive))));
        handle.close(id);
    }
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[test]
fn a_protocol_for_a_runtime_that_has_ended_hears_that_it_is_lost() {
    let (handle, _, reports, reporter) = ended();
    for _ in 0..3 {
        handle.connect(0, NOWHERE, ConnectOptions::default(), reporter.clone());
        let end = reports.recv_timeout(PATIENCE).unwrap().unwrap_err();
        assert!(end.contains("ConnectFailed") && end.contains("NotConnected"), "{end}");
    }
}

/// Dials again whenever it is lost.
struct Persistent {
    handle: Handle,
    lost: Arc<AtomicUsize>,
}

impl Protocol for Persistent {
    fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        Flow::Continue
    }

    fn lost(&mut self, _reason: Lost, _commands: &mut Commands) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        let again = Self { handle: self.handle.clone(), lost: Arc::clone(&self.lost) };
        self.handle.connect(0, NOWHERE, ConnectOptions::default(), again);
    }
}

#[test]
fn a_protocol_that_dials_again_whenever_it_is_lost_ends_with_its_runtime() {
    let (handle, ..) = ended();
    let lost = Arc::new(AtomicUsize::new(0));
    let first = Persistent { handle: handle.clone(), lost: Arc::clone(&lost) };
    handle.connect(0, NOWHERE, ConnectOptions::default(), first);
    assert_eq!(lost.load(Ordering::Relaxed), 1, "what it hands over then is dropped without a call");
    assert_eq!(Arc::strong_count(&lost), 1);
}

#[test]
fn protocols_of_dials_that_nobody_makes_hear_it_when_their_world_ends() {
    let (sender, reports) = mpsc::channel();
    let reporter = Reporter(sender);
    let mut sim = Sim::new(Options::default());
    sim.commands().connect(NOWHERE, ConnectOptions::default(), reporter.clone());
    sim.handle().connect(0, NOWHERE, ConnectOptions::default(), reporter);
    drop(sim);
    let ends: Vec<_> = reports.iter().map(Result::unwrap_err).collect();
    assert_eq!(ends.len(), 2, "{ends:?}");
    assert!(ends.iter().all(|end| end.contains("NotConnected")), "{ends:?}");
}
