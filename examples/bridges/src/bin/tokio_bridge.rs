//! Crates that only work on tokio, in the handlers of a server that does not run on it.
//!
//! Run it with `cargo run -p bridges --bin tokio_bridge` (behind it an address to listen on and the URL of a Redis server), and
//! ask it in a second terminal:
//!
//! | `curl http://127.0.0.1:8086`… | what you will see | polled by |
//! |---|---|---|
//! | `/sleep/500` | `slept 500 ms`, after half a second | the worker |
//! | `/shout/hello` | `HELLO`, from a TCP service that is dialed | the worker |
//! | `/count/tea` | how often you have asked, counted in Redis | the worker, and a task |
//! | `/divide/7/2` | `3`; with a zero behind it 500, because the task panics | a task |
//!
//! One side thread drives all of them; `docs/ASYNC.md` says how, what it costs, and what the two ways differ in. Ctrl-C drains:
//! who waits gets the answer.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use netpoll_core::Affinity;
use netpoll_http::{Error, Request, Router, Server, StatusCode};
use redis::aio::ConnectionManagerConfig;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{self, Handle, Runtime};
use tokio::time::{sleep, timeout};

/// How long others may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The threads that drive what is tokio's. Made before the server and dropped behind it.
fn side_runtime() -> io::Result<Runtime> {
    // tokio starts a thread where it is asked for one, maybe on a worker, which is pinned.
    let affinity = Affinity::of_this_thread()?;
    runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("side")
        .on_thread_start(move || {
            // A kernel that refuses leaves it where it was started.
            let _ = affinity.apply();
        })
        .enable_all()
        .build()
}

/// The service that is dialed: it shouts each line back.
async fn shout_back(listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let (reader, mut writer) = stream.into_split();
            let mut lines = BufReader::new(reader).lines();
            while let Some(line) = lines.next_line().await? {
                writer.write_all((line.to_uppercase() + "\n").as_bytes()).await?;
            }
            io::Result::Ok(())
        });
    }
}

/// Polled by the worker: what it awaits is tokio's, and what it holds need not be `Send`.
async fn ask(addr: SocketAddr, question: &str) -> io::Result<String> {
    let mut stream = BufReader::new(TcpStream::connect(addr).await?);
    stream.write_all(format!("{question}\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_line(&mut answer).await?;
    Ok(answer)
}

fn unreachable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(StatusCode::BAD_GATEWAY, "no answer from the service behind\n").with_source(error)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (backend, mut words) = examples::words()?;
    let addr = words.next().unwrap_or("127.0.0.1:8086".to_owned());
    let side = side_runtime()?;
    // For what is made and dropped on this thread.
    let _entered = side.enter();
    let redis = redis::Client::open(words.next().unwrap_or("redis://127.0.0.1".to_owned()))?;
    let redis = redis.get_connection_manager_lazy(ConnectionManagerConfig::default())?;
    let listener = side.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let shouter = listener.local_addr()?;
    side.spawn(shout_back(listener));

    let handle = side.handle().clone();
    let server = Server::bind(addr)?
        .runtime(move |builder| builder.backend(backend))
        .runtime(move |builder| {
            builder
                .stop_on_signals(true)
                // For the life of the thread: there is no guard to be dropped too early.
                .on_thread_start(move |_worker| std::mem::forget(handle.enter()))
        })
        .app(move |_worker| {
            let redis = redis.clone();
            Router::new()
                .get("/sleep/{ms}", async |req: Request| {
                    let ms = req.param("ms")?;
                    sleep(Duration::from_millis(ms)).await;
                    Ok(format!("slept {ms} ms\n"))
                })
                .get("/shout/{words}", async move |req: Request| {
                    let words: String = req.param("words")?;
                    timeout(PATIENCE, ask(shouter, &words)).await.map_err(unreachable)?.map_err(unreachable)
                })
                .get("/count/{key}", async move |req: Request| {
                    let mut incr = redis::cmd("INCR");
                    incr.arg(req.param::<String>("key")?);
                    let count = incr.query_async::<u64>(&mut redis.clone()).await.map_err(unreachable)?;
                    Ok(format!("{count}\n"))
                })
                .get("/divide/{a}/{b}", async |req: Request| {
                    let (a, b): (u64, u64) = (req.param("a")?, req.param("b")?);
                    // Runs on the side thread; a panic in it comes back as an error.
                    let task = Handle::current().spawn(async move { a / b });
                    Ok(format!("{}\n", task.await.map_err(Error::internal)?))
                })
        })
        .start()?;
    // Whoever closed our output (`| head -1`) does not want to read this, but may want the server.
    let _ = writeln!(io::stdout(), "tokio_bridge listens on http://{}", server.addr());
    let _ = writeln!(io::stdout(), "{}", server.wait()?);
    Ok(())
}
