//! Deadlines beside pending input, and peers that leave, on real sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use netpoll_core::{
    Budget, Commands, Conn, ConnLimits, Flow, Input, Lost, Protocol, Running, Runtime, Workers,
};

const PATIENCE: Duration = Duration::from_secs(30);

fn start<P: Protocol>(
    limits: ConnLimits,
    protocol: impl Fn() -> P + Clone + Send + Sync + 'static,
) -> Running {
    Runtime::builder()
        .workers(Workers::Count(1))
        .budget(Budget::fixed(8))
        .limits(limits)
        .listen("127.0.0.1:0", move |_worker| {
            let protocol = protocol.clone();
            move |_peer| protocol()
        })
        .unwrap()
        .start()
        .unwrap()
}

fn connect(server: &Running) -> TcpStream {
    let stream = TcpStream::connect(server.local_addrs()[0].as_socket_addr().unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Closes silent peers. `B` blocks its worker until the test lets it go.
struct Impatient {
    after: Duration,
    blocked: mpsc::Sender<()>,
    release: std::sync::Arc<std::sync::Mutex<mpsc::Receiver<()>>>,
}

impl Protocol for Impatient {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.set_deadline(self.after);
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        if input.bytes() == b"B" {
            self.blocked.send(()).unwrap();
            self.release.lock().unwrap().recv().unwrap();
        }
        conn.send(input.bytes());
        input.advance_all();
        conn.set_deadline(self.after);
        Flow::Continue
    }
}

#[test]
fn what_lies_in_the_socket_counts_more_than_a_deadline_that_has_passed() {
    let after = Duration::from_millis(300);
    let (blocked, is_blocked) = mpsc::channel();
    let (let_go, release) = mpsc::channel();
    let release = std::sync::Arc::new(std::sync::Mutex::new(release));
    let server = start(ConnLimits::default(), move || Impatient {
        after,
        blocked: blocked.clone(),
        release: std::sync::Arc::clone(&release),
    });
    let mut busy = connect(&server);
    let mut clients: Vec<TcpStream> = (0..200).map(|_| connect(&server)).collect();
    for client in &mut clients {
        client.write_all(b"1").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    busy.write_all(b"B").unwrap();
    is_blocked.recv().unwrap();
    for client in &mut clients {
        client.write_all(b"2").unwrap();
    }
    // All their deadlines pass while the worker cannot read: many more than the events of one wait.
    std::thread::sleep(after * 2);
    let_go.send(()).unwrap();

    let answered = clients.iter_mut().filter(|client| matches!((&**client).read(&mut [0]), Ok(1))).count();

    assert_eq!(answered, 200);
}

/// Pauses at `P`, and tells the test what it hears.
struct Pausing(mpsc::Sender<&'static str>);

impl Protocol for Pausing {
    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        self.0.send("received").unwrap();
        Flow::Pause
    }

    fn peer_ended(&mut self, _conn: &mut Conn<'_>) -> Flow {
        self.0.send("peer ended").unwrap();
        Flow::Continue
    }

    fn eof(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
        self.0.send("eof").unwrap();
        Flow::Close
    }

    fn lost(&mut self, _reason: Lost, _commands: &mut Commands) {
        self.0.send("lost").unwrap();
    }
}

#[test]
fn a_paused_connection_learns_that_its_peer_has_ended() {
    let (heard, hears) = mpsc::channel();
    let server = start(ConnLimits::default(), move || Pausing(heard.clone()));

    let mut client = connect(&server);
    client.write_all(b"P").unwrap();
    assert_eq!(hears.recv_timeout(PATIENCE), Ok("received"));
    drop(client);
    for what in ["peer ended", "eof", "lost"] {
        assert_eq!(hears.recv_timeout(PATIENCE), Ok(what));
    }
}

#[test]
fn a_peer_that_ends_in_the_same_breath_as_it_speaks_is_noticed_behind_a_pause() {
    let (heard, hears) = mpsc::channel();
    let server = start(ConnLimits::default(), move || Pausing(heard.clone()));
    for _ in 0..20 {
        let mut client = connect(&server);
        client.write_all(b"P").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        for what in ["received", "peer ended", "eof", "lost"] {
            assert_eq!(hears.recv_timeout(PATIENCE), Ok(what));
        }
    }
}

#[test]
fn an_end_behind_bytes_that_are_not_read_is_noticed_and_the_bytes_come_before_it() {
    let (heard, hears) = mpsc::channel();
    let server = start(ConnLimits::default(), move || Pausing(heard.clone()));
    let mut client = connect(&server);
    client.write_all(b"P").unwrap();
    assert_eq!(hears.recv_timeout(PATIENCE), Ok("received"));
    client.write_all(b"more").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    // `Continue` lets the input flow: the bytes, another pause, and in the end the end.
    for what in ["peer ended", "received"] {
        assert_eq!(hears.recv_timeout(PATIENCE), Ok(what));
    }
}

#[test]
fn bytes_behind_urgent_data_are_read() {
    let server = start(ConnLimits::default(), || crate::support::Echo);
    for _ in 0..20 {
        let mut client = connect(&server);
        client.write_all(b"abc").unwrap();
        socket2::SockRef::from(&client).send_out_of_band(b"!").unwrap();
        client.write_all(b"def").unwrap();
        let mut echo = [0; 6];
        client.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"abcdef");
    }
}

#[test]
fn output_that_had_to_wait_is_said_to_have_left() {
    let (said, says) = mpsc::channel();
    struct Told(mpsc::Sender<usize>);
    impl Protocol for Told {
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            input.advance_all();
            conn.send(&vec![b'x'; 32 << 20]);
            Flow::Continue
        }
        fn flushed(&mut self, conn: &mut Conn<'_>) {
            self.0.send(conn.queued_bytes()).unwrap();
        }
    }
    let write_grace = Duration::from_millis(200);
    let limits = ConnLimits::default().write_grace(write_grace).write_rate_min(0);
    let server = start(limits, move || Told(said.clone()));
    let mut client = connect(&server);
    client.write_all(b"L").unwrap();
    assert!(says.try_recv().is_err(), "nothing is said while it waits");
    let mut got = vec![0; 32 << 20];
    client.read_exact(&mut got).unwrap();
    assert_eq!(says.recv_timeout(PATIENCE), Ok(0));
}

