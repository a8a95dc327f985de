//! Storms on the sockets of tasks: every future of theirs is dropped at random, tasks are aborted and panic, peers reset, and each
//! byte that arrives is the one that was written in its place.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, IoSlice};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use netpoll_core::net::{Listener, OwnedReadHalf, OwnedWriteHalf, Stream, copy_bidirectional};
use netpoll_core::sim::{Faults, Options, Sim};
use netpoll_core::sync::{Notify, Semaphore, mpsc};
use netpoll_core::task::{JoinHandle, spawn_local, stopping, yield_now};
use netpoll_core::time::{now, sleep, timeout};
use netpoll_core::{Address, Bytes, ConnLimits, Handle, Runtime};

use crate::chance::{Chance, seeds};
use crate::support::alone;

/// The byte that is written at this place of a direction with this name.
fn byte(name: u64, place: u64) -> u8 {
    ((name ^ place).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn piece(name: u64, place: u64, length: usize) -> Vec<u8> {
    (place..place + length as u64).map(|place| byte(name, place)).collect()
}

/// What is common to all tasks of a world.
struct World {
    chance: RefCell<Chance>,
    /// Directions that have ended in good order, with as much read as was written.
    good: Cell<u64>,
    /// Of each direction how much was written, when its writer ended it in good order.
    written: RefCell<std::collections::BTreeMap<u64, u64>>,
    cancelled: Cell<u64>,
    /// Clients that do not end as they should, and how many of them panic.
    rude: RefCell<Vec<u64>>,
    panics: Cell<u64>,
    /// Where the server listens, and the relay in front of it.
    addresses: RefCell<Vec<Address>>,
}

impl World {
    fn new(chance: Chance) -> Rc<Self> {
        Rc::new(Self {
            chance: RefCell::new(chance),
            good: Cell::new(0),
            written: RefCell::default(),
            cancelled: Cell::new(0),
            rude: RefCell::default(),
            panics: Cell::new(0),
            addresses: RefCell::default(),
        })
    }
}

impl World {
    fn below(&self, bound: usize) -> usize {
        self.chance.borrow_mut().below(bound)
    }

    /// Polls a future until it is ready, or drops it: at once, at some await, or after some time. `None` if it was dropped.
    async fn maybe<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let outcome = match self.below(6) {
            0 => {
                let mut left = 1 + self.below(3);
                let mut future = pin!(future);
                poll_fn(|cx| match future.as_mut().poll(cx) {
                    Poll::Ready(value) => Poll::Ready(Some(value)),
                    Poll::Pending if left > 1 => {
                        left -= 1;
                        Poll::Pending
                    }
                    Poll::Pending => Poll::Ready(None),
                })
                .await
            }
            1 => timeout(Duration::from_micros(self.below(3000) as u64), future).await.ok(),
            _ => Some(future.await),
        };
        if outcome.is_none() {
            self.cancelled.set(self.cancelled.get() + 1);
            // Not for ever in one poll.
            yield_now().await;
        }
        outcome
    }
}

/// Reads a direction to its end, and checks every byte. How many there were.
async fn read_all(world: &World, reader: &mut OwnedReadHalf, name: u64) -> io::Result<u64> {
    let mut place = 0;
    loop {
        let mut buffer = vec![0; 1 + world.below(9000)];
        let got: &[u8] = match world.below(4) {
            0 => match world.maybe(reader.read(&mut buffer)).await {
                Some(count) => match count? {
                    0 => return Ok(place),
                    count => &buffer[..count],
                },
                None => &[],
            },
            1 => {
                let all = match world.maybe(reader.read_exact(&mut buffer)).await {
                    Some(Err(error)) if error.kind() == ErrorKind::UnexpectedEof => false,
                    Some(Err(error)) => return Err(error),
                    Some(Ok(())) => true,
                    None => false,
                };
                if all { &buffer } else { &[] }
            }
            2 => match world.maybe(reader.peek(&mut buffer)).await {
                Some(count) => {
                    let count = count?;
                    assert!(buffer[..count] == piece(name, place, count), "peeked at {place}");
                    if count == 0 {
                        return Ok(place);
                    }
                    &[]
                }
                None => &[],
            },
            _ => match world.maybe(reader.fill_buf()).await {
                Some(input) => {
                    let input = input?;
                    if input.is_empty() {
                        return Ok(place);
                    }
                    let count = world.below(input.len() + 1);
                    buffer = input[..count].to_vec();
                    reader.consume(count);
                    &buffer
                }
                None => &[],
            },
        };
        assert!(got == piece(name, place, got.len()), "at {place} of {name}");
        place += got.len() as u64;
        match world.below(200) {
            0 => sleep(Duration::from_millis(world.below(20) as u64)).await,
            1 => yield_now().await,
            _ => {}
        }
    }
}

/// Writes so much of a direction, and ends it.
async fn write_all(world: &World, writer: &mut OwnedWriteHalf, name: u64, length: u64) -> io::Result<()> {
    let mut place = 0;
    while place < length {
        let bytes = piece(name, place, (1 + world.below(20_000)).min((length - place) as usize));
        let whole = bytes.len();
        let written = match world.below(4) {
            0 => world.maybe(writer.write(&bytes)).await,
            1 => world.maybe(writer.write_all(&bytes)).await.map(|done| done.map(|()| whole)),
            2 => {
                let (one, other) = bytes.split_at(world.below(whole));
                world.maybe(writer.write_vectored(&[IoSlice::new(one), IoSlice::new(other)])).await
            }
            _ => world.maybe(writer.send(Bytes::from(bytes))).await.map(|done| done.map(|()| whole)),
        };
        place += written.transpose()?.unwrap_or(0) as u64;
    }
    writer.shutdown();
    Ok(())
}

/// One end of a connection: says what is its to say and hears the other, each in a task of its own. Names of directions are
/// those of the connection, twice, and one more for what the server says.
async fn end(world: Rc<World>, stream: Stream, says: u64, hears: u64) {
    let (mut reader, mut writer) = stream.into_split();
    let length = [0, 10, 5000, 60_000][world.below(4)];
    let here = Rc::clone(&world);
    let speaker = spawn_local(async move {
        let said = write_all(&here, &mut writer, says, length).await;
        if said.is_ok() {
            here.written.borrow_mut().insert(says, length);
        }
        said
    });
    let heard = read_all(&world, &mut reader, hears).await;
    let said = speaker.await.expect("the speaker neither panics nor is aborted");
    if let (Ok(heard), Ok(())) = (heard, said) {
        match world.written.borrow().get(&hears) {
            Some(written) => assert_eq!(heard, *written, "direction {hears}"),
            None => {
                assert!(world.rude.borrow().contains(&(hears / 2)), "direction {hears} has ended at {heard}")
            }
        }
        world.good.set(world.good.get() + 1);
    }
}

/// A client's first bytes are its name.
async fn client(world: Rc<World>, name: u64) {
    let target = world.addresses.borrow()[world.below(2)].clone();
    let mut stream = loop {
        match world.maybe(Stream::connect(target.clone())).await {
            Some(Ok(stream)) => break stream,
            Some(Err(error)) if world.below(10) > 0 => {
                assert!(!matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput), "{error}");
                sleep(Duration::from_millis(1)).await;
            }
            Some(Err(_)) => return,
            None => {}
        }
    };
    while !matches!(world.maybe(stream.write_all(&name.to_be_bytes())).await, Some(Ok(()))) {
        if stream.writable().await.is_err() {
            return;
        }
    }
    let kind = world.below(12);
    if kind < 4 {
        world.rude.borrow_mut().push(name);
    }
    match kind {
        0 => stream.reset(),
        1 => drop(stream),
        2 => {
            let task = spawn_local(end(Rc::clone(&world), stream, name * 2, name * 2 + 1));
            sleep(Duration::from_micros(world.below(5000) as u64)).await;
            task.abort();
        }
        3 => {
            world.panics.set(world.panics.get() + 1);
            let task: JoinHandle<()> = spawn_local(async move {
                let _stream = stream;
                yield_now().await;
                panic!("on purpose");
            });
            assert!(task.await.unwrap_err().is_panic());
        }
        _ => end(Rc::clone(&world), stream, name * 2, name * 2 + 1).await,
    }
}

