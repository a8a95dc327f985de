//! The opening handshake.

use super::{Case, Expect, Opening, served};
use crate::exchange::KEY;
use crate::wire::{self, Message};

const SECTION: &str = "opening";

/// The lines of a good one, to be changed.
fn request(line: &str, fields: &[(&str, &str)]) -> String {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{line}\r\n{fields}\r\n")
}

const LINE: &str = "GET {path} HTTP/1.1";

fn good() -> Vec<(&'static str, &'static str)> {
    vec![
        ("Host", "{host}"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
    ]
}

/// A good one with another value for a field, with the field twice, or without it.
fn changed(name: &str, values: &[&'static str]) -> String {
    let mut fields = Vec::new();
    for (known, value) in good() {
        if known == name {
            fields.extend(values.iter().map(|value| (known, *value)));
        } else {
            fields.push((known, value));
        }
    }
    request(LINE, &fields)
}

pub fn cases() -> Vec<Case> {
    [accepted(), refused(), versions()].concat()
}

fn accepted() -> Vec<Case> {
    let ok = |basis, name: &str, text: String| Case::new(SECTION, basis, name, Expect::Opened).raw(text);
    let with = |basis, name: &str, lines: &str| {
        Case::new(SECTION, basis, name, Expect::Opened).opening(Opening::With(lines.to_owned()))
    };
    let mut cases = vec![
        Case::new(SECTION, "6455 4.2.2", "a good one", Expect::Opened),
        Case::new(SECTION, "9112 2.2", "byte by byte", Expect::Opened).opening(Opening::Dripped),
        with("6455 4.2.2", "an extension that nobody knows", "Sec-WebSocket-Extensions: x-unknown; a=1\r\n"),
        with(
            "6455 4.2.2",
            "a subprotocol that nobody knows",
            "Sec-WebSocket-Protocol: x-unknown, x-other\r\n",
        ),
        with("9110 5.1", "a header that nobody knows", "X-Unknown: 1\r\n"),
        with("6455 10.2", "an origin", "Origin: http://127.0.0.1\r\n"),
        with("6455 4.2.1", "cookies", "Cookie: a=b\r\n"),
    ];
    for value in ["WebSocket", "WEBSOCKET", "foo, websocket", "websocket, foo", "foo/1, WebSocket"] {
        cases.push(ok("6455 4.2.1, 9110 7.8", &format!("Upgrade: {value}"), changed("Upgrade", &[value])));
    }
    for value in [
        "upgrade",
        "UPGRADE",
        "keep-alive, Upgrade",
        "Upgrade, keep-alive",
        "keep-alive,\tUpgrade",
        ",Upgrade,",
    ] {
        let name = format!("Connection: {}", value.escape_debug());
        cases.push(ok("6455 4.2.1, 9110 5.6.1", &name, changed("Connection", &[value])));
    }
    cases.push(ok("9110 5.3", "two Connection lines", changed("Connection", &["keep-alive", "Upgrade"])));
    cases.push(ok("9110 5.3", "two Upgrade lines", changed("Upgrade", &["foo", "websocket"])));
    cases.push(ok(
        "9110 5.1",
        "names of fields in capitals",
        request(LINE, &good())
            .replace("Sec-WebSocket-Key", "SEC-WEBSOCKET-KEY")
            .replace("Upgrade:", "UPGRADE:"),
    ));
    cases.push(ok(
        "9110 5.1",
        "names of fields in small letters",
        request(LINE, &good())
            .replace("Sec-WebSocket-Version", "sec-websocket-version")
            .replace("Host", "host"),
    ));
    cases.push(ok(
        "9110 5.5",
        "spaces around the key",
        changed("Sec-WebSocket-Key", &["  dGhlIHNhbXBsZSBub25jZQ==\t "]),
    ));
    cases.push(ok("9110 5.5", "spaces around the version", changed("Sec-WebSocket-Version", &[" 13 "])));
    for frame in [wire::frame(wire::TEXT, b"early"), wire::frame(wire::TEXT, &[b'x'; 2000])] {
        let name = format!("a message of {} bytes in the same segment", frame.len());
        let text = if frame.len() < 100 { b"early".to_vec() } else { vec![b'x'; 2000] };
        cases.push(
            Case::new(SECTION, "6455 4.2.2", name, served(vec![Message::text(text)])).piece(frame).in_one(),
        );
    }
    let expect = Expect::Served { messages: vec![], pongs: Some(vec![b"early".to_vec()]) };
    cases.push(
        Case::new(SECTION, "6455 4.2.2", "a ping in the same segment", expect)
            .piece(wire::frame(wire::PING, b"early"))
            .in_one(),
    );
    cases
}

fn refused() -> Vec<Case> {
    let no =
        |basis, name: &str, text: String| Case::new(SECTION, basis, name, Expect::Refused(&[400])).raw(text);
    let line = |line: &str| request(line, &good());
    let mut cases = Vec::new();
    for method in ["POST", "PUT", "DELETE", "get"] {
        let case = Case::new(SECTION, "6455 4.2.1 (1)", method, Expect::Refused(&[400, 404, 405, 501]));
        let case = case.raw(line(&format!("{method} {{path}} HTTP/1.1")));
        // Another method than GET, which nobody knows.
        cases.push(if method == "get" { case.should() } else { case });
    }
    let case = Case::new(SECTION, "6455 4.2.1 (1)", "HEAD", Expect::Refused(&[400, 405, 426]));
    cases.push(case.raw(line("HEAD {path} HTTP/1.1")));
    let case = Case::new(SECTION, "6455 4.2.1 (1)", "HTTP/1.0", Expect::Refused(&[400, 426, 505]));
    cases.push(case.raw(line("GET {path} HTTP/1.0")));
    for name in ["Host", "Upgrade", "Connection", "Sec-WebSocket-Key"] {
        let statuses: &[u16] = if name == "Host" { &[400] } else { &[400, 426] };
        let case = Case::new(SECTION, "6455 4.2.1", format!("without {name}"), Expect::Refused(statuses));
        cases.push(case.raw(changed(name, &[])));
    }
    cases.push(no("9112 3.2", "two Host lines", changed("Host", &["{host}", "{host}"])));
    cases.push(no("9112 3.2", "a Host that is none", changed("Host", &["a b"])));
    for value in ["websockets", "web socket", "h2c", "", "websocket/13"] {
        let case =
            Case::new(SECTION, "6455 4.2.1 (3)", format!("Upgrade: {value}"), Expect::Refused(&[400, 426]));
        cases.push(case.raw(changed("Upgrade", &[value])));
    }
    for value in ["keep-alive", "not-upgrade", "Upgrade-Insecure", "", "\"Upgrade\""] {
        let case = Case::new(
            SECTION,
            "6455 4.2.1 (4)",
            format!("Connection: {value}"),
            Expect::Refused(&[400, 426]),
        );
        cases.push(case.raw(changed("Connection", &[value])));
    }
    for (name, key) in [
        ("an empty key", ""),
        ("a key of 15 bytes", "dGhlIHNhbXBsZSBub25j"),
        ("a key of 17 bytes", "dGhlIHNhbXBsZSBub25jZTE="),
        ("a key of 24 bytes", "dGhlIHNhbXBsZSBub25jZTEyMzQ1Njc4"),
        ("a key without padding", "dGhlIHNhbXBsZSBub25jZQ"),
        ("a key with half its padding", "dGhlIHNhbXBsZSBub25jZQ="),
        ("a key that is not base64", "dGhlIHNhbXBsZSBub25j!!=="),
        ("a key in base64url", "-_-_-_-_-_-_-_-_-_-_-Q=="),
        ("a key with bits behind its end", "dGhlIHNhbXBsZSBub25jZR=="),
        ("a key with a space in it", "dGhlIHNhbXBs ZSBub25jZQ=="),
    ] {
        let case = no("6455 4.2.1 (5)", name, changed("Sec-WebSocket-Key", &[key]));
        // RFC 4648, section 3.5: they may be ignored.
        cases.push(if name.contains("behind its end") { case.should() } else { case });
    }
    cases.push(no(
        "6455 11.3.1",
        "two keys",
        changed("Sec-WebSocket-Key", &[KEY, "AAAAAAAAAAAAAAAAAAAAAA=="]),
    ));
    cases.push(no("6455 11.3.1", "one key twice", changed("Sec-WebSocket-Key", &[KEY, KEY])));
    cases.push(no(
        "9112 5.1",
        "a space in front of a colon",
        request(LINE, &good()).replace("Upgrade:", "Upgrade :"),
    ));
    cases.push(no(
        "9112 2.2",
        "a line that has no colon",
        request(LINE, &good()).replace("Upgrade: websocket", "Upgrade websocket"),
    ));
    cases.push(no(
        "9112 5.2",
        "a line that is folded",
        request(LINE, &good()).replace("Upgrade: websocket", "Upgrade:\r\n websocket"),
    ));
    for (lines, body) in
        [("Content-Length: 5\r\n", "hello"), ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n")]
    {
        let name = format!("a body: {}", lines.trim());
        let case = Case::new(SECTION, "9110 7.8", name, Expect::Refused(&[400, 411, 413, 501]));
        let head = request(LINE, &good());
        cases.push(
            case.raw(format!("{}{lines}\r\n{body}", head.trim_end_matches("\r\n").to_owned() + "\r\n"))
                .should(),
        );
    }
    cases
}

fn versions() -> Vec<Case> {
    let mut cases = Vec::new();
    for value in ["0", "7", "8", "12", "14", "113", "255"] {
        let expect = Expect::RefusedWith(426, ("sec-websocket-version", "13"));
        let case = Case::new(SECTION, "6455 4.4", format!("version {value}"), expect);
        cases.push(case.raw(changed("Sec-WebSocket-Version", &[value])));
    }
    for value in ["", "013", "+13", "13.0", "0xd", "13 13", "256", "-13", "thirteen"] {
        let case =
            Case::new(SECTION, "6455 4.3", format!("version \"{value}\""), Expect::Refused(&[400, 426]));
        cases.push(case.raw(changed("Sec-WebSocket-Version", &[value])));
    }
    let case = Case::new(SECTION, "6455 11.3.5", "two versions", Expect::Refused(&[400, 426]));
    cases.push(case.raw(changed("Sec-WebSocket-Version", &["13", "12"])));
    let case = Case::new(SECTION, "6455 4.2.1 (6)", "no version", Expect::Refused(&[400, 426]));
    cases.push(case.raw(changed("Sec-WebSocket-Version", &[])));
    cases
}
