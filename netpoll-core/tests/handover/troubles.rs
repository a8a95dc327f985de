//! A handover in bad company: somebody stops, is stuck, is slow, says nothing or has no descriptors, several come at once.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use super::*;

/// Answers each byte with its name, and may go on elsewhere at any time; at an `s` it waits until it is let go.
struct Sticky {
    name: u8,
    held: Arc<Barrier>,
}

impl Protocol for Sticky {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        if input.bytes().contains(&b's') {
            self.held.wait();
            self.held.wait();
        }
        conn.send(&[self.name]);
        input.advance_all();
        Flow::Continue
    }

    fn hand_over(&mut self, _conn: &mut Conn<'_>) -> Option<Vec<u8>> {
        Some(Vec::new())
    }

    fn taken_over(&mut self, conn: &mut Conn<'_>, _state: &[u8]) -> Flow {
        conn.unchanged_flow()
    }
}

fn sticky(name: u8, held: &Arc<Barrier>, path: &Path, addr: impl Into<netpoll_core::Target>) -> Running {
    let held = Arc::clone(held);
    let make = move |_worker: &WorkerInfo| {
        let held = Arc::clone(&held);
        move |_peer| Sticky { name, held: Arc::clone(&held) }
    };
    builder(1, path).listen(addr, make).unwrap().start().unwrap()
}

fn barrier() -> Arc<Barrier> {
    Arc::new(Barrier::new(2))
}

/// A client whose worker is stuck with it.
fn sticking(at: SocketAddr, held: &Barrier) -> TcpStream {
    let mut client = client(at);
    client.write_all(b"s").unwrap();
    held.wait();
    client
}

fn until(mut holds: impl FnMut() -> bool) {
    let ends = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < ends, "it never holds");
        std::thread::yield_now();
    }
}

#[test]
fn one_that_is_stopped_while_the_next_one_starts_leaves_it_the_paths() {
    let folder = Folder::new();
    let path = folder.0.join("served.sock");
    let target = format!("unix:{}", path.display());
    let old = serving(b'1', 1, &folder.socket(), target.as_str());
    let (held, starts) = (barrier(), barrier());
    let inside = Arc::clone(&held);
    let new = builder(1, &folder.socket()).listen(target.as_str(), move |_worker| {
        inside.wait();
        inside.wait();
        |_peer| Named(b'2')
    });
    let (new, begins) = (new.unwrap(), Arc::clone(&starts));
    let new = std::thread::spawn(move || {
        begins.wait();
        new.start()
    });
    starts.wait();
    held.wait();
    old.stop(PATIENCE).unwrap();
    held.wait();
    let new = new.join().unwrap().unwrap();
    assert!(new.took_over());
    assert_eq!(asked(&mut UnixStream::connect(&path).unwrap()), b'2');
    let new = ending(new);
    let next = serving(b'3', 1, &folder.socket(), target.as_str());
    assert!(next.took_over() && new.join().unwrap().handed_over);
    assert_eq!(asked(&mut UnixStream::connect(&path).unwrap()), b'3');
    drop(next);
    assert!(std::fs::read_dir(&folder.0).unwrap().next().is_none());
}

#[test]
fn one_that_is_stuck_keeps_neither_the_next_one_nor_the_one_after_it() {
    let folder = Folder::new();
    let helds = [barrier(), barrier(), barrier()];
    let old = sticky(b'1', &helds[0], &folder.socket(), "127.0.0.1:0");
    let moves = old.handle().setup().backend != "uring";
    let at = addr(&old);
    let mut idle = client(at);
    assert_eq!(asked(&mut idle), b'1');
    let mut stuck = sticking(at, &helds[0]);
    let old = ending(old);
    let new = sticky(b'2', &helds[1], &folder.socket(), at);
    // This one holds up the drain of the second.
    let mut second = sticking(at, &helds[1]);
    let new = ending(new);
    let _next = sticky(b'3', &helds[2], &folder.socket(), at);
    serves_alone(b'3', at);
    // What the first one had goes on by way of the second.
    helds[0].wait();
    if moves {
        assert_eq!(asked(&mut idle), b'3');
    }
    assert_eq!(stuck.read(&mut [0]).unwrap(), 1);
    drop((idle, stuck));
    assert!(old.join().unwrap().handed_over);
    helds[1].wait();
    assert_eq!(second.read(&mut [0]).unwrap(), 1);
    drop(second);
    assert!(new.join().unwrap().handed_over);
}

