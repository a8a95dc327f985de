//! The table: requests as raw bytes, and what a strict HTTP/1.1 server does with them.
//!
//! Data only, of the standard library only, so that any runner can include it
//! (`#[path = "../netpoll-http/tests/conformance/cases/mod.rs"] mod cases;`) and point it at any server
//! that has these routes:
//!
//! | route | answer |
//! |---|---|
//! | `GET /` | `hello` |
//! | `GET /canary` | [`CANARY_BODY`] |
//! | any method on `/echo` | the request's body |
//! | `GET`, `POST` on `/header` | the value of the request's `X-Echo`, 404 without one |
//! | `GET /host` | the host of the request: of an absolute target, else of `Host`; `none` without one |
//! | `GET /path/..` | the path as it was sent |
//! | `POST /trailers` | the trailer fields that the handler sees, `name=value;` each |
//! | `POST /small` | the request's body, of at most 16 bytes |
//! | `GET /files/..` | a file below a directory that has those of [`FILES`] |
//!
//! and a limit of 1 MiB for bodies, 16 KiB for heads, 100 header lines, 8192 bytes for targets.
//!
//! Invariant: a runner sends [`CANARY`] behind every request. It is answered exactly when the request
//! leaves the connection usable, so a server that loses its place in the bytes gives itself away.
//!
//! `expect` is what this server does. What the RFCs ask of any server is less: [`Level`] says whether a rule
//! binds others, and `or` what else they may do. `benches/src/conformance` judges other servers by these.

pub mod chunked;
pub mod files;
pub mod framing;
pub mod headers;
pub mod persistence;
pub mod request_line;

/// A well-formed request to send behind every case.
pub const CANARY: &[u8] = b"GET /canary HTTP/1.1\r\nHost: canary\r\n\r\n";
/// What only the answer to [`CANARY`] contains.
pub const CANARY_BODY: &str = "the canary sings";

/// Names and contents of the files that there are. Beside their directory lies one called `secret`, to which
/// `link_out`, `link_absolute` and `link_up/secret` lead; it is never served.
pub const FILES: &[(&str, &str)] = &[
    ("file", "a file"),
    ("inner/file", "an inner file"),
    ("a b", "a space"),
    ("a+b", "a plus"),
    ("\u{e9}", "an e with an accent"),
    ("%2e", "percent 2e"),
    (".hidden", "hidden"),
    ("inner/.hidden", "hidden"),
];

/// Bytes to send, and what has to come back.
#[derive(Debug)]
pub struct Case {
    /// What is special about the bytes.
    pub name: String,
    /// The bytes, without the canary.
    pub request: Vec<u8>,
    pub expect: Expect,
    /// Where it is not that of the row.
    pub level: Option<Level>,
    /// What another server may do instead, by the section of the row.
    pub or: Vec<Expect>,
}

/// Whom a rule binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Every server: RFC 9110 or 9112 says MUST, or what the rule forbids is known to smuggle requests.
    Must,
    /// This server: limits, and strictness where the RFCs permit leniency or say SHOULD.
    Ours,
    /// The fixture: it asks for a route or a limit that other servers do not have.
    Fixture,
}

impl Case {
    /// The same case, binding at this level.
    pub fn at(mut self, level: Level) -> Self {
        self.level = Some(level);
        self
    }

    /// The same case, where another server may also do this.
    pub fn or(mut self, other: Expect) -> Self {
        self.or.push(other);
        self
    }
}

/// The final answers in their order, and what becomes of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    pub answers: Vec<Answer>,
    pub then: Then,
}

/// What has to be known of one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// The body, where it matters.
    pub body: Option<Vec<u8>>,
    /// The request was HEAD: whatever the head says, no body follows.
    pub to_head: bool,
}

/// What becomes of the connection behind the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The next request is served.
    Kept,
    /// The last answer says `Connection: close`, and all of it arrives; the next request is not served.
    Closed,
    /// The same, but the answer was gone before it could say so.
    Cut,
    /// It waits for more of the request. Only ever an alternative.
    Waits,
}

impl Expect {
    /// The same answers, and then the end.
    pub fn closed(mut self) -> Self {
        self.then = Then::Closed;
        self
    }

