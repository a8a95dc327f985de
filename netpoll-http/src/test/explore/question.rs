//! A request together with what its answer has to be.

use std::fmt;
use std::rc::Rc;

use http::{Method, StatusCode};

use super::super::TestResponse;

type Check = Rc<dyn Fn(&TestResponse) -> Result<(), String>>;

/// A request that a peer of an [`Exploration`](super::Exploration) sends, and what its answer has to be.
///
/// ```
/// use netpoll_http::explore::Question;
///
/// let answered = Question::get("/items/7").answered(200, "seven");
/// let posted = Question::post("/items", "{}").header("Content-Type", "application/json").status(422);
/// let checked = Question::get("/now").answered_if(|response| response.text().starts_with("202"));
/// # drop((answered, posted, checked));
/// ```
#[derive(Clone)]
pub struct Question {
    /// Method and target, for messages.
    name: String,
    head: String,
    body: Body,
    /// Sent instead of head and body.
    raw: Option<Vec<u8>>,
    is_head: bool,
    check: Check,
}

#[derive(Clone)]
enum Body {
    None,
    Sized(Vec<u8>),
    /// With the size of its chunks.
    Chunked(Vec<u8>, usize),
}

impl Question {
    /// A request without a body. Until it is said what its answer has to be, any is right that is not a server error.
    #[must_use]
    pub fn new(method: &Method, target: &str) -> Self {
        Self {
            name: format!("{method} {target}"),
            head: format!("{method} {target} HTTP/1.1\r\nHost: test\r\n"),
            body: Body::None,
            raw: None,
            is_head: *method == Method::HEAD,
            check: Rc::new(|response| match response.status.is_server_error() {
                true => Err(format!("{}: {:?}", response.status, String::from_utf8_lossy(&response.body))),
                false => Ok(()),
            }),
        }
    }

    /// A GET.
    #[must_use]
    pub fn get(target: &str) -> Self {
        Self::new(&Method::GET, target)
    }

    /// A POST with this body, and its `Content-Length`.
    #[must_use]
    pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new(&Method::POST, target).body(body)
    }

    /// These bytes, as they are, which have to be one whole request; `name` is what messages call it.
    #[must_use]
    pub fn raw(name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let is_head = bytes.starts_with(b"HEAD ");
        Self { name: name.to_owned(), raw: Some(bytes), is_head, ..Self::get("/") }
    }

    /// Adds a header line, as it is.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// Sets the body, which is sent with its `Content-Length`.
    #[must_use]
    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: Body::Sized(body.into()), ..self }
    }

    /// Sets the body, which is sent in chunks of so many bytes.
    ///
    /// # Panics
    /// If that is none.
    #[must_use]
    #[track_caller]
    pub fn chunked(self, body: impl Into<Vec<u8>>, chunk_bytes: usize) -> Self {
        assert!(chunk_bytes > 0, "a chunk of no bytes is the end");
        Self { body: Body::Chunked(body.into(), chunk_bytes), ..self }
    }

    /// Its answer has this status and this body.
    ///
    /// # Panics
    /// If there is no such status.
    #[must_use]
    #[track_caller]
    pub fn answered(self, status: u16, body: impl Into<Vec<u8>>) -> Self {
        let (status, body) = (checked(status), body.into());
        self.checked(move |response| {
            if response.status == status && response.body == body {
                return Ok(());
            }
            let (wanted, got) = (excerpt(&body), excerpt(&response.body));
            Err(format!("{status} with {wanted} was to come, and {} with {got} came", response.status))
        })
    }

    /// Its answer has this status, and any body.
    ///
    /// # Panics
    /// If there is no such status.
    #[must_use]
    #[track_caller]
    pub fn status(self, status: u16) -> Self {
        let status = checked(status);
        self.checked(move |response| match response.status == status {
            true => Ok(()),
            false => {
                let got = excerpt(&response.body);
                Err(format!("{status} was to come, and {} with {got} came", response.status))
            }
        })
    }

    /// Its answer is right if this says so.
    #[must_use]
    pub fn answered_if(self, is_right: impl Fn(&TestResponse) -> bool + 'static) -> Self {
        self.checked(move |response| match is_right(response) {
            true => Ok(()),
            false => Err(format!("{} with {} is not right", response.status, excerpt(&response.body))),
        })
    }

    fn checked(self, check: impl Fn(&TestResponse) -> Result<(), String> + 'static) -> Self {
        Self { check: Rc::new(check), ..self }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// It says `Connection: close`: whoever sends it has promised to send no other behind it.
    pub(super) fn is_last(&self) -> bool {
        let head = match &self.raw {
            Some(raw) => String::from_utf8_lossy(raw).into_owned(),
            None => self.head.clone(),
        };
        let head = head.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase();
        let fields = head.split("\r\n").filter_map(|line| line.split_once(':'));
        let mut options =
            fields.filter(|(name, _)| *name == "connection").flat_map(|(_, value)| value.split(','));
        options.any(|option| option.trim() == "close")
    }

    pub(super) fn is_head(&self) -> bool {
        self.is_head
    }

    /// What is wrong with this answer to it.
    pub(super) fn check(&self, response: &TestResponse) -> Result<(), String> {
        (self.check)(response)
    }

    /// All of it, as it is sent.
    pub(super) fn bytes(&self) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let mut bytes = self.head.clone().into_bytes();
        match &self.body {
            Body::None => bytes.extend(b"\r\n"),
            Body::Sized(body) => {
                bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
                bytes.extend(body);
            }
            Body::Chunked(body, chunk_bytes) => {
                bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                for chunk in body.chunks(*chunk_bytes) {
                    bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
                    bytes.extend(chunk);
                    bytes.extend(b"\r\n");
                }
                bytes.extend(b"0\r\n\r\n");
            }
        }
        bytes
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").field("name", &self.name).finish_non_exhaustive()
    }
}

#[track_caller]
fn checked(status: u16) -> StatusCode {
    StatusCode::from_u16(status).expect("a status has three digits")
}

/// The beginning of a body, for a message.
fn excerpt(body: &[u8]) -> String {
    const SHOWN: usize = 120;
    let shown = String::from_utf8_lossy(&body[..body.len().min(SHOWN)]);
    match body.len() {
        0 => "an empty body".to_owned(),
        bytes if bytes <= SHOWN => format!("{shown:?}"),
        bytes => format!("{shown:?} and so on, {bytes} bytes in all,"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_says_close_is_the_last_of_its_connection() {
        let get = || Question::get("/");
        assert!(get().header("Connection", "close").is_last());
        assert!(get().header("connection", "x, Close").is_last());
        assert!(Question::raw("raw", "GET / HTTP/1.1\r\nHost: a\r\nCONNECTION:close\r\n\r\n").is_last());
        assert!(!get().header("Connection", "keep-alive").header("X", "close").is_last());
        assert!(!Question::post("/", "a\r\nconnection: close\r\n").is_last());
        assert!(!Question::raw("raw", "POST / HTTP/1.1\r\n\r\nconnection: close\r\n").is_last());
    }
}
