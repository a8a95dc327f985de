mod storm;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use super::super::{Close, Demand, Flushed, HangUp, Verdict};
use super::*;
use crate::mem::{Pool, WriteQueue};

const KEY: Key = Key::new(1, 1, 0);
const LIMITS: Limits = Limits { events: 64, read_bytes: 64 << 10, accepts: 8 };
/// Nothing here takes so long.
const LONG: Duration = Duration::from_secs(20);

/// A worker that writes down what it is told.
struct Worker {
    pool: Pool,
    received: HashMap<Key, Vec<u8>>,
    /// Lengths of chunks.
    chunks: Vec<usize>,
    /// Their addresses.
    places: Vec<usize>,
    told: Vec<String>,
    /// What was given back of output.
    unsent: Vec<u8>,
    unfinished: Vec<Key>,
    /// Sends each chunk back.
    echoes: bool,
    /// What is to be sent back and did not leave from where it lay.
    pending: HashMap<Key, Vec<u8>>,
}

impl Worker {
    fn new() -> Self {
        Self {
            pool: Pool::new(1 << 20),
            received: HashMap::new(),
            chunks: Vec::new(),
            places: Vec::new(),
            told: Vec::new(),
            unsent: Vec::new(),
            unfinished: Vec::new(),
            echoes: false,
            pending: HashMap::new(),
        }
    }

    fn bytes(&self, key: Key) -> &[u8] {
        self.received.get(&key).map_or(&[], Vec::as_slice)
    }
}

impl Sink for Worker {
    fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    fn accepted(
        &mut self,
        _io: &mut dyn Io,
        _listener: Key,
        peer: io::Result<Option<sys::Address>>,
    ) -> Option<Key> {
        self.told.push(format!("accepted {:?}", peer.map(|_| ()).map_err(|error| error.raw_os_error())));
        None
    }

    fn listener_empty(&mut self, _io: &mut dyn Io, _listener: Key) {}

    fn opened(&mut self, _io: &mut dyn Io, _key: Key, result: io::Result<()>) {
        self.told.push(format!("opened {:?}", result.map_err(|error| error.kind())));
    }

    fn received(&mut self, _io: &mut dyn Io, key: Key, chunk: &mut [u8]) -> Verdict {
        self.received.entry(key).or_default().extend_from_slice(chunk);
        self.chunks.push(chunk.len());
        self.places.push(chunk.as_ptr().addr());
        if !self.echoes {
            return Verdict::Continue;
        }
        match self.pending.get_mut(&key) {
            Some(pending) if !pending.is_empty() => pending.extend_from_slice(chunk),
            _ => return Verdict::Reply { start: 0, end: chunk.len() as u32 },
        }
        Verdict::Continue
    }

    fn unsent(&mut self, key: Key, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
        self.pending.entry(key).or_default().splice(..0, bytes.iter().copied());
    }

    fn sent(&mut self, _io: &mut dyn Io, _key: Key, bytes: usize) {
        self.told.push(format!("sent {bytes}"));
    }

    fn hung_up(&mut self, _io: &mut dyn Io, _key: Key, how: HangUp) {
        self.told.push(match how {
            HangUp::Eof => "the end".into(),
            HangUp::Failed(error) => format!("failed: {:?}", error.kind()),
        });
    }

    fn ending(&mut self, _io: &mut dyn Io, _key: Key) {
        self.told.push("ending".into());
    }

    fn unfinished(&mut self, key: Key) {
        self.unfinished.push(key);
    }

    fn delivered(&mut self, _io: &mut dyn Io) {}
}

/// A driver, where there may be one.
fn driver() -> Option<(Uring, Arc<Doorbell>)> {
    let features = probe().inspect_err(|refusal| eprintln!("{refusal}")).ok()?;
    driver_with(features)
}

fn driver_with(features: Features) -> Option<(Uring, Arc<Doorbell>)> {
    let bell = Arc::new(Doorbell::new().unwrap());
    let options = Options { features, busy_poll: None, splices: true };
    Some((Uring::new(options, Arc::clone(&bell)).unwrap(), bell))
}

