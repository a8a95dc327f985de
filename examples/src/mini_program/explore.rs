//! Services in simulated worlds, each of which a seed decides: what holds in all of them, and the first in which something does not.
//!
//! ```text
//! cargo explore [--app service|mini-program|rooms] [--seeds N] [--from N] [--seed N] [--threads N]
//! ```
//!
//! The apps are the mini-program, its rooms with members that come and go (`explore_rooms`), and a service that has a handler of each kind. Without options each runs in 1000 worlds, the first
//! of which has seed 1. `--seed N` runs one again: a failure that repeats prints that line. What has to hold is in `netpoll_http::explore`.
//!
//! Exit status: 0 all held, 1 something did not, 2 the command line is wrong.

// What the program alone needs, such as its stand-in with a thread of its own, is not used here.
#[allow(dead_code)]
mod app;
mod chat;
mod events;
mod explore_rooms;
#[allow(dead_code)]
mod login;
#[allow(dead_code)]
mod orders;
mod page;
mod session;
mod stats;
mod uploads;

use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};

use lexopt::ValueExt as _;
use netpoll_core::sim::Options;
use netpoll_core::task::spawn_local;
use netpoll_core::time::{sleep, timeout};
use netpoll_http::explore::{Dice, Exploration, Failure, Question};
use netpoll_http::{
    Body, BodyBuf, BodyReader, BodySink, IntoResponse, Limits, Method, Pull, Reply, Request, Response,
    Router, StatusCode, TestClient, TestResponse, sink,
};

use crate::app::{App, BodyLimits};
use crate::login::{OpenId, Platform, Refusal, user_of};
use crate::session::Token;

/// Explores worlds, on so many threads: what there is to say of them.
type Explore = fn(RangeInclusive<u64>, Option<usize>) -> Result<String, Failed>;

const APPS: [(&str, Explore); 3] = [
    ("service", |seeds, threads| requests(service(), seeds, threads)),
    ("mini-program", |seeds, threads| requests(mini_program(), seeds, threads)),
    // One thread does.
    ("rooms", |seeds, _threads| explore_rooms::run(seeds)),
];

/// A world in which something did not hold.
struct Failed {
    seed: u64,
    what: String,
    repeats: bool,
}

fn requests(
    exploration: Exploration<'_>,
    seeds: RangeInclusive<u64>,
    threads: Option<usize>,
) -> Result<String, Failed> {
    let exploration = match threads {
        Some(threads) => exploration.threads(threads),
        None => exploration,
    };
    let failed = |Failure { seed, what, repeats, .. }| Failed { seed, what, repeats };
    exploration.try_run(seeds).map(|report| report.to_string()).map_err(failed)
}

/// Bytes of a body, at most.
const BODY_BYTES_MAX: usize = 30_000;
/// Users of the mini-program, each with a session.
const USERS: u128 = 4;

