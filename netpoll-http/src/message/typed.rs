//! Whole values out of a request: a query, a form, the parameters of a path, as one type of the program.
//!
//! What is made of a request is [`FromRequest`], and a program adds its own. `T` may borrow from the request.

#[cfg(feature = "serde")]
use std::borrow::Cow;

#[cfg(feature = "serde")]
use http::StatusCode;
#[cfg(feature = "serde")]
use serde::Deserialize;

#[cfg(feature = "serde")]
use super::fields::{FieldError, Pairs, Places, clipped_name};
use super::{Error, Request};
#[cfg(feature = "serde")]
use crate::wire::target;

/// What a request can be turned into, by [`Request::extract`]: [`Query`], [`Form`], [`Path`], [`Json`](crate::Json), and what a
/// program implements it for: who asks, for one, or what all its handlers want to know. Its one method has no default, and runs in the handler
/// that asks for the type: it may borrow from the request, and may not wait. What has to wait is a [hook](crate::Router::before), which leaves what it
/// has found in the [`extensions`](Request::extensions).
///
/// ```
/// use netpoll_http::{App, Error, FromRequest, Request, Router, StatusCode};
///
/// struct Token<'r>(&'r str);
///
/// impl<'r> FromRequest<'r> for Token<'r> {
///     fn from_request(request: &'r Request<'_>) -> Result<Self, Error> {
///         let header = request.header_str("authorization");
///         let token = header.and_then(|header| header.strip_prefix("Bearer "));
///         token.map(Token).ok_or(StatusCode::UNAUTHORIZED.into())
///     }
/// }
///
/// let router = |_: &_| Router::new().get("/", |req: &Request| {
///     let Token(token) = req.extract()?;
///     Ok(token.len().to_string())
/// });
/// assert_eq!(App::new(router).test().get("/").status, StatusCode::UNAUTHORIZED);
/// ```
pub trait FromRequest<'r>: Sized {
    /// Makes it of a request.
    ///
    /// # Errors
    /// The answer to a request that it cannot be made of.
    fn from_request(request: &'r Request<'_>) -> Result<Self, Error>;
}

impl Request<'_> {
    /// A part of the request as a type of the program: `let Query(filter): Query<Filter> = req.extract()?;`
    ///
    /// # Errors
    /// Those of the type.
    pub fn extract<'r, T: FromRequest<'r>>(&'r self) -> Result<T, Error> {
        T::from_request(self)
    }
}

/// Fields that a [`Query`] or a [`Form`] may have; more are refused with 400. A field takes some 100 bytes while they are sorted by
/// their names, and a body of one megabyte has room for half a million.
#[cfg(feature = "serde")]
pub const FIELDS_MAX: usize = 10_000;

/// The query as a `T`, which implements [`Deserialize`].
///
/// Names and values are percent-decoded, with a plus for a space. A field is parsed with its
/// [`FromStr`](std::str::FromStr), an enum is one of its names, an `Option` may be missing, and a `Vec` takes all pairs of its name:
/// `tag=a&tag=b`. A name that is there twice where one value is wanted is refused, because readers do not agree on which
/// counts; [`Request::query`] takes the first. No query is an empty one.
///
/// An empty text is a text: a number that is `page=` is refused, an `Option` of one as well. Within `#[serde(flatten)]`, and in enums that are
/// `untagged` or have a `tag`, serde asks for texts before it knows what they are to be, and there only a `String`, an enum or a `Vec` of them
/// finds what it wants: a number there is parsed by the program, with `deserialize_with`, or the types are extracted one by one.
///
/// The error is a 400 that names the field: ``query parameter `page`: invalid digit found in string``. So is that of more than
/// [`FIELDS_MAX`] fields.
///
/// ```
/// use netpoll_http::{App, Query, Request, Router};
///
/// #[derive(serde::Deserialize)]
/// struct Search {
///     #[serde(rename = "q")]
///     words: String,
///     #[serde(default)]
///     page: u32,
///     #[serde(default)]
///     tag: Vec<String>,
/// }
///
/// let router = |_: &_| Router::new().get("/search", |req: &Request| {
///     let Query(search): Query<Search> = req.extract()?;
///     Ok(format!("{} on page {}, {} tags", search.words, search.page, search.tag.len()))
/// });
/// let client = App::new(router).test();
/// assert_eq!(client.get("/search?q=green+tea&tag=a&tag=b").text(), "green tea on page 0, 2 tags");
/// assert_eq!(client.get("/search").text(), "query parameter `q` is missing\n");
/// assert_eq!(client.get("/search?q=&page=x").text(), "query parameter `page`: invalid digit found in string\n");
/// ```
#[cfg(feature = "serde")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query<T>(pub T);

