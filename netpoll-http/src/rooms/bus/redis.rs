//! Redis as bytes: RESP3, and of it what subscribing and publishing takes.
//!
//! The third version has messages beside answers in one connection. So what this process asks behind its subscriptions is answered behind
//! them, and a process needs one connection where it would need two.
//!
//! What a server says is bounded before it is kept: a line, the length of a text, how many elements there are and how deep.

use super::Order;
use super::client::{Fault, Heard, Speech};
use super::url::Url;

/// Bytes of a line: numbers, and what went wrong.
const LINE_BYTES_MAX: usize = 4096;
/// Elements of an answer; that to `HELLO` has some twenty, and more with modules.
const ELEMENTS_MAX: usize = 1024;
const DEPTH_MAX: usize = 8;

pub struct Redis {
    credentials: Option<(String, String)>,
    text_bytes_max: usize,
    has_agreed: bool,
}

#[derive(Debug, PartialEq)]
enum Value<'a> {
    /// A line that is no error, of whatever kind.
    Line(&'a [u8]),
    Error(&'a [u8]),
    Text(&'a [u8]),
    /// It has no value.
    Null,
    /// An array, a set or a map, whose elements nobody asks for.
    Elements,
    /// What comes by itself.
    Push(Vec<Value<'a>>),
}

struct Parser<'a> {
    input: &'a [u8],
    at: usize,
    text_bytes_max: usize,
    elements: usize,
}

/// What is not whole yet, or never will be.
enum Stop {
    More,
    Bad(&'static str),
}

impl<'a> Parser<'a> {
    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = &self.input[self.at..];
        let seen = &rest[..rest.len().min(LINE_BYTES_MAX)];
        match memchr::memchr(b'\n', seen) {
            Some(end) => {
                self.at += end + 1;
                rest[..end].strip_suffix(b"\r").ok_or(Stop::Bad("a line ends without a carriage return"))
            }
            None if rest.len() >= LINE_BYTES_MAX => Err(Stop::Bad("a line is too long")),
            None => Err(Stop::More),
        }
    }

    fn text(&mut self, len: &[u8]) -> Result<Value<'a>, Stop> {
        if len == b"-1" {
            return Ok(Value::Null);
        }
        let len = number(len)?;
        if len > self.text_bytes_max {
            return Err(Stop::Bad("a text is too long"));
        }
        let rest = &self.input[self.at..];
        let Some((text, rest)) = rest.split_at_checked(len) else { return Err(Stop::More) };
        match rest {
            [b'\r', b'\n', ..] => {
                self.at += len + 2;
                Ok(Value::Text(text))
            }
            [] | [b'\r'] => Err(Stop::More),
            _ => Err(Stop::Bad("a text is longer than it says")),
        }
    }

    fn elements(&mut self, count: &[u8], each: usize, depth: usize) -> Result<Vec<Value<'a>>, Stop> {
        let count = number(count)?.saturating_mul(each);
        self.elements = self.elements.saturating_add(count);
        if self.elements > ELEMENTS_MAX || depth >= DEPTH_MAX {
            return Err(Stop::Bad("an answer has too many elements"));
        }
        (0..count).map(|_| self.value(depth + 1)).collect()
    }

    fn value(&mut self, depth: usize) -> Result<Value<'a>, Stop> {
        let line = self.line()?;
        let Some((kind, rest)) = line.split_first() else { return Err(Stop::Bad("an empty line")) };
        Ok(match kind {
            b'+' | b':' | b',' | b'#' | b'(' => Value::Line(rest),
            b'-' => Value::Error(rest),
            b'_' => Value::Null,
            b'$' | b'=' => self.text(rest)?,
            b'!' => match self.text(rest)? {
                Value::Text(text) => Value::Error(text),
                other => other,
            },
            b'*' if rest == b"-1" => Value::Null,
            b'*' | b'~' => {
                self.elements(rest, 1, depth)?;
                Value::Elements
            }
            b'%' => {
                self.elements(rest, 2, depth)?;
                Value::Elements
            }
            b'>' => Value::Push(self.elements(rest, 1, depth)?),
            _ => return Err(Stop::Bad("it does not speak as Redis does")),
        })
    }
}

fn number(digits: &[u8]) -> Result<usize, Stop> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    number.filter(|_| is_number).ok_or(Stop::Bad("a length is no number"))
}

fn put_command(out: &mut Vec<u8>, words: &[&[u8]]) {
    let put_len = |out: &mut Vec<u8>, kind: u8, len: usize| {
        out.push(kind);
        out.extend(itoa::Buffer::new().format(len).as_bytes());
        out.extend(b"\r\n");
    };
    put_len(out, b'*', words.len());
    for word in words {
        put_len(out, b'$', word.len());
        out.extend(*word);
        out.extend(b"\r\n");
    }
}

impl Speech for Redis {
    fn new(url: &Url, message_bytes_max: usize) -> Self {
        let credentials = match (&url.user, &url.password) {
            (None, None) => None,
            (user, password) => {
                let user = user.clone().unwrap_or_else(|| "default".to_owned());
                Some((user, password.clone().unwrap_or_default()))
            }
        };
        Self { credentials, text_bytes_max: message_bytes_max, has_agreed: false }
    }

