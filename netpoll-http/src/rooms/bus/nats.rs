//! NATS as bytes: lines, and payloads behind them.
//!
//! The server speaks first and says what it takes; it is answered with who asks, and a `PING`, whose answer says that it has agreed.
//!
//! A line of a server is bounded before it is kept, and so is a payload.

use std::collections::HashMap;

use super::client::{Fault, Heard, Speech};
use super::url::Url;
use super::{Channel, Order};

/// Bytes of a line. That of `INFO` names every server of a cluster.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a subject that is said: with what is around it, it is a line of 4096 bytes, which servers take as they come. One that is longer ends the connection.
const SUBJECT_BYTES_MAX: usize = 4000;

pub struct Nats {
    connect: String,
    message_bytes_max: usize,
    /// What the server takes.
    payload_bytes_max: usize,
    has_agreed: bool,
    /// Subscriptions have numbers.
    numbers: HashMap<Channel, u64>,
    last_number: u64,
}

/// As a string of JSON.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            '\0'..='\x1f' => out.push_str(&format!("\\u{:04x}", u32::from(letter))),
            _ => out.push(letter),
        }
    }
    out.push('"');
    out
}

/// The subject of a channel: the prefix, what it is, and the name of the room as one token.
fn subject(channel: &Channel) -> String {
    let Some(room) = &channel.room else { return format!("{}.all", channel.prefix) };
    let mut out = format!("{}.room.", channel.prefix);
    if room.is_empty() {
        // No token is empty, and of what is escaped none is this.
        out.push('=');
    }
    for byte in room.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' => out.push(char::from(byte)),
            _ => out.push_str(&format!("={byte:02X}")),
        }
    }
    out
}

/// A number that `INFO` has under this name, where no string has it: names of its fields are in no string of a server.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let at = info.find(&format!("\"{name}\":"))? + name.len() + 3;
    let value = info[at..].trim_start();
    Some(&value[..value.find([',', '}']).unwrap_or(value.len())])
}

/// Whether it is a room's subscription or message that is refused: the connection stays, and all others do their work. That of all rooms comes first, and is needed.
fn is_of_one_room(error: &[u8]) -> bool {
    let error = error.trim_ascii().to_ascii_lowercase();
    let has = |words: &[u8]| memchr::memmem::find(&error, words).is_some();
    error.starts_with(b"'maximum subscriptions exceeded")
        || error.starts_with(b"'permissions violation for ") && has(b".room.")
}

fn number(digits: &[u8]) -> Option<usize> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

impl Nats {
    fn informed(&mut self, info: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let info = std::str::from_utf8(info).map_err(|_| Fault::from("its greeting is no text"))?;
        if field(info, "tls_required") == Some("true") {
            return Err("it wants TLS, which is not there yet".into());
        }
        if let Some(bytes) = field(info, "max_payload").and_then(|digits| number(digits.trim().as_bytes())) {
            self.payload_bytes_max = bytes;
        }
        // It may say so again, when its cluster changes.
        let connect = std::mem::take(&mut self.connect);
        if !connect.is_empty() {
            out.extend(connect.as_bytes());
            out.extend(b"PING\r\n");
        }
        Ok(())
    }
}

impl Speech for Nats {
    fn new(url: &Url, message_bytes_max: usize) -> Self {
        let mut connect =
            String::from("CONNECT {\"verbose\":false,\"pedantic\":false,\"echo\":false,\"protocol\":1");
        connect.push_str(",\"lang\":\"rust\",\"version\":");
        connect.push_str(&quoted(env!("CARGO_PKG_VERSION")));
        let mut put = |name: &str, value: &str| {
            connect.push_str(&format!(",\"{name}\":{}", quoted(value)));
        };
        match (&url.user, &url.password) {
            (Some(token), None) => put("auth_token", token),
            (user, Some(password)) => {
                put("user", user.as_deref().unwrap_or_default());
                put("pass", password);
            }
            (None, None) => {}
        }
        connect.push_str("}\r\n");
        Self {
            connect,
            message_bytes_max,
            payload_bytes_max: usize::MAX,
            has_agreed: false,
            numbers: HashMap::new(),
            last_number: 0,
        }
    }

    fn open(&mut self, _out: &mut Vec<u8>) {}

