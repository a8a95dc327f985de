//! Waiting: on doorbells, on connections, and for nothing.

use std::time::Instant;

use super::super::eventfd::EventFd;
use super::*;
use crate::sys::limits::open_file_count;
use crate::sys::socket;
use crate::sys::testing::{LOOPBACK, PLAIN, Pair, alone, interrupted, open_flags};

const SHORT: Timeout = Timeout::After(Duration::from_micros(200));

fn rung() -> EventFd {
    let bell = EventFd::new().unwrap();
    bell.signal().unwrap();
    bell
}

fn coarse() -> Epoll {
    let epoll = Epoll::new().unwrap();
    epoll.coarse.set(true);
    epoll
}

/// What is reported of a source within ten seconds.
fn reported(source: BorrowedFd<'_>, bits: u32) -> Event {
    let (epoll, mut events) = (Epoll::new().unwrap(), Events::with_capacity(1));
    epoll.add(source, bits, 0).unwrap();
    let count = epoll.wait(&mut events, 1, Timeout::After(Duration::from_secs(10))).unwrap();
    assert_eq!(count, 1, "nothing happened for ten seconds");
    events.get(0)
}

#[test]
fn an_event_carries_the_data_of_its_source() {
    let (epoll, mut events, bell) = (Epoll::new().unwrap(), Events::with_capacity(4), rung());
    epoll.add(bell.as_fd(), EDGE_IN, u64::MAX - 7).unwrap();

    assert_eq!(epoll.wait(&mut events, 4, Timeout::Never).unwrap(), 1);

    assert_eq!(events.get(0), Event { data: u64::MAX - 7, bits: IN });
    assert!(events.get(0).is_readable() && !events.get(0).is_writable());
}

#[test]
fn a_wait_reports_no_more_than_asked() {
    for (epoll, timeout) in
        [(Epoll::new().unwrap(), Timeout::Now), (Epoll::new().unwrap(), SHORT), (coarse(), SHORT)]
    {
        let bells = [rung(), rung(), rung()];
        for (number, bell) in bells.iter().enumerate() {
            epoll.add(bell.as_fd(), IN, number as u64 + 1).unwrap();
        }
        let mut events = Events::with_capacity(2);

        assert_eq!(epoll.wait(&mut events, 1, timeout).unwrap(), 1);
        assert_eq!({ events.slots[1].u64 }, 0, "the slot behind it is untouched");
        assert_eq!(epoll.wait(&mut events, 100, timeout).unwrap(), 2, "no more than there is room for");
    }
}

#[test]
#[should_panic(expected = "event 1 of 1")]
fn an_event_of_an_earlier_wait_cannot_be_read() {
    let (epoll, mut events, bells) = (Epoll::new().unwrap(), Events::with_capacity(2), [rung(), rung()]);
    for bell in &bells {
        epoll.add(bell.as_fd(), IN, 0).unwrap();
    }
    epoll.wait(&mut events, 2, Timeout::Now).unwrap();
    epoll.wait(&mut events, 1, Timeout::Now).unwrap();

    events.get(1);
}

#[test]
fn asking_for_no_events_is_refused_by_the_kernel() {
    let (epoll, mut events) = (Epoll::new().unwrap(), Events::with_capacity(2));

    let error = epoll.wait(&mut events, 0, SHORT).unwrap_err();

    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    assert!(!epoll.coarse.get(), "which says nothing about epoll_pwait2");
}

#[test]
fn a_deleted_source_is_silent() {
    let (epoll, mut events, bell) = (Epoll::new().unwrap(), Events::with_capacity(1), rung());
    epoll.add(bell.as_fd(), IN, 1).unwrap();
    epoll.delete(bell.as_fd()).unwrap();

    assert_eq!(epoll.wait(&mut events, 1, Timeout::Now).unwrap(), 0);
    assert_eq!(epoll.delete(bell.as_fd()).unwrap_err().raw_os_error(), Some(libc::ENOENT));
}

