//! Typed values out of a request, and errors that say which value was wrong.
//!
//! Path and query values are percent-decoded once, then parsed with [`FromStr`]; nothing is allocated
//! unless there is something to decode. The error of a failed parse becomes a 400 with the name of the
//! value in it, so that whoever called the API can see what to change.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;

use super::{Error, Request};
use crate::wire::target;

impl Request<'_> {
    /// A path parameter, percent-decoded once and parsed. For several at once see [`Path`](super::Path).
    ///
    /// Routing is over by then: an encoded slash (`%2F`) is part of the value and never of the path, and a plus is a
    /// plus. For a parameter that is to name a file see [`Files`](crate::Files), which refuses `..` behind the decoding.
    ///
    /// # Errors
    /// 400 that names the parameter and says why its text was refused; 500 when the route's pattern has no
    /// parameter of that name, which is a mistake in the program.
    ///
    /// ```
    /// use netpoll_http::{App, Request, Router};
    ///
    /// let router = |_: &_| Router::new().get("/double/{n}", |req: &Request| {
    ///     let n: u32 = req.param("n")?;
    ///     Ok((2 * n).to_string())
    /// });
    /// let client = App::new(router).test();
    /// assert_eq!(client.get("/double/21").text(), "42");
    /// assert_eq!(client.get("/double/x").text(), "path parameter `n`: invalid digit found in string\n");
    /// ```
    pub fn param<T>(&self, name: &str) -> Result<T, Error>
    where
        T: FromStr,
        T::Err: Display,
    {
        let raw = self
            .param_raw(name)
            .ok_or_else(|| Error::internal(format!("the route has no path parameter `{name}`")))?;
        parse(target::decode_segment(raw), "path parameter", name)
    }

    /// A path parameter as it was sent, still percent-encoded: not to be shown, and not to name anything. `None` when the pattern has none of that name.
    pub fn param_raw(&self, name: &str) -> Option<&str> {
        self.params().get(name, self.path())
    }

    /// The last path parameter as it was sent; `None` when the pattern has none.
    pub(crate) fn last_param_raw(&self) -> Option<&str> {
        let params = self.params();
        params.value(params.len().checked_sub(1)?, self.path())
    }

    /// The value of the first query pair with this name, percent-decoded and parsed. For all of a query see [`Query`](super::Query).
    ///
    /// # Errors
    /// 400 that names the pair when it is missing or its text was refused.
    pub fn query<T>(&self, name: &str) -> Result<T, Error>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.query_opt(name)?
            .ok_or_else(|| Error::bad_request(format!("query parameter `{name}` is missing")))
    }

    /// Like [`query`](Self::query), but `None` when there is no such pair.
    ///
    /// # Errors
    /// 400 that names the pair when its text was refused.
    pub fn query_opt<T>(&self, name: &str) -> Result<Option<T>, Error>
    where
        T: FromStr,
        T::Err: Display,
    {
        let Some(query) = self.query_raw() else { return Ok(None) };
        match target::query_value(query, name).transpose() {
            None => Ok(None),
            Some(value) => parse(value, "query parameter", name).map(Some),
        }
    }

    /// All query pairs in their order, percent-decoded. Pairs that cannot be decoded are left out.
    pub fn query_pairs(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        target::query_pairs(self.query_raw().unwrap_or_default()).filter_map(Result::ok)
    }

    /// The body as text.
    ///
    /// # Errors
    /// 400 when it is not UTF-8.
    pub fn text(&self) -> Result<&str, Error> {
        std::str::from_utf8(self.body()).map_err(|error| Error::bad_request(format!("request body: {error}")))
    }

    /// The body as JSON. `T` may borrow from the request.
    ///
    /// # Errors
    /// 415 unless the content type is `application/json` or ends in `+json`, and for a `Content-Encoding` that was not decoded; 400 with the path of the field,
    /// line and column when the body is not what `T` needs, such as ``request body: `items[2].quantity`:
    /// invalid type: string "x", expected u32 at line 1 column 58``. To find the path, a body that was refused
    /// is parsed once more; one that is taken costs nothing for it. A body over the limit was answered 413
    /// before the handler ran.
    #[cfg(feature = "json")]
    pub fn json<'b, T: serde::Deserialize<'b>>(&'b self) -> Result<T, Error> {
        let content_type = self.content_type();
        if !content_type.is_some_and(is_json) {
            let got = content_type.unwrap_or("nothing");
            return Err(Error::new(
                http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
                format!("expected `content-type: application/json`, got {got}"),
            ));
        }
        serde_json::from_slice(self.body()).map_err(|error| json_error::<T>(self, &error))
    }
}

/// The error of [`Request::json`] together with the field that it is about.
#[cfg(feature = "json")]
#[cold]
fn json_error<'b, T: serde::Deserialize<'b>>(request: &'b Request<'_>, error: &serde_json::Error) -> Error {
    if request.has_coded_body() {
        let message = "the request body has a coding, which is not taken here";
        return Error::new(http::StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
    }
    let mut json = serde_json::Deserializer::from_slice(request.body());
    let place =
        serde_path_to_error::deserialize::<_, T>(&mut json).err().map(|error| error.path().to_string());
    // The path of the whole body is a dot, of what is wrong behind the value there is none, and a question mark stands
    // for what has no name yet, because the text ends or breaks off before it.
    let known = place.as_deref().unwrap_or_default().trim_end_matches('?').trim_end_matches('.');
    Error::bad_request(match known {
        "" => format!("request body: {error}"),
        path => format!("request body: `{path}`: {error}"),
    })
}

fn parse<T>(decoded: Result<Cow<'_, str>, target::DecodeError>, what: &str, name: &str) -> Result<T, Error>
where
    T: FromStr,
    T::Err: Display,
{
    let refused = |why: &dyn Display| Error::bad_request(format!("{what} `{name}`: {why}"));
    let text = decoded.map_err(|error| refused(&error))?;
    text.parse().map_err(|error| refused(&error))
}

/// `application/json`, or any type with the `+json` suffix (RFC 6839).
#[cfg(feature = "json")]
fn is_json(content_type: &str) -> bool {
    let suffix = content_type.len().checked_sub(5).and_then(|at| content_type.get(at..));
    content_type.eq_ignore_ascii_case("application/json")
        || suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case("+json"))
}

#[cfg(all(test, feature = "json"))]
mod tests {
    use super::is_json;

    #[test]
    fn json_is_known_by_its_name_and_by_its_suffix() {
        assert!(is_json("application/json") && is_json("Application/JSON"));
        assert!(is_json("application/problem+json"));
        assert!(!is_json("text/plain") && !is_json("json") && !is_json("application/jsonp") && !is_json("é"));
    }
}
