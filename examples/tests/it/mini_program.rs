//! mini-program, started once for each story and asked for everything that it offers.

use std::process::Command;
use std::time::Instant;

use serde_json::json;

use crate::support::{Answer, PATIENCE, Program, run, send_request};

const JSON: &str = "Content-Type: application/json";

fn start(arguments: &[&str]) -> Program {
    let arguments = [&["--addr", "127.0.0.1:0"], arguments].concat();
    Program::start(env!("CARGO_BIN_EXE_mini-program"), &arguments)
}

/// Logs in and returns the header that says who one is.
fn log_in(program: &Program, code: &str) -> String {
    let answer = program.request("POST", "/login", &[JSON], &format!(r#"{{"code":"{code}"}}"#));
    assert_eq!(answer.status, 200, "{}", answer.body);
    format!("Authorization: Bearer {}", answer.json()["token"].as_str().unwrap())
}

#[test]
fn it_says_where_it_listens_and_the_lines_to_try_work_as_printed() {
    let mut program = start(&["--workers", "2", "--budget", "adaptive", "--wait", "hybrid"]);
    // What the tests are run on is what programs inherit.
    let backend = std::env::var("NETPOLL_BACKEND").unwrap_or_default();
    let backend = if backend.is_empty() { "epoll" } else { &backend };
    // Where workers have no CPU to spare, hybrid waiting becomes blocking, and the line says so.
    let listens = |wait: &str| {
        let addr = &program.addr;
        format!(
            "mini-program listens on http://{addr} (2 workers, budget adaptive, wait {wait}, backend {backend})\n"
        )
    };
    assert!([listens("hybrid"), listens("block")].contains(&program.printed), "{}", program.printed);
    program.line();

    let mut token = String::new();
    for expected in
        [r#"{"message":"Hello, World!"}"#, r#""openid":"openid-ann""#, "event: anew", r#""bytes":"#]
    {
        let mut line = program.line();
        if line.starts_with("With the token") {
            line = program.line();
        }
        assert!(line.trim_start().starts_with("curl "), "{line}");
        // A stream ends when its reader has had enough.
        let line = line.replace("TOKEN", &token).replace("/events'", "/events?seconds=1'");
        let (code, output, errors) = run(Command::new("sh").args(["-c", &line]));
        if code == Some(127) {
            eprintln!("no curl on this machine: {line} was not tried");
            continue;
        }
        assert_eq!(code, Some(0), "{errors}");
        assert!(output.contains(expected), "{output}");
        if let Some((_, rest)) = output.split_once(r#""token":""#) {
            token = rest.split('"').next().unwrap().to_owned();
        }
    }

    let page = program.line();
    assert_eq!(page, format!("Two tabs talk to each other at http://{}/chat\n", program.addr));

    let (printed, status) = program.terminate();
    assert!(status.success());
    assert!(printed.starts_with("drained ") && printed.contains("requests; per request: "), "{printed}");
}

#[test]
fn the_plain_endpoints_answer() {
    let program = start(&["--workers", "1", "--body-bytes-max", "100"]);
    let plain = program.get("/plaintext");
    assert_eq!(plain.said(), (200, "Hello, World!"));
    assert_eq!(plain.header("content-type"), Some("text/plain"));
    let json = program.get("/json");
    assert_eq!(json.said(), (200, r#"{"message":"Hello, World!"}"#));
    assert_eq!(json.header("content-type"), Some("application/json"));
    assert_eq!(program.get("/healthz").said(), (200, "ok\n"));
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        assert_eq!(program.request(method, "/echo", &[], "back").said(), (200, "back"), "{method}");
    }
    assert_eq!(program.request("POST", "/echo", &[], &"x".repeat(101)).status, 413);
    assert_eq!(program.get("/nowhere").status, 404);
    assert_eq!(program.request("DELETE", "/orders", &[], "").header("allow"), Some("POST, GET, HEAD"));
    assert!(program.terminate().1.success());
}

#[test]
fn a_code_becomes_a_session_once_and_other_codes_are_refused_with_a_reason() {
    let program = start(&["--workers", "2"]);
    let login = |body: &str| program.request("POST", "/login", &[JSON], body);

    let answer = login(r#"{"code":"demo-ann"}"#);
    let session = answer.json();
    assert_eq!((answer.status, &session["openid"]), (200, &json!("openid-ann")));
    let token = session["token"].as_str().unwrap();
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.starts_with(&format!("session={token};")) && cookie.contains("HttpOnly"), "{cookie}");
    let cookie = format!("Cookie: session={token}");
    for others in
        [&["Authorization: Basic YTpi"][..], &["Authorization: Digest x", "authorization: basic YTpi"], &[]]
    {
        let headers = [others, &[&*cookie]].concat();
        assert_eq!(program.request("GET", "/me", &headers, "").status, 200, "{others:?} is not for us");
    }
    let wrong = ["Authorization: Bearer 00", &*cookie];
    assert_eq!(program.request("GET", "/me", &wrong, "").status, 401, "this one is");

    let again = login(r#"{"code":"demo-ann"}"#);
    assert!(again.status == 401 && again.body.contains("codes work once"), "{}", again.body);
    let unknown = login(r#"{"code":"ann"}"#);
    assert!(unknown.status == 401 && unknown.body.contains("demo-NAME"), "{}", unknown.body);
    let other = login(r#"{"code":"demo-ann.2"}"#).json();
    assert!(other["openid"] == "openid-ann" && other["token"] != session["token"], "{other}");
    assert_eq!(login("{}").status, 400);
    assert!(login("{}").body.contains("`code`"));
    assert_eq!(program.request("POST", "/login", &[], "{}").status, 415);

    for header in [format!("Authorization: Bearer {token}"), format!("Cookie: a=b; session={token}")] {
        let me = program.request("GET", "/me", &[&header], "");
        assert_eq!((me.status, &me.json()["openid"]), (200, &json!("openid-ann")), "{header}");
    }
    for header in
        ["X-Nothing: 1", "Authorization: Basic YTpi", "Authorization: Bearer 00", "Cookie: session=x"]
    {
        let me = program.request("GET", "/me", &[header], "");
        assert_eq!((me.status, me.header("www-authenticate")), (401, Some("Bearer")), "{header}");
        assert!(me.body.contains("log in"), "{}", me.body);
    }
    assert!(program.terminate().1.success());
}

#[test]
fn orders_are_made_listed_shown_and_cancelled_by_their_owner_only() {
    let program = start(&["--workers", "2"]);
    let (ann, ben) = (log_in(&program, "demo-ann"), log_in(&program, "demo-ben"));
    let order = |body: &str| program.request("POST", "/orders", &[JSON, &ann], body);
    let get = |who: &str, target: &str| program.request("GET", target, &[who], "");

    let made = order(r#"{"item":"tea","quantity":2,"note":"hot"}"#);
    assert_eq!((made.status, made.header("location")), (201, Some("/orders/1")));
    let shown = get(&ann, "/orders/1");
    assert_eq!(shown.said(), (200, made.body.as_str()));
    let tea = shown.json();
    assert_eq!((&tea["item"], &tea["quantity"], &tea["status"]), (&json!("tea"), &json!(2), &json!("open")));

    for number in 2..=25 {
        assert_eq!(order(&format!(r#"{{"item":"cup {number}","quantity":1}}"#)).status, 201);
    }
    let page = get(&ann, "/orders").json();
    assert_eq!((&page["total"], &page["page"], &page["size"]), (&json!(25), &json!(1), &json!(20)));
    assert_eq!((page["orders"].as_array().unwrap().len(), &page["orders"][0]["id"]), (20, &json!(25)));
    let last = get(&ann, "/orders?page=3&size=10").json();
    assert_eq!((last["orders"].as_array().unwrap().len(), &last["orders"][4]["id"]), (5, &json!(1)));
    for (query, named) in
        [("page=0", "`page`"), ("size=101", "`size`"), ("size=0", "`size`"), ("page=x", "`page`")]
    {
        let refused = get(&ann, &format!("/orders?{query}"));
        assert!(refused.status == 400 && refused.body.contains(named), "{query}: {}", refused.body);
    }
    let refused = order(r#"{"item":"tea","quantity":100}"#);
    assert_eq!(refused.said(), (422, "quantity: must be from 1 to 99, is 100\n"));

    let cancel = |who: &str| program.request("POST", "/orders/1/cancel", &[who], "");
    assert_eq!(get(&ben, "/orders/1").said(), (404, "you have no order 1\n"));
    assert_eq!(cancel(&ben).status, 404);
    assert_eq!(get(&ben, "/orders").json()["total"], json!(0));
    assert_eq!(cancel(&ann).json()["status"], json!("cancelled"));
    assert_eq!(cancel(&ann).said(), (409, "order 1 is cancelled already\n"));
    assert_eq!(get(&ann, "/orders/1").json()["status"], json!("cancelled"));
    assert_eq!(get(&ann, "/orders/99").status, 404);
    assert_eq!(get(&ann, "/orders/x").status, 400);
    assert_eq!(get("X-Nobody: 1", "/orders").status, 401);
    assert!(program.terminate().1.success());
}

#[test]
fn the_ledger_counts_and_its_keys_are_those_that_the_benches_read() {
    let program = start(&["--workers", "1", "--budget", "64"]);
    let mut stream = program.connect();
    for _ in 0..100 {
        send_request(&mut stream, "GET", "/plaintext", &[], "");
        assert_eq!(Answer::read(&mut stream).status, 200);
    }
    send_request(&mut stream, "GET", "/stats", &[], "");
    let answer = Answer::read(&mut stream);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let stats = answer.json();
    let figure = |name: &str| stats[name].as_u64().unwrap_or_else(|| panic!("no {name} in {stats}"));
    assert!((100..=101).contains(&figure("requests")), "{}", figure("requests"));
    assert_eq!(figure("accepted"), 1);
    // A ring receives, sends and waits in one, and registers nothing.
    let is_ring = program.printed.contains("backend uring");
    let (least, registered) = if is_ring { (100, 0) } else { (300, 1) };
    assert!(figure("syscalls_total") >= least && figure("syscalls_ctl") >= registered, "{stats}");
    assert!(stats["syscalls_per_request"].as_f64().unwrap() < 4.0);
    assert_eq!(stats["per_worker"].as_array().unwrap().len(), 1);
    assert_eq!(stats["per_worker"][0]["accepted"], stats["accepted"]);

    let accept = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let page = program.request("GET", "/stats", &[accept], "");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.body.contains("syscalls_total"), "{}", page.body);
    let always = program.request("GET", "/stats.json", &[accept], "");
    assert_eq!(always.header("content-type"), Some("application/json"));
    assert!(
        always.json()["requests"].as_u64() >= Some(101)
            && always.json()["uptime_seconds"].as_f64() >= Some(0.0)
    );
    let (printed, status) = program.terminate();
    assert!(status.success() && printed.contains("103 requests"), "{printed}");
}

#[test]
fn an_address_over_its_limit_is_told_to_come_back_later() {
    let program = start(&["--rate-limit", "2", "--handler-timeout", "5"]);
    let statuses = [(); 4].map(|()| program.request("GET", "/healthz", &[], "").status);
    assert_eq!((statuses[0], statuses[3]), (200, 429), "{statuses:?}");
}

#[test]
fn with_nobody_left_it_ends_at_once_however_long_a_drain_may_take() {
    let program = start(&["--workers", "2", "--drain", "60"]);
    let mut idle = program.connect();
    send_request(&mut idle, "GET", "/healthz", &[], "");
    assert_eq!(Answer::read(&mut idle).status, 200);
    let began = Instant::now();

    let (printed, status) = program.terminate();

    assert!(began.elapsed() < PATIENCE, "{printed}");
    assert!(status.success() && printed.contains("drained 1 connections in "), "{printed}");
}

#[test]
fn at_rest_it_is_small() {
    let program = start(&["--workers", "1"]);
    assert_eq!(program.get("/healthz").status, 200);
    let resident = program.own_resident_bytes();
    assert!(resident <= 1 << 20, "{resident} bytes");
    assert!(program.terminate().1.success());
}

#[test]
fn processes_share_a_port_if_all_of_them_say_so() {
    let first = start(&["--workers", "1", "--share-port"]);
    let addr = first.addr.to_string();
    let at_the_same = ["--addr", &addr, "--workers", "1"];
    let program = env!("CARGO_BIN_EXE_mini-program");
    let (code, _, said) = run(Command::new(program).args(at_the_same));
    assert_eq!(code, Some(1), "without the option the port is taken: {said}");

    let second = Program::start(program, &[&at_the_same[..], &["--share-port"]].concat());
    assert_eq!(second.addr, first.addr);
    assert!(first.terminate().1.success());
    assert_eq!(second.get("/healthz").said(), (200, "ok\n"), "it goes on alone");
    let (printed, _) = second.terminate();
    assert!(printed.contains("\n1 connections accepted, 0 turned away\n"), "{printed}");
}
