//! Answers that leave compressed, if their client can read that.
//!
//! Invariant: whether an answer is compressed is decided from its head, its length and the request alone, so that HEAD and GET agree; what is coded
//! already, or is a part of something, is left as it is.
//!
//! Runs on the worker, and holds up what else it has to do: a body that is longer than a share of a turn is compressed while it leaves, a piece at a
//! time. Coders are kept by the worker and used again.

mod pool;
mod stream;

use std::rc::Rc;

use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode, Version};

use self::pool::Pool;
use self::stream::{Pressed, SHARE_BYTES};
use crate::coding::{Accepted, Coding, Levels};
use crate::message::{BodyStream, Content, Parts, Recode, Request, Source, weaken};
use crate::wire::framing;

/// Compresses answers that gain from it, by what their clients accept: an [`after`](crate::Router::after) hook.
///
/// ```
/// use netpoll_http::{App, Compress, Method, Request, Response, Router};
///
/// let list = |_: &Request| Response::html("<li>one of many</li>\n".repeat(200));
/// let client = App::new(move |_worker| Router::new().get("/list", list).after(Compress::new().hook())).test();
/// let ask = |accepted: &str| client.request(Method::GET, "/list").header("Accept-Encoding", accepted).send();
///
/// let response = ask("gzip;q=0.8, deflate");
/// assert_eq!((response.header("content-encoding"), response.header("vary")), (Some("gzip"), Some("accept-encoding")));
/// assert!(response.body.len() < 200);
/// assert_eq!(ask("identity").body.len(), 4200);
/// ```
///
/// # Which answers
///
/// Those of [`bytes_min`](Self::bytes_min) bytes or more, and streams, of a [type](Self::types) that gains from it. Not what has a `Content-Encoding`, a
/// `Content-Range` or a digest of its bytes, nor 206, nor what says `Cache-Control: no-transform`; not files, which leave without being read
/// ([`Files::precompressed`](crate::Files::precompressed) is for those); and nothing for HTTP/1.0. A client that refuses answers without a coding
/// (`identity;q=0`) gets short ones and other types compressed as well; if it accepts no coding that there is, it gets them as they are.
///
/// What a client wants more goes first. Of what it wants as much, which is the usual case, `zstd`, then `gzip`, then `br` ([`codings`](Self::codings)), as far as they are compiled in: `gzip` by
/// the feature `compression`, the others by features of their names. On text that is compressed as it leaves, zstd takes a quarter of gzip's time for as many bytes, and Brotli twice to three
/// times as long for a few percent less: that is for what is compressed once.
///
/// # What changes
///
/// `Content-Encoding` is added, and to all answers that may have one `Vary: Accept-Encoding`. A strong `ETag` is made weak, of a 304 too unless it is the one
/// that the client has: its bytes are others, and weak tags do as well for `If-None-Match`. `Accept-Ranges` is left out. HEAD is answered as GET, without a `Content-Length`. `after` hooks see
/// the answer as it was before: it is compressed when all of them have run.
///
/// # Cost
///
/// Routes without it pay nothing. A body of up to [`inline_bytes_max`](Self::inline_bytes_max) is compressed at once and has its `Content-Length`, 64 KiB of a connection in a turn or a few more; a longer one, and each stream, as it
/// leaves, chunked, 32 KiB of it in a turn or a few more at most. What a stream has written before it waits leaves with a flush, so that events are not held back. A
/// coder takes 0.3 MiB (gzip) or up to 2.3 MiB (zstd, br); a worker keeps a few and has one for each compressed stream in flight, of which there are
/// [`streams_max`](Self::streams_max) at most.
///
/// # Secrets
///
/// Compressing an answer that has both a secret (a token against forgery) and text that a stranger chooses in it tells the stranger of the secret by its length
/// (BREACH): leave such routes out, or mask the secret anew in each answer.
///
/// # Per route
///
/// Hooks are a router's: what is to be compressed goes into one that is merged or nested. The innermost of several goes.
#[derive(Clone, Debug)]
#[must_use = "`hook` makes the hook of it"]
pub struct Compress {
    settings: Settings,
}

#[derive(Clone, Debug)]
struct Settings {
    codings: Vec<Coding>,
    bytes_min: usize,
    inline_bytes_max: usize,
    streams_max: usize,
    levels: Levels,
    gains: fn(&str) -> bool,
}

