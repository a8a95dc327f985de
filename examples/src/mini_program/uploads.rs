//! Files from forms: `POST /upload`, part by part while it arrives.
//!
//! Nothing is kept. Of each part its user is told how long it was and its SHA-256, by which a client sees that all of it has come. A service
//! hands the pieces on to an object store where this one digests them, or to [`Part::save`](netpoll_http::multipart::Part::save); a program that anybody may
//! log in to is no place to put files, and has none to remove.
//!
//! Invariant: memory is one piece of a body and the heads of its parts, whatever is sent. Who has no session is answered before the body is read.

use std::fmt::Write;

use netpoll_http::multipart::MultipartLimits;
use netpoll_http::{BodyReader, Error, Json, Multipart, Request};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::app::App;
use crate::login::Platform;
use crate::session;

/// Parts of a form: each is a line of the answer.
const PARTS_MAX: usize = 16;
/// Bytes of the head of a part: its names come back.
const HEAD_BYTES_MAX: usize = 1024;

#[derive(Serialize)]
pub struct Uploaded {
    parts: Vec<Part>,
    /// Of all parts, without what is between them.
    bytes: u64,
}

#[derive(Serialize)]
struct Part {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    filename: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    bytes: u64,
    /// In hexadecimal digits.
    sha256: String,
}

/// `POST /upload`
pub async fn upload<P: Platform>(
    app: &App<P>,
    req: &Request<'_>,
    body: BodyReader,
) -> Result<Json<Uploaded>, Error> {
    session::user(app, req)?;
    let limits = MultipartLimits::default().parts_max(PARTS_MAX).header_bytes_max(HEAD_BYTES_MAX);
    let mut form = Multipart::new(req, body)?.limits(limits);
    let mut uploaded = Uploaded { parts: Vec::new(), bytes: 0 };
    while let Some(mut part) = form.next().await? {
        let (mut digest, mut bytes) = (Sha256::new(), 0);
        while let Some(piece) = part.chunk().await? {
            bytes += piece.len() as u64;
            digest.update(&piece);
        }
        uploaded.bytes += bytes;
        uploaded.parts.push(Part {
            name: part.name().to_owned(),
            filename: part.filename().map(str::to_owned),
            content_type: part.content_type().map(str::to_owned),
            bytes,
            sha256: digits(&digest.finalize()),
        });
    }
    Ok(Json(uploaded))
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // A string takes all that is written.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