    /// The same answers, and then the end, unannounced.
    pub fn cut(mut self) -> Self {
        self.then = Then::Cut;
        self
    }

    /// One answer more.
    pub fn and(mut self, next: Expect) -> Self {
        self.answers.extend(next.answers);
        self.then = next.then;
        self
    }
}

/// 200 with this body.
pub fn ok(body: impl Into<Vec<u8>>) -> Expect {
    let answer = Answer { status: 200, body: Some(body.into()), to_head: false };
    Expect { answers: vec![answer], then: Then::Kept }
}

/// An answer with this status, whatever its body.
pub fn status(status: u16) -> Expect {
    Expect { answers: vec![Answer { status, body: None, to_head: false }], then: Then::Kept }
}

/// An answer to HEAD.
pub fn head(status: u16) -> Expect {
    Expect { answers: vec![Answer { status, body: None, to_head: true }], then: Then::Kept }
}

/// One answer with this status, and nothing behind it is served.
pub fn refused(with: u16) -> Expect {
    status(with).closed()
}

/// The connection ends without an answer.
pub fn silence() -> Expect {
    Expect { answers: Vec::new(), then: Then::Cut }
}

/// No answer, and the connection stays: the server takes the rest of the bytes for more of the request.
pub fn waits() -> Expect {
    Expect { answers: Vec::new(), then: Then::Waits }
}

/// A case, at the level of its row.
pub fn case(name: impl Into<String>, request: impl Into<Vec<u8>>, expect: Expect) -> Case {
    Case { name: name.into(), request: request.into(), expect, level: None, or: Vec::new() }
}

/// One rule and the cases that show it.
pub struct Row {
    /// The rule.
    pub name: &'static str,
    /// Where it is written; 9110 and 9112 are RFCs.
    pub basis: &'static str,
    /// Of its cases, but for those that say another one.
    pub level: Level,
    pub cases: fn() -> Vec<Case>,
}

/// The sections of the table.
pub const SECTIONS: [(&str, &[Row]); 6] = [
    ("request line", request_line::ROWS),
    ("headers", headers::ROWS),
    ("framing", framing::ROWS),
    ("chunked", chunked::ROWS),
    ("persistence", persistence::ROWS),
    ("files", files::ROWS),
];

/// All rules.
pub fn all_rows() -> impl Iterator<Item = &'static Row> {
    SECTIONS.into_iter().flat_map(|(_, rows)| rows)
}

macro_rules! rows {
    ($($level:ident $name:ident $basis:literal,)*) => {
        pub const ROWS: &[super::Row] = &[$(super::Row {
            name: stringify!($name),
            basis: $basis,
            level: super::Level::$level,
            cases: $name,
        }),*];
    };
}
use rows;

/// `parts` one behind the other.
fn bytes(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// Cases that differ in one piece: `before`, the piece, `after`. Each is named by its piece.
fn each<const N: usize>(before: &str, pieces: [&[u8]; N], after: &str, expect: &Expect) -> Vec<Case> {
    let named = |piece: &[u8]| {
        let request = bytes(&[before.as_bytes(), piece, after.as_bytes()]);
        case(format!("{}", piece.escape_ascii()), request, expect.clone())
    };
    pieces.into_iter().map(named).collect()
}

/// Changes the cases of these names.
fn change(cases: &mut Vec<Case>, names: &[&str], how: impl Fn(Case) -> Case) {
    for name in names {
        let at = cases.iter().position(|case| case.name == *name);
        let at = at.unwrap_or_else(|| panic!("a case named {name}"));
        let case = cases.remove(at);
        cases.insert(at, how(case));
    }
}

/// Changes all cases.
fn change_all(cases: Vec<Case>, how: impl Fn(Case) -> Case) -> Vec<Case> {
    cases.into_iter().map(how).collect()
}

/// Control characters beside HTAB, CR and LF, and DEL.
fn controls() -> impl Iterator<Item = u8> {
    (0..0x20_u8).chain([0x7f]).filter(|byte| !matches!(byte, b'\t' | b'\r' | b'\n'))
}
