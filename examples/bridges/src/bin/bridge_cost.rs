//! What it costs to use tokio from a worker: the figures of `docs/ASYNC.md`.
//!
//! Run it with `cargo bench-bridge` on a machine that has two CPUs to spare; behind it may stand the
//! rounds of all requests (20 000) and how often all is repeated (7). Each line is a handler that does one thing again and again, on one worker,
//! asked by one client and by sixteen at once: the time of a round, and the CPU time of all threads of the process for it,
//! medians with the lowest and the highest. The TCP round trips are 64 B to an echo on another netpoll worker, whose CPU time is
//! in the figures as well.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use netpoll_core::{Affinity, Conn, Flow, Input, Protocol, Runtime as Core, Workers};
use netpoll_http::{Error, Limits, Request, Router, Running, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream as Stream;
use tokio::runtime::{self, Handle, Runtime};

const LINES: [(&str, &str); 5] = [
    ("spawn", "`handle.spawn(async {}).await`"),
    ("entered", "TCP round trip, polled by the entered worker"),
    ("each", "TCP round trip in a task, spawned for each"),
    ("ten", "ten TCP round trips in a task, spawned for all ten (per ten)"),
    ("once", "TCP round trip in a task that does all of them: tokio alone"),
];

struct Echo;

impl Protocol for Echo {
    fn received(&mut self, conn: &mut Conn<'_>, input: &mut Input<'_>) -> Flow {
        conn.send(input.bytes());
        input.advance_all();
        Flow::Continue
    }
}

async fn dial(addr: SocketAddr) -> io::Result<Stream> {
    let stream = Stream::connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn go_around(mut stream: Stream, times: u32) -> io::Result<Stream> {
    let mut bytes = [0; 64];
    for _ in 0..times {
        stream.write_all(&bytes).await?;
        stream.read_exact(&mut bytes).await?;
    }
    Ok(stream)
}

async fn repeat(what: &str, rounds: u32, echo: SocketAddr) -> io::Result<()> {
    let side = Handle::current();
    match what {
        "spawn" => {
            for _ in 0..rounds {
                side.spawn(async {}).await?;
            }
        }
        "entered" => drop(go_around(dial(echo).await?, rounds).await?),
        "once" => drop(side.spawn(async move { go_around(dial(echo).await?, rounds).await }).await??),
        _ => {
            let (mut stream, times) = (dial(echo).await?, if what == "ten" { 10 } else { 1 });
            for _ in 0..rounds {
                stream = side.spawn(go_around(stream, times)).await??;
            }
        }
    }
    Ok(())
}

/// CPU time of all threads of this process, finished ones left out. The first word of the file, in nanoseconds (`proc(5)`).
fn cpu_time() -> io::Result<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir("/proc/self/task")? {
        // A thread that has ended meanwhile has no file any more.
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        nanos += text.split(' ').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

fn ask(server: &Running, what: &str, rounds: u32) -> io::Result<()> {
    let addr = server.addr().as_socket_addr().ok_or(io::ErrorKind::InvalidInput)?;
    let mut stream = TcpStream::connect(addr)?;
    write!(stream, "GET /{what}/{rounds} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 204") { Ok(()) } else { Err(io::Error::other(answer)) }
}

/// Time and CPU time of one round, in microseconds.
fn measure(server: &Running, what: &str, clients: u32, rounds: u32) -> io::Result<[f64; 2]> {
    let rounds = rounds / clients / if what == "ten" { 10 } else { 1 };
    let (begun, cpu) = (Instant::now(), cpu_time()?);
    thread::scope(|scope| {
        let asked: Vec<_> = (0..clients).map(|_| scope.spawn(|| ask(server, what, rounds))).collect();
        asked.into_iter().try_for_each(|client| client.join().expect("a client does not panic"))
    })?;
    let all = f64::from(rounds * clients);
    Ok([begun.elapsed(), cpu_time()? - cpu].map(|time| time.as_secs_f64() * 1e6 / all))
}

fn side_runtime() -> io::Result<Runtime> {
    let affinity = Affinity::of_this_thread()?;
    runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .on_thread_start(move || {
            // A kernel that refuses leaves it where it was started.
            let _ = affinity.apply();
        })
        .enable_all()
        .build()
}

fn median(mut all: Vec<f64>) -> String {
    all.sort_by(f64::total_cmp);
    format!("{:.1} ({:.1} to {:.1})", all[all.len() / 2], all[0], all[all.len() - 1])
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (backend, words) = examples::words()?;
    let mut words = words.map(|word| word.parse::<u32>());
    let rounds = words.next().unwrap_or(Ok(20_000))?.max(160);
    let repeats = words.next().unwrap_or(Ok(7))?.max(1);
    let side = side_runtime()?;
    let echo = Core::builder().backend(backend).workers(Workers::Count(1)).pin(false);
    let echo = echo.listen("127.0.0.1:0", |_worker| |_peer| Echo)?.start()?;
    let to = echo.local_addrs()[0].as_socket_addr().ok_or("an echo has a port")?;
    let handle = side.handle().clone();
    let server = Server::bind("127.0.0.1:0")?
        .workers(1)
        .limits(Limits::default().handler_timeout(Duration::from_secs(3600)))
        .runtime(move |builder| {
            builder
                .backend(backend)
                .pin(false)
                .on_thread_start(move |_worker| std::mem::forget(handle.enter()))
        })
        .app(move |_worker| {
            Router::new().get("/{what}/{rounds}", async move |req: Request| {
                let what: String = req.param("what")?;
                repeat(&what, req.param("rounds")?, to).await.map_err(Error::internal)
            })
        })
        .start()?;

    println!("| | one, us | its CPU, us | of 16 at once, us | its CPU, us |\n|---|---:|---:|---:|---:|");
    let mut figures = vec![[const { Vec::new() }; 4]; LINES.len()];
    for _ in 0..repeats {
        // In turns, so that what disturbs disturbs all.
        for ((what, _), figures) in LINES.iter().zip(&mut figures) {
            for (index, clients) in [1, 16].into_iter().enumerate() {
                for (offset, figure) in measure(&server, what, clients, rounds)?.into_iter().enumerate() {
                    figures[2 * index + offset].push(figure);
                }
            }
        }
    }
    for ((_, name), figures) in LINES.iter().zip(figures) {
        println!("| {name} | {} |", figures.map(median).join(" | "));
    }
    server.stop(Duration::from_secs(1))?;
    echo.stop(Duration::from_secs(1))?;
    Ok(())
}