#[cfg(all(target_os = "linux", not(netpoll_portable)))]
#[test]
fn what_one_that_was_stuck_has_left_is_drained_where_nobody_is_there_to_take_it() {
    let folder = Folder::new();
    let helds = [barrier(), barrier()];
    let old = sticky(b'1', &helds[0], &folder.socket(), "127.0.0.1:0");
    let at = addr(&old);
    let mut idle = client(at);
    assert_eq!(asked(&mut idle), b'1');
    let mut stuck = sticking(at, &helds[0]);
    let old = ending(old);
    drop(sticky(b'2', &helds[1], &folder.socket(), at));
    // The way there is closed.
    until(|| sockets_at(&folder.socket()) == 0);
    helds[0].wait();
    assert_eq!(asked(&mut idle), b'1');
    assert_eq!(stuck.read(&mut [0]).unwrap(), 1);
    drop((idle, stuck));
    assert_eq!(old.join().unwrap().moved, 0);
}

#[cfg(all(target_os = "linux", not(netpoll_portable)))]
#[test]
fn a_path_may_be_as_long_as_the_kernel_takes_it() {
    let folder = Folder::new();
    let stem = folder.0.as_os_str().len() + 1;
    let path = folder.0.join("h".repeat(107 - stem));
    let old = ending(serving(b'1', 1, &path, "127.0.0.1:0"));
    let new = serving(b'2', 1, &path, "127.0.0.1:0");
    assert!(new.took_over() && old.join().unwrap().handed_over);
    drop(new);
    assert!(std::fs::read_dir(&folder.0).unwrap().next().is_none());
}

/// How many sockets have this path: one that listens, those that were accepted there, and those that wait for that.
#[cfg(all(target_os = "linux", not(netpoll_portable)))]
fn sockets_at(path: &Path) -> usize {
    let all = std::fs::read_to_string("/proc/net/unix").unwrap();
    all.lines().filter(|line| line.ends_with(path.to_str().unwrap())).count()
}

#[cfg(all(target_os = "linux", not(netpoll_portable)))]
#[test]
fn of_two_that_come_at_once_the_second_follows_the_first() {
    let folder = Folder::new();
    let old = serving(b'1', 1, &folder.socket(), "127.0.0.1:0");
    let (at, path, held) = (addr(&old), folder.socket(), barrier());
    let inside = Arc::clone(&held);
    let new = builder(1, &path).listen(at, move |_worker| {
        inside.wait();
        inside.wait();
        |_peer| Named(b'2')
    });
    let (old, new) = (ending(old), std::thread::spawn(move || new.unwrap().start().unwrap()));
    held.wait();
    let next = builder(1, &path).listen(at, |_worker| |_peer| Named(b'3')).unwrap();
    let next = std::thread::spawn(move || next.start().unwrap());
    // The one that serves has attended to the first, and the second waits.
    until(|| sockets_at(&folder.socket()) == 3);
    held.wait();
    let new = ending(new.join().unwrap());
    let next = next.join().unwrap();
    assert!(next.took_over() && old.join().unwrap().handed_over && new.join().unwrap().handed_over);
    serves_alone(b'3', at);
}

#[test]
fn one_that_was_told_to_go_ahead_is_waited_for_however_slow_it_is() {
    let folder = Folder::new();
    let old = serving(b'1', 1, &folder.socket(), "127.0.0.1:0");
    let at = addr(&old);
    let mut slow = connected(&folder.socket());
    slow.write_all(&hello(1)).unwrap();
    [HELLO, OFFER, SOCKET].into_iter().for_each(|kind| assert_eq!(heard(&mut slow).unwrap().0, kind));
    slow.write_all(&message(READY, b"")).unwrap();
    assert_eq!(heard(&mut slow).unwrap().0, GO_AHEAD);
    // Longer than it waits for anything else: refused now, it would serve beside this one.
    slow.set_read_timeout(Some(Duration::from_secs(11))).unwrap();
    assert_eq!(slow.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    serves_alone(b'1', at);
    slow.write_all(&message(SERVING, &[0, 0])).unwrap();
    assert!(old.wait().unwrap().handed_over);
}

#[test]
fn one_that_is_killed_before_it_serves_leaves_no_file() {
    let folder = Folder::new();
    let old = serving(b'1', 1, &folder.socket(), "127.0.0.1:0");
    let (at, held) = (addr(&old), barrier());
    let inside = Arc::clone(&held);
    let new = builder(1, &folder.socket()).listen(at, move |_worker| {
        inside.wait();
        inside.wait();
        |_peer| Named(b'2')
    });
    let new = std::thread::spawn(move || new.unwrap().start().unwrap());
    held.wait();
    // Ended here, it could remove nothing.
    let files: Vec<_> = std::fs::read_dir(&folder.0).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files, [folder.socket()]);
    held.wait();
    assert!(new.join().unwrap().took_over());
    drop(old);
}