impl Default for Compress {
    fn default() -> Self {
        Self::new()
    }
}

impl Compress {
    /// One with the defaults.
    pub fn new() -> Self {
        let codings =
            [Coding::Zstd, Coding::Gzip, Coding::Br].into_iter().filter(|coding| coding.is_built_in());
        Self {
            settings: Settings {
                codings: codings.collect(),
                bytes_min: 1024,
                inline_bytes_max: SHARE_BYTES,
                streams_max: 32,
                levels: Levels { gzip: 5, br: 5, zstd: 3 },
                gains,
            },
        }
    }

    /// The codings that are offered, the one to be taken first, if a client does not care, in front.
    ///
    /// # Panics
    /// When one is not compiled in, or there is none.
    #[track_caller]
    pub fn codings(mut self, codings: impl IntoIterator<Item = Coding>) -> Self {
        self.settings.codings = codings.into_iter().collect();
        assert!(!self.settings.codings.is_empty(), "no coding is offered");
        for coding in &self.settings.codings {
            assert!(coding.is_built_in(), "the feature `{}` is off", coding.name());
        }
        self
    }

    /// Bytes of the shortest body that is compressed. Default 1024: with its head that fits one packet, compressed or not.
    pub fn bytes_min(mut self, bytes: usize) -> Self {
        self.settings.bytes_min = bytes;
        self
    }

    /// Bytes of the longest body that is compressed at once. Default 32 KiB, which take gzip a millisecond; a longer one leaves in chunks.
    pub fn inline_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.inline_bytes_max = bytes;
        self
    }

    /// Compressed streams and long bodies in flight at once, on each worker. Default 32, which are 9 MiB of gzip's coders or up to 75 MiB of the others';
    /// what comes beyond that leaves as it is.
    pub fn streams_max(mut self, streams: usize) -> Self {
        self.settings.streams_max = streams;
        self
    }

    /// The level of gzip, 1 to 9. Default 5: level 6, zlib's own, takes half as long again or twice as long for 3 % less.
    ///
    /// # Panics
    /// With another level.
    #[track_caller]
    pub fn gzip_level(mut self, level: u8) -> Self {
        assert!((1..=9).contains(&level), "levels of gzip are 1 to 9");
        self.settings.levels.gzip = level;
        self
    }

    /// The quality of Brotli, 0 to 11. Default 5, the first that makes less of text than gzip does.
    ///
    /// # Panics
    /// With another quality.
    #[track_caller]
    pub fn br_quality(mut self, quality: u8) -> Self {
        assert!(quality <= 11, "qualities of Brotli are 0 to 11");
        self.settings.levels.br = quality;
        self
    }

    /// The level of zstd, 1 to 19. Default 3, its own: level 5 takes four times as long for 1 to 2 % less.
    ///
    /// # Panics
    /// With another level.
    #[track_caller]
    pub fn zstd_level(mut self, level: u8) -> Self {
        assert!((1..=19).contains(&level), "levels of zstd are 1 to 19");
        self.settings.levels.zstd = level;
        self
    }

    /// Which media types gain from it; they come without parameters and as they were written. Default: `text/*`, JSON, XML and what is made of
    /// them (`+json`, `+xml`), JavaScript, WebAssembly, fonts that are not compressed already, and some like these.
    pub fn types(mut self, gains: fn(&str) -> bool) -> Self {
        self.settings.gains = gains;
        self
    }

    /// The hook. Make one on each worker; clones of it share their coders.
    pub fn hook(self) -> impl Fn(&Request<'_>, &mut Parts) + Clone + 'static {
        let Settings { streams_max, levels, .. } = self.settings;
        let recode: Rc<dyn Recode> =
            Rc::new(Press { settings: self.settings, pool: Pool::new(levels, streams_max) });
        move |_: &Request<'_>, parts: &mut Parts| {
            parts.recode.get_or_insert_with(|| Rc::clone(&recode));
        }
    }
}

/// What compresses.
#[derive(Debug)]
struct Press {
    settings: Settings,
    pool: Rc<Pool>,
}

