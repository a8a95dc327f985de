//! Files below a directory, as answers.
//!
//! A stranger names the file, so the name is taken apart here and nowhere else: decoded once, looked at segment by
//! segment, and then opened by a call that cannot leave the directory. What the answer says of a file (its
//! length, its time, its tag) is read from the open file itself, so that it fits the bytes that follow.
//!
//! Invariant: between the check of a name and its use there is no second decoding, and nothing but a regular
//! file is ever sent.

mod conditions;
mod media_types;
mod precompressed;
mod range;

use std::fmt::Write as _;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use http::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED,
    LOCATION, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use netpoll_core::{Directory, FileRange};

use crate::handler::{Endpoint, Handler};
use crate::message::{Body, Error, Replied, Reply, Request, Response};
use crate::wire::date::imf_fixdate;
use crate::wire::target;

use self::conditions::{Outcome, Validators};
use self::range::Part;

/// What a directory is answered with.
const INDEX: &str = "index.html";

/// Serves the files below a directory: a handler for a route that ends in `{*rest}`.
///
/// The route's last parameter is the path of the file; a route without parameters serves the `index.html` of the
/// directory itself, because `{*rest}` takes no empty path.
///
/// ```
/// use netpoll_http::{App, Files, Router, StatusCode};
///
/// # fn main() -> std::io::Result<()> {
/// let files = Files::new("src")?; // once: workers share the open directory
/// let client = App::new(move |_| Router::new().get("/src/{*rest}", files.clone())).test();
///
/// let found = client.get("/src/lib.rs");
/// assert_eq!(found.header("content-type"), Some("text/plain; charset=utf-8"));
/// assert_eq!(client.get("/src/../Cargo.toml").status, StatusCode::BAD_REQUEST);
/// assert_eq!(client.get("/src/missing.rs").status, StatusCode::NOT_FOUND);
/// # Ok(())
/// # }
/// ```
///
/// # Names
///
/// The path is percent-decoded once. 400 for what no name can be: a bad escape, bytes that are not UTF-8, `..`,
/// a backslash, a NUL, a slash that only appears by decoding. 404 for everything else that is not there to be
/// served: empty segments, names that begin with a dot (unless [`dot_files`](Self::dot_files) is on), links that lead
/// out of the directory, whatever may not be read, and what is neither a file nor a directory.
///
/// A directory is answered with its `index.html` if it has one, behind a redirect (308) to the path with a slash at
/// its end; else with 404. Directories are never listed.
///
/// # Answers
///
/// `Content-Type` by the ending of the name, `Last-Modified`, an `ETag` and `Accept-Ranges`. The tag changes with the
/// size, the times and the inode of a file, so two machines that have the same files have different tags for them. `If-Match`, `If-Unmodified-Since`, `If-None-Match` and `If-Modified-Since` are honoured (412,
/// 304), and so is a `Range` of one part (206, or 416 if the file ends before it). Several parts are answered with
/// the whole file, and so is a range whose `If-Range` is not the tag of the file: a date there is not precise enough.
/// GET and HEAD only.
///
/// A file that becomes shorter while it is sent resets the connection: its length was promised. Replace files by
/// renaming, not by writing into them.
///
/// # Cost
///
/// Look, open, look, send the head, send the file, close: six system calls for a file that the peer takes at once (up to
/// 512 KiB), no byte of it copied through the process. Nothing but a regular file is opened. Opening and reading happen on the worker: names or pages that
/// are not in the kernel's caches are waited for, and all connections of the worker wait. 503 when the process has no
/// descriptor left.
#[derive(Clone, Debug)]
pub struct Files {
    directory: Arc<Directory>,
    cache_control: Option<HeaderValue>,
    dot_files: bool,
    precompressed: bool,
}