#[test]
fn one_whose_path_was_taken_by_one_that_has_ended_comes_back_to_it() {
    let folder = Folder::new();
    let old = serving(b'1', 1, &folder.socket(), "127.0.0.1:0");
    let at = addr(&old);
    let mut killed = connected(&folder.socket());
    killed.write_all(&hello(1)).unwrap();
    [HELLO, OFFER, SOCKET].into_iter().for_each(|kind| assert_eq!(heard(&mut killed).unwrap().0, kind));
    killed.write_all(&message(READY, b"")).unwrap();
    assert_eq!(heard(&mut killed).unwrap().0, GO_AHEAD);
    let beside = folder.0.join("beside.sock");
    let taken = UnixListener::bind(&beside).unwrap();
    std::fs::rename(beside, folder.socket()).unwrap();
    drop((killed, taken));
    until(|| UnixStream::connect(folder.socket()).is_ok());
    let old = ending(old);
    let new = serving(b'2', 1, &folder.socket(), at);
    assert!(new.took_over() && old.join().unwrap().handed_over);
    drop(new);
    assert!(std::fs::read_dir(&folder.0).unwrap().next().is_none());
}

#[test]
fn whoever_says_nothing_does_not_keep_the_next_one_from_starting() {
    let folder = Folder::new();
    let old = serving(b'1', 1, &folder.socket(), "127.0.0.1:0");
    let silent = [(); 2].map(|()| connected(&folder.socket()));
    let (at, old) = (addr(&old), ending(old));
    let new = serving(b'2', 1, &folder.socket(), at);
    assert!(new.took_over() && old.join().unwrap().handed_over);
    drop(silent);
}

#[test]
fn what_stands_beside_one_that_is_stuck_leaves_newcomers_to_the_next() {
    let folder = Folder::new();
    let held = barrier();
    let start = |name: u8| {
        let (told, addrs) = mpsc::channel();
        let held = Arc::clone(&held);
        let running = builder(1, &folder.socket())
            .listen("127.0.0.1:0", move |_worker| {
                let held = Arc::clone(&held);
                move |_peer| Sticky { name, held: Arc::clone(&held) }
            })
            .unwrap()
            .beside(move |_served, builder| {
                let beside = builder.listen("127.0.0.1:0", move |_worker| move |_peer| Named(name + 10))?;
                let running = beside.start()?;
                told.send(addr(&running)).unwrap();
                Ok(running)
            })
            .start()
            .unwrap();
        (running, addrs.recv().unwrap())
    };
    let (old, beside) = start(b'a');
    let mut stuck = sticking(addr(&old), &held);
    let (new, beside_new) = start(b'b');
    assert_eq!(beside_new, beside);
    until(|| asked(&mut client(beside)) == b'l');
    serves_alone(b'l', beside);
    held.wait();
    assert_eq!(stuck.read(&mut [0]).unwrap(), 1);
    drop(stuck);
    assert!(old.wait().unwrap().handed_over);
    drop(new);
}