    fn open(&mut self, out: &mut Vec<u8>) {
        match &self.credentials {
            Some((user, password)) => {
                put_command(out, &[b"HELLO", b"3", b"AUTH", user.as_bytes(), password.as_bytes()]);
            }
            None => put_command(out, &[b"HELLO", b"3"]),
        }
    }

    fn order(&mut self, order: &Order, out: &mut Vec<u8>) -> bool {
        match order {
            Order::Subscribe(channel) => put_command(out, &[b"SUBSCRIBE", channel.to_string().as_bytes()]),
            Order::Unsubscribe(channel) => {
                put_command(out, &[b"UNSUBSCRIBE", channel.to_string().as_bytes()]);
            }
            Order::Publish { to, payload } => {
                put_command(out, &[b"PUBLISH", to.to_string().as_bytes(), payload]);
            }
        }
        true
    }

    fn ping(&mut self, out: &mut Vec<u8>) {
        put_command(out, &[b"PING"]);
    }

    fn hear<'a>(&mut self, input: &'a [u8], _out: &mut Vec<u8>) -> Result<Option<(usize, Heard<'a>)>, Fault> {
        let mut parser = Parser { input, at: 0, text_bytes_max: self.text_bytes_max, elements: 0 };
        let value = match parser.value(0) {
            Ok(value) => value,
            Err(Stop::More) => return Ok(None),
            Err(Stop::Bad(why)) => return Err(why.into()),
        };
        let heard = match value {
            Value::Error(why) => return Err(Fault(String::from_utf8_lossy(why).into_owned())),
            Value::Elements if !self.has_agreed => {
                self.has_agreed = true;
                Heard::Agreed
            }
            Value::Push(elements) => match elements[..] {
                [Value::Text(b"message"), Value::Text(_), Value::Text(payload)] => Heard::Message(payload),
                _ => Heard::Nothing,
            },
            _ => Heard::Nothing,
        };
        Ok(Some((parser.at, heard)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn redis() -> Redis {
        let url = Url::parse("redis://me:secret@host", "redis", 6379).expect("a URL");
        Redis { has_agreed: true, ..Redis::new(&url, 1000) }
    }

    fn hear(input: &[u8]) -> Result<Option<(usize, Heard<'_>)>, Fault> {
        redis().hear(input, &mut Vec::new())
    }

    fn message(payload: &[u8]) -> Vec<u8> {
        let mut out = b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n".to_vec();
        out.extend(format!("${}\r\n", payload.len()).as_bytes());
        out.extend([payload, b"\r\n"].concat());
        out
    }

    #[test]
    fn the_greeting_names_the_version_and_who_asks() {
        let mut out = Vec::new();
        redis().open(&mut out);
        assert_eq!(out, b"*5\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$4\r\nAUTH\r\n$2\r\nme\r\n$6\r\nsecret\r\n");
    }

    #[test]
    fn the_first_answer_with_elements_is_the_agreement() {
        let mut fresh = Redis { has_agreed: false, ..redis() };
        let hello = b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nmodules\r\n*0\r\n";
        assert_eq!(fresh.hear(hello, &mut Vec::new()), Ok(Some((hello.len(), Heard::Agreed))));
        assert_eq!(fresh.hear(hello, &mut Vec::new()), Ok(Some((hello.len(), Heard::Nothing))));
        let refused = fresh.hear(b"-NOAUTH first\r\n", &mut Vec::new());
        assert_eq!(refused, Err("NOAUTH first".into()));
    }

    #[test]
    fn answers_to_orders_say_nothing_and_what_is_strange_ends_the_connection() {
        for answer in
            ["+PONG\r\n", ":1\r\n", "_\r\n", "$-1\r\n", ">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"]
        {
            assert_eq!(hear(answer.as_bytes()), Ok(Some((answer.len(), Heard::Nothing))), "{answer:?}");
        }
        let long = format!("+{}", "x".repeat(LINE_BYTES_MAX));
        let deep = ">1\r\n".repeat(DEPTH_MAX + 1);
        for strange in [
            "HTTP/1.1 400\r\n",
            "+x\n",
            "\r\n",
            "$x\r\n",
            "$+1\r\n",
            "$1001\r\n",
            "$1\r\nxyz",
            ">99999999999999999999\r\n",
            "*2000\r\n",
            "%600\r\n",
            "-ERR no\r\n",
            "!3\r\nERR\r\n",
            &long,
            &deep,
        ] {
            assert!(hear(strange.as_bytes()).is_err(), "{strange:?}");
        }
    }

    proptest! {
        #[test]
        fn a_message_is_heard_once_it_is_whole_wherever_it_is_cut(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            behind in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let message = message(&payload);
            for cut in 0..message.len() {
                prop_assert_eq!(hear(&message[..cut]), Ok(None));
            }
            let all = [&message[..], &behind].concat();
            prop_assert_eq!(hear(&all), Ok(Some((message.len(), Heard::Message(&payload)))));
        }

        #[test]
        fn no_bytes_make_it_panic(
            bytes in "[-+:$*%>~_!=,#(0-9a\r\n]{0,60}",
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
