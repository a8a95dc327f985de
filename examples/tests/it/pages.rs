//! The pages of mini-program are static, ask nobody else for anything, and are sent once to who keeps them.

use std::io::{Read, Write};

use crate::support::{Answer, Program};

const BROWSER: &str = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

fn start(arguments: &[&str]) -> Program {
    let arguments = [&["--addr", "127.0.0.1:0", "--workers", "1"], arguments].concat();
    Program::start(env!("CARGO_BIN_EXE_mini-program"), &arguments)
}

fn page(program: &Program, path: &str) -> Answer {
    let page = program.request("GET", path, &[BROWSER], "");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")), "{path}");
    page
}

/// The head of an answer that has no body, whatever its length says.
fn head(program: &Program, request: &str) -> String {
    let mut stream = program.connect();
    stream.write_all(format!("{request}\r\nHost: test\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut head = String::new();
    stream.read_to_string(&mut head).unwrap();
    assert!(head.ends_with("\r\n\r\n"), "nothing behind the head: {head}");
    head
}

#[test]
fn a_browser_that_has_a_page_is_told_so_and_is_sent_nothing() {
    let program = start(&[]);
    for path in ["/", "/stats", "/chat"] {
        let tag = page(&program, path).header("etag").unwrap().to_owned();
        assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
        for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
            let answer =
                head(&program, &format!("GET {path} HTTP/1.1\r\n{BROWSER}\r\nIf-None-Match: {known}"));
            assert!(answer.starts_with("HTTP/1.1 304 ") && answer.contains(&tag), "{known}: {answer}");
        }
        let changed = program.request("GET", path, &[BROWSER, "If-None-Match: \"other\""], "");
        assert_eq!((changed.status, changed.header("etag")), (200, Some(&*tag)));
        let head = head(&program, &format!("HEAD {path} HTTP/1.1\r\n{BROWSER}"));
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains(&tag), "{head}");
    }
    assert!(program.terminate().1.success());
}

#[test]
fn a_page_runs_nothing_but_its_own_script_and_is_asked_about_each_time() {
    let program = start(&[]);
    for path in ["/", "/stats", "/chat"] {
        let page = page(&program, path);
        let policy = page.header("content-security-policy").unwrap();
        for rule in
            ["default-src 'none'", "script-src 'sha256-", "style-src 'sha256-", "frame-ancestors 'none'"]
        {
            assert!(policy.contains(rule), "{policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        assert_eq!(page.header("cache-control"), Some("no-cache"));
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    }
    assert!(program.terminate().1.success());
}

#[test]
fn counters_are_json_for_whoever_does_not_ask_for_a_page() {
    let program = start(&[]);
    for accept in ["X-Nothing: 1", "Accept: */*", "Accept: application/json"] {
        let answer = program.request("GET", "/stats", &[accept], "");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{accept}");
        let said = [answer.header("cache-control"), answer.header("vary")];
        assert_eq!(said, [Some("no-store"), Some("accept")], "{accept}");
    }
    assert_eq!(page(&program, "/stats").header("vary"), Some("accept"));
    let json = program.request("GET", "/stats.json", &[BROWSER], "");
    assert_eq!(json.header("content-type"), Some("application/json"));
    assert!(program.terminate().1.success());
}

#[test]
fn every_error_is_a_line() {
    let program = start(&["--body-bytes-max", "100"]);
    let json = "Content-Type: application/json";
    let long = "x".repeat(101);
    for (method, path, header, body, status) in [
        ("GET", "/nowhere", "X-Nothing: 1", "", 404),
        ("DELETE", "/", "X-Nothing: 1", "", 405),
        ("POST", "/login", "X-Nothing: 1", "{}", 415),
        ("POST", "/login", json, "{", 400),
        ("POST", "/login", json, r#"{"code":"ann"}"#, 401),
        ("POST", "/echo", "X-Nothing: 1", &long, 413),
        ("GET", "/me", "X-Nothing: 1", "", 401),
        ("GET", "/me", "not a header", "", 400),
    ] {
        let answer = program.request(method, path, &[header], body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        let line = answer.body.strip_suffix('\n').unwrap_or_else(|| panic!("{path}: {:?}", answer.body));
        assert!(!line.is_empty() && !line.contains('\n'), "{line:?}");
    }
    assert!(program.terminate().1.success());
}