impl Files {
    /// Serves the files below this directory, which is opened now: one that takes its name later is not seen.
    ///
    /// # Errors
    /// The kernel's, with the path: there is no such directory, or it may not be searched.
    pub fn new(directory: impl AsRef<Path>) -> io::Result<Self> {
        let path = directory.as_ref();
        let directory = Directory::open(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(Self {
            directory: Arc::new(directory),
            cache_control: None,
            dot_files: false,
            precompressed: false,
        })
    }

    /// The `Cache-Control` of every file that is found. Default: none, and caches guess from `Last-Modified`.
    #[must_use]
    pub fn cache_control(mut self, value: HeaderValue) -> Self {
        self.cache_control = Some(value);
        self
    }

    /// Whether names that begin with a dot are served, as `.well-known`. Default: no, because what lies there is
    /// rarely meant for strangers (`.git`, `.env`).
    #[must_use]
    pub fn dot_files(mut self, serve: bool) -> Self {
        self.dot_files = serve;
        self
    }

    /// Whether a client that accepts it gets the compressed file that lies beside one: of `app.js` this is `app.js.br`, `app.js.zst` or `app.js.gz`, in
    /// this order where the client does not care. Default: no.
    ///
    /// It is sent with the type of the file whose name was asked for, `Content-Encoding`, and a tag, a time and ranges of its own; all answers then say `Vary:
    /// Accept-Encoding`. The file itself has to be there, and one that is older than it by a second or more is not sent: it was compressed from another. Costs
    /// up to three more looks for a file.
    ///
    /// ```
    /// use netpoll_http::{App, Files, Method, Router};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// # let directory = std::env::temp_dir().join(format!("netpoll-precompressed-{}", std::process::id()));
    /// # std::fs::create_dir_all(&directory)?;
    /// # std::fs::write(directory.join("app.js"), "start();  // and the rest")?;
    /// # std::fs::write(directory.join("app.js.br"), "as brotli -k made it")?;
    /// let files = Files::new(&directory)?.precompressed(true);
    /// let client = App::new(move |_| Router::new().get("/{*rest}", files.clone())).test();
    /// let response = client.request(Method::GET, "/app.js").header("Accept-Encoding", "gzip, br").send();
    /// assert_eq!(response.header("content-encoding"), Some("br"));
    /// assert_eq!(response.header("content-type"), Some("text/javascript; charset=utf-8"));
    /// # std::fs::remove_dir_all(directory)
    /// # }
    /// ```
    #[must_use]
    pub fn precompressed(mut self, serve: bool) -> Self {
        self.precompressed = serve;
        self
    }

    fn answer(&self, request: &Request<'_>, unix_seconds: u64) -> Result<Response, Error> {
        if !matches!(request.method_str(), "GET" | "HEAD") {
            let refusal = Error::from(StatusCode::METHOD_NOT_ALLOWED);
            return Err(refusal.with_header(ALLOW, HeaderValue::from_static("GET, HEAD")));
        }
        let raw = request.last_param_raw().unwrap_or_default();
        let path = target::file_path(raw).map_err(|error| Error::bad_request(error.to_string()))?;
        let (names, is_directory) = match path.strip_suffix('/') {
            Some(names) => (names, true),
            None => (&*path, path.is_empty()),
        };
        if !path.is_empty() && !names.split('/').all(|name| self.is_served(name)) {
            return Err(not_found());
        }
        if is_directory {
            let index = self.open(&format!("{path}{INDEX}"))?.ok_or_else(not_found)?;
            return self.found(request, &format!("{path}{INDEX}"), index, unix_seconds);
        }
        match self.open(&path)? {
            Some(file) => self.found(request, &path, file, unix_seconds),
            None if self.open(&format!("{path}/{INDEX}"))?.is_some() => redirect(request, raw),
            None => Err(not_found()),
        }
    }

    /// Whether a name in a path may be looked for.
    fn is_served(&self, name: &str) -> bool {
        match name {
            "" | "." | ".." => false,
            name => self.dot_files || !name.starts_with('.'),
        }
    }

    /// Opens a regular file; `None` for anything else.
    fn open(&self, path: &str) -> Result<Option<Found>, Error> {
        let found = self.directory.open_file_beneath(path).map_err(refusal)?;
        Ok(found.map(|(file, metadata)| Found { size: metadata.len(), file, metadata }))
    }

    fn found(
        &self,
        request: &Request<'_>,
        name: &str,
        found: Found,
        unix_seconds: u64,
    ) -> Result<Response, Error> {
        let (found, coding) = match self.precompressed {
            true => self.coded(request, name, found),
            false => (found, None),
        };
        let Found { file, metadata, size } = found;
        let (seconds, now_seconds) = (metadata.mtime(), i64::try_from(unix_seconds).unwrap_or(i64::MAX));
        let tag = entity_tag(&metadata);
        let validators = Validators { tag: &tag, modified_seconds: seconds, now_seconds };
        let outcome = conditions::evaluate(request, &validators);
        if outcome == Outcome::Failed {
            return Err(StatusCode::PRECONDITION_FAILED.into());
        }

        let mut headers = HeaderMap::with_capacity(8);
        // A date in the future would be a promise (RFC 9110 section 8.8.2.1).
        let modified = imf_fixdate(seconds.min(now_seconds));
        headers.insert(LAST_MODIFIED, HeaderValue::from_bytes(&modified).map_err(http::Error::from)?);
        headers.insert(ETAG, HeaderValue::from_str(&tag).map_err(http::Error::from)?);
        if let Some(value) = &self.cache_control {
            headers.insert(CACHE_CONTROL, value.clone());
        }
        if self.precompressed {
            headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        }
        if outcome == Outcome::NotModified {
            return Ok(Response { status: StatusCode::NOT_MODIFIED, headers, body: Body::Empty });
        }

        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_types::by_name(name)));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if let Some(coding) = coding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        }
        let part = if outcome == Outcome::Whole { Part::Whole } else { range::wanted(request, size) };
        let (status, offset, length) = match part {
            Part::Whole => (StatusCode::OK, 0, size),
            Part::Some { first, last } => {
                let value = format!("bytes {first}-{last}/{size}");
                headers.insert(CONTENT_RANGE, HeaderValue::from_str(&value).map_err(http::Error::from)?);
                (StatusCode::PARTIAL_CONTENT, first, last - first + 1)
            }
            Part::Unsatisfiable => {
                let value = HeaderValue::from_str(&format!("bytes */{size}")).map_err(http::Error::from)?;
                return Err(Error::from(StatusCode::RANGE_NOT_SATISFIABLE).with_header(CONTENT_RANGE, value));
            }
        };
        Ok(Response { status, headers, body: FileRange::new(file, offset, length).into() })
    }
}

