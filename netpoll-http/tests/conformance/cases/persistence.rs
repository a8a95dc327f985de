//! Whether the connection stays, several requests on it, and upgrades.

use super::{Case, Level, case, each, head, ok, refused, rows, status};

rows! {
    Must connection_close_is_honoured_wherever_it_stands "9112 9.6",
    Ours what_only_looks_like_close_is_not "9110 7.6.1",
    Must http_1_0_closes_unless_keep_alive_is_asked_for "9112 9.3",
    Must pipelined_requests_are_answered_in_order "9112 9.3.2",
    Must behind_an_error_nothing_is_served "9112 9.3.2",
    Ours an_upgrade_that_nobody_accepts_is_ignored "9110 7.8",
    Ours an_expectation_other_than_100_continue_is_417 "9110 10.1.1",
    Ours expectations_are_a_list "9110 5.3, 5.6.1.2",
    Must an_expectation_in_http_1_0_is_ignored "9110 10.1.1",
    Must a_body_that_came_along_needs_no_100 "9110 10.1.1",
    Must head_is_answered_without_a_body "9110 9.3.2",
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n";

pub fn connection_close_is_honoured_wherever_it_stands() -> Vec<Case> {
    let mut cases = each(
        GET,
        [
            b"Connection: close\r\n",
            b"Connection: Close\r\n",
            b"connection: CLOSE\r\n",
            b"Connection:close\r\n",
            b"Connection: close \t\r\n",
            b"Connection: keep-alive, close\r\n",
            b"Connection: close, keep-alive\r\n",
            b"Connection: x,close,y\r\n",
            b"Connection: ,close\r\n",
            b"Connection: close,\r\n",
            b"Connection: x\t,\tclose\r\n",
            b"Connection: keep-alive\r\nConnection: close\r\n",
            b"Connection: close\r\nConnection: keep-alive\r\n",
            b"Connection: upgrade, close\r\nUpgrade: websocket\r\n",
            b"Connection: x\r\nY: z\r\nCONNECTION: Close\r\n",
        ],
        "\r\n",
        &ok("hello").closed(),
    );
    cases.push(case(
        "with a body",
        "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
        ok("hi").closed(),
    ));
    cases.push(case("with chunks",
        "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", ok("hi").closed()));
    cases.push(case(
        "without a route",
        "GET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        refused(404),
    ));
    cases.push(case(
        "with HEAD",
        "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        head(200).closed(),
    ));
    cases
}

pub fn what_only_looks_like_close_is_not() -> Vec<Case> {
    each(
        GET,
        [
            b"Connection: closed\r\n",
            b"Connection: xclose\r\n",
            b"Connection: close-x\r\n",
            b"Connection: \"close\"\r\n",
            b"Connection: clo se\r\n",
            b"Connection: keep-alive\r\n",
            b"Connection: \r\n",
            b"Connection: ,\r\n",
            b"Keep-Alive: close\r\n",
            b"Proxy-Connection: close\r\n",
            b"Connection: close=1\r\n",
        ],
        "\r\n",
        &ok("hello"),
    )
}

pub fn http_1_0_closes_unless_keep_alive_is_asked_for() -> Vec<Case> {
    let get = |lines: &str| format!("GET / HTTP/1.0\r\n{lines}\r\n");
    vec![
        case("not asked for", get(""), ok("hello").closed()),
        case("asked for", get("Connection: keep-alive\r\n"), ok("hello")).at(Level::Ours),
        case("asked for in other letters", get("connection: Keep-Alive\r\n"), ok("hello")).at(Level::Ours),
        case("asked for in a list", get("Connection: x, keep-alive\r\n"), ok("hello")).at(Level::Ours),
        case("asked for, but closed", get("Connection: keep-alive, close\r\n"), ok("hello").closed()),
        case("Keep-Alive is another header", get("Keep-Alive: timeout=5\r\n"), ok("hello").closed()),
        case("Proxy-Connection too", get("Proxy-Connection: keep-alive\r\n"), ok("hello").closed()),
        case(
            "with a body",
            "POST /echo HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
            ok("hi"),
        )
        .at(Level::Ours),
        case("an error", "GET /nowhere HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", status(404))
            .at(Level::Ours),
        case("an error, not asked for", "GET /nowhere HTTP/1.0\r\n\r\n", refused(404)),
    ]
}

pub fn pipelined_requests_are_answered_in_order() -> Vec<Case> {
    let post = "POST /echo HTTP/1.1\r\nHost: a\r\n";
    let mixed = format!(
        "{GET}\r\n{post}Content-Length: 2\r\n\r\nhi{post}Transfer-Encoding: chunked\r\n\r\n2\r\nho\r\n0\r\n\r\n\
         HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: a\r\n\r\nGET /path/a HTTP/1.1\r\nHost: a\r\n\r\n"
    );
    let order = ok("hello").and(ok("hi")).and(ok("ho")).and(head(200)).and(status(404)).and(ok("/path/a"));
    let many: String = (0..40).map(|n| format!("GET /path/{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    let counted = (1..40).map(|n| ok(format!("/path/{n}"))).fold(ok("/path/0"), |all, next| all.and(next));
    vec![case("of all kinds", mixed, order), case("forty", many, counted)]
}

pub fn behind_an_error_nothing_is_served() -> Vec<Case> {
    let bad = [
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhix\r\n0\r\n\r\n",
    ];
    let codes = [400, 400, 505, 400];
    let mut cases = Vec::new();
    for (bad, code) in bad.into_iter().zip(codes) {
        let expect = ok("hello").and(ok("hello")).and(refused(code));
        let refused = case(bad.escape_default().to_string(), format!("{GET}\r\n{GET}\r\n{bad}"), expect);
        cases.push(match code {
            // Another version may be served, and a request without Host spoils nothing but itself.
            505 => refused.at(Level::Ours),
            _ if !bad.contains("Host") => refused.or(ok("hello").and(ok("hello")).and(status(400))),
            _ => refused,
        });
        let close = format!("{GET}\r\n{GET}Connection: close\r\n\r\n{bad}");
        cases.push(case(
            format!("never seen behind a close: {}", bad.escape_default()),
            close,
            ok("hello").and(ok("hello").closed()),
        ));
    }
    cases
}

pub fn an_upgrade_that_nobody_accepts_is_ignored() -> Vec<Case> {
    let mut cases = each(
        GET,
        [
            b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
            b"Connection: upgrade\r\nUpgrade: TLS/1.2\r\n", b"Upgrade: websocket\r\n", b"Connection: upgrade\r\n",
            b"Connection: Upgrade\r\nUpgrade: HTTP/2.0, SHTTP/1.3, IRC/6.9, RTA/x11\r\n", b"Connection: Upgrade\r\nUpgrade: \r\n",
        ],
        "\r\n",
        &ok("hello"),
    );
    cases.push(
        case(
            "in HTTP/1.0",
            "GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            ok("hello").closed(),
        )
        .at(Level::Must),
    );
    cases.push(case("with a body",
        "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi", ok("hi")));
    cases
}

pub fn an_expectation_other_than_100_continue_is_417() -> Vec<Case> {
    let mut cases = each(
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: ",
        [b"100", b"200-ok", b"100-continue, more", b"100-continue=1", b"\"100-continue\"", b"continue"],
        "\r\n\r\nhi",
        &refused(417),
    );
    cases.push(case("in a GET", format!("{GET}Expect: more\r\n\r\n"), refused(417)));
    cases
}

pub fn expectations_are_a_list() -> Vec<Case> {
    let post = |lines: &str, expect| {
        let request = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n{lines}\r\nhi");
        case(lines.escape_default().to_string(), request, expect)
    };
    vec![
        post("Expect: 100-continue, 100-continue\r\n", ok("hi")),
        post("Expect: 100-continue,\r\n", ok("hi")),
        post("Expect: , ,100-Continue\r\n", ok("hi")),
        post("Expect: 100-continue\r\nExpect: 100-continue\r\n", ok("hi")),
        post("Expect:\r\n", ok("hi")),
        post("Expect: ,\r\nExpect: 100-continue\r\n", ok("hi")),
        post("Expect: 100-continue\r\nExpect: more\r\n", refused(417)),
        post("Expect: 100-continue,, more\r\n", refused(417)),
    ]
}

pub fn an_expectation_in_http_1_0_is_ignored() -> Vec<Case> {
    let post = "POST /echo HTTP/1.0\r\nContent-Length: 2\r\n";
    vec![
        case("100-continue", format!("{post}Expect: 100-continue\r\n\r\nhi"), ok("hi").closed()),
        case("another", format!("{post}Expect: more\r\n\r\nhi"), ok("hi").closed()).at(Level::Ours),
        case(
            "with keep-alive",
            format!("{post}Connection: keep-alive\r\nExpect: 100-continue\r\n\r\nhi"),
            ok("hi"),
        ),
    ]
}

pub fn a_body_that_came_along_needs_no_100() -> Vec<Case> {
    let post = "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n";
    vec![
        case("a length", format!("{post}Content-Length: 2\r\n\r\nhi"), ok("hi")),
        case("chunks", format!("{post}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"), ok("hi")),
        case("no body", format!("{post}\r\n"), ok("")),
        case("a length of zero", format!("{post}Content-Length: 0\r\n\r\n"), ok("")),
        case("a GET", format!("{GET}Expect: 100-continue\r\n\r\n"), ok("hello")),
    ]
}

pub fn head_is_answered_without_a_body() -> Vec<Case> {
    let of = |target: &str| format!("HEAD {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    vec![
        case("of a text", of("/"), head(200)),
        case("of nothing", of("/nowhere"), head(404)),
        case("twice", of("/").repeat(2), head(200).and(head(200))),
        case("in HTTP/1.0", "HEAD / HTTP/1.0\r\n\r\n", head(200).closed()),
        case("refused for its head", "HEAD / HTTP/1.1\r\nHost : a\r\n\r\n", head(400).closed()),
        case(
            "refused for its body",
            "HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 3\r\n\r\nhi",
            head(400).closed(),
        ),
        case("refused behind an empty line", "\r\nHEAD * HTTP/1.1\r\nHost: a\r\n\r\n", head(400).closed())
            .at(Level::Ours),
    ]
}
