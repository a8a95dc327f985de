//! Dials and listeners within one world, simulated and not: whose address it is, how long it takes, and how many wait.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use netpoll_core::net::{Listener, Stream};
use netpoll_core::sim::{Options, Sim};
use netpoll_core::task::{spawn_local, yield_now};
use netpoll_core::time::sleep;
use netpoll_core::{Handle, Runtime};

const SECOND: Duration = Duration::from_secs(1);

async fn bind(to: &str) -> Result<Listener, ErrorKind> {
    Listener::bind(to).await.map_err(|error| error.kind())
}

#[test]
fn ports_that_are_chosen_are_free_however_many_were_chosen_before() {
    Sim::new(Options::default()).block_on(async {
        let taken = bind("10.0.0.1:20001").await.unwrap();
        for round in 0..70_000 {
            let chosen = bind("10.0.0.1:0").await.expect("most are free");
            assert_ne!(chosen.local_addr(), taken.local_addr(), "the {round}th");
            drop(chosen);
            yield_now().await;
        }
    });
}

#[test]
fn all_addresses_of_a_port_and_one_of_them_are_not_bound_both() {
    Sim::new(Options::default()).block_on(async {
        let taken = Some(ErrorKind::AddrInUse);
        for (one, other, error) in [
            ("10.0.0.1:80", "0.0.0.0:80", taken),
            ("0.0.0.0:80", "10.0.0.1:80", taken),
            ("0.0.0.0:80", "[::]:80", taken),
            ("[::]:80", "10.0.0.1:80", taken),
            ("0.0.0.0:80", "[2001:db8::1]:80", None),
            ("10.0.0.1:80", "10.0.0.2:80", None),
            ("10.0.0.1:80", "0.0.0.0:81", None),
        ] {
            let _one = bind(one).await.unwrap();
            assert_eq!(bind(other).await.err(), error, "{other} beside {one}");
            // The listeners go before the next ones come.
            sleep(SECOND).await;
        }
    });
}

#[test]
fn a_dial_within_a_world_takes_a_round_trip() {
    let latency = Duration::from_millis(50);
    let mut sim = Sim::new(Options::default().latency(latency..=latency));
    let took = sim.block_on(async {
        let _listener = bind("10.0.0.1:80").await.unwrap();
        let began = Handle::current().now();
        let _stream = Stream::connect("10.0.0.1:80").await.unwrap();
        Handle::current().now().duration_since(began)
    });
    assert!((2 * latency..3 * latency).contains(&took), "{took:?}");
}

#[test]
fn who_dials_a_listener_that_is_about_to_close_is_refused_when_it_asks_again() {
    let mut sim = Sim::new(Options::default());
    let heard = Rc::new(RefCell::new(String::new()));
    let place = Rc::clone(&heard);
    sim.block_on(async move {
        let mut listener = bind("10.0.0.1:80").await.unwrap();
        spawn_local(async move { while listener.accept().await.is_ok() {} }).detach();
        let dials = async move {
            netpoll_core::task::stopping().await;
            let began = Handle::current().now();
            let error = Stream::connect("10.0.0.1:80").await.unwrap_err();
            *place.borrow_mut() = format!(
                "{:?} after {} s",
                error.kind(),
                Handle::current().now().duration_since(began).as_secs()
            );
        };
        spawn_local(dials).detach();
        yield_now().await;
    });
    sim.begin_drain(60 * SECOND);
    sim.advance(30 * SECOND);
    assert_eq!(heard.borrow()[..], *"ConnectionRefused after 1 s");
}

/// How many a listener has accepted of three hundred while nobody takes them.
async fn held(addr: &str) -> u64 {
    let mut listener = bind(addr).await.unwrap();
    let to = listener.local_addr().clone();
    for _ in 0..300 {
        let to = to.clone();
        let dials = async move {
            let mut stream = Stream::connect(to).await.unwrap();
            let _ = stream.read(&mut [0; 1]).await;
        };
        spawn_local(dials).detach();
    }
    sleep(SECOND / 5).await;
    let held = Handle::current().stats().accepted;
    for _ in 0..300 {
        listener.accept().await.unwrap();
    }
    held
}

#[test]
fn a_listener_holds_as_many_as_it_says_and_no_more() {
    assert_eq!(Sim::new(Options::default()).block_on(held("10.0.0.1:80")), 128);
    assert_eq!(Runtime::block_on(held("127.0.0.1:0")).unwrap(), 128);
}