async fn served(world: Rc<World>, mut stream: Stream) {
    let mut name = [0; 8];
    loop {
        match world.maybe(stream.read_exact(&mut name)).await {
            Some(Ok(())) => break,
            Some(Err(_)) => return,
            None => {}
        }
    }
    let name = u64::from_be_bytes(name);
    end(world, stream, name * 2 + 1, name * 2).await;
}

async fn accepts(world: Rc<World>, mut listener: Listener, mut serve: impl FnMut(Rc<World>, Stream)) {
    loop {
        match world.maybe(listener.accept()).await {
            Some(Ok((stream, _))) => serve(Rc::clone(&world), stream),
            Some(Err(_)) => return,
            None => {}
        }
    }
}

/// Starts a server and a relay in front of it.
async fn serve(world: &Rc<World>, at: [&str; 2]) {
    let (server, relay) = (Listener::bind(at[0]).await.unwrap(), Listener::bind(at[1]).await.unwrap());
    let backend = server.local_addr().clone();
    *world.addresses.borrow_mut() = vec![backend.clone(), relay.local_addr().clone()];
    let serves = |world: Rc<World>, stream| spawn_local(served(world, stream)).detach();
    let relays = move |_world: Rc<World>, mut stream: Stream| {
        let backend = backend.clone();
        let relayed = async move {
            let Ok(mut backend) = Stream::connect(backend).await else { return };
            let _ = copy_bidirectional(&mut stream, &mut backend).await;
        };
        spawn_local(relayed).detach();
    };
    spawn_local(accepts(Rc::clone(world), server, serves)).detach();
    spawn_local(accepts(Rc::clone(world), relay, relays)).detach();
}