/// Refuses whatever comes, at its first byte.
struct Refusing;

impl Protocol for Refusing {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        input.advance_all();
        conn.send(b"no");
        Flow::Linger
    }
}

#[test]
fn a_client_that_writes_eight_megabytes_before_it_reads_gets_its_refusal() {
    let server = start(ConnLimits::default(), || Refusing);
    for _ in 0..10 {
        let mut client = connect(&server);
        client.write_all(&vec![b'x'; 8 << 20]).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"no");
    }
}

#[test]
fn a_close_behind_an_answer_that_did_not_leave_whole_lets_it_arrive() {
    struct Large;
    impl Protocol for Large {
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            input.advance_all();
            conn.send(&vec![b'x'; 32 << 20]);
            Flow::Close
        }
    }
    let server = start(ConnLimits::default(), || Large);
    let mut client = connect(&server);
    client.write_all(b"L").unwrap();
    let mut got = vec![0; 1 << 20];
    client.read_exact(&mut got).unwrap();
    // A stray byte, which nobody reads: it must not be answered with a reset while the answer is under way.
    client.write_all(b"\r\n").unwrap();
    got.resize(31 << 20, 0);
    client.read_exact(&mut got).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn what_was_left_for_a_later_turn_counts_more_than_a_deadline_that_has_passed() {
    /// Echoes a byte in each turn; `B` takes longer than it waits for the next.
    struct Bytewise(Duration);
    impl Protocol for Bytewise {
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            let byte = input.bytes()[0];
            if byte == b'B' {
                std::thread::sleep(2 * self.0);
            }
            conn.send(&[byte]);
            input.advance(1);
            conn.set_deadline(self.0);
            if input.is_empty() { Flow::Continue } else { Flow::Yield }
        }
    }
    let server = start(ConnLimits::default(), || Bytewise(Duration::from_millis(100)));
    let mut client = connect(&server);
    client.write_all(b"aBcdBefghijk").unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"aBcdBefghijk");
}

#[test]
fn a_connection_that_always_leaves_something_for_later_meets_its_deadline_all_the_same() {
    struct Hesitant;
    impl Protocol for Hesitant {
        fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
            conn.set_deadline(Duration::from_millis(100));
            Flow::Continue
        }

        fn received(&mut self, _conn: &mut Conn<'_>, _input: &mut Input<'_>) -> Flow {
            Flow::Yield
        }
    }
    let server = start(ConnLimits::default(), || Hesitant);
    let mut client = connect(&server);
    client.write_all(b"x").unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_reader_that_stands_still_is_cut_although_its_kernel_took_all_it_could() {
    struct Large(mpsc::Sender<String>);
    impl Protocol for Large {
        fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
            input.advance_all();
            conn.send(&vec![b'x'; 2 << 20]);
            Flow::Continue
        }
        fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
            self.0.send(format!("{reason:?}")).unwrap();
        }
    }
    let (said, says) = mpsc::channel();
    let limits = ConnLimits::default().write_grace(Duration::from_millis(500));
    let server = start(limits, move || Large(said.clone()));
    let mut client = connect(&server);
    // Two megabytes fit into the two kernels' buffers on many machines; what the reader has not taken is not delivered.
    socket2::SockRef::from(&client).set_recv_buffer_size(16 * 1024).unwrap();
    client.write_all(b"L").unwrap();
    assert_eq!(says.recv_timeout(PATIENCE), Ok("Stalled".to_owned()));
}