/// A connection, our end of which the driver has under this key.
fn pair(driver: &mut Uring, key: Key) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    theirs.set_read_timeout(Some(LONG)).unwrap();
    let ours = listener.accept().unwrap().0;
    ours.set_nonblocking(true).unwrap();
    driver.io().adopt(key, ours.into()).unwrap();
    theirs
}

/// Turns until it is so.
fn turn_until(driver: &mut Uring, worker: &mut Worker, mut is_so: impl FnMut(&mut Worker) -> bool) {
    let began = Instant::now();
    while !is_so(worker) {
        assert!(began.elapsed() < LONG, "{:?} {:?}", worker.told, worker.chunks.len());
        for key in std::mem::take(&mut worker.unfinished) {
            driver.resume(key, &LIMITS, worker);
        }
        driver.wait(&LIMITS, Wait::Block(Some(Duration::from_millis(100)))).unwrap();
        driver.deliver(&LIMITS, worker);
    }
}

/// Looks as long as it is so.
fn turn_while(driver: &mut Uring, worker: &mut Worker, is_so: impl Fn(&Uring) -> bool) {
    let began = Instant::now();
    while is_so(driver) {
        assert!(began.elapsed() < LONG);
        look(driver, worker);
    }
}

fn look(driver: &mut Uring, worker: &mut Worker) {
    driver.wait(&LIMITS, Wait::Poll).unwrap();
    driver.deliver(&LIMITS, worker);
}

fn queue_of(bytes: &[u8], pool: &mut Pool) -> WriteQueue {
    let mut queue = WriteQueue::new();
    queue.write(pool, bytes);
    queue
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn a_wait_ends_in_time_or_by_the_bell() {
    let Some((mut driver, bell)) = driver() else { return };
    let mut worker = Worker::new();
    let began = Instant::now();
    driver.wait(&LIMITS, Wait::Block(Some(Duration::from_millis(3)))).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(3));
    assert_eq!(driver.deliver(&LIMITS, &mut worker).events, 0);
    for _ in 0..3 {
        bell.signal().unwrap();
        driver.wait(&LIMITS, Wait::Block(Some(LONG))).unwrap();
        assert_eq!(driver.deliver(&LIMITS, &mut worker).events, 1);
    }
    assert!(began.elapsed() < LONG);
}

#[test]
fn a_look_that_finds_nothing_is_no_system_call() {
    let Some((mut driver, _bell)) = driver() else { return };
    let mut worker = Worker::new();
    let mut theirs = pair(&mut driver, KEY);
    look(&mut driver, &mut worker);
    look(&mut driver, &mut worker);
    let before = driver.io().counts().syscalls_wait;
    for _ in 0..100 {
        look(&mut driver, &mut worker);
    }
    assert_eq!(driver.io().counts().syscalls_wait, before);
    // And it finds what there is.
    theirs.write_all(b"there").unwrap();
    let began = Instant::now();
    while worker.bytes(KEY).is_empty() && began.elapsed() < LONG {
        look(&mut driver, &mut worker);
    }
    assert_eq!(worker.bytes(KEY), b"there");
}

#[test]
fn looks_find_all_that_has_come_also_when_it_is_more_than_an_enter_brings() {
    let Some((mut driver, _bell)) = driver() else { return };
    let mut worker = Worker::new();
    let keys: Vec<Key> = (0..LIMITS.events).map(|index| Key::new(1, 1, index)).collect();
    let mut theirs: Vec<TcpStream> = keys.iter().map(|key| pair(&mut driver, *key)).collect();
    look(&mut driver, &mut worker);
    look(&mut driver, &mut worker);
    for peer in &mut theirs {
        peer.write_all(b"there").unwrap();
    }
    // Over loopback it has arrived. Nobody is told of anything meanwhile, nor sleeps.
    for _ in 0..LIMITS.events {
        look(&mut driver, &mut worker);
    }
    let missing = keys.iter().filter(|key| worker.bytes(**key) != b"there").count();
    assert_eq!(missing, 0);
}