impl Recode for Press {
    fn choose(&self, request: &Request<'_>, parts: &mut Parts, content: Content) -> Option<(Coding, bool)> {
        let settings = &self.settings;
        if is_fixed(parts) {
            return None;
        }
        let accepted = Accepted::read(request.header_lines("accept-encoding"));
        let coding = accepted.best(settings.codings.iter().copied());
        let coding = coding.filter(|_| request.version() != Version::HTTP_10);
        let (is_long, at_once) = match content {
            Content::Bytes(bytes) => {
                (bytes >= settings.bytes_min as u64, bytes <= settings.inline_bytes_max as u64)
            }
            Content::Stream => (true, false),
            Content::NotModified => {
                vary(&mut parts.headers);
                if coding.is_some() && !has_tag_of(request, parts) {
                    weaken(parts);
                }
                return None;
            }
        };
        let gains = content_type(&parts.headers).is_some_and(settings.gains) && is_long;
        if gains {
            vary(&mut parts.headers);
        }
        let is_wanted = gains || (accepted.refuses_identity() && content != Content::Bytes(0));
        let coding = coding.filter(|_| is_wanted)?;
        if !gains {
            vary(&mut parts.headers);
        }
        (at_once || self.pool.has_room()).then_some((coding, at_once))
    }

    fn append(&self, coding: Coding, content: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(mut lease) = self.pool.lease(coding) else { return false };
        let encoder = lease.encoder();
        let is_coded = encoder.write(content, out).and_then(|()| encoder.finish(out)).is_ok();
        if is_coded {
            lease.give_back();
        }
        is_coded
    }

    fn stream(&self, coding: Coding, source: Source) -> Result<Box<dyn BodyStream>, Source> {
        match self.pool.lease_for_stream(coding) {
            Some(lease) => Ok(Box::new(Pressed::new(lease, source))),
            None => Err(source),
        }
    }
}

/// Whether the bytes of an answer have to be what they are.
fn is_fixed(parts: &Parts) -> bool {
    const DIGESTS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];
    let headers = &parts.headers;
    parts.status == StatusCode::PARTIAL_CONTENT
        || headers.contains_key(CONTENT_ENCODING)
        || headers.contains_key(CONTENT_RANGE)
        || DIGESTS.iter().any(|name| headers.contains_key(*name))
        || headers.get_all(CACHE_CONTROL).iter().any(|line| framing::lists(line.as_bytes(), "no-transform"))
}

/// Without parameters.
fn content_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or(value).trim_ascii())
}

/// Says that the answer depends on what its client accepts.
fn vary(headers: &mut HeaderMap) {
    let is_said = |line: &HeaderValue| {
        framing::lists(line.as_bytes(), "accept-encoding") || framing::lists(line.as_bytes(), "*")
    };
    if !headers.get_all(VARY).iter().any(is_said) {
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// Whether the client has the very tag of the answer, and not the weak one of what was compressed.
fn has_tag_of(request: &Request<'_>, parts: &Parts) -> bool {
    let Some(tag) = parts.headers.get(ETAG).map(HeaderValue::as_bytes) else { return false };
    let is_in = |line: &[u8]| {
        line.windows(tag.len()).enumerate().any(|(at, window)| window == tag && !line[..at].ends_with(b"W/"))
    };
    !tag.is_empty() && request.header_lines(name(&IF_NONE_MATCH)).any(is_in)
}

fn name(name: &HeaderName) -> &str {
    name.as_str()
}

/// The default of [`Compress::types`].
fn gains(media_type: &str) -> bool {
    const WHOLE: [&str; 16] = [
        "application/javascript",
        "application/json",
        "application/manifest+json",
        "application/ndjson",
        "application/toml",
        "application/vnd.ms-fontobject",
        "application/wasm",
        "application/x-javascript",
        "application/x-ndjson",
        "application/xml",
        "application/yaml",
        "font/otf",
        "font/ttf",
        "image/bmp",
        "image/svg+xml",
        "image/x-icon",
    ];
    let starts =
        |prefix: &str| media_type.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    let ends = |suffix: &str| {
        let at = media_type.len().checked_sub(suffix.len());
        at.and_then(|at| media_type.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    };
    starts("text/")
        || ends("+json")
        || ends("+xml")
        || WHOLE.iter().any(|known| media_type.eq_ignore_ascii_case(known))
}
