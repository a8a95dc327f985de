//! Handlers that wait.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use netpoll_core::blocking::spawn_blocking;
use netpoll_core::net::{Listener, Stream};
use netpoll_core::sync::Semaphore;
use netpoll_core::task;
use netpoll_core::time::sleep;
use netpoll_http::{App, Error, Json, Limits, Request, Router, StatusCode, TestClient};

use crate::client;

/// Lets a test decide when handlers go on.
#[derive(Default)]
struct Gate {
    open: bool,
    wakers: Vec<Waker>,
}

thread_local!(static GATE: Rc<RefCell<Gate>> = Rc::default());

async fn gate() {
    poll_fn(|context| {
        GATE.with(|gate| {
            let mut gate = gate.borrow_mut();
            if gate.open {
                return Poll::Ready(());
            }
            gate.wakers.push(context.waker().clone());
            Poll::Pending
        })
    })
    .await;
}

fn open_gate() {
    let wakers = GATE.with(|gate| {
        let mut gate = gate.borrow_mut();
        gate.open = true;
        std::mem::take(&mut gate.wakers)
    });
    wakers.into_iter().for_each(Waker::wake);
}

async fn named(req: Request<'_>) -> Result<String, Error> {
    gate().await;
    req.param("id")
}

struct NoteDrop(Rc<RefCell<bool>>);
impl Drop for NoteDrop {
    fn drop(&mut self) {
        *self.0.borrow_mut() = true;
    }
}

thread_local!(static DROPPED: Rc<RefCell<bool>> = Rc::default());

fn waiting() -> TestClient {
    waiting_with(|_| ())
}

fn waiting_with(change: impl FnOnce(&mut Limits)) -> TestClient {
    let mut limits = Limits::default();
    change(&mut limits);
    App::new(|_| {
        Router::new()
            .get("/now", async |_: Request| "now")
            .get("/later/{id}", named)
            .get("/sync", |_: &Request| "sync")
            .post("/sum", async |req: Request| {
                gate().await;
                let numbers: Vec<u32> = req.json()?;
                Ok((StatusCode::CREATED, Json(numbers.iter().sum::<u32>())))
            })
            .get("/panics", async |_: Request| {
                gate().await;
                if true {
                    panic!("in a future");
                }
                "never"
            })
            .get("/held", async |_: Request| {
                let _note = NoteDrop(DROPPED.with(Rc::clone));
                gate().await;
                "held"
            })
    })
    .limits(limits)
    .test()
}

#[test]
fn a_handler_that_is_ready_at_once_answers_at_once() {
    assert_eq!(waiting().get("/now").text(), "now");
}