#[test]
fn what_has_come_lies_in_the_blocks() {
    let Some(features) = probe().ok() else { return };
    for incremental_buffers in [features.incremental_buffers, false] {
        let (mut driver, _bell) = driver_with(Features { incremental_buffers, ..features }).unwrap();
        let mut worker = Worker::new();
        let keys: Vec<Key> = (0..40).map(|index| Key::new(1, 1, index)).collect();
        let mut theirs: Vec<TcpStream> = keys.iter().map(|key| pair(&mut driver, *key)).collect();
        // More than all blocks hold, from all of them at once: each is filled many times.
        let sent = pattern(100_000);
        for (round, part) in sent.chunks(10_000).enumerate() {
            for peer in &mut theirs {
                peer.write_all(part).unwrap();
            }
            let so_far = (round + 1) * 10_000;
            turn_until(&mut driver, &mut worker, |worker| {
                keys.iter().all(|key| worker.bytes(*key).len() == so_far)
            });
        }
        assert!(keys.iter().all(|key| worker.bytes(*key) == sent));
    }
}

#[test]
fn a_large_receive_begins_with_a_page() {
    let Some((mut driver, _bell)) = driver() else { return };
    if !probe().unwrap().aligned_receives {
        return eprintln!("skipped: a receive goes on where the last one ended");
    }
    let mut worker = Worker::new();
    let mut theirs = pair(&mut driver, KEY);
    let mut sent = Vec::new();
    // Each round takes four pages of a block. One more, and the receive would end at its cap.
    for _ in 0..4 {
        let mut starts = Vec::new();
        for len in [4, 5, 3000, 4096, 5000] {
            let part = pattern(len);
            theirs.write_all(&part).unwrap();
            sent.extend_from_slice(&part);
            starts.push(worker.places.len());
            turn_until(&mut driver, &mut worker, |worker| worker.bytes(KEY).len() == sent.len());
        }
        // What is small follows upon what came last, and so does what comes behind it.
        let places: Vec<_> =
            starts.iter().map(|start| worker.places[*start] - worker.places[starts[0]]).collect();
        assert_eq!(places, [0, 4, 9, 4096, 8192]);
    }
    assert_eq!(worker.bytes(KEY), sent);
}

#[test]
fn a_block_in_which_more_has_come_than_is_delivered_stays_as_it_is() {
    let Some((mut driver, _bell)) = driver() else { return };
    let mut worker = Worker::new();
    let keys: Vec<Key> = (0..40).map(|index| Key::new(1, 1, index)).collect();
    let mut theirs: Vec<TcpStream> = keys.iter().map(|key| pair(&mut driver, *key)).collect();
    // Each turn delivers one, and the kernel fills the rest of a block, or all of it, meanwhile.
    let limits = Limits { events: 1, ..LIMITS };
    let sent = pattern(5000 * 8);
    for part in sent.chunks(5000) {
        for peer in &mut theirs {
            peer.write_all(part).unwrap();
        }
        let began = Instant::now();
        let so_far = worker.bytes(KEY).len() + part.len();
        while keys.iter().any(|key| worker.bytes(*key).len() < so_far) {
            assert!(began.elapsed() < LONG);
            driver.wait(&limits, Wait::Block(Some(Duration::from_millis(100)))).unwrap();
            driver.deliver(&limits, &mut worker);
        }
    }
    assert!(keys.iter().all(|key| worker.bytes(*key) == sent));
}

#[test]
fn what_a_spike_has_left_goes_block_by_block() {
    let Some((mut driver, _bell)) = driver() else { return };
    let mut worker = Worker::new();
    let keys: Vec<Key> = (0..30).map(|index| Key::new(1, 1, index)).collect();
    let mut theirs: Vec<TcpStream> = keys.iter().map(|key| pair(&mut driver, *key)).collect();
    let blocks = |driver: &Uring| driver.half.state.borrow().buffers.blocks();
    let least = blocks(&driver);
    let (most, mut sent) = (pattern(60_000), 0);
    let mut round = |driver: &mut Uring, worker: &mut Worker, peers: usize| {
        for peer in &mut theirs[..peers] {
            peer.write_all(&most).unwrap();
        }
        sent += peers * most.len();
        turn_until(driver, worker, |worker| worker.received.values().map(Vec::len).sum::<usize>() == sent);
    };
    round(&mut driver, &mut worker, 30);
    assert!(!probe().unwrap().incremental_buffers || blocks(&driver) > least);
    driver.io().shrink();
    for _ in 0..70 {
        round(&mut driver, &mut worker, 1);
    }
    assert_eq!(blocks(&driver), least);
}

