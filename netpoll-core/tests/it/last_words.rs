//! What a peer has said before its connection failed is heard, also where a write or the failure itself comes first.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use netpoll_core::net::Stream;
use netpoll_core::sim::{Options, Sim};
use netpoll_core::task::spawn_local;
use netpoll_core::time::sleep;
use netpoll_core::{
    Commands, Conn, ConnLimits, ConnectOptions, Flow, Input, Lost, Protocol, Runtime, Workers,
};

const SECOND: Duration = Duration::from_secs(1);

type Notes = Rc<RefCell<Vec<String>>>;

#[test]
fn the_answer_of_a_peer_that_resets_an_upload_is_read_by_its_task() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (go, may_answer) = mpsc::channel();
    let peer = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        may_answer.recv().unwrap();
        stream.write_all(b"413").unwrap();
        // Dropped with unread input: a reset follows at once.
    });
    Runtime::block_on(async move {
        let (mut reader, mut writer) = Stream::connect(addr).await.unwrap().into_split();
        let upload = spawn_local(async move { while writer.write_all(&[7; 65_536]).await.is_ok() {} });
        // The peer reads nothing: the upload is held back.
        sleep(Duration::from_millis(200)).await;
        go.send(()).unwrap();
        // Holds this worker: the answer and the reset come between two waits.
        peer.join().unwrap();
        let mut answer = [0; 10];
        assert_eq!(reader.read(&mut answer).await.map_err(|error| error.kind()), Ok(3));
        assert_eq!(&answer[..3], b"413");
        assert_eq!(reader.read(&mut answer).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        upload.await.unwrap();
    })
    .unwrap();
}

/// Uploads more than the peer takes, and notes what it hears. Its answers to that have nobody to go to.
struct Upload {
    heard: Vec<u8>,
    notes: mpsc::Sender<String>,
}

impl Protocol for Upload {
    fn opened(&mut self, conn: &mut Conn<'_>) -> Flow {
        conn.send(&vec![7; 16 << 20]);
        Flow::Continue
    }

    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.heard.extend_from_slice(input.bytes());
        input.advance_all();
        conn.send(b"thanks");
        Flow::Continue
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        let heard = String::from_utf8_lossy(&self.heard);
        self.notes.send(format!("{heard}, {}", matches!(reason, Lost::Failed(_)))).unwrap();
    }
}

#[test]
fn the_answer_of_a_peer_that_resets_an_upload_is_offered_to_its_protocol() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let running = Runtime::builder().workers(Workers::Count(1)).start().unwrap();
    let (notes, noted) = mpsc::channel();
    running.handle().connect(0, addr, ConnectOptions::default(), Upload { heard: Vec::new(), notes });
    let (mut stream, _) = listener.accept().unwrap();
    // As much as the kernel takes has come: it is held back.
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    thread::sleep(Duration::from_millis(50));
    let (stopped, stops) = mpsc::channel();
    let (go, goes) = mpsc::channel::<()>();
    running.handle().run_on(0, move |_local| {
        stopped.send(()).unwrap();
        goes.recv().unwrap();
    });
    stops.recv().unwrap();
    stream.write_all(b"413").unwrap();
    drop(stream);
    go.send(()).unwrap();
    assert_eq!(noted.recv().unwrap(), "413, true");
    running.stop(SECOND).unwrap();
}

/// What a task has heard that begins to read after a second, and then reads on to the end.
fn slow_reader(limits: ConnLimits, bytes: usize) -> String {
    let notes = Notes::default();
    let log = Rc::clone(&notes);
    let mut sim = Sim::new(Options::default().limits(limits));
    let listener = sim.listen_tasks(move |mut stream, _peer| {
        let log = Rc::clone(&log);
        async move {
            sleep(SECOND).await;
            let (mut buffer, mut heard) = (vec![0; 4096], 0);
            let error = loop {
                match stream.read(&mut buffer).await {
                    Ok(count) => heard += count,
                    Err(error) => break error.kind(),
                }
            };
            log.borrow_mut().push(format!("{heard} {error:?}"));
        }
    });
    let peer = sim.connect(listener);
    sim.run();
    sim.send(peer, &vec![7; bytes]);
    sim.run();
    sim.reset(peer);
    sim.advance(2 * SECOND);
    assert_eq!((sim.stats().panics, sim.blocks_in_use()), (0, 0));
    notes.borrow().join(", ")
}

#[test]
fn a_slow_reader_reads_all_that_arrived_before_a_reset() {
    // 64 KiB go into the stream, the rest lies in the socket.
    assert_eq!(slow_reader(ConnLimits::default(), 100_000), "100000 ConnectionReset");
    assert_eq!(slow_reader(ConnLimits::default(), 3_000_000), "3000000 ConnectionReset");
}

#[test]
fn what_a_stream_keeps_of_one_that_has_failed_is_bounded() {
    let heard = slow_reader(ConnLimits::default().output_bytes_max(200_000), 3_000_000);
    let bytes: usize = heard.split(' ').next().unwrap().parse().unwrap();
    assert!((200_000..400_000).contains(&bytes), "{heard}");
}

/// Says `first` to what it is told of, and notes the sizes of what it is offered.
struct Says {
    first: Flow,
    sizes: Notes,
}

impl Protocol for Says {
    fn received(&mut self, _conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        self.sizes.borrow_mut().push(input.bytes().len().to_string());
        input.advance_all();
        self.first
    }

    fn lost(&mut self, reason: Lost, _commands: &mut Commands) {
        self.sizes.borrow_mut().push(reason.to_string());
    }
}

#[test]
fn who_has_paused_is_not_offered_the_last_input() {
    let sizes = Notes::default();
    let place = Rc::clone(&sizes);
    let mut sim = Sim::new(Options::default());
    let listener = sim.listen(move |_peer| Says { first: Flow::Pause, sizes: Rc::clone(&place) });
    let peer = sim.connect(listener);
    sim.send(peer, b"one");
    sim.run();
    sim.send(peer, b"two");
    sim.run();
    sim.reset(peer);
    sim.settle();
    let sizes = sizes.borrow();
    assert!(sizes.len() == 2 && sizes[0] == "3" && sizes[1].starts_with("the stream failed"), "{sizes:?}");
}
