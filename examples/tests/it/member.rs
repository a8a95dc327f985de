//! A client of WebSockets, by hand.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::support::{Answer, Program};

/// What a browser sends to open one.
pub const OPENING: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

pub struct Member<S = TcpStream>(S);

impl Member {
    /// Opens one at this target, with these headers beside its own.
    pub fn open(program: &Program, target: &str, headers: &[&str]) -> Self {
        Self::on(program.connect(), target, headers)
    }
}

impl<S: Read + Write> Member<S> {
    /// The same on a connection that is there.
    pub fn on(mut stream: S, target: &str, headers: &[&str]) -> Self {
        let mut head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{OPENING}\r\n");
        headers.iter().for_each(|header| head.push_str(&format!("{header}\r\n")));
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        // Byte by byte, so that no frame is read with it.
        let answer = Answer::read(&mut stream);
        assert_eq!(answer.status, 101, "{}{}", answer.head, answer.body);
        Self(stream)
    }

    pub fn say(&mut self, text: &str) {
        self.send(0x81, text.as_bytes());
    }

    /// A frame that begins with this byte, its payload masked.
    pub fn send(&mut self, first: u8, payload: &[u8]) {
        let key = [1, 2, 3, 4];
        let masked = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key);
        let mut frame = vec![first];
        match u16::try_from(payload.len()).expect("no test sends more") {
            length @ 0..126 => frame.push(0x80 | length as u8),
            length => {
                frame.push(0x80 | 126);
                frame.extend(length.to_be_bytes());
            }
        }
        frame.extend(key);
        frame.extend(masked);
        self.0.write_all(&frame).unwrap();
    }

    /// The next frame: its first byte and its payload.
    pub fn hears(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        let mut length = usize::from(head[1]);
        if length == 126 {
            let mut long = [0; 2];
            self.0.read_exact(&mut long).unwrap();
            length = usize::from(u16::from_be_bytes(long));
        }
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).unwrap();
        (head[0], payload)
    }

    /// The next message, which is a text.
    pub fn text(&mut self) -> String {
        let (first, payload) = self.hears();
        assert_eq!(first, 0x81, "{}", payload.escape_ascii());
        String::from_utf8(payload).unwrap()
    }

    /// The next message of this type.
    pub fn json(&mut self, kind: &str) -> Value {
        loop {
            let value: Value = serde_json::from_str(&self.text()).unwrap();
            if value["type"] == kind {
                return value;
            }
        }
    }

    /// The goodbye of the server, behind whatever else it sends: code and reason.
    pub fn goodbye(&mut self) -> (u16, String) {
        loop {
            let (first, payload) = self.hears();
            if first == 0x88 {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                return (code, String::from_utf8(payload[2..].to_vec()).unwrap());
            }
        }
    }

    /// The connection has ended behind all that was heard.
    pub fn is_over(&mut self) -> bool {
        self.0.read(&mut [0]).unwrap() == 0
    }
}