#[test]
fn a_receive_ends_at_its_cap_and_the_rest_stays_in_the_socket() {
    let Some((mut driver, _bell)) = driver() else { return };
    let mut worker = Worker::new();
    if !probe().unwrap().caps {
        return;
    }
    let limits = Limits { read_bytes: 1000, ..LIMITS };
    driver.wait(&limits, Wait::Poll).unwrap();
    driver.deliver(&limits, &mut worker);
    let mut theirs = pair(&mut driver, KEY);
    theirs.write_all(&pattern(2500)).unwrap();
    let began = Instant::now();
    for expected in [1000, 2000] {
        while worker.unfinished.is_empty() {
            assert!(began.elapsed() < LONG);
            driver.wait(&limits, Wait::Block(Some(LONG))).unwrap();
            driver.deliver(&limits, &mut worker);
        }
        assert_eq!((worker.bytes(KEY).len(), worker.unfinished.len()), (expected, 1));
        assert!(driver.io().may_have_input(KEY) && driver.io().has_input(KEY));
        // Until it is resumed, nothing comes.
        driver.wait(&limits, Wait::Poll).unwrap();
        driver.deliver(&limits, &mut worker);
        assert_eq!(worker.bytes(KEY).len(), expected);
        worker.unfinished.clear();
        driver.resume(KEY, &limits, &mut worker);
    }
    turn_until(&mut driver, &mut worker, |worker| worker.bytes(KEY).len() == 2500);
    assert_eq!(worker.bytes(KEY), pattern(2500));
}

#[test]
fn what_is_sent_soon_has_left_with_the_next_wait() {
    let Some((mut driver, _bell)) = driver() else { return };
    let mut worker = Worker::new();
    let mut theirs = pair(&mut driver, KEY);
    static LONG_PIECE: [u8; 6000] = [b'l'; 6000];
    let mut queue = queue_of(b"a block", &mut worker.pool);
    assert!(matches!(driver.io().flush(KEY, &mut queue, &mut worker.pool), Flushed::Done));
    assert!(queue.is_empty());
    assert_eq!(driver.io().unacknowledged(KEY), Some(7), "it has not left yet");
    // A second one behind it: the first leaves before it is ordered.
    let mut queue = queue_of(b", pieces ", &mut worker.pool);
    queue.write_static(&mut worker.pool, &LONG_PIECE);
    queue.write(&mut worker.pool, b" and an end");
    assert!(matches!(driver.io().flush(KEY, &mut queue, &mut worker.pool), Flushed::Done));
    driver.io().finish(KEY);
    look(&mut driver, &mut worker);
    let mut back = Vec::new();
    theirs.read_to_end(&mut back).unwrap();
    assert!(back == [&b"a block, pieces "[..], &LONG_PIECE, b" and an end"].concat());
    assert!(worker.unsent.is_empty() && driver.io().counts().syscalls_send <= 1);
    assert_eq!(worker.pool.blocks_in_use(), 0, "every block is back");
}

#[test]
fn what_a_full_socket_does_not_take_is_given_back_and_sent_when_there_is_room() {
    let Some((mut driver, _bell)) = driver() else { return };
    let mut worker = Worker::new();
    let mut theirs = pair(&mut driver, KEY);
    let (part, mut sent) = (pattern(16_000), 0);
    while worker.unsent.is_empty() {
        let mut queue = queue_of(&part, &mut worker.pool);
        assert!(matches!(driver.io().flush(KEY, &mut queue, &mut worker.pool), Flushed::Done));
        sent += part.len();
        look(&mut driver, &mut worker);
    }
    let rest = std::mem::take(&mut worker.unsent);
    let mut queue = queue_of(&rest, &mut worker.pool);
    assert!(matches!(
        driver.io().flush(KEY, &mut queue, &mut worker.pool),
        Flushed::Blocked { in_flight: 0 }
    ));
    let reading = std::thread::spawn(move || {
        let mut back = Vec::new();
        theirs.read_to_end(&mut back).unwrap();
        back
    });
    turn_until(&mut driver, &mut worker, |worker| worker.told.contains(&"sent 0".to_owned()));
    while !matches!(driver.io().flush(KEY, &mut queue, &mut worker.pool), Flushed::Done) {
        worker.told.clear();
        turn_until(&mut driver, &mut worker, |worker| worker.told.contains(&"sent 0".to_owned()));
    }
    driver.io().close(KEY, Close::Now);
    look(&mut driver, &mut worker);
    look(&mut driver, &mut worker);
    let back = reading.join().unwrap();
    assert_eq!(back.len(), sent);
    assert!(back.chunks(part.len()).all(|chunk| chunk == part), "in order");
}