/// A regular file that was opened.
struct Found {
    file: std::fs::File,
    metadata: Metadata,
    size: u64,
}

/// Made of the size, of both times in nanoseconds, and of the number of the inode, so that two files differ although a
/// build has given them one time. Whoever writes into a file twice within one tick of the file system's clock, and
/// leaves its size as it was, has two contents with one tag.
///
/// All but the size is hashed: the numbers are nobody's business, and a tag has no meaning.
fn entity_tag(metadata: &Metadata) -> String {
    let facts = [
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
        metadata.ino().cast_signed(),
    ];
    let hash = facts.into_iter().fold(0, |hash: u64, fact| {
        let hash = (hash ^ fact.cast_unsigned()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^ hash >> 32
    });
    let mut tag = String::with_capacity(40);
    // Writing to a string cannot fail.
    let _ = write!(tag, "\"{:x}-{hash:x}\"", metadata.len());
    tag
}

/// To the same path with a slash. Relative, so that it is right behind a proxy that took a prefix off, and `./` in
/// front, so that no name is taken for a scheme.
fn redirect(request: &Request<'_>, raw: &str) -> Result<Response, Error> {
    let name = raw.rsplit('/').next().unwrap_or(raw);
    let location = match request.query_raw() {
        Some(query) => format!("./{name}/?{query}"),
        None => format!("./{name}/"),
    };
    Response::new(StatusCode::PERMANENT_REDIRECT).header(LOCATION, location)
}

fn not_found() -> Error {
    StatusCode::NOT_FOUND.into()
}

/// Whose fault it is that a file could not be opened. Who asks learns no more than that there is nothing for him.
fn refusal(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(
            libc::ENOENT | libc::ENOTDIR | libc::EACCES | libc::EPERM | libc::EXDEV | libc::ELOOP
            // A socket or a device without a driver.
            | libc::ENAMETOOLONG | libc::ENXIO | libc::ENODEV,
        ) => not_found().with_source(error),
        // No descriptor or no memory left, or too many renames on the way: later it may work.
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EAGAIN) => {
            Error::from(StatusCode::SERVICE_UNAVAILABLE).with_source(error)
        }
        _ => Error::internal(error),
    }
}

/// Marks [`Files`].
#[derive(Debug)]
pub struct Below(());

impl Handler<Below> for Files {
    type Endpoint = Self;

    fn into_endpoint(self) -> Self {
        self
    }
}

impl Endpoint for Files {
    fn call(&self, request: &Request<'_>, reply: Reply<'_>) -> Replied {
        match self.answer(request, reply.unix_seconds()) {
            Ok(response) => reply.send(response),
            Err(error) => reply.fail(error),
        }
    }
}