fn storm(seed: u64) -> (u64, u64) {
    let mut chance = Chance::new(seed);
    let faults = if chance.below(2) == 0 { Faults::stormy().failed_files(0) } else { Faults::default() };
    let limits = ConnLimits::default()
        .write_high_bytes(1 + chance.below(100_000))
        .write_low_bytes(0)
        .write_grace(Duration::from_secs(3600));
    let options = Options::default()
        .seed(seed)
        .faults(faults)
        .limits(limits)
        .workers(1 + chance.below(3))
        .latency(Duration::ZERO..=Duration::from_millis(chance.below(2) as u64 * 5));
    let mut sim = Sim::new(options);
    let world = World::new(chance.fork());
    let clients = 1 + chance.below(12) as u64;
    let here = Rc::clone(&world);
    sim.block_on(async move {
        serve(&here, ["10.0.0.1:80", "10.0.0.2:80"]).await;
        for name in 1..=clients {
            spawn_local(client(Rc::clone(&here), name)).detach();
        }
    });
    sim.advance(Duration::from_secs(100));
    sim.begin_drain(Duration::from_secs(30));
    sim.advance(Duration::from_secs(40));
    assert!(sim.is_finished(), "seed {seed}: {} open", sim.open());
    assert_eq!((sim.open(), sim.blocks_in_use()), (0, 0), "seed {seed}");
    assert_eq!(sim.stats().panics, world.panics.get(), "seed {seed}: somebody panicked who should not");
    drop(sim);
    assert_eq!(Rc::strong_count(&world), 1, "seed {seed}: a task is left");
    (world.good.get(), world.cancelled.get())
}

#[test]
fn futures_of_sockets_that_are_dropped_at_random_lose_no_byte_and_leave_nothing() {
    let (mut good, mut cancelled) = (0, 0);
    for seed in seeds(150) {
        let (ended, dropped) = storm(seed);
        (good, cancelled) = (good + ended, cancelled + dropped);
    }
    assert!(
        std::env::var_os("NETPOLL_STORM_SEED").is_some() || (good > 1000 && cancelled > 500),
        "{good}, {cancelled}"
    );
}