#[test]
fn what_a_full_socket_does_not_take_of_a_reply_is_queued() {
    let Some((mut driver, _bell)) = driver() else { return };
    let mut worker = Worker { echoes: true, ..Worker::new() };
    let mut theirs = pair(&mut driver, KEY);
    theirs.write_all(b"back").unwrap();
    turn_until(&mut driver, &mut worker, |worker| worker.bytes(KEY) == b"back");
    look(&mut driver, &mut worker);
    let mut back = [0; 4];
    theirs.read_exact(&mut back).unwrap();
    assert_eq!((&back, driver.io().counts().syscalls_send), (b"back", 0));
    // Nobody reads what comes back, until it does not fit.
    let part = pattern(16_000);
    let mut written = 0;
    theirs.set_nonblocking(true).unwrap();
    let began = Instant::now();
    while worker.unsent.is_empty() {
        assert!(began.elapsed() < LONG);
        match theirs.write(&part[written % part.len()..]) {
            Ok(bytes) => written += bytes,
            Err(_) => std::thread::yield_now(),
        }
        for key in std::mem::take(&mut worker.unfinished) {
            driver.resume(key, &LIMITS, &mut worker);
        }
        look(&mut driver, &mut worker);
    }
    theirs.set_nonblocking(false).unwrap();
    driver.io().receive(KEY, Demand::Pause);
    look(&mut driver, &mut worker);
    look(&mut driver, &mut worker);
    let received = worker.bytes(KEY)[4..].to_vec();
    let (left, unsent) = received.split_at(received.len() - worker.unsent.len());
    assert!(unsent == worker.unsent, "the end of what has come was not sent");
    let mut back = vec![0; left.len()];
    theirs.read_exact(&mut back).unwrap();
    assert!(back == left);
}

#[test]
fn a_stream_that_is_closed_sends_what_is_under_way_and_then_ends() {
    let Some((mut driver, _bell)) = driver() else { return };
    let mut worker = Worker::new();
    let mut theirs = pair(&mut driver, KEY);
    let mut queue = queue_of(b"the last words", &mut worker.pool);
    assert!(matches!(driver.io().flush(KEY, &mut queue, &mut worker.pool), Flushed::Done));
    driver.io().close(KEY, Close::Now);
    // The wait that sends it does not sleep: its close comes behind.
    let began = Instant::now();
    driver.wait(&LIMITS, Wait::Block(Some(LONG))).unwrap();
    driver.deliver(&LIMITS, &mut worker);
    assert!(began.elapsed() < LONG);
    look(&mut driver, &mut worker);
    let mut back = String::new();
    theirs.read_to_string(&mut back).unwrap();
    assert_eq!(back, "the last words");
    assert_eq!(worker.told, Vec::<String>::new());
}

#[test]
fn what_a_closed_stream_could_not_send_leaves_when_there_is_room() {
    let Some((mut driver, _bell)) = driver() else { return };
    let mut worker = Worker::new();
    let mut theirs = pair(&mut driver, KEY);
    let part = pattern(16_000);
    let mut sent = 0;
    // Full, but for less than a part.
    loop {
        let mut queue = queue_of(&part, &mut worker.pool);
        assert!(matches!(driver.io().flush(KEY, &mut queue, &mut worker.pool), Flushed::Done));
        sent += part.len();
        let is_probe = sent > 1 << 20;
        if is_probe {
            driver.io().close(KEY, Close::Now);
        }
        look(&mut driver, &mut worker);
        if is_probe {
            break;
        }
        assert!(worker.unsent.is_empty() || sent > 1 << 20);
        if !worker.unsent.is_empty() {
            // It was full before: the rest is not of interest.
            return;
        }
    }
    let reading = std::thread::spawn(move || {
        let mut back = Vec::new();
        theirs.read_to_end(&mut back).unwrap();
        back
    });
    let began = Instant::now();
    while !reading.is_finished() && began.elapsed() < LONG {
        driver.wait(&LIMITS, Wait::Block(Some(Duration::from_millis(20)))).unwrap();
        driver.deliver(&LIMITS, &mut worker);
    }
    assert_eq!(reading.join().unwrap().len(), sent);
}