#[test]
fn a_manager_that_is_busy_hears_of_the_next_process_before_this_one_ends() {
    let folder = Folder::new();
    let path = folder.0.join("notify.sock");
    let manager = manager_at(&path);
    let hear = || told_next(&manager);
    let (told, outcomes) = mpsc::channel();
    let handover = Handover::at(folder.socket())
        .on_end(move |outcome| told.send(outcome.map_err(ToString::to_string)).unwrap());
    let old = Runtime::builder().workers(Workers::Count(1)).handover(handover);
    let old = old.service_manager(ServiceManager::at(&path).unwrap());
    let old = old.listen("127.0.0.1:0", |_worker| |_peer| Named(b'1')).unwrap().start().unwrap();
    assert_eq!(hear(), "READY=1");
    let others = UnixDatagram::unbound().unwrap();
    others.set_nonblocking(true).unwrap();
    while others.send_to(b"STATUS=busy", &path).is_ok() {}
    let old_addr = addr(&old);
    let old = ending(old);
    let new = builder(1, &folder.socket()).listen(old_addr, |_worker| |_peer| Named(b'2')).unwrap();
    let new = new.start().unwrap();
    // It is not through with that before the manager has room.
    assert!(outcomes.recv_timeout(Duration::from_millis(300)).is_err());
    let expected = format!("MAINPID={}\nREADY=1", std::process::id());
    while hear() != expected {}
    assert!(outcomes.recv_timeout(PATIENCE).unwrap().is_ok() && old.join().unwrap().handed_over);
    drop(new);
}

#[test]
fn connections_go_on_while_the_program_is_told_that_it_was_followed() {
    let folder = Folder::new();
    let held = barrier();
    let (go_on, waits) = mpsc::channel::<()>();
    let waits = Mutex::new(waits);
    let handover = Handover::at(folder.socket()).on_end(move |_outcome| {
        // A log that hangs.
        let _ = waits.lock().unwrap().recv();
    });
    let make = |name| {
        let held = Arc::clone(&held);
        move |_worker: &WorkerInfo| {
            let held = Arc::clone(&held);
            move |_peer| Sticky { name, held: Arc::clone(&held) }
        }
    };
    let old = Runtime::builder().workers(Workers::Count(1)).handover(handover);
    let old = old.listen("127.0.0.1:0", make(b'1')).unwrap().start().unwrap();
    let moves = old.handle().setup().backend != "uring";
    let mut client = client(addr(&old));
    assert_eq!(asked(&mut client), b'1');
    let _new = builder(1, &folder.socket()).listen(addr(&old), make(b'2')).unwrap().start().unwrap();
    if moves {
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        until(|| old.handle().is_draining());
        assert_eq!(asked(&mut client), b'2');
    }
    drop(go_on);
    assert!(old.wait().unwrap().handed_over);
}

#[test]
fn what_was_handed_over_does_not_wake_the_one_that_goes() {
    let folder = Folder::new();
    let held = barrier();
    let start = |name| {
        let held = Arc::clone(&held);
        let builder = builder(1, &folder.socket())
            .listen("127.0.0.1:0", move |_worker| {
                let held = Arc::clone(&held);
                move |_peer| Sticky { name, held: Arc::clone(&held) }
            })
            .unwrap()
            .listen("127.0.0.1:0", |_worker| |_peer| Lines)
            .unwrap()
            .bind_udp("127.0.0.1:0", move |_worker| Named(name))
            .unwrap();
        builder.start().unwrap()
    };
    let old = start(b'1');
    let moves = old.handle().setup().backend != "uring";
    let addrs: Vec<_> = old.local_addrs().iter().map(|addr| addr.as_socket_addr().unwrap()).collect();
    let mut moved = client(addrs[0]);
    assert_eq!(asked(&mut moved), b'1');
    // Holds the drain up, as half a line was read.
    let mut busy = client(addrs[1]);
    busy.write_all(b"half").unwrap();
    until(|| old.handle().stats().received_bytes == 5);
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    datagrams.connect(old.udp_addrs()[0]).unwrap();
    datagrams.set_read_timeout(Some(PATIENCE)).unwrap();
    let (handle, old) = (old.handle().clone(), ending(old));
    let new = start(b'2');
    if moves {
        until(|| asked(&mut moved) == b'2');
    }
    // Both may answer until the old one has heard that the new one serves, and has closed its own.
    until(|| (0..20).all(|_| datagram(&datagrams) == b'2'));
    let before = handle.stats().events;
    for _ in 0..200 {
        if moves {
            assert_eq!(asked(&mut moved), b'2');
        }
        assert_eq!(datagram(&datagrams), b'2');
    }
    let events = handle.stats().events - before;
    assert!(events < 50, "{events} events of sockets that are the other one's");
    busy.write_all(b" a line\n").unwrap();
    assert_eq!(busy.read(&mut [0]).unwrap(), 1);
    drop(busy);
    old.join().unwrap();
    drop(new);
}

