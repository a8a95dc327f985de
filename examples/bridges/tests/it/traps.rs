//! A server in this process, to see what a program of its own would not show: where futures are dropped, what is counted, and what
//! happens to those who take the wrong order.

use std::cell::Cell;
use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use netpoll_core::task::spawn_local;
use netpoll_core::{Affinity, Report};
use netpoll_http::{Error, Request, Router, Running, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{self, Handle, Runtime};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

use crate::support::{Answer, PATIENCE, send_request};

const HOUR: Duration = Duration::from_secs(3600);

fn side_runtime() -> Runtime {
    let affinity = Affinity::of_this_thread().unwrap();
    let mut builder = runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().on_thread_start(move || affinity.apply().unwrap());
    builder.build().unwrap()
}

/// Two workers, entered.
fn server(side: &Runtime) -> Server {
    let handle = side.handle().clone();
    Server::bind("127.0.0.1:0")
        .unwrap()
        .workers(2)
        .runtime(move |builder| builder.on_thread_start(move |_worker| std::mem::forget(handle.enter())))
}

struct Client(TcpStream);

impl Client {
    fn of(server: &Running) -> Self {
        let stream = TcpStream::connect(server.addr().as_socket_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    fn ask(&mut self, target: &str) {
        send_request(&mut self.0, "GET", target, &[], "");
    }

    fn get(&mut self, target: &str) -> Answer {
        self.ask(target);
        Answer::read(&mut self.0)
    }
}

fn stop(server: Running) -> Report {
    server.stop(PATIENCE).unwrap()
}

/// A service on the side runtime that sends back what it gets.
fn echo(side: &Runtime) -> SocketAddr {
    let listener = side.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let addr = listener.local_addr().unwrap();
    side.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                // Until either end has ended; how is the client's to check.
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    addr
}

/// Says, when it is dropped, whether code of tokio would find its runtime there.
struct Last(&'static str, mpsc::Sender<(&'static str, bool)>);

impl Drop for Last {
    fn drop(&mut self) {
        // A destructor of the kind that needs it: it hands the rest of its work to a task.
        let entered = Handle::try_current().is_ok_and(|handle| {
            handle.spawn(async {});
            true
        });
        // Nobody listens when the test has failed already.
        let _ = self.1.send((self.0, entered));
    }
}

#[test]
fn a_worker_that_has_not_entered_panics_at_a_socket_of_tokio_and_serves_on() {
    let side = side_runtime();
    let addr = echo(&side);
    let server = Server::bind("127.0.0.1:0").unwrap().workers(1).app(move |_worker| {
        Router::new().get("/", |_: &Request| "fine").get("/dial", async move |_: Request| {
            tokio::net::TcpStream::connect(addr).await.map_err(Error::internal)?;
            Ok("dialed")
        })
    });
    let server = server.start().unwrap();
    assert_eq!(Client::of(&server).get("/dial").status, 500);
    assert_eq!(Client::of(&server).get("/").said(), (200, "fine"));
    assert_eq!(stop(server).stats.panics, 1);
}

#[test]
fn states_factories_and_destructors_find_the_runtime_that_their_worker_has_entered() {
    let side = side_runtime();
    let (sender, ends) = mpsc::channel();
    let last = move |what| Last(what, sender.clone());
    let (in_state, in_handler) = (last.clone(), last.clone());
    let server = server(&side)
        .workers(1)
        .state(move |_worker| (in_state("state"), tokio::time::interval(HOUR)))
        .app(move |_worker| {
            tokio::spawn(async {});
            let (held, begun, in_handler) = (last("service"), Notify::new(), in_handler.clone());
            let (begun, waiting) = (Arc::new(begun), Arc::new(()));
            let seen = Arc::clone(&begun);
            Router::new()
                .get("/begun", async move |_: Request| {
                    seen.notified().await;
                    "it waits"
                })
                .get("/wait", async move |_: Request| {
                    let _held = (in_handler("handler"), &held, Arc::clone(&waiting));
                    begun.notify_one();
                    tokio::time::sleep(HOUR).await;
                    "an hour later"
                })
        })
        .start()
        .unwrap();
    let mut client = Client::of(&server);
    client.ask("/wait");
    assert_eq!(Client::of(&server).get("/begun").said(), (200, "it waits"));
    let report = server.stop(Duration::ZERO).unwrap();
    assert_eq!((report.cut, report.stats.panics), (1, 0), "{report}");
    let ends: Vec<_> = ends.try_iter().collect();
    assert_eq!(ends, [("handler", true), ("service", true), ("state", true)]);
    drop(client);
}

#[test]
fn a_timer_of_tokio_wakes_its_worker_by_one_letter() {
    const ROUNDS: u64 = 40;
    let side = side_runtime();
    let server = server(&side).workers(1).app(|_worker| {
        Router::new().get("/", async |_: Request| {
            for _ in 0..ROUNDS {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            "forty"
        })
    });
    let server = server.start().unwrap();
    assert_eq!(Client::of(&server).get("/").said(), (200, "forty"));
    let stats = stop(server).stats;
    // And the one that stops it. On a busy machine a timer may be over before it is first looked at, which takes none.
    assert!((2..=ROUNDS + 1).contains(&stats.mailbox_messages), "{stats}");
    // None needs more than one call, and one for a worker that is awake needs none.
    assert!(stats.syscalls_wake <= ROUNDS + 1, "{stats}");
}

#[test]
fn a_task_that_is_ready_sooner_than_its_handler_looks_costs_no_letter_and_no_more_than_one() {
    const ROUNDS: u64 = 200;
    let side = side_runtime();
    let server = server(&side).workers(1).app(|_worker| {
        Router::new().get("/", async |_: Request| {
            let mut sum = 0;
            for round in 0..ROUNDS {
                sum += Handle::current().spawn(async move { round }).await.map_err(Error::internal)?;
            }
            Ok(sum.to_string())
        })
    });
    let server = server.start().unwrap();
    let expected = (ROUNDS * (ROUNDS - 1) / 2).to_string();
    assert_eq!(Client::of(&server).get("/").said(), (200, expected.as_str()));
    let stats = stop(server).stats;
    assert!(stats.mailbox_messages <= ROUNDS + 1, "{stats}");
}

/// One visit to everything of tokio's that can wake a worker.
async fn visit(addr: SocketAddr, seed: u64) -> Result<u64, Error> {
    let mut stream = tokio::net::TcpStream::connect(addr).await.map_err(Error::internal)?;
    let mut sum = 0;
    for round in 0..8 {
        match (seed + round) % 4 {
            0 => tokio::time::sleep(Duration::from_micros(seed % 7 * 150)).await,
            1 => sum += Handle::current().spawn(async move { round }).await.map_err(Error::internal)?,
            2 => {
                let (sender, receiver) = oneshot::channel();
                tokio::spawn(async move { sender.send(round) });
                sum += receiver.await.map_err(Error::internal)?;
            }
            _ => {
                stream.write_u64(round).await.map_err(Error::internal)?;
                sum += stream.read_u64().await.map_err(Error::internal)?;
            }
        }
    }
    Ok(sum)
}

#[test]
fn no_wake_from_the_side_runtime_is_lost_under_load() {
    const CLIENTS: u64 = 16;
    const REQUESTS: u64 = 25;
    let side = side_runtime();
    let addr = echo(&side);
    let server = server(&side).app(move |_worker| {
        Router::new().get("/{seed}", async move |req: Request| {
            let seed = req.param("seed")?;
            Ok(visit(addr, seed).await?.to_string())
        })
    });
    let server = server.start().unwrap();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let server = &server;
            scope.spawn(move || {
                let mut stream = Client::of(server);
                for request in 0..REQUESTS {
                    let seed = client * 31 + request;
                    if seed % 5 == 0 {
                        // Leaves in the middle, and comes back.
                        stream.ask(&format!("/{seed}"));
                        stream = Client::of(server);
                    }
                    // Everything but the rounds that slept.
                    let expected: u64 = (0..8).filter(|round| (seed + round) % 4 != 0).sum();
                    let answer = stream.get(&format!("/{seed}"));
                    assert_eq!(answer.said(), (200, expected.to_string().as_str()));
                }
            });
        }
    });
    let report = stop(server);
    assert_eq!((report.cut, report.stats.panics), (0, 0), "{report}");
}

