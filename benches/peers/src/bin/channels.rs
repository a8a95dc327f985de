//! Channels beside each other: CPU time, wall time and wakes per value, on one thread and between two.
//!
//! Both sides are async and run on the smallest executor there is: a thread polls its two tasks in turn and sleeps when neither
//! was woken. A wake of a thread that sleeps is a system call, as a doorbell is; they are counted.
//!
//! ```text
//! channels [--rounds N] [WORD]        lines whose text holds the word; medians of N rounds (default 9), interleaved
//! ```
//!
//! Figures: nanoseconds of CPU of the process per value, nanoseconds of wall time per value, wakes of a sleeping thread
//! per value.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Values in a burst, and the capacity of its channel.
const BURST: usize = 64;
/// The capacity of a channel that is flooded.
const FLOOD: usize = 1024;

static BELLS: AtomicU64 = AtomicU64::new(0);

/// One task of a thread.
struct Task {
    is_woken: AtomicBool,
    is_asleep: Arc<AtomicBool>,
    thread: Thread,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::SeqCst) && self.is_asleep.swap(false, Ordering::SeqCst) {
            BELLS.fetch_add(1, Ordering::Relaxed);
            self.thread.unpark();
        }
    }
}

/// Runs tasks on this thread until all are done.
fn run<const N: usize>(mut futures: [Pin<&mut dyn Future<Output = ()>>; N]) {
    let is_asleep = Arc::new(AtomicBool::new(false));
    let tasks: [Arc<Task>; N] = std::array::from_fn(|_| {
        Arc::new(Task {
            is_woken: AtomicBool::new(true),
            is_asleep: Arc::clone(&is_asleep),
            thread: thread::current(),
        })
    });
    let wakers: [Waker; N] = std::array::from_fn(|number| Waker::from(Arc::clone(&tasks[number])));
    let mut left = [true; N];
    while left.contains(&true) {
        let mut has_polled = false;
        for number in 0..N {
            // A swap is not needed to look.
            if !tasks[number].is_woken.load(Ordering::Relaxed) {
                continue;
            }
            tasks[number].is_woken.swap(false, Ordering::SeqCst);
            has_polled = true;
            if left[number] {
                let mut context = Context::from_waker(&wakers[number]);
                left[number] = matches!(futures[number].as_mut().poll(&mut context), Poll::Pending);
            }
        }
        if has_polled {
            continue;
        }
        loop {
            // Each time anew: a wake that was late has cleared it.
            is_asleep.store(true, Ordering::SeqCst);
            if tasks.iter().any(|task| task.is_woken.load(Ordering::SeqCst)) {
                break;
            }
            thread::park();
        }
        is_asleep.store(false, Ordering::SeqCst);
    }
}

/// A kind of channel.
trait Kind {
    type Sender: Sending;
    type Receiver: Receiving;

    fn channel(capacity: usize) -> (Self::Sender, Self::Receiver);
}

trait Sending {
    fn send(&self, value: u64) -> impl Future<Output = ()>;
}

trait Receiving {
    fn recv(&mut self) -> impl Future<Output = u64>;
}

macro_rules! kind {
    ($kind:ident, $sender:ty, $receiver:ty, $channel:expr, $recv:ident) => {
        struct $kind;

        impl Kind for $kind {
            type Sender = $sender;
            type Receiver = $receiver;

            fn channel(capacity: usize) -> ($sender, $receiver) {
                $channel(capacity)
            }
        }

        impl Sending for $sender {
            async fn send(&self, value: u64) {
                kind!(@send $recv, <$sender>, self, value);
            }
        }

        impl Receiving for $receiver {
            async fn recv(&mut self) -> u64 {
                kind!(@recv $recv, <$receiver>, self)
            }
        }
    };
    (@send flume, <$type:ty>, $sender:expr, $value:expr) => {
        assert!($sender.send_async($value).await.is_ok());
    };
    (@send $other:ident, <$type:ty>, $sender:expr, $value:expr) => {
        assert!(<$type>::send($sender, $value).await.is_ok());
    };
    (@recv option, <$type:ty>, $receiver:expr) => {
        <$type>::recv($receiver).await.expect("a sender")
    };
    (@recv flume, <$type:ty>, $receiver:expr) => {
        $receiver.recv_async().await.expect("a sender")
    };
    (@recv result, <$type:ty>, $receiver:expr) => {
        <$type>::recv($receiver).await.expect("a sender")
    };
}

use netpoll_core::sync::{mpsc, shared};

kind!(Local, mpsc::Sender<u64>, mpsc::Receiver<u64>, mpsc::channel, option);
kind!(Shared, shared::mpsc::Sender<u64>, shared::mpsc::Receiver<u64>, shared::mpsc::channel, option);
kind!(
    Tokio,
    tokio::sync::mpsc::Sender<u64>,
    tokio::sync::mpsc::Receiver<u64>,
    tokio::sync::mpsc::channel,
    option
);
kind!(Flume, flume::Sender<u64>, flume::Receiver<u64>, flume::bounded, flume);
kind!(Kanal, kanal::AsyncSender<u64>, kanal::AsyncReceiver<u64>, kanal::bounded_async, result);
kind!(AsyncChannel, async_channel::Sender<u64>, async_channel::Receiver<u64>, async_channel::bounded, result);

