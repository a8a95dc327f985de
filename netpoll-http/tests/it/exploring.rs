//! An exploration finds what does not hold in some world, names the world, and finds it there again.

use std::cell::Cell;
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Context;
use std::time::Duration;

use netpoll_core::sim::Options;
use netpoll_core::task::{self, spawn_local};
use netpoll_core::time::sleep;
use netpoll_http::explore::{Exploration, Question};
use netpoll_http::{App, Body, BodyBuf, Limits, Method, Pull, Request, Response, Router, TestClient, Worker};

/// What a router of this kind does in some worlds.
fn exploring(router: fn() -> Router) -> Exploration<'static> {
    Exploration::new(move |options: Options| App::new(move |_| router()).test_with(options)).threads(2)
}

fn sleeper() -> Router {
    Router::new().get("/{n}", |req: &Request| req.param::<String>("n")).post("/", async |req: Request| {
        sleep(Duration::from_millis(5)).await;
        req.body_bytes()
    })
}

fn asked(exploration: Exploration<'static>) -> Exploration<'static> {
    exploration
        .ask(|dice| {
            let n = dice.below(100_000).to_string();
            Question::get(&format!("/{n}")).answered(200, n)
        })
        .ask(|dice| {
            let (count, chunk) = (dice.below(3000), 1 + dice.below(500));
            let body = dice.bytes(count);
            Question::new(&Method::POST, "/").chunked(body.clone(), chunk).answered(200, body)
        })
        .ask(|_| Question::new(&Method::HEAD, "/7").answered(200, ""))
        .ask(|_| {
            Question::raw("an upper-case target", "GET /UP HTTP/1.1\r\nhost:a\r\n\r\n").answered(200, "UP")
        })
}

#[test]
fn what_happens_depends_on_the_seeds_and_on_nothing_else() {
    let explore = |threads| asked(exploring(sleeper)).threads(threads).try_run(1..=60).unwrap();
    let (one, three) = (explore(1), explore(3));
    assert_eq!(one, three);
    assert_eq!(one.worlds, 60);
    assert!(one.clients > 120 && one.answered > 500 && one.asked >= one.answered && one.drained > 2, "{one}");
    let others = asked(exploring(sleeper)).try_run(61..=120).unwrap();
    assert_ne!(one.digest, others.digest);
}

/// What is said of the first world in which something does not hold, and is the same when that is run again.
#[track_caller]
fn found(exploration: &Exploration<'_>) -> String {
    let failure = exploration.try_run(1..=200).expect_err("something does not hold");
    let again = exploration.try_run(failure.seed..=failure.seed).expect_err("it does not hold there again");
    assert_eq!((again.seed, &again.what), (failure.seed, &failure.what));
    let text = failure.to_string();
    let replay = format!("\nNETPOLL_EXPLORE={} repeats it", failure.seed);
    assert!(text.starts_with(&format!("seed {}: ", failure.seed)) && text.ends_with(&replay), "{text}");
    failure.what
}

#[test]
fn a_wrong_answer_is_found_and_told_with_its_request() {
    let off_by_one = || {
        Router::new().get("/{n}", |req: &Request| {
            let n: u64 = req.param("n")?;
            Ok((n + u64::from(n % 50 == 7)).to_string())
        })
    };
    let exploration = exploring(off_by_one).ask(|dice| {
        let n = dice.below(200).to_string();
        Question::get(&format!("/{n}")).answered(200, n)
    });
    let what = found(&exploration);
    assert!(
        what.contains(": request ") && what.contains(", GET /") && what.contains("7\" was to come"),
        "{what}"
    );
    assert!(what.contains("8\" came"), "{what}");
}

#[test]
fn an_answer_that_never_comes_is_found() {
    fn forgetful() -> Router {
        Router::new().get("/", async |_: Request| {
            if FORGETS.with(|asked| asked.replace(asked.get() + 1)) % 20 == 19 {
                pending::<()>().await;
            }
            "here"
        })
    }
    thread_local!(static FORGETS: Cell<u32> = const { Cell::new(0) });
    // Each world counts for itself: it runs on one thread.
    let make = |options: Options| -> TestClient {
        FORGETS.with(|asked| asked.set(0));
        let limits = Limits::default().handler_timeout(Duration::from_secs(3600));
        App::new(|_| forgetful()).limits(limits).test_with(options)
    };
    let exploration = Exploration::new(make).ask(|_| Question::get("/").answered(200, "here"));
    let what = found(&exploration.threads(2));
    assert!(what.contains("no answer") || what.contains("connections are open"), "{what}");
}

#[test]
fn a_task_that_outlives_everything_is_found() {
    let leaky = || {
        Router::new().get("/", async |_: Request| {
            spawn_local(pending::<()>()).detach();
            "here"
        })
    };
    let what = found(&exploring(leaky).ask(|_| Question::get("/").answered(200, "here")));
    assert!(what.contains("drain") && what.contains(": tasks are left, "), "{what}");
    assert!(what.contains(" of ") && what.contains(file!()), "it says where they were spawned: {what}");
}

/// One that is in flight, until this is dropped.
struct Flight(Rc<InFlight>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Panics when its world ends, if it was asked for more than it has seen the end of.
#[derive(Default)]
struct InFlight(Cell<u32>);

impl InFlight {
    fn leave(&self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.get() > 0 {
            std::panic::resume_unwind(Box::new("somebody is in flight"));
        }
    }
}

#[test]
fn what_the_destructor_of_a_state_finds_is_a_failure() {
    let make = |leaks: bool| {
        move |options: Options| -> TestClient {
            let router = move |_: &Worker| {
                Router::new().get("/", async move |_: Request| {
                    let state = task::state::<InFlight>();
                    state.0.set(state.0.get() + 1);
                    if leaks {
                        // Not for those who have left by then.
                        sleep(Duration::from_millis(500)).await;
                        state.leave();
                        return "here";
                    }
                    let _flight = Flight(state);
                    sleep(Duration::from_millis(500)).await;
                    "here"
                })
            };
            App::new(router).state(|_| InFlight::default()).test_with(options)
        }
    };
    let ask = |exploration: Exploration<'static>| {
        exploration.ask(|_| Question::get("/").answered(200, "here")).threads(2)
    };
    let what = found(&ask(Exploration::new(make(true))));
    assert!(what.contains("panics when the world ended"), "{what}");
    ask(Exploration::new(make(false))).run(1..=100);
}

#[test]
fn a_failure_that_its_seed_does_not_repeat_says_so() {
    let worlds = AtomicUsize::new(0);
    // The fifth world that is made, whichever that is, has another answer.
    let make = |options: Options| {
        let answer = if worlds.fetch_add(1, Relaxed) == 4 { "there" } else { "here" };
        App::new(move |_| Router::new().get("/", move |_: &Request| answer)).test_with(options)
    };
    let exploration = Exploration::new(make).ask(|_| Question::get("/").answered(200, "here")).threads(1);
    let failure = exploration.try_run(1..=50).unwrap_err();
    let text = failure.to_string();
    assert!(!failure.repeats && !text.contains("repeats it") && text.contains("not its seed"), "{text}");
}

#[test]
fn an_answer_without_an_end_is_found_before_it_takes_all_memory() {
    let endless = || {
        Router::new().get("/", |_: &Request| {
            Response::text(Body::stream(|_: &mut Context<'_>, out: &mut BodyBuf<'_>| {
                out.extend(&[b'x'; 16 << 10]);
                Pull::More
            }))
        })
    };
    let exploration = exploring(endless).ask(|_| Question::get("/").status(200)).threads(1);
    let failure = exploration.try_run(1..=1).unwrap_err();
    assert!(failure.what.contains("does not end") || failure.what.contains("an answer of more"), "{failure}");
}

#[test]
fn an_answer_may_take_as_long_as_a_client_may_be_silent() {
    let patient = |options: Options| -> TestClient {
        let limits = Limits::default().handler_timeout(Duration::from_secs(300));
        let router = |_: &Worker| {
            Router::new()
                .get("/", async |_: Request| {
                    sleep(Duration::from_secs(200)).await;
                    "at last"
                })
                .get("/stream", |_: &Request| {
                    let (mut left, mut pause) = (3, Box::pin(sleep(Duration::from_secs(70))));
                    Response::text(Body::stream(move |cx: &mut Context<'_>, out: &mut BodyBuf<'_>| {
                        if pause.as_mut().poll(cx).is_pending() {
                            return Pull::Wait;
                        }
                        (left, pause) = (left - 1, Box::pin(sleep(Duration::from_secs(70))));
                        out.extend(b"piece");
                        if left > 0 { Pull::More } else { Pull::Done }
                    }))
                })
        };
        App::new(router).limits(limits).test_with(options)
    };
    Exploration::new(patient)
        .ask(|_| Question::get("/").answered(200, "at last"))
        .ask(|_| Question::get("/stream").answered(200, "piecepiecepiece"))
        .threads(2)
        .run(1..=40);
}

#[test]
fn a_request_that_cannot_be_read_may_be_asked() {
    exploring(sleeper)
        .ask(|_| Question::raw("no host", "GET /7 HTTP/1.1\r\n\r\n").status(400))
        .ask(|_| Question::get("/7").header("X-Long", &"x".repeat(20_000)).status(431))
        .ask(|_| Question::get(&"/7".repeat(5000)).status(414))
        .ask(|_| Question::get("/7").answered(200, "7"))
        .run(1..=100);
}

#[test]
fn a_panic_of_a_handler_is_found_whatever_is_answered() {
    let faint = || {
        Router::new()
            .get("/", |_: &Request| -> Response { std::panic::resume_unwind(Box::new("out of luck")) })
    };
    let what = found(&exploring(faint).ask(|_| Question::get("/").status(500)));
    assert!(what.ends_with(" panics"), "{what}");
}

#[test]
fn a_factory_that_panics_in_a_world_is_told_with_its_seed() {
    let make = |options: Options| -> TestClient {
        if options.seed == 3 {
            std::panic::resume_unwind(Box::new("no app for three"));
        }
        App::new(|_| sleeper()).test_with(options)
    };
    let exploration = asked(Exploration::new(make).threads(1));
    let failure = exploration.try_run(1..=10).unwrap_err();
    assert_eq!((failure.seed, &*failure.what), (3, "a panic: no app for three"));
    let payload = catch_unwind(AssertUnwindSafe(|| exploration.run(3..=3))).unwrap_err();
    assert!(payload.downcast_ref::<String>().unwrap().starts_with("seed 3: a panic"));
}

#[test]
#[should_panic = "`App::test_with` takes them"]
fn an_app_that_takes_no_options_is_a_mistake() {
    Exploration::new(|_| App::new(|_| sleeper()).test())
        .ask(|_| Question::get("/7").answered(200, "7"))
        .run(1..=3);
}

#[test]
#[should_panic = "names no seed"]
fn an_exploration_of_no_world_is_a_mistake() {
    #[expect(clippy::reversed_empty_ranges, reason = "as of a count that has come out at zero")]
    asked(exploring(sleeper)).run(1..=0);
}

#[test]
#[should_panic = "an exploration has something to ask"]
fn an_exploration_that_asks_nothing_is_a_mistake() {
    exploring(sleeper).run(1..=1);
}