#[test]
fn whoever_is_paused_hears_of_the_end_and_gets_it_behind_its_input() {
    let Some((mut driver, _bell)) = driver() else { return };
    let mut worker = Worker::new();
    let mut theirs = pair(&mut driver, KEY);
    look(&mut driver, &mut worker);
    driver.io().receive(KEY, Demand::Pause);
    look(&mut driver, &mut worker);
    look(&mut driver, &mut worker);
    theirs.write_all(b"unread").unwrap();
    drop(theirs);
    turn_until(&mut driver, &mut worker, |worker| worker.told == ["ending"]);
    look(&mut driver, &mut worker);
    assert_eq!((worker.bytes(KEY), &worker.told[..]), (&b""[..], &["ending".to_owned()][..]));
    assert!(!driver.io().receive(KEY, Demand::Flow));
    turn_until(&mut driver, &mut worker, |worker| worker.told.len() == 2);
    assert_eq!((worker.bytes(KEY), worker.told[1].as_str()), (&b"unread"[..], "the end"));
}

#[test]
fn a_look_delivers_what_is_there_and_of_one_stream_only() {
    let Some((mut driver, _bell)) = driver() else { return };
    let mut worker = Worker::new();
    let other = Key::new(1, 1, 1);
    let (mut theirs, mut others) = (pair(&mut driver, KEY), pair(&mut driver, other));
    theirs.write_all(b"mine").unwrap();
    others.write_all(b"not mine").unwrap();
    driver.look(KEY, &LIMITS, &mut worker);
    assert_eq!((worker.bytes(KEY), worker.bytes(other)), (&b"mine"[..], &b""[..]));
    look(&mut driver, &mut worker);
    assert_eq!(worker.bytes(other), b"not mine");
}

#[test]
fn a_look_past_the_input_of_others_delivers_the_right_bytes_and_leaves_them_theirs() {
    let Some(features) = probe().ok() else { return };
    for incremental_buffers in [features.incremental_buffers, false] {
        let (mut driver, _bell) = driver_with(Features { incremental_buffers, ..features }).unwrap();
        let mut worker = Worker::new();
        let keys: Vec<Key> = (0..8).map(|index| Key::new(1, 1, index)).collect();
        let mut theirs: Vec<TcpStream> = keys.iter().map(|key| pair(&mut driver, *key)).collect();
        let text = |index: usize, round: usize| {
            format!("{index} writes in round {round};").repeat(1 + 700 * (index + round) % 900).into_bytes()
        };
        let mut wanted = vec![Vec::new(); keys.len()];
        // Blocks are filled, and provided again, while answers about them wait.
        for round in 0..60 {
            for (index, peer) in theirs.iter_mut().enumerate() {
                peer.write_all(&text(index, round)).unwrap();
                wanted[index].extend(text(index, round));
            }
            for step in 0..keys.len() {
                let index = (round * 3 + keys.len() - step) % keys.len();
                driver.look(keys[index], &LIMITS, &mut worker);
                assert!(wanted[index].starts_with(worker.bytes(keys[index])), "round {round}, {index}");
            }
            turn_until(&mut driver, &mut worker, |worker| {
                keys.iter().zip(&wanted).all(|(key, wanted)| worker.bytes(*key).len() >= wanted.len())
            });
            for (key, wanted) in keys.iter().zip(&wanted) {
                assert!(worker.bytes(*key) == wanted, "round {round}, {key:?}");
            }
        }
    }
}

