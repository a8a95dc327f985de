//! Runs cases, whole and in pieces, and reports all that fail, not only the first.

use std::net::SocketAddr;
use std::sync::OnceLock;

use netpoll_http::Worker;

use crate::answer::Answer;
use crate::cases::{self, CANARY, Case, Expect, Then};
use crate::fixture;
use crate::target::{End, Memory, Outcome, Target, Tcp};
use crate::transport::{Running, Server};
use crate::verdict::judge;

/// Requests up to this size are cut at every byte; longer ones near their ends and now and then between.
const CUT_EVERYWHERE_MAX: usize = 600;
/// Requests up to this size are also sent byte by byte.
const DRIPPED_MAX: usize = 20_000;

/// Runs the cases in memory, where pieces cost nothing and the clock stands still.
pub fn in_memory(cases: &[Case]) {
    let failures = cases.iter().filter_map(|case| fails_in_memory(case).map(|why| failure(case, &why)));
    report(cases, failures.collect());
}

/// Runs the cases over a socket: whole, in two halves, and byte by byte if they are short.
pub fn over_tcp(cases: &[Case]) {
    let target = Tcp { addr: addr() };
    let failures =
        cases.iter().filter_map(|case| fails_over_tcp(&target, case).map(|why| failure(case, &why)));
    report(cases, failures.collect());
}

fn fails_in_memory(case: &Case) -> Option<String> {
    let whole = Memory.exchange(&[&case.request, CANARY]);
    if let Err(why) = judge(&case.expect, &whole) {
        return Some(why);
    }
    let joined = [&case.request, CANARY].concat();
    let in_one = Memory.exchange(&[&joined]);
    if let Some(why) = differs(&case.expect, &whole, &in_one) {
        return Some(format!("with the canary in the same packet: {why}"));
    }
    for at in cuts(case.request.len()) {
        let (left, right) = joined.split_at(at);
        if let Some(why) = differs(&case.expect, &whole, &Memory.exchange(&[left, right])) {
            return Some(format!("cut behind {at} bytes: {why}"));
        }
    }
    if case.request.len() <= DRIPPED_MAX {
        let drips: Vec<&[u8]> = joined.chunks(1).collect();
        if let Some(why) = differs(&case.expect, &whole, &Memory.exchange(&drips)) {
            return Some(format!("byte by byte: {why}"));
        }
    }
    if let Some(at) = waits_for_more(case) {
        return Some(format!(
            "sent up to byte {at} and then the rest of it, it waits for more than the request"
        ));
    }
    fails_behind_another(case).map(|why| format!("behind another request: {why}"))
}

/// A refusal does not wait for bytes behind the request, so that it does not come with the deadline only.
fn waits_for_more(case: &Case) -> Option<usize> {
    if case.expect.then != Then::Closed {
        return None;
    }
    let len = case.request.len();
    cuts(len).into_iter().chain([len]).find(|at| {
        let (left, right) = case.request.split_at(*at);
        // A reset is an end as well, where bytes come behind a client's last word.
        !matches!(Memory.exchange(&[left, right]).end, End::Closed | End::Reset)
    })
}

/// A request behind a good one in the same packet gets the same answer.
fn fails_behind_another(case: &Case) -> Option<String> {
    const FIRST: &[u8] = b"GET /path/first HTTP/1.1\r\nHost: a\r\n\r\n";
    let expect = cases::ok("/path/first").and(case.expect.clone());
    let outcome = Memory.exchange(&[&[FIRST, &case.request, CANARY].concat()]);
    judge(&expect, &outcome).err()
}

/// What is wrong with the answers to pieces. They have to be those to the whole, byte for byte, but for two
/// things: a 100 may come in between, because the body is not there yet, and a refusal may name another
/// of several things that are wrong.
fn differs(expect: &Expect, whole: &Outcome, pieces: &Outcome) -> Option<String> {
    match (accepted(expect, whole), accepted(expect, pieces)) {
        (Ok(left), Ok(right)) => (left != right).then(|| "the answer is not the same to the byte".into()),
        (_, Err(why)) | (Err(why), _) => Some(why),
    }
}

/// The bytes of every answer that is not a refusal, or what is wrong with the outcome.
fn accepted<'a>(expect: &Expect, outcome: &'a Outcome) -> Result<Vec<&'a [u8]>, String> {
    let answers = judge(expect, outcome)?;
    let is_refusal = |answer: &Answer| answer.status >= 400 && answer.says_close();
    Ok(answers
        .iter()
        .filter(|answer| !is_refusal(answer))
        .map(|answer| &outcome.bytes[answer.range.clone()])
        .collect())
}

fn cuts(len: usize) -> Vec<usize> {
    if len <= CUT_EVERYWHERE_MAX {
        return (1..len).collect();
    }
    let stride = len / 64;
    (1..len).filter(|at| *at < 100 || len - at < 40 || at % stride == 0).collect()
}

fn fails_over_tcp(target: &Tcp, case: &Case) -> Option<String> {
    let joined = [&case.request, CANARY].concat();
    if let Err(why) = judge(&case.expect, &target.exchange(&[&joined])) {
        return Some(why);
    }
    let (left, right) = joined.split_at(case.request.len() / 2);
    if let Err(why) = judge(&case.expect, &target.exchange(&[left, right])) {
        return Some(format!("in two halves: {why}"));
    }
    if case.request.len() <= 100 {
        let drips: Vec<&[u8]> = joined.chunks(1).collect();
        if let Err(why) = judge(&case.expect, &target.exchange(&drips)) {
            return Some(format!("byte by byte: {why}"));
        }
    }
    None
}

fn failure(case: &Case, why: &str) -> String {
    let shown = &case.request[..case.request.len().min(200)];
    format!("- {}: {why}\n  {}", case.name, shown.escape_ascii())
}

fn report(cases: &[Case], failures: Vec<String>) {
    assert!(
        failures.is_empty(),
        "{} of {} cases fail:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}

/// The one server over which all tests run; it lives as long as the process.
pub fn addr() -> SocketAddr {
    static SERVER: OnceLock<Running> = OnceLock::new();
    let start = || {
        let server = Server::bind("127.0.0.1:0").expect("an address").workers(2);
        server.app(|_: &Worker| fixture::router()).start().expect("a free port")
    };
    SERVER.get_or_init(start).addr().as_socket_addr().expect("a port")
}