/// Bursts of so many values, each answered by one value.
async fn ask(bursts: usize, values: usize, to: impl Sending, mut from: impl Receiving) {
    for burst in 0..bursts {
        for value in 0..values {
            to.send((burst + value) as u64).await;
        }
        from.recv().await;
    }
}

async fn answer(bursts: usize, values: usize, mut from: impl Receiving, to: impl Sending) {
    for _ in 0..bursts {
        let mut sum = 0_u64;
        for _ in 0..values {
            sum = sum.wrapping_add(from.recv().await);
        }
        to.send(sum).await;
    }
}

#[derive(Clone, Copy)]
enum Shape {
    PingPong,
    Bursts,
    Flood,
}

impl Shape {
    /// Bursts, values in each, capacity.
    fn numbers(self, values: usize) -> (usize, usize, usize) {
        match self {
            Self::PingPong => (values / 2, 1, 1),
            Self::Bursts => (values / (BURST + 1), BURST, BURST),
            Self::Flood => (1, values, FLOOD),
        }
    }
}

fn on_one_thread<K: Kind>(shape: Shape, values: usize) {
    let (bursts, values, capacity) = shape.numbers(values);
    let ((to, from), (back, answers)) = (K::channel(capacity), K::channel(1));
    let (asking, answering) =
        (pin!(ask(bursts, values, to, answers)), pin!(answer(bursts, values, from, back)));
    run([asking, answering]);
}

fn on_two_threads<K: Kind>(shape: Shape, values: usize)
where
    K::Sender: Send,
    K::Receiver: Send,
{
    let (bursts, values, capacity) = shape.numbers(values);
    let ((to, from), (back, answers)) = (K::channel(capacity), K::channel(1));
    thread::scope(|scope| {
        scope.spawn(move || run([pin!(answer(bursts, values, from, back))]));
        run([pin!(ask(bursts, values, to, answers))]);
    });
}

/// CPU, wall and bells, each per value.
type Figures = [f64; 3];

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn measure(values: usize, run: fn(usize)) -> Figures {
    let (cpu_before, bells_before, begin) = (cpu(), BELLS.load(Ordering::Relaxed), Instant::now());
    run(values);
    let (wall, cpu) = (begin.elapsed(), cpu() - cpu_before);
    let bells = BELLS.load(Ordering::Relaxed) - bells_before;
    [cpu.as_nanos() as f64, wall.as_nanos() as f64, bells as f64].map(|figure| figure / values as f64)
}

fn median(rounds: &[Figures], which: usize) -> f64 {
    let mut figures: Vec<f64> = rounds.iter().map(|figures| figures[which]).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

struct Line {
    text: String,
    values: usize,
    run: fn(usize),
    rounds: Vec<Figures>,
}

macro_rules! lines {
    ($lines:ident, $place:literal, $run:ident, $name:literal, $shape:ident, $values:expr,
     [$($kind:ident),*]) => {$(
        $lines.push(Line {
            text: format!("{}, {}: {}", $place, $name, stringify!($kind)),
            values: $values,
            run: |values| $run::<$kind>(Shape::$shape, values),
            rounds: Vec::new(),
        });
    )*};
}

fn main() {
    let (mut rounds, mut word) = (9, String::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--rounds" {
            rounds = args.next().and_then(|number| number.parse().ok()).unwrap_or(rounds);
        } else {
            word = arg;
        }
    }
    let mut lines = Vec::new();
    lines!(
        lines,
        "one thread",
        on_one_thread,
        "ping-pong",
        PingPong,
        200_000,
        [Local, Shared, Tokio, Flume, Kanal, AsyncChannel]
    );
    lines!(
        lines,
        "one thread",
        on_one_thread,
        "bursts of 64",
        Bursts,
        650_000,
        [Local, Shared, Tokio, Flume, Kanal, AsyncChannel]
    );
    lines!(
        lines,
        "two threads",
        on_two_threads,
        "ping-pong",
        PingPong,
        20_000,
        [Shared, Tokio, Flume, Kanal, AsyncChannel]
    );
    lines!(
        lines,
        "two threads",
        on_two_threads,
        "bursts of 64",
        Bursts,
        650_000,
        [Shared, Tokio, Flume, Kanal, AsyncChannel]
    );
    lines!(
        lines,
        "two threads",
        on_two_threads,
        "flood",
        Flood,
        1_000_000,
        [Shared, Tokio, Flume, Kanal, AsyncChannel]
    );
    lines.retain(|line| line.text.contains(&word));
    for _ in 0..rounds {
        for line in &mut lines {
            line.rounds.push(measure(line.values, line.run));
        }
    }
    println!("{:<42}{:>10}{:>10}{:>10}", "per value", "cpu ns", "wall ns", "bells");
    for line in &lines {
        let [cpu, wall, bells] = [0, 1, 2].map(|which| median(&line.rounds, which));
        println!("{:<42}{cpu:>10.1}{wall:>10.1}{bells:>10.4}", line.text);
    }
}