#[test]
fn futures_of_channels_and_permits_that_are_dropped_at_random_lose_nothing() {
    for seed in seeds(150) {
        let mut sim = Sim::new(Options::default().seed(seed));
        let world = World::new(Chance::new(seed));
        let here = Rc::clone(&world);
        sim.block_on(async move {
            let (sender, mut receiver) = mpsc::channel(here.below(4));
            let (permits, bell) = (Semaphore::new(2), Notify::new());
            let bell = Rc::new(bell);
            let speaker = spawn_local({
                let (world, bell, permits) = (Rc::clone(&here), Rc::clone(&bell), permits.clone());
                async move {
                    for value in 0..200_u64 {
                        let permit = loop {
                            if let Some(permit) = world.maybe(permits.acquire(1)).await {
                                break permit;
                            }
                        };
                        let mut sending = Box::pin(sender.send(value));
                        while world.maybe(sending.as_mut()).await.is_none() {}
                        drop(permit);
                        bell.notify_one();
                    }
                }
            });
            let mut heard = 0;
            let mut rings = 0;
            loop {
                match here.maybe(receiver.recv()).await {
                    Some(Some(value)) => {
                        assert_eq!(value, heard, "in order, and none is lost");
                        heard += 1;
                    }
                    Some(None) => break,
                    None => {
                        let ring = timeout(Duration::from_micros(here.below(100) as u64), bell.notified());
                        rings += u64::from(here.maybe(ring).await.is_some_and(|rung| rung.is_ok()));
                    }
                }
            }
            assert_eq!(heard, 200);
            speaker.await.unwrap();
            assert!(rings <= 200);
            let (_one, _other) = (permits.acquire(1).await, permits.acquire(1).await);
            assert!(timeout(Duration::from_secs(1), stopping()).await.is_err());
        });
        sim.run();
        assert_eq!(Rc::strong_count(&world), 1, "seed {seed}");
    }
}

/// Descriptors of this process.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// For `NETPOLL_STORM_SECONDS`, 2 by default.
#[test]
fn futures_on_sockets_that_are_dropped_at_random_lose_nothing_and_leave_nothing_open() {
    assert!(alone(module_path!(), "futures_are_dropped").success());
}

#[test]
#[ignore = "counts the descriptors of its process: run by the test above in one of its own"]
fn futures_are_dropped() {
    let seconds = std::env::var("NETPOLL_STORM_SECONDS").ok().map_or(2, |text| text.parse().unwrap());
    let runtime = Runtime::builder().drain_within(Duration::from_secs(20));
    let (good, cancelled) = runtime
        .block_on(async move {
            let world = World::new(Chance::new(1));
            serve(&world, ["127.0.0.1:0", "127.0.0.1:0"]).await;
            yield_now().await;
            let tasks = Rc::strong_count(&world);
            let ends = now().saturating_add(Duration::from_secs(seconds));
            let (mut name, mut before, mut memory) = (0, 0, 0);
            while now() < ends {
                let clients: Vec<_> = (0..20)
                    .map(|_| {
                        name += 1;
                        spawn_local(client(Rc::clone(&world), name))
                    })
                    .collect();
                for client in clients {
                    client.await.expect("no client of its own panics");
                }
                timeout(Duration::from_secs(10), settled(&world, tasks))
                    .await
                    .expect("what was dropped goes");
                world.written.borrow_mut().clear();
                world.rude.borrow_mut().clear();
                if before == 0 || name == 2000 {
                    // Behind the first round, and when everything has been used.
                    (before, memory) = (descriptors(), resident_kib());
                }
            }
            assert!(descriptors() <= before + 1, "{} descriptors, {before} before", descriptors());
            assert!(name < 4000 || resident_kib() < memory * 2, "{} KiB, {memory} before", resident_kib());
            assert_eq!(Handle::current().stats().panics, world.panics.get());
            println!("{name} clients, {} KiB, {memory} before", resident_kib());
            (world.good.get(), world.cancelled.get())
        })
        .unwrap();
    assert!(good > 20 && cancelled > 20, "{good}, {cancelled}");
}

/// Waits until no connection is open, and no task has the world but so many.
async fn settled(world: &Rc<World>, tasks: usize) {
    while Handle::current().stats().open() > 0 || Rc::strong_count(world) > tasks {
        sleep(Duration::from_millis(1)).await;
    }
}
