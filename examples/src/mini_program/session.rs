//! Who is who, for two hours.
//!
//! A session is found by a random token that only its user knows. Sessions of all workers are in one
//! table of [`SHARDS`] locks, so two requests rarely meet; nothing is awaited and nothing else is done
//! under a lock.
//!
//! Invariant: a shard's queue holds the tokens of its map, once each, in the order in which they end. All
//! sessions live equally long, so that is the order of opening.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use netpoll_http::{Error, HeaderValue, Json, Request, StatusCode, header};
use serde::Serialize;

use crate::app::App;
use crate::login::{OpenId, Platform};

/// How long a session lasts. The platform's own session keys last about as long.
pub const SESSION_TIME: Duration = Duration::from_secs(2 * 60 * 60);
/// Sessions that are kept. When there are more, the oldest end early: a mini-program that gets a 401 logs
/// in again without troubling its user. At about 200 bytes each this is 20 MB.
pub const SESSIONS_MAX: usize = 100_000;
/// Locks over the table; a power of two that is larger than most machines' core counts.
const SHARDS: usize = 16;

/// A session's secret: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token([u8; 16]);

impl Token {
    /// A new one from the operating system.
    pub fn random() -> Result<Self, Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(Error::internal)?;
        Ok(Self(bytes))
    }

    /// Reads what [`Display`](fmt::Display) has written.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bits = u128::from_str_radix(text, 16).ok().filter(|_| is_hex)?;
        Some(Self(bits.to_be_bytes()))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

struct Session {
    openid: OpenId,
    ends: Instant,
}

#[derive(Default)]
struct Shard {
    sessions: HashMap<Token, Session>,
    /// Oldest first.
    oldest: VecDeque<Token>,
}

/// All sessions.
pub struct Sessions {
    shards: [Mutex<Shard>; SHARDS],
}

impl Sessions {
    pub fn new() -> Self {
        Self { shards: Default::default() }
    }

    /// Opens a session for a user. Amortised O(1).
    pub fn open(&self, token: Token, openid: OpenId, now: Instant) -> Token {
        let mut shard = self.shard(token);
        let Shard { sessions, oldest } = &mut *shard;
        while let Some(first) = oldest.front()
            && (oldest.len() >= SESSIONS_MAX / SHARDS
                || sessions.get(first).is_none_or(|session| session.ends <= now))
        {
            sessions.remove(first);
            oldest.pop_front();
        }
        sessions.insert(token, Session { openid, ends: now + SESSION_TIME });
        oldest.push_back(token);
        token
    }

    /// Whose session it is, and how long it goes on.
    fn find(&self, token: Token, now: Instant) -> Option<(OpenId, Duration)> {
        let shard = self.shard(token);
        let session = shard.sessions.get(&token)?;
        let left = session.ends.checked_duration_since(now).filter(|left| !left.is_zero())?;
        Some((Arc::clone(&session.openid), left))
    }

    fn shard(&self, Token(bytes): Token) -> MutexGuard<'_, Shard> {
        // Nothing panics under the lock, so a poisoned one would be sound as well.
        self.shards[usize::from(bytes[0]) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The user who sends this request.
pub fn user<P: Platform>(app: &App<P>, req: &Request<'_>) -> Result<OpenId, Error> {
    Ok(session(app, req)?.0)
}

/// The same, and for how long the session goes on.
pub fn session<P: Platform>(app: &App<P>, req: &Request<'_>) -> Result<(OpenId, Duration), Error> {
    let unauthorized = |message| {
        Error::new(StatusCode::UNAUTHORIZED, message)
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    };
    // Another scheme is somebody else's, such as a proxy's that asks for a password: it does not hide the cookie.
    let lines = req.header_lines("authorization").filter_map(|line| std::str::from_utf8(line).ok());
    let token = lines.filter_map(bearer).next().or_else(|| req.cookie("session"));
    let token = token.ok_or_else(|| {
        unauthorized("log in first: send `Authorization: Bearer TOKEN` or the cookie that POST /login gave")
    })?;
    Token::parse(token)
        .and_then(|token| app.sessions.find(token, Instant::now()))
        .ok_or_else(|| unauthorized("this session does not exist or is over: log in again"))
}

/// The token of `Bearer TOKEN`; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(credentials: &str) -> Option<&str> {
    let (scheme, token) = credentials.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

#[derive(Serialize)]
pub struct Me {
    openid: OpenId,
    expires_in: u64,
}

/// `GET /me`
pub fn me<P: Platform>(app: &App<P>, req: &Request<'_>) -> Result<Json<Me>, Error> {
    let (openid, left) = session(app, req)?;
    Ok(Json(Me { openid, expires_in: left.as_secs() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: u128) -> Token {
        Token(number.to_be_bytes())
    }

    #[test]
    fn a_session_is_found_until_its_time_is_over() {
        let (sessions, now) = (Sessions::new(), Instant::now());
        sessions.open(token(1), "ann".into(), now);
        assert_eq!(sessions.find(token(1), now), Some(("ann".into(), SESSION_TIME)));
        assert_eq!(sessions.find(token(2), now), None);
        assert_eq!(sessions.find(token(1), now + SESSION_TIME), None);
    }

    #[test]
    fn sessions_that_are_over_make_room() {
        let (sessions, now) = (Sessions::new(), Instant::now());
        sessions.open(token(1), "ann".into(), now);
        sessions.open(token(2), "ben".into(), now + SESSION_TIME);
        let shard = sessions.shard(token(1));
        assert_eq!((shard.sessions.len(), shard.oldest.len()), (1, 1));
    }

    #[test]
    fn when_the_table_is_full_the_oldest_session_ends() {
        let (sessions, now) = (Sessions::new(), Instant::now());
        let most = (SESSIONS_MAX / SHARDS) as u128;
        for number in 0..=most {
            sessions.open(token(number), "ann".into(), now);
        }
        assert_eq!(sessions.find(token(0), now), None);
        assert!(sessions.find(token(1), now).is_some() && sessions.find(token(most), now).is_some());
        assert_eq!(sessions.shard(token(0)).sessions.len() as u128, most);
    }

    #[test]
    fn tokens_are_read_as_they_are_written_and_nothing_else_is_a_token() {
        let written = token(0x00ff_0000_0000_0000_0000_0000_0000_0001);
        assert!(Token::parse(&written.to_string()) == Some(written));
        for wrong in ["", "00", "+0000000000000000000000000000001", &"g".repeat(32), &"0".repeat(33)] {
            assert!(Token::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn bearer_credentials_are_recognised_in_any_case() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc"), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("abc"), None);
    }
}
