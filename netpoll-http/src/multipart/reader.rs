//! The parts of a form, while they arrive.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;

use bytes::{Buf, Bytes};
use http::StatusCode;

use super::head::{PartHead, parameter};
use super::parser::{Parser, Step, is_boundary};
use super::save::Saving;
use super::{MultipartError, MultipartLimits};
use crate::message::{BodyReader, Error, Request};

/// Bytes of a file that are gathered for one job.
const WRITE_BYTES: usize = 128 * 1024;

/// A form with files, read part by part while it arrives (`multipart/form-data`, RFC 7578).
///
/// ```
/// use netpoll_http::{App, BodyReader, Error, Handler, Method, Multipart, Request, RouteLimits, Router};
///
/// async fn upload(req: Request<'static>, body: BodyReader) -> Result<String, Error> {
///     let (mut form, mut answer) = (Multipart::new(&req, body)?, String::new());
///     while let Some(part) = form.next().await? {
///         let name = part.name().to_owned();
///         let bytes = match part.filename() {
///             Some(_) => part.save(std::env::temp_dir().join("netpoll-example-upload")).await?,
///             None => part.text().await?.len() as u64,
///         };
///         answer += &format!("{name}: {bytes} bytes\n");
///     }
///     Ok(answer)
/// }
/// # let _ = std::fs::remove_file(std::env::temp_dir().join("netpoll-example-upload"));
///
/// let client = App::new(|_| Router::new().post("/", upload.limits(RouteLimits::default().body_bytes_max(8 << 20)))).test();
/// let form = "--x\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\ntea\r\n\
///     --x\r\nContent-Disposition: form-data; name=\"picture\"; filename=\"a.jpg\"\r\n\r\n....\r\n--x--\r\n";
/// let request = client.request(Method::POST, "/").header("Content-Type", "multipart/form-data; boundary=x");
/// assert_eq!(request.body(form).send().text(), "title: 3 bytes\npicture: 4 bytes\n");
/// # std::fs::remove_file(std::env::temp_dir().join("netpoll-example-upload")).unwrap();
/// ```
///
/// What it may have in it is limited ([`MultipartLimits`]), beside the body itself. It is strict: nothing but a line end stands in front of the first boundary and
/// behind the last, a part has one name, no encoding (`base64`), and no `filename*` that says anything else than its `filename`. Of its parts one is read at a time, in their order, and
/// what is not read of one is skipped.
pub struct Multipart {
    body: BodyReader,
    parser: Parser,
    limits: MultipartLimits,
    boundary: Vec<u8>,
    /// What was received and not looked at.
    chunk: Bytes,
    has_ended: bool,
}

impl Multipart {
    /// The form that is the body of this request.
    ///
    /// # Errors
    /// 415 for another content type, 400 for one without a boundary.
    pub fn new(request: &Request<'_>, body: BodyReader) -> Result<Self, Error> {
        if !request.content_type().is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/form-data")) {
            return Err(Error::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "this route takes multipart/form-data",
            ));
        }
        let value = request.header("content-type").unwrap_or_default();
        let boundary = boundary(value)
            .ok_or_else(|| Error::bad_request("the content type of the form has no valid boundary"))?;
        let limits = MultipartLimits::default();
        let parser = Parser::new(&boundary, limits);
        Ok(Self { body, parser, limits, boundary, chunk: Bytes::new(), has_ended: false })
    }

    /// What the form may have in it. Before the first part is asked for.
    #[must_use]
    pub fn limits(mut self, limits: MultipartLimits) -> Self {
        self.parser = Parser::new(&self.boundary, limits);
        self.limits = limits;
        self
    }

    /// The next part; `None` behind the last, when the body has ended. What was not read of the one before is skipped.
    ///
    /// # Errors
    /// The form breaks a rule or a limit, or its body is not going to be whole; the same one again from then on.
    ///
    /// # Cancel safety
    /// A wait that is given up loses nothing of the next part.
    pub async fn next(&mut self) -> Result<Option<Part<'_>>, MultipartError> {
        loop {
            match self.step().await? {
                None => return Ok(None),
                Some(Next::Part(head)) => return Ok(Some(Part { form: self, head, has_ended: false })),
                Some(Next::Data(_) | Next::End) => {}
            }
        }
    }

    async fn step(&mut self) -> Result<Option<Next>, MultipartError> {
        loop {
            if self.has_ended {
                return Ok(None);
            }
            let mut rest = &self.chunk[..];
            let next = match self.parser.next(&mut rest)? {
                None => None,
                Some(Step::Part(head)) => Some(Next::Part(head)),
                Some(Step::Data(data)) => Some(Next::Data(self.chunk.slice_ref(data))),
                Some(Step::Held(data)) => Some(Next::Data(Bytes::copy_from_slice(data))),
                Some(Step::PartEnd) => Some(Next::End),
            };
            let taken = self.chunk.len() - rest.len();
            self.chunk.advance(taken);
            if next.is_some() {
                return Ok(next);
            }
            match self.body.chunk().await? {
                Some(chunk) => self.chunk = chunk,
                None => {
                    self.parser.finish()?;
                    self.has_ended = true;
                }
            }
        }
    }
}

enum Next {
    Part(PartHead),
    Data(Bytes),
    End,
}

