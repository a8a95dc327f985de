//! Cookies that are set: a name, a value, and how long and where a browser shows them again.
//!
//! Invariant: what is in one cannot end its line, its value or its attribute: [`Cookie::to_header`] looks at every byte, and
//! refuses instead of escaping, because readers do not agree on how that would be undone (RFC 6265 section 4.1.1).

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::Error;

/// What browsers keep of one cookie, name and value together (RFC 6265bis section 5.6); they ignore a longer one.
const BYTES_MAX: usize = 4096;
/// What they read of the value of an attribute (section 5.5); a longer one is as if it was not there.
const ATTRIBUTE_BYTES_MAX: usize = 1024;

/// A cookie to be set, for [`Response::cookie`](crate::Response::cookie). What a client sends back is
/// [`Request::cookie`](crate::Request::cookie).
///
/// Without attributes it lasts until the browser closes, and goes to this host, below the directory of the path that set it.
///
/// ```
/// use std::time::Duration;
/// use netpoll_http::{App, Cookie, Request, Response, Router, SameSite};
///
/// let router = |_: &_| Router::new().post("/login", |_: &Request| {
///     let session = Cookie::new("session", "q8Wb3")
///         .path("/")
///         .max_age(Duration::from_secs(3600))
///         .http_only()
///         .secure()
///         .same_site(SameSite::Lax);
///     Response::text("welcome").cookie(session)
/// });
/// assert_eq!(
///     App::new(router).test().post("/login", "").header("set-cookie"),
///     Some("session=q8Wb3; Path=/; Max-Age=3600; HttpOnly; Secure; SameSite=Lax")
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    name: Cow<'static, str>,
    value: Cow<'static, str>,
    path: Option<Cow<'static, str>>,
    domain: Option<Cow<'static, str>>,
    max_age: Option<Duration>,
    http_only: bool,
    secure: bool,
    same_site: Option<SameSite>,
}

/// Whether requests that another site has begun bring a cookie along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Never.
    Strict,
    /// When somebody follows a link to here, and not with a form or a script.
    Lax,
    /// Always. Browsers want such a cookie to be [`secure`](Cookie::secure), and so it is sent.
    None,
}

impl Cookie {
    /// A cookie without attributes. Whether name and value may be is seen when it is written.
    pub fn new(name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) -> Self {
        let (name, value) = (name.into(), value.into());
        Self {
            name,
            value,
            path: None,
            domain: None,
            max_age: None,
            http_only: false,
            secure: false,
            same_site: None,
        }
    }

    /// One that takes the cookie of this name away. Its [`path`](Self::path) and [`domain`](Self::domain) have to be those with
    /// which it was set.
    pub fn removal(name: impl Into<Cow<'static, str>>) -> Self {
        Self::new(name, "").max_age(Duration::ZERO)
    }

    /// `Path`: only requests for this path, and for what is below it, bring it along.
    #[must_use]
    pub fn path(mut self, path: impl Into<Cow<'static, str>>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// `Domain`: the hosts below this name get it as well.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<Cow<'static, str>>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// `Max-Age`, in whole seconds: how long the browser keeps it. Zero takes it away.
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }

    /// `HttpOnly`: scripts of the page do not see it.
    #[must_use]
    pub fn http_only(mut self) -> Self {
        self.http_only = true;
        self
    }

    /// `Secure`: it goes over TLS only, or to `localhost`.
    #[must_use]
    pub fn secure(mut self) -> Self {
        self.secure = true;
        self
    }

    /// `SameSite`. Without it browsers take [`SameSite::Lax`], by and large.
    #[must_use]
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.same_site = Some(same_site);
        self
    }

    /// The value of a `Set-Cookie` line, for a hook or a [`Reply`](crate::Reply).
    ///
    /// # Errors
    /// 500, with a source that says why: the name is no token; the value has a byte in it that is no visible ASCII, or `"`, `,`, `;`
    /// or `\` (what else there is goes in as hexadecimal digits, base64 or percent escapes); the path does not begin with
    /// `/`, or has `;` or a control character in it; the domain is no name of a host; one of the two is longer
    /// than 1024 bytes, or name and value than 4096 together; or the name begins with `__Secure-`, `__Host-`, `__Http-` or `__Host-Http-`, and
    /// the cookie is not what that promises (RFC 6265bis section 4.1.3).
    pub fn to_header(&self) -> Result<HeaderValue, Error> {
        let refused = |why: &str| Error::internal(format!("cookie {:?}: {why}", self.name));
        if let Some(flaw) = self.flaw() {
            return Err(refused(flaw));
        }
        let mut line = format!("{}={}", self.name, self.value);
        let mut attribute = |name: &str, value: &str| {
            for part in ["; ", name, "=", value] {
                line.push_str(part);
            }
        };
        if let Some(path) = &self.path {
            attribute("Path", path);
        }
        if let Some(domain) = &self.domain {
            attribute("Domain", domain);
        }
        if let Some(max_age) = self.max_age {
            attribute("Max-Age", &max_age.as_secs().to_string());
        }
        if self.http_only {
            line.push_str("; HttpOnly");
        }
        if self.is_secure() {
            line.push_str("; Secure");
        }
        line.push_str(match self.same_site {
            Some(SameSite::Strict) => "; SameSite=Strict",
            Some(SameSite::Lax) => "; SameSite=Lax",
            Some(SameSite::None) => "; SameSite=None",
            None => "",
        });
        HeaderValue::try_from(line).map_err(|_| refused("it has a control character in it"))
    }

    fn is_secure(&self) -> bool {
        self.secure || self.same_site == Some(SameSite::None)
    }

    fn flaw(&self) -> Option<&'static str> {
        let is_host_name = |name: &str| {
            name.bytes().any(|byte| byte != b'.')
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
        };
        let is_path = |path: &str| {
            path.starts_with('/') && path.bytes().all(|byte| matches!(byte, b' '..=b'~' if byte != b';'))
        };
        let begins = |prefix: &str| {
            self.name.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
        };
        // What names headers names cookies: both are tokens.
        if HeaderName::from_bytes(self.name.as_bytes()).is_err() {
            return Some("its name is no token");
        }
        if !self.value.bytes().all(is_cookie_octet) {
            return Some("its value has a character in it that has to be encoded");
        }
        if self.name.len() + self.value.len() > BYTES_MAX {
            return Some("it is longer than browsers keep");
        }
        if !self.path.as_deref().is_none_or(is_path) {
            return Some("its path is none");
        }
        if !self.domain.as_deref().is_none_or(is_host_name) {
            return Some("its domain is no name of a host");
        }
        if [&self.path, &self.domain].into_iter().flatten().any(|text| text.len() > ATTRIBUTE_BYTES_MAX) {
            return Some("its path or its domain is longer than browsers read");
        }
        if (begins("__Secure-") || begins("__Host-") || begins("__Http-")) && !self.is_secure() {
            return Some("by its name it has to be secure");
        }
        if (begins("__Http-") || begins("__Host-Http-")) && !self.http_only {
            return Some("by its name it is not for scripts");
        }
        if begins("__Host-") && (self.domain.is_some() || self.path.as_deref() != Some("/")) {
            return Some("by its name it has the path `/` and no domain");
        }
        None
    }
}

/// `cookie-octet` of RFC 6265 section 4.1.1: visible ASCII without `"`, `,`, `;` and `\`.
fn is_cookie_octet(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e)
}