    fn order(&mut self, order: &Order, out: &mut Vec<u8>) -> bool {
        match order {
            Order::Subscribe(channel) => {
                let subject = subject(channel);
                if subject.len() <= SUBJECT_BYTES_MAX {
                    self.last_number += 1;
                    self.numbers.insert(channel.clone(), self.last_number);
                    out.extend(format!("SUB {subject} {}\r\n", self.last_number).as_bytes());
                }
            }
            Order::Unsubscribe(channel) => {
                if let Some(number) = self.numbers.remove(channel) {
                    out.extend(format!("UNSUB {number}\r\n").as_bytes());
                }
            }
            Order::Publish { payload, .. } if payload.len() > self.payload_bytes_max => return false,
            Order::Publish { to, payload } => {
                let subject = subject(to);
                if subject.len() > SUBJECT_BYTES_MAX {
                    return false;
                }
                out.extend(format!("PUB {subject} {}\r\n", payload.len()).as_bytes());
                out.extend(payload);
                out.extend(b"\r\n");
            }
        }
        true
    }

    fn ping(&mut self, out: &mut Vec<u8>) {
        out.extend(b"PING\r\n");
    }

    fn hear<'a>(&mut self, input: &'a [u8], out: &mut Vec<u8>) -> Result<Option<(usize, Heard<'a>)>, Fault> {
        let seen = &input[..input.len().min(LINE_BYTES_MAX)];
        let Some(end) = memchr::memchr(b'\n', seen) else {
            return if input.len() < LINE_BYTES_MAX { Ok(None) } else { Err("a line is too long".into()) };
        };
        let line = input[..end].strip_suffix(b"\r").ok_or("a line ends without a carriage return")?;
        let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
        let heard = match words.next() {
            Some(b"MSG") => {
                // Subject and number, the length last; in between there may be where to answer.
                let len = words.clone().next_back().filter(|_| (3..=4).contains(&words.count()));
                let len = len.and_then(number).ok_or("a message does not say its length")?;
                if len > self.message_bytes_max {
                    return Err("a message is too long".into());
                }
                let Some((payload, rest)) = input[end + 1..].split_at_checked(len) else { return Ok(None) };
                return match rest {
                    [b'\r', b'\n', ..] => Ok(Some((end + 1 + len + 2, Heard::Message(payload)))),
                    [] | [b'\r'] => Ok(None),
                    _ => Err("a message is longer than it says".into()),
                };
            }
            Some(b"INFO") => {
                self.informed(&line[4..], out)?;
                Heard::Nothing
            }
            Some(b"PING") => {
                out.extend(b"PONG\r\n");
                Heard::Nothing
            }
            Some(b"PONG") if !self.has_agreed => {
                self.has_agreed = true;
                Heard::Agreed
            }
            Some(b"PONG" | b"+OK") => Heard::Nothing,
            Some(b"-ERR") if is_of_one_room(&line[4..]) => Heard::Refused(line[4..].trim_ascii()),
            Some(b"-ERR") => return Err(Fault(String::from_utf8_lossy(&line[4..]).trim().to_owned())),
            _ => return Err("it does not speak as NATS does".into()),
        };
        Ok(Some((end + 1, heard)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn nats(url: &str) -> Nats {
        Nats::new(&Url::parse(url, "nats", 4222).expect("a URL"), 1000)
    }

    fn hear(input: &[u8]) -> Result<Option<(usize, Heard<'_>)>, Fault> {
        Nats { has_agreed: true, ..nats("nats://host") }.hear(input, &mut Vec::new())
    }

    fn room(name: &str) -> Channel {
        Channel { prefix: Arc::from("p"), room: Some(Arc::from(name)) }
    }

    const INFO: &[u8] = b"INFO {\"server_id\":\"x\",\"max_payload\":50,\"tls_required\":false}\r\n";

    #[test]
    fn the_server_speaks_first_and_is_told_who_asks_once() {
        let (mut nats, mut out) = (nats("nats://me:a%22b@host"), Vec::new());
        assert_eq!(nats.hear(INFO, &mut out), Ok(Some((INFO.len(), Heard::Nothing))));
        let said = String::from_utf8(std::mem::take(&mut out)).expect("text");
        assert!(
            said.starts_with("CONNECT {")
                && said.ends_with("\"user\":\"me\",\"pass\":\"a\\\"b\"}\r\nPING\r\n")
        );
        assert_eq!(nats.hear(b"PONG\r\n", &mut out), Ok(Some((6, Heard::Agreed))));
        assert_eq!(nats.hear(INFO, &mut out), Ok(Some((INFO.len(), Heard::Nothing))));
        assert_eq!(nats.hear(b"PING\r\n", &mut out), Ok(Some((6, Heard::Nothing))));
        assert_eq!(out, b"PONG\r\n");
        let refused = nats.hear(b"-ERR 'Authorization Violation'\r\n", &mut out);
        assert_eq!(refused, Err("'Authorization Violation'".into()));
    }

    #[test]
    fn a_token_is_a_name_without_a_password() {
        let (mut nats, mut out) = (nats("nats://secret@host"), Vec::new());
        nats.hear(INFO, &mut out).expect("understood");
        assert!(String::from_utf8(out).expect("text").contains("\"auth_token\":\"secret\"}"));
    }

    #[test]
    fn a_subscription_ends_by_its_number_and_what_is_too_large_is_not_said() {
        let (mut nats, mut out) = (nats("nats://host"), Vec::new());
        nats.hear(INFO, &mut out).expect("understood");
        out.clear();
        assert!(nats.order(&Order::Subscribe(room("a b")), &mut out));
        assert!(nats.order(&Order::Subscribe(room("")), &mut out));
        assert!(nats.order(&Order::Unsubscribe(room("a b")), &mut out));
        assert!(nats.order(&Order::Publish { to: room("x"), payload: b"hey".to_vec() }, &mut out));
        assert!(!nats.order(&Order::Publish { to: room("x"), payload: vec![0; 51] }, &mut out));
        let said = String::from_utf8(out).expect("text");
        assert_eq!(said, "SUB p.room.a=20b 1\r\nSUB p.room.= 2\r\nUNSUB 1\r\nPUB p.room.x 3\r\nhey\r\n");
    }

    #[test]
    fn what_is_strange_ends_the_connection() {
        let long = "x".repeat(LINE_BYTES_MAX);
        for strange in [
            "HTTP/1.1 400\r\n",
            "\r\n",
            "+OK\n",
            "MSG a 1\r\n",
            "MSG a 1 x\r\n",
            "MSG a 1 1001\r\n",
            "MSG a 1 1\r\nxyz",
            "MSG a 1 b c 1\r\n",
            "INFO {\"tls_required\":true}\r\n",
            "-ERR\r\n",
            &long,
        ] {
            assert!(hear(strange.as_bytes()).is_err(), "{strange:?}");
        }
    }

    proptest! {
        #[test]
        fn a_message_is_heard_once_it_is_whole_wherever_it_is_cut(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            behind in proptest::collection::vec(any::<u8>(), 0..20),
            reply in prop::option::of("[a-z]{1,5}"),
        ) {
            let reply = reply.map_or_else(String::new, |reply| format!("{reply} "));
            let head = format!("MSG p.room.x 7 {reply}{}\r\n", payload.len());
            let message = [head.as_bytes(), &payload, b"\r\n"].concat();
            for cut in 0..message.len() {
                prop_assert_eq!(hear(&message[..cut]), Ok(None));
            }
            let all = [&message[..], &behind].concat();
            prop_assert_eq!(hear(&all), Ok(Some((message.len(), Heard::Message(&payload)))));
        }

        #[test]
        fn two_rooms_have_two_subjects_of_one_token(one in ".{0,8}", other in ".{0,8}") {
            let (one_subject, other_subject) = (subject(&room(&one)), subject(&room(&other)));
            prop_assert_eq!(one == other, one_subject == other_subject);
            let token = one_subject.strip_prefix("p.room.").expect("the prefix");
            prop_assert!(!token.is_empty() && !token.contains(['.', '*', '>', ' ', '\t', '\r', '\n']));
        }

        #[test]
        fn no_bytes_make_it_panic(
            bytes in "(MSG|INFO|PING|PONG|-ERR|\\+OK)[ a0-9{}\":,\r\n]{0,40}",
            any in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            for input in [bytes.as_bytes(), &any] {
                if let Ok(Some((used, _))) = hear(input) {
                    prop_assert!(0 < used && used <= input.len());
                }
            }
        }
    }
}