#[test]
fn a_key_that_is_used_again_hears_of_its_new_owner_only() {
    let Some((mut driver, _bell)) = driver() else { return };
    let mut worker = Worker::new();
    for round in 0..50 {
        let mut gone = pair(&mut driver, KEY);
        if round % 2 == 0 {
            look(&mut driver, &mut worker);
        }
        gone.write_all(b"of the one before").unwrap();
        driver.io().close(KEY, if round % 3 == 0 { Close::Reset } else { Close::Now });
        let mut theirs = pair(&mut driver, KEY);
        theirs.write_all(b"own").unwrap();
        turn_until(&mut driver, &mut worker, |worker| !worker.bytes(KEY).is_empty());
        assert_eq!(worker.bytes(KEY), b"own", "round {round}");
        driver.io().close(KEY, Close::Now);
        worker.received.clear();
    }
    // Everything that was ordered for them ends.
    for _ in 0..3 {
        look(&mut driver, &mut worker);
    }
    assert_eq!((driver.half.state.borrow().orders.len(), worker.told.len()), (0, 0));
}

#[test]
fn a_driver_that_goes_ends_what_is_outstanding_and_closes_its_sockets() {
    let Some((mut driver, _bell)) = driver() else { return };
    let mut worker = Worker::new();
    let mut theirs: Vec<TcpStream> = (0..20).map(|index| pair(&mut driver, Key::new(1, 1, index))).collect();
    look(&mut driver, &mut worker);
    for peer in &mut theirs {
        peer.write_all(b"nobody takes it in").unwrap();
    }
    let mut queue = queue_of(b"bye", &mut worker.pool);
    assert!(matches!(driver.io().flush(KEY, &mut queue, &mut worker.pool), Flushed::Done));
    assert!(driver.half.state.borrow().orders.len() >= 20);
    assert!(driver.half.state.borrow_mut().end_all(), "nothing has to be left to the kernel");
    assert_eq!(driver.half.state.borrow().orders.len(), 0);
    drop(driver);
    for mut peer in theirs {
        // A reset or an end, and no wait.
        let _ = peer.read_to_end(&mut Vec::new());
    }
}

#[test]
fn what_is_under_way_when_a_driver_goes_has_left_for_its_own_peer() {
    let Some((mut driver, _bell)) = driver() else { return };
    let mut worker = Worker::new();
    let mut theirs = pair(&mut driver, KEY);
    let mut queue = queue_of(b"bye", &mut worker.pool);
    assert!(matches!(driver.io().flush(KEY, &mut queue, &mut worker.pool), Flushed::Done));
    // Its descriptor is closed with it, and somebody else's from then on.
    drop(driver);
    let mut back = String::new();
    theirs.read_to_string(&mut back).unwrap();
    assert_eq!(back, "bye");
}

#[test]
fn whoever_is_not_received_from_may_have_input() {
    let Some((mut driver, _bell)) = driver() else { return };
    let mut worker = Worker::new();
    let mut theirs = pair(&mut driver, KEY);
    look(&mut driver, &mut worker);
    assert!(!driver.io().may_have_input(KEY));
    driver.io().receive(KEY, Demand::Pause);
    turn_while(&mut driver, &mut worker, |driver| driver.half.receives(KEY));
    theirs.write_all(b"unread").unwrap();
    look(&mut driver, &mut worker);
    assert!(driver.io().may_have_input(KEY), "closing it would be a reset");
    driver.io().receive(KEY, Demand::Flow);
    turn_until(&mut driver, &mut worker, |worker| worker.bytes(KEY) == b"unread");
    assert!(!driver.io().may_have_input(KEY));
}

#[test]
fn the_bell_in_front_of_answers_is_nobodys() {
    let Some((mut driver, bell)) = driver() else { return };
    let mut worker = Worker::new();
    let mut theirs = pair(&mut driver, KEY);
    look(&mut driver, &mut worker);
    bell.signal().unwrap();
    driver.wait(&LIMITS, Wait::Block(Some(LONG))).unwrap();
    assert!(!driver.io().may_have_input(KEY) && !driver.io().has_input(KEY));
    theirs.write_all(b"some input").unwrap();
    driver.wait(&LIMITS, Wait::Block(Some(LONG))).unwrap();
    assert!(driver.io().may_have_input(KEY) && driver.io().has_input(KEY));
    assert_eq!(driver.io().salvage(KEY, &mut [0; 5]), 5);
    driver.look(KEY, &LIMITS, &mut worker);
    assert_eq!(worker.bytes(KEY), b"input");
}