#[test]
fn a_client_that_leaves_cancels_what_its_handler_waits_for_and_a_task_only_if_the_handler_owns_it() {
    let side = side_runtime();
    let (sender, ends) = mpsc::channel();
    let last = move |what| Last(what, sender.clone());
    let (go_on, released) = oneshot::channel::<()>();
    let released = Arc::new(Mutex::new(Some(released)));
    let server = server(&side).app(move |_worker| {
        let (last, released) = (last.clone(), Arc::clone(&released));
        Router::new().get("/", async move |_: Request| {
            let _held = last("handler");
            let (owned, detached) = (last("owned task"), last("detached task"));
            let mut tasks = JoinSet::new();
            tasks.spawn(async move {
                let _held = owned;
                tokio::time::sleep(HOUR).await;
            });
            let released = released.lock().unwrap().take();
            tokio::spawn(async move {
                let _held = detached;
                // An error is as good an end.
                if let Some(released) = released {
                    let _ = released.await;
                }
            });
            tasks.join_next().await;
            "an hour later"
        })
    });
    let server = server.start().unwrap();
    let mut client = Client::of(&server);
    client.ask("/");
    drop(client);
    let mut ended = [ends.recv_timeout(PATIENCE).unwrap(), ends.recv_timeout(PATIENCE).unwrap()];
    ended.sort();
    assert_eq!(ended, [("handler", true), ("owned task", true)]);
    go_on.send(()).expect("the detached one still waits");
    assert_eq!(ends.recv_timeout(PATIENCE).unwrap(), ("detached task", true));
    assert_eq!(stop(server).stats.abandoned, 1);
}

