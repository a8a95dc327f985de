//! Tasks beside each other: what one costs in instructions, and what a million that sleep cost in memory and in time.
//!
//! ```text
//! tasks                                  instructions of each case on each runtime, counted by callgrind
//! tasks --sleepers [N] [--rounds R]      N tasks that sleep (default a million) on netpoll, on tokio, and on Go if a program is
//!                                        named by GO_SLEEPERS; medians of R rounds (default 3), each in a process of its own
//! tasks --run RUNTIME CASE ROUNDS        one case, which callgrind counts in
//! tasks --sleep RUNTIME N                one round of sleepers
//! ```
//!
//! Bytes are what is resident more than before, divided by the tasks. *Longest* is for how long a task that another thread wakes was not
//! polled, while tasks were spawned and while they woke: a turn of the loop, or the slice between two looks outside. In Go it is how late a
//! ticker was. The deadline is one for all, which is the worst case.
//!
//! A case runs with two numbers of rounds; the difference leaves out start and end. All runtimes have the system's allocator, one
//! thread, and the same futures; a yield is that of the runtime where it has one.

use std::cell::{Cell, RefCell};
use std::env;
use std::error::Error;
use std::fs;
use std::future::{Future, poll_fn};
use std::process::Command;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What a runtime offers to tasks that stay on their thread.
trait Runtime {
    /// Runs a future, and the tasks beside it, until it returns.
    fn run(future: impl Future<Output = ()> + 'static);
    /// Starts a task that nobody waits for.
    fn spawn(future: impl Future<Output = ()> + 'static);
    /// Lets the others have their turn first.
    fn yield_now() -> impl Future<Output = ()>;
    /// Waits until then.
    fn sleep_until(deadline: Instant) -> impl Future<Output = ()>;
}

struct Netpoll;

impl Runtime for Netpoll {
    fn run(future: impl Future<Output = ()> + 'static) {
        // Under callgrind every turn is long, and behind a long one calls are timed.
        let builder = netpoll_core::Runtime::builder().long_turn(Duration::from_secs(3600));
        builder.block_on(future).expect("a runtime");
    }

    fn spawn(future: impl Future<Output = ()> + 'static) {
        netpoll_core::task::spawn_local(future).detach();
    }

    fn yield_now() -> impl Future<Output = ()> {
        netpoll_core::task::yield_now()
    }

    fn sleep_until(deadline: Instant) -> impl Future<Output = ()> {
        netpoll_core::time::sleep(deadline.saturating_duration_since(Instant::now()))
    }
}

struct TokioLocalRuntime;

impl Runtime for TokioLocalRuntime {
    fn run(future: impl Future<Output = ()> + 'static) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build_local(Default::default()).expect("a runtime").block_on(future);
    }

    fn spawn(future: impl Future<Output = ()> + 'static) {
        drop(tokio::task::spawn_local(future));
    }

    fn yield_now() -> impl Future<Output = ()> {
        tokio::task::yield_now()
    }

    fn sleep_until(deadline: Instant) -> impl Future<Output = ()> {
        tokio::time::sleep_until(deadline.into())
    }
}

struct TokioLocalSet;

impl Runtime for TokioLocalSet {
    fn run(future: impl Future<Output = ()> + 'static) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, future);
    }

    fn spawn(future: impl Future<Output = ()> + 'static) {
        TokioLocalRuntime::spawn(future);
    }

    fn yield_now() -> impl Future<Output = ()> {
        tokio::task::yield_now()
    }

    fn sleep_until(deadline: Instant) -> impl Future<Output = ()> {
        tokio::time::sleep_until(deadline.into())
    }
}

struct Monoio;

impl Runtime for Monoio {
    fn run(future: impl Future<Output = ()> + 'static) {
        let builder = monoio::RuntimeBuilder::<monoio::LegacyDriver>::new();
        builder.build().expect("a runtime").block_on(future);
    }

    fn spawn(future: impl Future<Output = ()> + 'static) {
        drop(monoio::spawn(future));
    }

    /// It has none of its own.
    fn yield_now() -> impl Future<Output = ()> {
        smol::future::yield_now()
    }

    fn sleep_until(_deadline: Instant) -> impl Future<Output = ()> {
        std::future::pending()
    }
}

struct AsyncExecutor;

thread_local! {
    static EXECUTOR: &'static smol::LocalExecutor<'static> = Box::leak(Box::new(smol::LocalExecutor::new()));
}

impl Runtime for AsyncExecutor {
    fn run(future: impl Future<Output = ()> + 'static) {
        let executor = EXECUTOR.with(|executor| *executor);
        smol::future::block_on(executor.run(future));
    }

    fn spawn(future: impl Future<Output = ()> + 'static) {
        EXECUTOR.with(|executor| executor.spawn(future).detach());
    }

    fn yield_now() -> impl Future<Output = ()> {
        smol::future::yield_now()
    }

    fn sleep_until(_deadline: Instant) -> impl Future<Output = ()> {
        std::future::pending()
    }
}

const RUNTIMES: [&str; 5] = ["netpoll", "tokio-local-runtime", "tokio-local-set", "monoio", "async-executor"];

/// A case, and how many operations are in a round of it.
const CASES: [(&str, u64); 3] = [("spawn_run_drop", 64), ("yield", 1), ("hop", 2)];

fn run<R: Runtime>(case: &str, rounds: u64) {
    match case {
        "spawn_run_drop" => R::run(async move {
            for _ in 0..rounds {
                for _ in 0..64 {
                    R::spawn(async {});
                }
                R::yield_now().await;
            }
        }),
        "yield" => R::run(async move {
            // In a task: some runtimes poll the future that they run in another way.
            let done = Rc::new(Signal::default());
            let signal = Rc::clone(&done);
            R::spawn(async move {
                for _ in 0..rounds {
                    R::yield_now().await;
                }
                signal.give();
            });
            done.wait().await;
        }),
        _ => R::run(async move {
            let (one, two) = (Rc::new(Signal::default()), Rc::new(Signal::default()));
            let done = Rc::new(Signal::default());
            R::spawn(play(rounds, Rc::clone(&one), Rc::clone(&two), None));
            R::spawn(play(rounds, two, one, Some(Rc::clone(&done))));
            done.wait().await;
        }),
    }
}

/// Who waits for another task, and the mark that it has been there.
#[derive(Default)]
struct Signal {
    is_given: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Signal {
    fn give(&self) {
        self.is_given.set(true);
        if let Some(waiter) = self.waiter.borrow_mut().take() {
            waiter.wake();
        }
    }

    fn wait(&self) -> impl Future<Output = ()> {
        poll_fn(|cx| {
            if self.is_given.replace(false) {
                return Poll::Ready(());
            }
            *self.waiter.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
    }
}

/// Wakes the other one and waits, so often.
async fn play(rounds: u64, own: Rc<Signal>, other: Rc<Signal>, done: Option<Rc<Signal>>) {
    for _ in 0..rounds {
        other.give();
        own.wait().await;
    }
    other.give();
    if let Some(done) = done {
        done.give();
    }
}

/// As many digits each.
const ROUNDS: [u64; 2] = [1000, 3000];

/// As in the project's own counts: what glibc may not use.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX512VL,-AVX512F,-AVX2,-AVX2_Usable,-AVX_Fast_Unaligned_Load,\
    -Prefer_No_VZEROUPPER,-ERMS,-FSRM,-RTM,-SSE4_2,-SSE4_1,-SSSE3,-BMI2,-MOVBE";

fn collected(runtime: &str, case: &str, rounds: u64) -> Result<u64, Box<dyn Error>> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(env::current_exe()?);
    command.args(["--run", runtime, case, &rounds.to_string()]).env("GLIBC_TUNABLES", TUNABLES);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let count = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    count.ok_or_else(|| format!("no count in what callgrind says: {said}").into())
}

fn count_all() -> Result<(), Box<dyn Error>> {
    print!("{:<24}", "instructions");
    CASES.iter().for_each(|(case, _)| print!("{case:>16}"));
    println!();
    for runtime in RUNTIMES {
        print!("{runtime:<24}");
        for (case, operations) in CASES {
            let few = collected(runtime, case, ROUNDS[0])?;
            let many = collected(runtime, case, ROUNDS[1])?;
            print!("{:>16}", (many - few) / ((ROUNDS[1] - ROUNDS[0]) * operations));
        }
        println!();
    }
    Ok(())
}

/// Bytes that are resident.
fn resident() -> f64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0.0);
    pages * 4096.0
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Tasks that are spawned before the others have their turn.
const SLICE: usize = 1000;

/// Time for all of them to be spawned and to fall asleep.
const BEFORE: Duration = Duration::from_secs(4);

/// Wakes a task from another thread, once a millisecond: for how long it is not polled is for how long nobody outside is heard.
#[derive(Default)]
struct Pulse {
    waker: Mutex<Option<Waker>>,
    /// Nanoseconds since the beginning at which it was woken; zero: it was polled since.
    woken: AtomicU64,
    longest: AtomicU64,
    is_over: AtomicBool,
}

impl Pulse {
    fn beat(&self, begin: Instant) {
        while !self.is_over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
            let waker = self.waker.lock().expect("nobody panics").take();
            if let Some(waker) = waker {
                self.woken.store(begin.elapsed().as_nanos() as u64, Ordering::SeqCst);
                waker.wake();
            }
        }
    }

    async fn hear(&self, begin: Instant) {
        poll_fn(|cx| {
            match self.woken.swap(0, Ordering::SeqCst) {
                0 => {}
                woken => {
                    let late = begin.elapsed().as_nanos() as u64 - woken;
                    self.longest.fetch_max(late, Ordering::Relaxed);
                }
            }
            if self.is_over.load(Ordering::Relaxed) {
                return Poll::Ready(());
            }
            *self.waker.lock().expect("nobody panics") = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn take_longest(&self) -> Duration {
        Duration::from_nanos(self.longest.swap(0, Ordering::Relaxed))
    }
}

fn sleep_all<R: Runtime>(count: usize) {
    R::run(async move {
        let (pulse, origin) = (Arc::new(Pulse::default()), Instant::now());
        let (beating, heard) = (Arc::clone(&pulse), Arc::clone(&pulse));
        let thread = thread::spawn(move || beating.beat(origin));
        R::spawn(async move { heard.hear(origin).await });
        let before = resident();
        let (left, done) = (Rc::new(Cell::new(count)), Rc::new(Signal::default()));
        let deadline = Instant::now() + BEFORE;
        let (cpu_before, begin) = (cpu(), Instant::now());
        let mut future_bytes = 0;
        for number in 0..count {
            let (left, done) = (Rc::clone(&left), Rc::clone(&done));
            let future = async move {
                R::sleep_until(deadline).await;
                left.set(left.get() - 1);
                if left.get() == 0 {
                    done.give();
                }
            };
            future_bytes = size_of_val(&future);
            R::spawn(future);
            if number % SLICE == SLICE - 1 {
                R::yield_now().await;
            }
        }
        R::yield_now().await;
        R::yield_now().await;
        let (spawning, spawning_cpu) = (begin.elapsed(), cpu() - cpu_before);
        assert!(spawning < BEFORE, "too slow: the first wake before the last sleep");
        let longest_spawning = pulse.take_longest();
        let bytes = (resident() - before) / count as f64;
        R::sleep_until(deadline - Duration::from_millis(20)).await;
        pulse.take_longest();
        let cpu_before = cpu();
        done.wait().await;
        let (waking, waking_cpu) = (Instant::now() - deadline, cpu() - cpu_before);
        pulse.is_over.store(true, Ordering::Relaxed);
        thread.join().expect("it ends");
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "{bytes:.0} {future_bytes} {:.1} {:.2} {:.1} {:.1} {:.2}",
            millis(spawning_cpu),
            millis(longest_spawning),
            millis(waking),
            millis(waking_cpu),
            millis(pulse.take_longest()),
        );
    });
}

fn measure_sleepers(count: usize, rounds: usize) -> Result<(), Box<dyn Error>> {
    let own = env::current_exe()?;
    let count = count.to_string();
    let mut contestants: Vec<(&str, Command)> = Vec::new();
    for runtime in ["netpoll", "tokio-local-runtime", "tokio-local-set"] {
        let mut command = Command::new(&own);
        command.args(["--sleep", runtime, &count]);
        contestants.push((runtime, command));
    }
    if let Some(go) = env::var_os("GO_SLEEPERS") {
        let mut command = Command::new(go);
        command.arg(&count).env("GOMAXPROCS", "1");
        contestants.push(("go", command));
    }
    let mut figures: Vec<Vec<Vec<f64>>> = vec![Vec::new(); contestants.len()];
    for _ in 0..rounds {
        for ((_, command), figures) in contestants.iter_mut().zip(&mut figures) {
            let output = command.output()?;
            let text = String::from_utf8(output.stdout)?;
            let line: Result<Vec<f64>, _> = text.split_whitespace().map(str::parse).collect();
            figures.push(line.map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())?);
        }
    }
    const COLUMNS: [&str; 7] =
        ["bytes", "of them future", "spawn cpu ms", "longest ms", "woken in ms", "wake cpu ms", "longest ms"];
    print!("{:<24}", format!("{count} sleepers"));
    COLUMNS.iter().for_each(|column| print!("{column:>16}"));
    println!();
    for ((name, _), figures) in contestants.iter().zip(&figures) {
        print!("{name:<24}");
        for column in 0..COLUMNS.len() {
            let mut values: Vec<f64> = figures.iter().map(|line| line[column]).collect();
            values.sort_by(f64::total_cmp);
            print!("{:>16}", values[values.len() / 2]);
        }
        println!();
    }
    Ok(())
}

macro_rules! on {
    ($runtime:expr, $call:ident($($argument:expr),*)) => {
        match $runtime {
            "netpoll" => $call::<Netpoll>($($argument),*),
            "tokio-local-runtime" => $call::<TokioLocalRuntime>($($argument),*),
            "tokio-local-set" => $call::<TokioLocalSet>($($argument),*),
            "monoio" => $call::<Monoio>($($argument),*),
            "async-executor" => $call::<AsyncExecutor>($($argument),*),
            other => panic!("no such runtime: {other}"),
        }
    };
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        [] => count_all(),
        ["--run", runtime, case, rounds] => {
            on!(runtime, run(case, rounds.parse()?));
            Ok(())
        }
        ["--sleep", runtime, count] => {
            on!(runtime, sleep_all(count.parse()?));
            Ok(())
        }
        ["--sleepers"] => measure_sleepers(1_000_000, 3),
        ["--sleepers", count] => measure_sleepers(count.parse()?, 3),
        ["--sleepers", count, "--rounds", rounds] => measure_sleepers(count.parse()?, rounds.parse()?),
        _ => Err("see the head of src/bin/tasks.rs".into()),
    }
}