impl fmt::Debug for Multipart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Multipart").field("body", &self.body).finish_non_exhaustive()
    }
}

/// One part of a form: a field, or a file.
pub struct Part<'m> {
    form: &'m mut Multipart,
    head: PartHead,
    has_ended: bool,
}

impl Part<'_> {
    /// Its name, of which a form may have several parts.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.head.name
    }

    /// What the client calls its file, if it is one. Not to be made a path of: it may be `../../etc/passwd`, or empty where no file was chosen.
    #[must_use]
    pub fn filename(&self) -> Option<&str> {
        self.head.filename.as_deref()
    }

    /// What the client says that it is. A browser guesses it by the name of the file.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.head.content_type.as_deref()
    }

    /// Waits for more of it, in the pieces in which it arrives. `None` when that was all.
    ///
    /// # Errors
    /// Those of [`Multipart::next`].
    ///
    /// # Cancel safety
    /// A wait that is given up loses nothing.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, MultipartError> {
        if self.has_ended {
            return Ok(None);
        }
        match self.form.step().await? {
            Some(Next::Data(data)) => Ok(Some(data)),
            // A part begins behind the end of this one.
            Some(Next::End | Next::Part(_)) | None => {
                self.has_ended = true;
                Ok(None)
            }
        }
    }

    /// All of it, in memory.
    ///
    /// # Errors
    /// Those of [`Multipart::next`], and [`MultipartError::TooLarge`] beyond [`MultipartLimits::field_bytes_max`].
    pub async fn bytes(mut self) -> Result<Bytes, MultipartError> {
        let bytes_max = self.form.limits.field_bytes_max;
        let mut all = Bytes::new();
        let mut gathered = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if chunk.len() > bytes_max - all.len().max(gathered.len()) {
                return Err(MultipartError::TooLarge("a field of the form has too many bytes"));
            }
            if all.is_empty() && gathered.is_empty() {
                all = chunk;
                continue;
            }
            if gathered.is_empty() {
                gathered.extend_from_slice(&all);
            }
            gathered.extend_from_slice(&chunk);
        }
        Ok(if gathered.is_empty() { all } else { Bytes::from(gathered) })
    }

    /// All of it, as text.
    ///
    /// # Errors
    /// Those of [`bytes`](Self::bytes), and [`MultipartError::Malformed`] for what is not UTF-8.
    pub async fn text(self) -> Result<String, MultipartError> {
        let bytes = self.bytes().await?;
        let text = std::str::from_utf8(&bytes);
        text.map(str::to_owned).map_err(|_| MultipartError::Malformed("a field of the form is not UTF-8"))
    }

    /// Saves it as a new file, and says how long that has become. It is written by threads that may [block](netpoll_core::blocking); meanwhile the client is held back.
    ///
    /// A file that is not whole, because the client leaves, an error comes in between or the future is dropped, is removed. That it has reached the disk is not waited for.
    ///
    /// # Errors
    /// Those of [`Multipart::next`]; 500 when the file is there already, or cannot be made or written; 503 where too many jobs wait.
    pub async fn save(mut self, path: impl Into<PathBuf>) -> Result<u64, Error> {
        let saving = Saving::begin(path.into()).await?;
        let mut bytes = 0;
        while let Some(chunks) = self.gather(&mut bytes).await? {
            saving.write(chunks).await?;
        }
        saving.finish();
        Ok(bytes)
    }

    /// Writes it behind the cursor of a file, as [`save`](Self::save) does, and gives that back with the number of bytes. What was written stays when it is not whole.
    ///
    /// # Errors
    /// Those of [`save`](Self::save).
    pub async fn write_to(mut self, mut file: File) -> Result<(File, u64), Error> {
        let mut bytes = 0;
        while let Some(chunks) = self.gather(&mut bytes).await? {
            file = super::save::write(file, chunks).await?;
        }
        Ok((file, bytes))
    }

    /// Pieces that are worth a job.
    async fn gather(&mut self, bytes: &mut u64) -> Result<Option<Vec<Bytes>>, MultipartError> {
        let (mut chunks, mut gathered) = (Vec::new(), 0);
        while gathered < WRITE_BYTES {
            let Some(chunk) = self.chunk().await? else { break };
            gathered += chunk.len();
            chunks.push(chunk);
        }
        *bytes += gathered as u64;
        Ok((!chunks.is_empty()).then_some(chunks))
    }
}

impl fmt::Debug for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PartHead { name, filename, content_type } = &self.head;
        f.debug_struct("Part")
            .field("name", name)
            .field("filename", filename)
            .field("content_type", content_type)
            .finish_non_exhaustive()
    }
}

/// The boundary that a content type names, once.
fn boundary(content_type: &[u8]) -> Option<Vec<u8>> {
    let semicolon = memchr::memchr(b';', content_type)?;
    let (mut boundary, mut rest) = (None, content_type[semicolon..].trim_ascii());
    while !rest.is_empty() {
        let (name, value, behind) = parameter(rest)?;
        rest = behind;
        if name.eq_ignore_ascii_case(b"boundary") && boundary.replace(value).is_some() {
            return None;
        }
    }
    boundary.filter(|boundary| is_boundary(boundary))
}