#[cfg(feature = "serde")]
impl<'r, T: Deserialize<'r>> FromRequest<'r> for Query<T> {
    fn from_request(request: &'r Request<'_>) -> Result<Self, Error> {
        let pairs = decoded(request.query_raw().unwrap_or_default(), "query", "query parameter")?;
        T::deserialize(pairs).map(Query).map_err(|error| said("query", "query parameter", &error))
    }
}

/// The body as the fields of a form (`application/x-www-form-urlencoded`), as [`Query`] has them.
///
/// The errors are 415 for another content type, and 400 that names the field: ``form field `age` is missing``.
#[cfg(feature = "serde")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form<T>(pub T);

#[cfg(feature = "serde")]
impl<'r, T: Deserialize<'r>> FromRequest<'r> for Form<T> {
    fn from_request(request: &'r Request<'_>) -> Result<Self, Error> {
        const FORM: &str = "application/x-www-form-urlencoded";
        let content_type = request.content_type().unwrap_or("nothing");
        if !content_type.eq_ignore_ascii_case(FORM) {
            let message = format!("expected `content-type: {FORM}`, got {content_type}");
            return Err(Error::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
        let pairs = decoded(request.text()?, "form", "form field")?;
        T::deserialize(pairs).map(Form).map_err(|error| said("form", "form field", &error))
    }
}

/// The parameters of the path as a `T`: a struct by their names, a tuple by their order, or a single value if there is one.
///
/// They are percent-decoded once, as by [`Request::param`]. The error is a 400 that names the parameter; it is a 500 when the route's pattern
/// has not what `T` wants, which is a mistake in the program.
///
/// ```
/// use netpoll_http::{App, Path, Request, Router};
///
/// let router = |_: &_| Router::new().get("/{shop}/items/{id}", |req: &Request| {
///     let Path((shop, id)): Path<(String, u32)> = req.extract()?;
///     Ok(format!("item {id} of {shop}"))
/// });
/// let client = App::new(router).test();
/// assert_eq!(client.get("/Bean%20House/items/7").text(), "item 7 of Bean House");
/// assert_eq!(client.get("/a/items/x").text(), "path parameter `id`: invalid digit found in string\n");
/// ```
#[cfg(feature = "serde")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path<T>(pub T);

#[cfg(feature = "serde")]
impl<'r, T: Deserialize<'r>> FromRequest<'r> for Path<T> {
    fn from_request(request: &'r Request<'_>) -> Result<Self, Error> {
        let mut places = Vec::new();
        for (name, raw) in request.params().iter(request.path()) {
            let text = target::decode_segment(raw);
            places.push((
                name,
                text.map_err(|error| Error::bad_request(format!("path parameter `{name}`: {error}")))?,
            ));
        }
        let names = request.params().names();
        T::deserialize(Places(places)).map(Path).map_err(|error| {
            // Whoever asked has no say in which parameters there are.
            let is_theirs = error.name.as_deref().is_some_and(|name| names.contains(&name));
            let said = said("path", "path parameter", &error);
            if is_theirs { said } else { Error::internal(said.message().to_owned()) }
        })
    }
}

/// The body as JSON, see [`Request::json`].
#[cfg(feature = "json")]
impl<'r, T: Deserialize<'r>> FromRequest<'r> for super::Json<T> {
    fn from_request(request: &'r Request<'_>) -> Result<Self, Error> {
        request.json().map(Self)
    }
}

#[cfg(feature = "serde")]
fn decoded<'r>(raw: &'r str, all: &str, what: &str) -> Result<Pairs<'r>, Error> {
    let pair = |(name, value): (&'r str, &'r str)| {
        let decode = |text| {
            let refused = |error| Error::bad_request(format!("{what} `{}`: {error}", clipped_name(name)));
            target::decode_form(text).map_err(refused)
        };
        Ok::<(Cow<'r, str>, Cow<'r, str>), Error>((decode(name)?, decode(value)?))
    };
    if target::raw_pairs(raw).nth(FIELDS_MAX).is_some() {
        let message = format!("{all} has more than {FIELDS_MAX} fields");
        return Err(Error::bad_request(message));
    }
    target::raw_pairs(raw).map(pair).collect::<Result<_, _>>().map(Pairs)
}

#[cfg(feature = "serde")]
fn said(all: &str, one: &str, error: &FieldError) -> Error {
    Error::bad_request(format!("{}{error}", if error.name.is_some() { one } else { all }))
}