#[test]
fn a_queued_peer_is_reported_until_it_is_taken_or_interest_in_it_is() {
    let (epoll, mut events) = (Epoll::new().unwrap(), Events::with_capacity(1));
    let listener = socket::listen(LOOPBACK, &PLAIN).unwrap();
    epoll.add(listener.as_fd(), LEVEL_IN, 7).unwrap();
    let _peer = std::net::TcpStream::connect(socket::local_addr(listener.as_fd()).unwrap()).unwrap();

    for _ in 0..2 {
        assert_eq!(epoll.wait(&mut events, 1, Timeout::Now).unwrap(), 1);
    }
    epoll.modify(listener.as_fd(), NOTHING, 7).unwrap();
    assert_eq!(epoll.wait(&mut events, 1, Timeout::Now).unwrap(), 0);
    epoll.modify(listener.as_fd(), LEVEL_IN, 8).unwrap();
    assert_eq!(epoll.wait(&mut events, 1, Timeout::Now).unwrap(), 1);
    assert_eq!(events.get(0), Event { data: 8, bits: IN });

    let (_accepted, _) = socket::accept(listener.as_fd()).unwrap();
    assert_eq!(epoll.wait(&mut events, 1, Timeout::Now).unwrap(), 0);
    let stranger = rung();
    assert_eq!(epoll.modify(stranger.as_fd(), IN, 1).unwrap_err().raw_os_error(), Some(libc::ENOENT));
}

#[test]
fn a_listener_without_interest_that_hangs_up_is_reported_once() {
    let (epoll, mut events) = (Epoll::new().unwrap(), Events::with_capacity(2));
    let listener = socket::listen(LOOPBACK, &PLAIN).unwrap();
    epoll.add(listener.as_fd(), LEVEL_IN, 7).unwrap();
    epoll.modify(listener.as_fd(), NOTHING, 7).unwrap();
    socket2::SockRef::from(&listener).shutdown(std::net::Shutdown::Both).unwrap();
    let reported: Vec<usize> = (0..5).map(|_| epoll.wait(&mut events, 2, Timeout::Now).unwrap()).collect();
    assert_eq!(reported, [1, 0, 0, 0, 0]);
}

#[test]
fn a_source_is_registered_once() {
    let (epoll, bell) = (Epoll::new().unwrap(), rung());
    epoll.add(bell.as_fd(), IN, 1).unwrap();

    let error = epoll.add(bell.as_fd(), IN, 2).unwrap_err();

    assert_eq!(error.raw_os_error(), Some(libc::EEXIST));
}

#[test]
fn a_timed_wait_without_events_returns_none() {
    for epoll in [Epoll::new().unwrap(), coarse()] {
        let (mut events, start) = (Events::with_capacity(1), Instant::now());

        assert_eq!(epoll.wait(&mut events, 1, SHORT).unwrap(), 0);

        assert!(start.elapsed() >= Duration::from_micros(200), "never early: {:?}", start.elapsed());
    }
}

#[test]
fn an_interrupted_wait_has_no_events() {
    alone!(an_interrupted_wait_has_no_events);
    let mut events = Events::with_capacity(1);
    for epoll in [Epoll::new().unwrap(), coarse()] {
        for timeout in [Timeout::Never, Timeout::After(Duration::from_secs(1000))] {
            let count = interrupted(|| epoll.wait(&mut events, 1, timeout).unwrap());
            assert_eq!(count, 0);
        }
    }
}

#[test]
fn milliseconds_are_rounded_up_and_never_wrap() {
    let millis = |time| Timeout::After(time).as_millis_rounded_up();
    assert_eq!(millis(Duration::ZERO), 0);
    assert_eq!(millis(Duration::from_nanos(1)), 1);
    assert_eq!(millis(Duration::from_millis(1)), 1);
    assert_eq!(millis(Duration::from_nanos(1_000_001)), 2);
    assert_eq!(millis(Duration::from_millis(i32::MAX as u64)), i32::MAX);
    assert_eq!(millis(Duration::from_millis(i32::MAX as u64 + 1)), i32::MAX);
    assert_eq!(millis(Duration::MAX), i32::MAX);
    assert_eq!(Timeout::Now.as_millis_rounded_up(), 0);
    assert_eq!(Timeout::Never.as_millis_rounded_up(), -1);
}