#[test]
fn a_waiting_handler_answers_when_it_is_woken() {
    let client = waiting();
    let mut connection = client.connect();
    connection.send(b"GET /later/7 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.received(), b"");
    open_gate();
    client.run();
    assert_eq!(connection.response().expect("an answer").text(), "7");
}

#[test]
fn a_handler_waits_for_a_job_that_blocks_and_hears_of_its_panic() {
    let client = App::new(|_worker| {
        Router::new().get("/upper/{word}", async |req: Request| {
            let word = req.param::<String>("word")?;
            let job = spawn_blocking(move || {
                assert_ne!(word, "panic");
                word.to_uppercase()
            });
            Ok::<_, Error>(job.await.unwrap_or_else(|error| error.to_string()))
        })
    });
    let client = client.test();
    assert_eq!(client.get("/upper/word").text(), "WORD");
    let answer = client.get("/upper/panic");
    assert!(answer.text().contains("panicked"), "{}", answer.text());
}

#[test]
fn the_order_of_pipelined_requests_is_kept_behind_a_waiting_one() {
    let client = waiting();
    let mut connection = client.connect();
    connection.send(
        b"GET /sync HTTP/1.1\r\nHost: a\r\n\r\nGET /later/8 HTTP/1.1\r\nHost: a\r\n\r\nGET /sync HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(connection.response().expect("the first").text(), "sync");
    assert!(connection.response().is_none(), "the third waits for the second");
    open_gate();
    client.run();
    assert_eq!(connection.response().expect("the second").text(), "8");
    assert_eq!(connection.response().expect("the third").text(), "sync");
}

#[test]
fn an_owned_request_keeps_its_body_while_the_handler_waits() {
    let client = waiting();
    let mut connection = client.connect();
    connection.send(
        b"POST /sum HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n[1,2",
    );
    connection.send(b",3]GET /now HTTP/1.1\r\nHost: a\r\n\r\n");
    open_gate();
    client.run();
    let response = connection.response().expect("an answer");
    assert_eq!((response.status, response.text()), (StatusCode::CREATED, "6"));
    assert_eq!(connection.response().expect("the next").text(), "now");
}

#[test]
fn a_handler_that_never_answers_is_dropped_and_answered_for() {
    let client = waiting();
    let mut connection = client.connect();
    connection.send(b"GET /now HTTP/1.1\r\nHost: a\r\n\r\nGET /held HTTP/1.1\r\nHost: a\r\n\r\nGET /now HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.response().expect("the first").text(), "now");
    connection.advance(Duration::from_millis(29_900));
    assert!(connection.response().is_none() && !*DROPPED.with(Rc::clone).borrow());

    connection.advance(Duration::from_millis(200));
    let late = connection.response().expect("an answer");
    assert_eq!((late.status, late.header("connection")), (StatusCode::SERVICE_UNAVAILABLE, Some("close")));
    assert!(*DROPPED.with(Rc::clone).borrow(), "its future is gone");
    assert!(connection.response().is_none() && connection.is_closed(), "nothing behind it is served");
}

#[test]
fn a_client_that_has_left_drops_the_handler_that_it_waited_for() {
    let client = waiting();
    let mut connection = client.connect();
    connection.send(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    connection.finish();
    assert!(DROPPED.with(|dropped| *dropped.borrow()), "its future is gone");
    assert_eq!((client.open(), client.stats().abandoned), (0, 1));
    assert!(connection.is_closed() && connection.received().is_empty());
}

#[test]
fn a_client_that_half_closes_still_gets_the_answer_of_a_waiting_handler_if_it_may() {
    let client = waiting_with(|limits| limits.half_close = true);
    let mut connection = client.connect();
    connection.send(b"GET /later/10 HTTP/1.1\r\nHost: a\r\n\r\nGET /sync HTTP/1.1\r\nHost: a\r\n\r\n");
    connection.finish();
    assert!(!connection.is_closed());
    open_gate();
    client.run();
    assert_eq!(connection.response().expect("an answer").text(), "10");
    assert_eq!(connection.response().expect("the pipelined one").text(), "sync");
    assert!(connection.is_closed());
}

#[test]
fn a_connection_that_is_lost_drops_its_waiting_handler() {
    let client = waiting();
    let mut connection = client.connect();
    connection.send(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!DROPPED.with(|dropped| *dropped.borrow()));
    connection.reset();
    assert!(DROPPED.with(|dropped| *dropped.borrow()));
}

#[test]
fn a_panic_in_a_waiting_handler_is_a_500_and_the_worker_lives() {
    let client = waiting();
    let mut connection = client.connect();
    connection.send(b"GET /panics HTTP/1.1\r\nHost: a\r\n\r\n");
    open_gate();
    client.run();
    let response = connection.response().expect("an answer");
    assert_eq!(response.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(response.header("connection"), Some("close"));
    assert!(connection.is_closed());
    assert_eq!(client.get("/now").text(), "now");
}

#[test]
fn a_drain_waits_for_the_answer_of_a_waiting_handler() {
    let client = waiting();
    let (mut busy, idle) = (client.connect(), client.connect());
    busy.send(b"GET /later/11 HTTP/1.1\r\nHost: a\r\n\r\n");
    client.begin_drain(std::time::Duration::from_secs(5));
    client.advance(std::time::Duration::from_millis(1100));
    assert!(idle.is_closed() && !busy.is_closed());
    open_gate();
    client.run();
    let response = busy.response().expect("an answer");
    assert_eq!((response.text(), response.header("connection")), ("11", Some("close")));
    assert!(busy.is_closed());
}

#[test]
fn a_last_answer_that_was_waited_for_is_not_lingered_behind_unless_more_came_with_the_request() {
    for (behind, open) in [("", 0), ("GET /never HTTP/1.1\r\nHost: a\r\n\r\n", 1)] {
        GATE.with(|gate| *gate.borrow_mut() = Gate::default());
        let client = App::new(|_| Router::new().get("/{id}", named)).test();
        let mut connection = client.connect();
        connection
            .send(format!("GET /7 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n{behind}").as_bytes());
        open_gate();
        client.run();
        assert_eq!(connection.response().expect("an answer").text(), "7");
        assert!(connection.response().is_none() && connection.is_closed() && !connection.is_reset());
        assert_eq!((client.open(), client.stats().syscalls_shutdown), (open, open as u64), "{behind}");
    }
}

#[test]
fn an_answer_that_was_given_up_lingers_whoever_wanted_to_close() {
    GATE.with(|gate| *gate.borrow_mut() = Gate::default());
    let client = App::new(|_| Router::new().get("/{id}", named)).test();
    let mut connection = client.connect();
    connection.send(b"GET /7 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.advance(Duration::from_secs(31));
    assert_eq!(connection.response().expect("an answer").status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(client.stats().syscalls_shutdown, 1);
}

#[test]
fn a_handler_that_sleeps_takes_no_time_in_a_test() {
    let slow = async |_: Request| {
        sleep(Duration::from_secs(10)).await;
        "at last"
    };
    let never = async |_: Request| {
        std::future::pending::<()>().await;
        "never"
    };
    let client = client(move || Router::new().get("/", slow).get("/never", never));
    assert_eq!(client.get("/").text(), "at last");
    assert_eq!(client.get("/never").status, StatusCode::SERVICE_UNAVAILABLE, "the handler's time is over");
}

#[test]
fn a_handler_asks_another_service_and_spawns_and_is_given_up_without_a_trace() {
    let ask = async |_: Request| {
        let asked = task::spawn_local(async {
            let mut stream = Stream::connect("10.0.0.1:7").await?;
            stream.write_all(b"what time is it?").await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer, 1000).await?;
            Ok::<_, std::io::Error>(answer)
        });
        let big = Stream::connect("10.0.0.1:7").await.map_err(Error::internal);
        big?.write_all(&[b'.'; 20_000]).await.map_err(Error::internal)?;
        match asked.await {
            Ok(Ok(answer)) => Ok(String::from_utf8_lossy(&answer).into_owned()),
            _ => Err(Error::from(StatusCode::BAD_GATEWAY)),
        }
    };
    let client = client(move || Router::new().get("/", ask));
    client.world(|sim| sim.refuse_connections(true));
    assert_eq!(client.get("/").status, StatusCode::INTERNAL_SERVER_ERROR, "nobody listens there");
    client.world(|sim| {
        sim.block_on(async {
            let mut listener = Listener::bind("10.0.0.1:7").await.unwrap();
            let serves = async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let mut asked = [0; 16];
                    stream.read_exact(&mut asked).await.unwrap();
                    sleep(Duration::from_secs(1)).await;
                    let answer = if asked.starts_with(b"what") { "ten" } else { "" };
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            };
            task::spawn_local(serves).detach();
        });
    });
    assert_eq!(client.get("/").text(), "ten");
    let mut leaves = client.connect();
    leaves.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    leaves.reset();
    client.advance(Duration::from_secs(20));
    assert_eq!((client.open(), client.blocks_in_use(), client.stats().panics), (0, 0, 0));
}

#[test]
fn a_handler_that_loops_over_what_is_always_ready_lets_others_have_their_turn() {
    let loops = async |_: Request| {
        let is_over = Rc::new(Cell::new(false));
        let over = Rc::clone(&is_over);
        let _other = task::spawn_local(async move { over.set(true) });
        let permits = Semaphore::new(1);
        let mut results = 0;
        while !is_over.get() && results < 10_000 {
            drop(permits.acquire(1).await);
            results += 1;
        }
        // In the poll that began it, or in the one behind that.
        if results <= 2 * 128 { "gave way" } else { "went on" }
    };
    let client = client(move || Router::new().get("/", loops));
    assert_eq!(client.get("/").text(), "gave way");
}