#[test]
fn a_panic_beside_a_socket_of_tokio_costs_its_own_request() {
    let side = side_runtime();
    let addr = echo(&side);
    let server = server(&side).workers(1).app(move |_worker| {
        Router::new()
            .get("/panic", async move |_: Request| {
                let mut stream = tokio::net::TcpStream::connect(addr).await.map_err(Error::internal)?;
                stream.write_u8(b'x').await.map_err(Error::internal)?;
                let byte = stream.read_u8().await.map_err(Error::internal)?;
                assert_ne!(byte, b'x', "as the test wants it");
                Ok("no panic")
            })
            .get("/visit", async move |_: Request| Ok(visit(addr, 3).await?.to_string()))
    });
    let server = server.start().unwrap();
    let mut other = Client::of(&server);
    assert_eq!(other.get("/visit").status, 200);
    assert_eq!(Client::of(&server).get("/panic").status, 500);
    assert_eq!(other.get("/visit").status, 200);
    assert_eq!(stop(server).stats.panics, 1);
}

#[test]
fn a_drain_that_ends_too_soon_cuts_who_waits_for_tokio() {
    let side = side_runtime();
    let (sender, begun) = mpsc::channel();
    let server = server(&side).app(move |_worker| {
        let sender = sender.clone();
        Router::new().get("/", async move |_: Request| {
            sender.send(()).map_err(Error::internal)?;
            tokio::time::sleep(HOUR).await;
            Ok("an hour later")
        })
    });
    let server = server.start().unwrap();
    let mut client = Client::of(&server);
    client.ask("/");
    begun.recv_timeout(PATIENCE).unwrap();
    assert_eq!(server.stop(Duration::from_millis(50)).unwrap().cut, 1);
    let mut rest = Vec::new();
    // A reset, or an end: no answer in either case.
    let _ = client.0.read_to_end(&mut rest);
    assert_eq!(rest, b"");
}

#[test]
fn a_side_runtime_that_ends_first_costs_requests_and_not_the_server() {
    let side = side_runtime();
    let addr = echo(&side);
    let server = server(&side).workers(1).app(move |_worker| {
        Router::new()
            .get("/", |_: &Request| "fine")
            .get("/sleep", async |_: Request| {
                tokio::time::sleep(HOUR).await;
                "an hour later"
            })
            .get("/dial", async move |_: Request| {
                tokio::net::TcpStream::connect(addr)
                    .await
                    .map_or_else(|error| error.to_string(), |_| "dialed".into())
            })
            .get("/spawn", async |_: Request| {
                let outcome = tokio::spawn(async {}).await;
                outcome
                    .map_or_else(|error| format!("cancelled: {}", error.is_cancelled()), |()| "done".into())
            })
    });
    let server = server.start().unwrap();
    let mut waiting = Client::of(&server);
    waiting.ask("/sleep");
    drop(side);
    assert_eq!(Answer::read(&mut waiting.0).status, 500);
    assert_eq!(Client::of(&server).get("/sleep").status, 500);
    let mut client = Client::of(&server);
    assert!(client.get("/dial").body.contains("being shutdown"), "an error");
    assert_eq!(client.get("/spawn").said(), (200, "cancelled: true"));
    assert_eq!(client.get("/").said(), (200, "fine"));
    assert_eq!(stop(server).stats.panics, 2, "the timers'");
}

#[test]
fn a_task_of_the_worker_waits_for_tokio_and_shares_what_is_not_send() {
    let side = side_runtime();
    let addr = echo(&side);
    let server = server(&side).app(move |_worker| {
        Router::new().get("/", async move |_: Request| {
            let sum = Rc::new(Cell::new(0));
            let visits = [1, 2, 3].map(|seed| {
                let sum = Rc::clone(&sum);
                spawn_local(async move {
                    let seen = visit(addr, seed).await?;
                    sum.set(sum.get() + seen);
                    Ok::<(), Error>(())
                })
            });
            for visit in visits {
                visit.await.map_err(Error::internal)??;
            }
            Ok(sum.get().to_string())
        })
    });
    let server = server.start().unwrap();
    // Of the rounds 0 to 7, three times, all but those that sleep: 3 and 7, 2 and 6, 1 and 5.
    assert_eq!(Client::of(&server).get("/").said(), (200, "60"));
    assert_eq!(stop(server).stats.panics, 0);
}

/// Where the calling thread may run.
fn cpus() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.unwrap().trim().to_owned()
}

#[test]
fn threads_that_tokio_starts_for_a_worker_run_where_the_program_may() {
    let side = side_runtime();
    let server = server(&side).workers(1).app(|_worker| {
        Router::new().get("/", |_: &Request| cpus()).get("/blocking", async |_: Request| {
            tokio::task::spawn_blocking(cpus).await.map_err(Error::internal)
        })
    });
    let server = server.start().unwrap();
    let mut client = Client::of(&server);
    assert_eq!(client.get("/").body.parse::<usize>().map(|_| ()), Ok(()), "the worker has one");
    assert_eq!(client.get("/blocking").body, cpus());
    client.0.shutdown(Shutdown::Write).unwrap();
    stop(server);
}
