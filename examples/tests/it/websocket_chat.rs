//! The chat room: what one says all hear, on whatever worker they are.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

use crate::chromium::Browser;
use crate::support::{Answer, Program};

const PROGRAM: &str = env!("CARGO_BIN_EXE_websocket_chat");

/// A member, by hand.
struct Member(TcpStream);

impl Member {
    fn join(program: &Program, name: &str) -> Self {
        let mut stream = program.connect();
        let request = format!(
            "GET /room?name={name} HTTP/1.1\r\nHost: a\r\nOrigin: http://a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        // Byte by byte, so that no frame is read with it.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", head.escape_ascii());
        Self(stream)
    }

    fn say(&mut self, text: &str) {
        let key = [1, 2, 3, 4];
        let masked = text.bytes().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
        let head = [0x81, 0x80 | text.len() as u8];
        let frame: Vec<u8> = head.into_iter().chain(key).chain(masked).collect();
        self.0.write_all(&frame).unwrap();
    }

    /// The next frame: its first byte and its payload.
    fn hears(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        let mut payload = vec![0; head[1].into()];
        self.0.read_exact(&mut payload).unwrap();
        (head[0], payload)
    }

    fn until(&mut self, text: &str) {
        while self.hears() != (0x81, text.as_bytes().to_vec()) {}
    }
}

#[test]
fn what_one_says_all_hear_and_in_a_drain_they_are_told_to_come_back() {
    let mut program = Program::start(PROGRAM, &["127.0.0.1:0"]);
    let mut members: Vec<_> = (0..8).map(|nth| Member::join(&program, &format!("m{nth}"))).collect();
    // Each hears of the last one, so all are in the room.
    members.iter_mut().for_each(|member| member.until("m7 has come"));
    for nth in 0..8 {
        members[nth].say("hello");
        members.iter_mut().for_each(|member| member.until(&format!("m{nth}: hello")));
    }
    drop(members.pop());
    members.iter_mut().for_each(|member| member.until("m7 has left"));
    // Who is too long, has no name, or is somebody else's page, is not let in.
    assert_eq!(program.get("/room?name=a").said().0, 426);
    let request = "GET /room?name=a HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut stranger = program.connect();
    stranger.write_all(request.as_bytes()).unwrap();
    assert_eq!(Answer::read(&mut stranger).said().0, 403);

    program.ask_to_end();
    for member in &mut members {
        let (mut first, mut payload) = member.hears();
        // Others have left before.
        while first == 0x81 {
            (first, payload) = member.hears();
        }
        assert_eq!((first, &payload[..8]), (0x88, &b"\x03\xf4retry="[..]));
        member.0.write_all(&[0x88, 0x80, 0, 0, 0, 0]).unwrap();
        assert_eq!(member.0.read(&mut [0]).unwrap(), 0);
    }
    drop(members);
    let (printed, status) = program.wait();
    assert!(status.success() && printed.contains(" 0 of them cut"), "{printed}");
}

#[test]
fn its_page_joins_says_what_is_typed_and_comes_back_when_the_server_does() {
    let Some(mut browser) = Browser::start() else { return };
    let program = Program::start(PROGRAM, &["127.0.0.1:0"]);
    let addr = program.addr.to_string();
    for (width, scheme) in [(1280, "light"), (390, "dark")] {
        browser.look(width, scheme);
        browser.open(&format!("http://{addr}/?name=ann"));
        browser.until("document.getElementById('state').textContent === 'You are ann'");
        browser.eval("document.getElementById('words').value = 'hello <b>all</b>'");
        browser.eval("document.querySelector('button').click()");
        browser.until("document.getElementById('said').lastChild?.textContent === 'ann: hello <b>all</b>'");
        assert_eq!(browser.eval(&format!("document.documentElement.scrollWidth <= {width}")), json!(true));
    }
    assert!(program.terminate().1.success());
    browser.until("document.getElementById('state').textContent.startsWith('away')");
    let program = Program::start(PROGRAM, &[&addr]);
    browser.until("document.getElementById('state').textContent === 'You are ann'");
    browser.close();
    assert!(program.terminate().1.success());
}
