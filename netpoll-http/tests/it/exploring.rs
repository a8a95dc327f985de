//! An exploration finds what does not hold in some world, names the world, and finds it there again.

use std::cell::Cell;
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use netpoll_core::sim::Options;
use netpoll_core::task::spawn_local;
use netpoll_core::time::sleep;
use netpoll_http::explore::{Exploration, Question};
use netpoll_http::{App, Limits, Method, Request, Response, Router, TestClient};

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
    assert!(
        what.contains("a drain without connections has not ended") || what.contains("tasks are left"),
        "{what}"
    );
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
#[should_panic = "an exploration has something to ask"]
fn an_exploration_that_asks_nothing_is_a_mistake() {
    exploring(sleeper).run(1..=1);
}