struct Arguments {
    app: Option<String>,
    first: u64,
    seeds: u64,
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(wrong) => {
            eprintln!("explore: {wrong}");
            return ExitCode::from(2);
        }
    };
    let Arguments { app, first, seeds, threads } = arguments;
    for (name, explore) in APPS.iter().filter(|(name, _)| app.as_ref().is_none_or(|app| app == name)) {
        let begin = Instant::now();
        match explore(first..=first.saturating_add(seeds - 1), threads) {
            Ok(said) => println!("{name}: {said}, in {:.1} s", begin.elapsed().as_secs_f64()),
            Err(failure) => {
                println!("{name}: seed {}: {}", failure.seed, failure.what);
                match failure.repeats {
                    true => println!("again: cargo explore --app {name} --seed {}", failure.seed),
                    false => println!("not so when that world was run again: its seed does not decide it"),
                }
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn arguments() -> Result<Arguments, lexopt::Error> {
    let mut arguments = Arguments { app: None, first: 1, seeds: 1000, threads: None };
    let mut parser = lexopt::Parser::from_env();
    while let Some(option) = parser.next()? {
        match option {
            lexopt::Arg::Long("app") => {
                let name = parser.value()?.string()?;
                if APPS.iter().all(|(known, _)| *known != name) {
                    return Err(format!("--app {name}: it is service, mini-program or rooms").into());
                }
                arguments.app = Some(name);
            }
            lexopt::Arg::Long("seeds") => arguments.seeds = parser.value()?.parse()?,
            lexopt::Arg::Long("from") => arguments.first = parser.value()?.parse()?,
            lexopt::Arg::Long("seed") => {
                (arguments.first, arguments.seeds) = (parser.value()?.parse()?, 1);
            }
            lexopt::Arg::Long("threads") => arguments.threads = Some(parser.value()?.parse()?),
            other => return Err(other.unexpected()),
        }
    }
    if arguments.seeds == 0 {
        return Err("--seeds 0: at least one world is run".into());
    }
    Ok(arguments)
}

/// A handler of each kind.
fn service() -> Exploration<'static> {
    let path = |path: &str, n: usize| format!("/{path}/{n}");
    Exploration::new(serve)
        .ask(move |dice| {
            let n = dice.below(BODY_BYTES_MAX);
            Question::get(&path("text", n)).answered(200, n.to_string())
        })
        .ask(move |dice| {
            let n = dice.below(BODY_BYTES_MAX);
            Question::get(&path("large", n)).answered(200, vec![b'x'; n])
        })
        .ask(move |dice| {
            let n = dice.below(BODY_BYTES_MAX);
            Question::get(&path("stream", n)).answered(200, vec![b'x'; n])
        })
        .ask(move |dice| {
            let ms = dice.below(200);
            Question::get(&path("sleep", ms)).answered(200, ms.to_string())
        })
        .ask(move |_| Question::get(&path("sleep", 25_000)).answered(200, "25000"))
        .ask(move |dice| {
            let n = dice.below(10);
            Question::get(&path("tasks", n)).answered(200, (n * (n + 1) / 2).to_string())
        })
        .ask(move |dice| {
            let ms = dice.below(100);
            let expected = if ms < 50 { "in time" } else { "too late" };
            Question::get(&path("timeout", ms)).answered(200, expected)
        })
        .ask(|dice| {
            let body = body(dice);
            Question::post("/echo", body.clone()).answered(200, body)
        })
        .ask(|dice| {
            let (body, chunk) = (body(dice), 1 + dice.below(1500));
            Question::new(&Method::POST, "/echo").chunked(body.clone(), chunk).answered(200, body)
        })
        .ask(|dice| {
            let (body, chunk) = (body(dice), 1 + dice.below(1500));
            Question::new(&Method::POST, "/later").chunked(body.clone(), chunk).answered(200, body)
        })
        .ask(|dice| {
            let (body, chunk) = (body(dice), 1 + dice.below(1500));
            let path = ["/read", "/mirror", "/pour"][dice.below(3)];
            let question = Question::new(&Method::POST, path);
            let question = match dice.below(2) {
                0 => question.body(body.clone()),
                _ => question.chunked(body.clone(), chunk),
            };
            question.answered(200, body)
        })
        .ask(|_| Question::new(&Method::HEAD, "/text/7").answered(200, ""))
        .ask(|_| Question::get("/nowhere").status(404))
        .ask(|_| Question::post("/text/7", "a body that nobody reads").status(405))
        .ask(|_| Question::get("/text/7").header("Connection", "close").answered(200, "7"))
}

fn body(dice: &mut Dice) -> Vec<u8> {
    let bytes = dice.below(3000);
    dice.bytes(bytes)
}

fn serve(mut options: Options) -> TestClient {
    options.limits.write_high_bytes = 8 * 1024;
    options.limits.write_low_bytes = 2 * 1024;
    let mut limits = Limits::default();
    limits.requests_per_turn = Some(3);
    limits.body_buffer_bytes = 500;
    let router = |_: &netpoll_http::Worker| {
        Router::new()
            .get("/text/{n}", |req: &Request| req.param::<String>("n"))
            .get("/large/{n}", |req: &Request| Ok("x".repeat(req.param("n")?)))
            .get("/stream/{n}", |req: &Request| Ok(Response::text(Body::stream(letters(req.param("n")?)))))
            .get("/sleep/{ms}", async |req: Request| {
                let ms: u64 = req.param("ms")?;
                sleep(Duration::from_millis(ms)).await;
                Ok(ms.to_string())
            })
            .get("/tasks/{n}", async |req: Request| {
                let n: u64 = req.param("n")?;
                let sum = Rc::new(std::cell::Cell::new(0));
                let tasks: Vec<_> = (1..=n)
                    .map(|n| {
                        let sum = Rc::clone(&sum);
                        spawn_local(async move {
                            sleep(Duration::from_millis(20 - n)).await;
                            sum.set(sum.get() + n);
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await.map_err(netpoll_http::Error::internal)?;
                }
                Ok(sum.get().to_string())
            })
            .get("/timeout/{ms}", async |req: Request| {
                let ms: u64 = req.param("ms")?;
                let wait = async {
                    sleep(Duration::from_millis(ms)).await;
                    if ms >= 50 {
                        // Where the process stands still two times may be up at once, so it is never.
                        std::future::pending::<()>().await;
                    }
                };
                let in_time = timeout(Duration::from_millis(99), wait).await.is_ok();
                Ok(if in_time { "in time" } else { "too late" })
            })
            .post("/echo", |req: &Request, reply: Reply| reply.bytes(StatusCode::OK, "", req.body()))
            .post("/later", async |req: Request| {
                sleep(Duration::from_millis(3)).await;
                req.body_bytes()
            })
            .post("/read", async |_: Request, mut body: BodyReader| {
                let mut all = Vec::new();
                while let Some(chunk) = body.chunk().await? {
                    all.extend_from_slice(&chunk);
                    sleep(Duration::from_millis(chunk.len() as u64 % 3)).await;
                }
                Ok(all)
            })
            .post("/mirror", async |_: Request, body: BodyReader| Response::bytes(body))
            .post("/pour", sink(|_: &Request| Ok(Poured::default())))
    };
    netpoll_http::App::new(router).limits(limits).test_with(options)
}

/// A body that has come by callbacks.
#[derive(Default)]
struct Poured(Vec<u8>);

impl BodySink for Poured {
    fn chunk(&mut self, chunk: &[u8]) -> Result<(), netpoll_http::Error> {
        self.0.extend_from_slice(chunk);
        Ok(())
    }

    fn end(self, _: &Request<'_>) -> impl IntoResponse {
        self.0
    }
}

/// A body of so many letters, in pieces, which sometimes has to wait.
fn letters(mut left: usize) -> impl FnMut(&mut Context<'_>, &mut BodyBuf<'_>) -> Pull {
    move |context, out| {
        let piece = left.min(700);
        out.extend(&[b'x'; 700][..piece]);
        left -= piece;
        if left == 0 {
            return Pull::Done;
        }
        if left.is_multiple_of(3) {
            context.waker().wake_by_ref();
            return Pull::Wait;
        }
        Pull::More
    }
}

/// Answers in the time of the world.
struct Simulated;

impl Platform for Simulated {
    async fn exchange(&self, code: String) -> Result<OpenId, Refusal> {
        sleep(Duration::from_millis(code.len() as u64)).await;
        if code.ends_with(".busy") { Err(Refusal::Busy) } else { user_of(&code) }
    }
}

fn token(user: u128) -> String {
    format!("{user:032x}")
}

fn mini_program() -> Exploration<'static> {
    let served = |options| {
        let served = Arc::new(App::new(Simulated));
        for user in 0..USERS {
            let token = Token::parse(&token(user)).expect("a token of 32 digits");
            served.sessions.open(token, format!("openid-{user}").into(), Instant::now());
        }
        let limits = BodyLimits { echo_bytes_max: BODY_BYTES_MAX, upload_bytes_max: BODY_BYTES_MAX };
        let router = move |worker: &netpoll_http::Worker| app::router(&served, worker, None, limits);
        netpoll_http::App::new(router).test_with(options)
    };
    Exploration::new(served)
        .ask(|_| Question::get("/plaintext").answered(200, "Hello, World!"))
        .ask(|_| Question::get("/json").answered(200, r#"{"message":"Hello, World!"}"#))
        .ask(|_| Question::get("/").answered_if(|response| response.text().starts_with("<!doctype html>")))
        .ask(|_| {
            Question::get("/stats.json").answered_if(|response| response.text().contains("\"accepted\""))
        })
        .ask(|_| Question::get("/healthz").status(200))
        .ask(|_| Question::get("/chat/lobby").status(426))
        .ask(|dice| {
            let body = body(dice);
            Question::post("/echo", body.clone()).answered(200, body)
        })
        .ask(|dice| login(&format!("demo-ann.{}", dice.below(1000)), 200))
        .ask(|_| login("demo-ann.busy", 503))
        .ask(|_| login("somebody", 401))
        .ask(|dice| {
            let user = dice.below(USERS as usize) as u128;
            let expected = format!("{{\"openid\":\"openid-{user}\"");
            of(user, Question::get("/me")).answered_if(move |response| response.text().starts_with(&expected))
        })
        .ask(|_| Question::get("/me").status(401))
        .ask(|dice| {
            let (user, quantity) = (dice.below(USERS as usize) as u128, dice.below(120));
            let order = format!("{{\"item\":\"tea\",\"quantity\":{quantity}}}");
            let order = of(user, Question::post("/orders", order)).header("Content-Type", "application/json");
            order.status(if (1..=99).contains(&quantity) { 201 } else { 422 })
        })
        .ask(|dice| {
            let size = 1 + dice.below(20);
            of(0, Question::get(&format!("/orders?size={size}"))).status(200)
        })
        .ask(|dice| {
            let (user, bytes) = (dice.below(USERS as usize) as u128, dice.below(BODY_BYTES_MAX / 2));
            let mut form = b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n".to_vec();
            // No boundary is in it.
            form.extend(dice.bytes(bytes).iter().map(|byte| byte | 0x80));
            form.extend(b"\r\n--x--\r\n");
            let chunk = 1 + dice.below(1500);
            let upload = Question::new(&Method::POST, "/upload").chunked(form, chunk);
            let upload = upload.header("Content-Type", "multipart/form-data; boundary=x");
            let expected = format!("\"bytes\":{bytes}}}");
            of(user, upload).answered_if(move |response| response.text().ends_with(&expected))
        })
        .ask(|dice| {
            // In a drain a stream ends before it has said anything.
            let (user, seconds) = (dice.below(USERS as usize) as u128, 1 + dice.below(3));
            of(user, Question::get(&format!("/events?seconds={seconds}"))).answered_if(|response| {
                let text = response.text();
                response.status == 200 && (text.is_empty() || text.contains("\nevent: anew\n"))
            })
        })
        .ask(|dice| {
            let id = dice.below(20);
            of(1, Question::get(&format!("/orders/{id}")))
                .answered_if(|response| is_one_of(response, &[200, 404]))
        })
        .ask(|dice| {
            let cancel = Question::post(&format!("/orders/{}/cancel", dice.below(20)), "");
            of(1, cancel).answered_if(|response| is_one_of(response, &[200, 404, 409]))
        })
}

fn is_one_of(response: &TestResponse, statuses: &[u16]) -> bool {
    statuses.contains(&response.status.as_u16())
}

fn login(code: &str, status: u16) -> Question {
    let login = Question::post("/login", format!("{{\"code\":\"{code}\"}}"));
    login.header("Content-Type", "application/json").status(status)
}

/// As this user asks it.
fn of(user: u128, question: Question) -> Question {
    question.header("Authorization", &format!("Bearer {}", token(user)))
}