/// Where the child finds the path, and where it listens.
const SHORT_PATH: &str = "NETPOLL_TEST_SHORT_PATH";
const SHORT_AT: &str = "NETPOLL_TEST_SHORT_AT";

/// Opens descriptors until this process may have no more, and gives so many back.
fn use_up(left: usize) -> Vec<std::fs::File> {
    let mut held: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    held.truncate(held.len() - left);
    held
}

/// A test of this file in a process that may have no more than 64 descriptors, up to what it says first.
fn short_of_descriptors(
    test: &str,
    folder: &Folder,
    at: &str,
) -> (Child, BufReader<ChildStdout>, SocketAddr) {
    let mut child = Command::new("sh");
    child.args(["-c", r#"ulimit -n 64; exec "$0" "$@""#]).arg(std::env::current_exe().unwrap());
    let name = format!("troubles::{test}");
    child.args(["--exact", &name, "--ignored", "--nocapture", "--test-threads=1"]);
    child.env(SHORT_PATH, folder.socket()).env(SHORT_AT, at);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let at = said.by_ref().lines().find_map(|line| Some(line.unwrap().split_once("serves at ")?.1.parse()));
    (child, said, at.expect("it serves").unwrap())
}

fn short_path() -> (PathBuf, String) {
    (std::env::var(SHORT_PATH).unwrap().into(), std::env::var(SHORT_AT).unwrap())
}

#[test]
#[ignore = "it is another process's part of the next one"]
fn one_that_goes_without_a_descriptor() {
    let (path, at) = short_path();
    let running = serving(b'1', 1, &path, at.as_str());
    let _held = use_up(0);
    println!("serves at {}", addr(&running));
    assert!(running.wait().unwrap().handed_over);
}

#[test]
fn one_that_has_used_up_its_descriptors_is_followed_like_any_other() {
    let folder = Folder::new();
    let (mut old, _said, at) =
        short_of_descriptors("one_that_goes_without_a_descriptor", &folder, "127.0.0.1:0");
    let new = serving(b'2', 1, &folder.socket(), at);
    assert!(new.took_over() && old.wait().unwrap().success());
    serves_alone(b'2', at);
}

#[test]
#[ignore = "it is another process's part of the next one"]
fn one_that_follows_without_a_descriptor() {
    let (path, at) = short_path();
    let held = Arc::new(Mutex::new(Vec::new()));
    let holds = Arc::clone(&held);
    let running = builder(1, &path).listen(at.as_str(), move |_worker| {
        *holds.lock().unwrap() = use_up(4);
        |_peer| Sticky { name: b'2', held: barrier() }
    });
    let running = running.unwrap().start().unwrap();
    println!("serves at {}", addr(&running));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    until(|| running.handle().stats().descriptors_exhausted > 4);
    held.lock().unwrap().clear();
    std::io::stdin().read_line(&mut line).unwrap();
}

#[cfg(all(target_os = "linux", not(netpoll_portable)))]
#[test]
fn connections_wait_until_the_one_that_follows_has_descriptors_for_them() {
    let folder = Folder::new();
    let old = sticky(b'1', &barrier(), &folder.socket(), "127.0.0.1:0");
    if old.handle().setup().backend == "uring" {
        return println!("skipped: io_uring receives ahead, so its connections are drained");
    }
    let at = addr(&old);
    let mut clients: Vec<_> = (0..20).map(|_| client(at)).collect();
    clients.iter_mut().for_each(|client| assert_eq!(asked(client), b'1'));
    let (handle, old) = (old.handle().clone(), ending(old));
    let (mut new, _said, _) =
        short_of_descriptors("one_that_follows_without_a_descriptor", &folder, &at.to_string());
    let mut told = new.stdin.take().unwrap();
    until(|| handle.is_draining());
    // It turns some of them away, and rests for longer and longer.
    let _newcomers = [(); 8].map(|()| client(at));
    told.write_all(b"go on\n").unwrap();
    clients.iter_mut().for_each(|client| assert_eq!(asked(client), b'2'));
    assert_eq!(old.join().unwrap().moved, 20);
    drop(told);
    assert!(new.wait().unwrap().success());
}