#[test]
fn what_was_received_of_a_stream_that_has_failed_is_salvaged_in_order() {
    let Some((mut driver, _bell)) = driver() else { return };
    let mut worker = Worker::new();
    let other = Key::new(1, 1, 1);
    let (mut others, mut theirs) = (pair(&mut driver, other), pair(&mut driver, KEY));
    others.write_all(b"of another").unwrap();
    theirs.write_all(b"the last words").unwrap();
    // Received, and not delivered.
    driver.wait(&LIMITS, Wait::Block(Some(LONG))).unwrap();
    theirs.write_all(b" of all").unwrap();
    let (mut piece, mut salvaged) = ([0; 5], Vec::new());
    loop {
        match driver.io().salvage(KEY, &mut piece) {
            0 => break,
            len => salvaged.extend_from_slice(&piece[..len]),
        }
    }
    assert_eq!(String::from_utf8(salvaged).unwrap(), "the last words of all");
    driver.deliver(&LIMITS, &mut worker);
    assert_eq!((worker.bytes(KEY), worker.bytes(other)), (&b""[..], &b"of another"[..]));
}

#[test]
fn a_stream_that_is_reset_keeps_nothing_for_a_peer_that_takes_nothing() {
    let Some((mut driver, _bell)) = driver() else { return };
    let mut worker = Worker::new();
    let mut theirs = pair(&mut driver, KEY);
    let part = pattern(16_000);
    while sys::send(driver.io().socket(KEY).unwrap(), &part).is_ok() {}
    let mut queue = queue_of(&part, &mut worker.pool);
    assert!(matches!(driver.io().flush(KEY, &mut queue, &mut worker.pool), Flushed::Done));
    driver.io().close(KEY, Close::Reset);
    for _ in 0..3 {
        look(&mut driver, &mut worker);
    }
    assert!(theirs.write(b"x").is_err(), "it was reset at once");
    assert_eq!(worker.pool.blocks_in_use(), 0);
}

#[test]
fn whoever_is_paused_hears_of_the_end_after_the_kernel_has_given_up_its_poll() {
    let Some((mut driver, _bell)) = driver() else { return };
    let mut worker = Worker::new();
    let theirs = pair(&mut driver, KEY);
    look(&mut driver, &mut worker);
    driver.io().receive(KEY, Demand::Pause);
    turn_while(&mut driver, &mut worker, |driver| driver.half.receives(KEY));
    {
        let mut state = driver.half.state.borrow_mut();
        let end = state.sides.get(KEY).unwrap().end.to_bits();
        state.ring.cancel(end);
    }
    look(&mut driver, &mut worker);
    look(&mut driver, &mut worker);
    drop(theirs);
    turn_until(&mut driver, &mut worker, |worker| worker.told == ["ending"]);
}

#[test]
fn the_descriptor_of_who_was_closed_is_free_for_the_next_who_connects_or_is_accepted() {
    sys::testing::alone!(the_descriptor_of_who_was_closed_is_free_for_the_next_who_connects_or_is_accepted);
    let Some((mut driver, _bell)) = driver() else { return };
    let mut worker = Worker::new();
    let keys: [Key; 2] = std::array::from_fn(|index| Key::new(1, 1, index));
    let theirs = keys.map(|key| pair(&mut driver, key));
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let addr = socket.local_addr().unwrap();
    driver.io().listen(Key::new(1, 1, 9), socket.into(), crate::driver::Queue::Own).unwrap();
    look(&mut driver, &mut worker);
    let _waits = TcpStream::connect(addr).unwrap();
    while driver.half.state.borrow_mut().ring.came().is_empty() {
        driver.wait(&LIMITS, Wait::Block(Some(LONG))).unwrap();
    }
    let all: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    assert!(!all.is_empty());

    driver.io().close(keys[0], Close::Now);
    let connecting = driver.io().connect(Key::new(1, 1, 10), &addr.into(), &sys::StreamOptions::DEFAULT);
    driver.io().close(keys[1], Close::Now);
    driver.deliver(&LIMITS, &mut worker);
    drop(all);
    connecting.unwrap();
    assert_eq!(worker.told[0], "accepted Ok(())");
    drop(theirs);
}
