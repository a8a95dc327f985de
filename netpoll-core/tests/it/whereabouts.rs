//! Who knows where a runtime is reached, and what names say about each other.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::time::Duration;

use netpoll_core::sim::{Options, Sim};
use netpoll_core::{
    Address, ConnectOptions, Datagram, DatagramProtocol, DatagramSocket, Peer, Runtime, Workers,
};

use crate::support::Echo;

struct Deaf;

impl DatagramProtocol for Deaf {
    fn received(&mut self, _socket: &mut DatagramSocket<'_>, _datagram: Datagram<'_>) {}
}

type Addrs = (Vec<Address>, Vec<SocketAddr>);

#[test]
fn every_function_of_a_builder_and_every_handle_knows_where_it_is_reached() {
    let (sender, told) = mpsc::channel::<Addrs>();
    let tell = move |worker: &netpoll_core::WorkerInfo| {
        let handle = &worker.handle;
        sender.send((handle.local_addrs().to_vec(), handle.udp_addrs().to_vec())).unwrap();
    };
    let (in_state, in_listen, in_udp) = (tell.clone(), tell.clone(), tell.clone());
    let running = Runtime::builder()
        .workers(Workers::Count(2))
        .state(move |worker| in_state(worker))
        .listen("127.0.0.1:0", move |worker| {
            in_listen(worker);
            |_peer| Echo
        })
        .unwrap()
        .listen("127.0.0.1:0", |_worker| |_peer| Echo)
        .unwrap()
        .bind_udp("127.0.0.1:0", move |worker| {
            in_udp(worker);
            Deaf
        })
        .unwrap()
        .on_start(move |worker, _commands| tell(worker))
        .start()
        .unwrap();
    let addrs = running.local_addrs();
    assert!(addrs.len() == 2 && addrs.iter().all(|addr| addr.as_socket_addr().unwrap().port() != 0));
    assert!(running.udp_addrs().len() == 1 && running.udp_addrs()[0].port() != 0);
    let wanted = (addrs.to_vec(), running.udp_addrs().to_vec());
    for _ in 0..8 {
        assert_eq!(told.recv_timeout(Duration::from_secs(60)).unwrap(), wanted);
    }
    let handle = running.handle().clone();
    assert_eq!((handle.local_addrs().to_vec(), handle.udp_addrs().to_vec()), wanted);
    running.stop(Duration::ZERO).unwrap();
    assert_eq!(handle.local_addrs(), &*wanted.0, "a handle outlives its runtime");
}

#[test]
fn what_is_no_socket_is_refused_by_name() {
    let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let error = Runtime::builder().listen_on(file, |_worker| |_peer| Echo).err().unwrap().to_string();
    assert!(error.contains("descriptor") && error.contains("it is no socket"), "{error}");
}

#[test]
fn names_of_connections_have_an_order_in_which_a_seed_repeats() {
    let names = || {
        let mut sim = Sim::new(Options::default());
        let mut names = BTreeSet::new();
        for port in (1..50_u16).rev() {
            let to = SocketAddr::from(([127, 0, 0, 1], port));
            names.insert(sim.commands().connect(to, ConnectOptions::default(), Echo));
        }
        names.into_iter().map(|id| format!("{id:?}")).collect::<Vec<_>>()
    };
    assert_eq!(names().len(), 49);
    assert_eq!(names(), names());
}

#[test]
fn a_peer_can_be_made_of_whatever_is_an_address() {
    let addr = SocketAddr::from(([192, 0, 2, 1], 7));
    assert_eq!(Peer::new(addr).addr, addr);
    assert_eq!(Peer::new(Address::Unknown).addr, Address::Unknown);
}

#[test]
fn pages_of_other_crates_lead_to_those_of_this_version() {
    let wanted = concat!("html_root_url = \"https://docs.rs/netpoll-core/", env!("CARGO_PKG_VERSION"), "\"");
    assert!(include_str!("../../src/lib.rs").contains(wanted), "{wanted}");
}