#[test]
fn nanoseconds_are_kept_and_never_wrap() {
    let time = KernelTimespec::new(Duration::new(3, 999_999_999));
    assert_eq!((time.seconds, time.nanoseconds), (3, 999_999_999));
    assert_eq!(KernelTimespec::new(Duration::MAX).seconds, i64::MAX);
}

#[test]
fn the_longest_wait_is_accepted_by_the_kernel() {
    for epoll in [Epoll::new().unwrap(), coarse()] {
        let (mut events, bell) = (Events::with_capacity(1), rung());
        epoll.add(bell.as_fd(), IN, 1).unwrap();

        assert_eq!(epoll.wait(&mut events, 1, Timeout::After(Duration::MAX)).unwrap(), 1);
    }
}

#[test]
fn only_a_missing_call_makes_waits_coarse() {
    assert!(is_missing(&io::Error::from_raw_os_error(libc::ENOSYS)));
    assert!(is_missing(&io::Error::from_raw_os_error(libc::EPERM)));
    assert!(!is_missing(&io::Error::from_raw_os_error(libc::EINTR)));
    assert!(!is_missing(&io::Error::from_raw_os_error(libc::EINVAL)));
}

#[test]
fn a_connection_is_writable_at_first_and_then_silent() {
    let (epoll, mut events, pair) = (Epoll::new().unwrap(), Events::with_capacity(1), Pair::new());
    epoll.add(pair.server.as_fd(), EDGE_STREAM, 1).unwrap();

    assert_eq!(epoll.wait(&mut events, 1, Timeout::Now).unwrap(), 1);
    assert!(events.get(0).is_writable() && !events.get(0).is_readable());
    assert_eq!(epoll.wait(&mut events, 1, Timeout::Now).unwrap(), 0, "an edge is reported once");
}

#[test]
fn a_fin_and_a_reset_look_different() {
    let (finished, reset) = (Pair::new(), Pair::new());
    socket::shutdown_write(finished.client.as_fd()).unwrap();
    socket::reset_on_close(reset.client.as_fd()).unwrap();
    drop(reset.client);

    let fin = reported(finished.server.as_fd(), PEER_CLOSED | IN);
    let rst = reported(reset.server.as_fd(), PEER_CLOSED | IN);

    assert!(fin.is_peer_closed() && fin.is_readable() && !fin.is_hang_up() && !fin.is_error());
    assert!(rst.is_peer_closed() && rst.is_hang_up() && rst.is_error());
}

#[test]
fn busy_polling_can_be_set_where_the_kernel_has_it() {
    let epoll = Epoll::new().unwrap();
    match epoll.set_busy_poll(70, 9, true) {
        Ok(()) => {
            let mut params = BusyPollParams { usecs: 0, budget: 0, prefer: 0, padding: 0 };
            let get = libc::_IOR::<BusyPollParams>(0x8A, 0x02);
            // SAFETY: EPIOCGPARAMS writes one `struct epoll_params`, which `params` is.
            // (test: `busy_polling_can_be_set_where_the_kernel_has_it`)
            let result = unsafe { libc::ioctl(epoll.fd.as_raw_fd(), get, &raw mut params) };
            assert_eq!((result, params.usecs, params.budget, params.prefer), (0, 70, 9, 1));
        }
        Err(error) => {
            let missing = [libc::ENOTTY, libc::EINVAL, libc::EOPNOTSUPP, libc::ENOSYS, libc::EPERM];
            assert!(missing.contains(&error.raw_os_error().unwrap()), "{error}");
        }
    }
}

#[test]
fn an_epoll_is_not_inherited_by_programs() {
    let epoll = Epoll::new().unwrap();
    assert_ne!(open_flags(epoll.as_fd()) & libc::O_CLOEXEC, 0);
}

#[test]
fn dropping_an_epoll_closes_its_descriptor() {
    alone!(dropping_an_epoll_closes_its_descriptor);
    let before = open_file_count().unwrap();
    let epoll = Epoll::new().unwrap();
    assert_eq!(open_file_count().unwrap(), before + 1);
    drop(epoll);
    assert_eq!(open_file_count().unwrap(), before);
}
