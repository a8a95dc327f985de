//! A code from the mini-program becomes a session.
//!
//! The mini-program on the phone asks its platform for a code and sends it here; this backend asks the platform
//! who that is. Codes work once, and only the platform can tell. [`Platform`] is that question, and
//! [`StandIn`] answers it without a network: a thread of its own, so that the handler really waits.
//!
//! Invariant: the stand-in's thread is the only one that knows used codes, so a code cannot be used twice by
//! two workers at once.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Instant;

use futures_channel::oneshot;
use netpoll_http::{Error, IntoResponse, Json, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::session::{SESSION_TIME, Token};

/// The name of a user, as the platform gives it to this mini-program.
pub type OpenId = Arc<str>;

/// The login service of the platform.
pub trait Platform: Send + Sync + 'static {
    /// Exchanges a code for the user that it was given to.
    fn exchange(&self, code: String) -> impl Future<Output = Result<OpenId, Refusal>>;
}

/// Why there is no user for a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Unknown,
    Used,
    Busy,
    Unreachable,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let (status, message) = match refusal {
            Refusal::Unknown => (
                StatusCode::UNAUTHORIZED,
                "code: not one of the platform's; this stand-in knows demo-NAME, such as demo-ann",
            ),
            Refusal::Used => (
                StatusCode::UNAUTHORIZED,
                "code: used already, and codes work once; demo-NAME.2 is another code of the same user",
            ),
            Refusal::Busy => (StatusCode::SERVICE_UNAVAILABLE, "the platform has too much to do, try again"),
            Refusal::Unreachable => (StatusCode::BAD_GATEWAY, "the platform does not answer"),
        };
        Self::new(status, message)
    }
}

#[derive(Deserialize)]
struct Login {
    code: String,
}

#[derive(Serialize)]
struct Session {
    token: String,
    openid: OpenId,
    expires_in: u64,
}

/// `POST /login`: the session as JSON for `wx.request`, and as a cookie for browsers.
pub async fn login<P: Platform>(app: &App<P>, req: &Request<'_>) -> Result<Response, Error> {
    let login: Login = req.json()?;
    let openid = app.platform.exchange(login.code).await?;
    let token = app.sessions.open(Token::random()?, Arc::clone(&openid), Instant::now()).to_string();
    let expires_in = SESSION_TIME.as_secs();
    let secure = if is_secure(req) { "; Secure" } else { "" };
    let cookie = format!("session={token}; Path=/; Max-Age={expires_in}; HttpOnly; SameSite=Lax{secure}");
    Json(Session { token, openid, expires_in })
        .into_response()
        .header("set-cookie", cookie)?
        .header("cache-control", "no-store")
}

/// It came by TLS, and so should all that follow.
#[cfg(feature = "tls")]
pub fn is_secure(req: &Request<'_>) -> bool {
    req.tls().is_some()
}

#[cfg(not(feature = "tls"))]
pub fn is_secure(_req: &Request<'_>) -> bool {
    false
}

/// Questions that may wait for the stand-in; more are refused. A login a microsecond, for a millisecond.
const QUESTIONS_MAX: usize = 1024;
/// Used codes that are remembered. The real platform lets codes expire after five minutes instead.
const USED_CODES_MAX: usize = 10_000;
/// Bytes of a code; longer ones are unknown.
const CODE_BYTES_MAX: usize = 64;

/// Stands in for the platform: the code `demo-NAME` belongs to the user `openid-NAME`, and so does
/// `demo-NAME.ANYTHING`, for more logins. Ends when it is dropped.
pub struct StandIn {
    questions: SyncSender<Question>,
}

struct Question {
    code: String,
    answer: oneshot::Sender<Result<OpenId, Refusal>>,
}

impl StandIn {
    /// Starts its thread.
    pub fn start() -> io::Result<Self> {
        let (questions, asked) = sync_channel(QUESTIONS_MAX);
        thread::Builder::new().name("platform".to_owned()).spawn(move || answer(&asked))?;
        Ok(Self { questions })
    }
}

impl Platform for StandIn {
    async fn exchange(&self, code: String) -> Result<OpenId, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.questions.try_send(Question { code, answer }).map_err(|_| Refusal::Busy)?;
        answered.await.unwrap_or(Err(Refusal::Unreachable))
    }
}

fn answer(asked: &Receiver<Question>) {
    let mut used = UsedCodes::default();
    for Question { code, answer } in asked {
        let user = user_of(&code).and_then(|name| used.admit(code.clone()).map(|()| name));
        // Whoever asked may have hung up; the code is used all the same.
        let _ = answer.send(user);
    }
}

/// The user that the stand-in knows by this code.
pub fn user_of(code: &str) -> Result<OpenId, Refusal> {
    let name = code.strip_prefix("demo-").and_then(|rest| rest.split('.').next()).unwrap_or_default();
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if name.is_empty() || !is_plain || code.len() > CODE_BYTES_MAX {
        return Err(Refusal::Unknown);
    }
    Ok(format!("openid-{name}").into())
}

/// The codes that were used last.
#[derive(Default)]
struct UsedCodes {
    codes: HashSet<Arc<str>>,
    /// The same codes, oldest first.
    oldest: VecDeque<Arc<str>>,
}

impl UsedCodes {
    fn admit(&mut self, code: String) -> Result<(), Refusal> {
        let code: Arc<str> = code.into();
        if !self.codes.insert(Arc::clone(&code)) {
            return Err(Refusal::Used);
        }
        self.oldest.push_back(code);
        if self.oldest.len() > USED_CODES_MAX
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.codes.remove(&oldest);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_code_names_its_user_and_other_codes_name_nobody() {
        assert_eq!(&*user_of("demo-ann").unwrap(), "openid-ann");
        assert_eq!(&*user_of("demo-ann.2").unwrap(), "openid-ann");
        for unknown in ["", "demo-", "demo-.2", "ann", "demo-a b", "demo-é"] {
            assert_eq!(user_of(unknown), Err(Refusal::Unknown), "{unknown}");
        }
        assert_eq!(user_of(&format!("demo-{}", "a".repeat(CODE_BYTES_MAX))), Err(Refusal::Unknown));
    }

    #[test]
    fn a_code_works_once_and_only_so_many_are_remembered() {
        let mut used = UsedCodes::default();
        assert_eq!(used.admit("first".to_owned()), Ok(()));
        assert_eq!(used.admit("first".to_owned()), Err(Refusal::Used));
        for number in 0..USED_CODES_MAX {
            assert_eq!(used.admit(number.to_string()), Ok(()));
        }
        assert_eq!((used.codes.len(), used.oldest.len()), (USED_CODES_MAX, USED_CODES_MAX));
    }
}
