//! Where a server is, and who asks: `SCHEME://USER:PASSWORD@HOST:PORT`.

use std::fmt;

/// Text that is no URL of a server; it says why, and not what is secret in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadUrl(&'static str);

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the URL of a bus is SCHEME://USER:PASSWORD@HOST:PORT: {}", self.0)
    }
}

impl std::error::Error for BadUrl {}

#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub struct Url {
    pub host: String,
    pub port: u16,
    pub user: Option<String>,
    pub password: Option<String>,
}

impl Url {
    pub fn parse(text: &str, scheme: &str, port: u16) -> Result<Self, BadUrl> {
        let (its, rest) = text.split_once("://").ok_or(BadUrl("it has no scheme"))?;
        if matches!(its, "rediss" | "tls" | "valkeys") {
            return Err(BadUrl("there is no TLS yet"));
        }
        if its != scheme {
            return Err(BadUrl("the scheme is another engine's"));
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, place) = match rest.rsplit_once('@') {
            Some((credentials, place)) => (Some(credentials), place),
            None => (None, rest),
        };
        if place.contains(['/', '?', '#']) {
            return Err(BadUrl("there is nothing behind the port"));
        }
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or(BadUrl("there is no end of the address"))?;
                let given = match rest {
                    "" => None,
                    rest => {
                        Some(rest.strip_prefix(':').ok_or(BadUrl("the address has something behind it"))?)
                    }
                };
                (host, port_of(given, port)?)
            }
            None => match place.split_once(':') {
                Some((host, given)) => (host, port_of(Some(given), port)?),
                None => (place, port),
            },
        };
        if host.is_empty() {
            return Err(BadUrl("it has no host"));
        }
        let (user, password) = match credentials {
            None => (None, None),
            Some(credentials) => match credentials.split_once(':') {
                Some((user, password)) => (decoded(user)?, decoded(password)?),
                None => (decoded(credentials)?, None),
            },
        };
        Ok(Self { host: host.to_owned(), port, user, password })
    }
}

fn port_of(given: Option<&str>, default: u16) -> Result<u16, BadUrl> {
    match given {
        None => Ok(default),
        Some(digits) => {
            let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
            digits.parse().ok().filter(|_| is_number).ok_or(BadUrl("the port is no number"))
        }
    }
}

/// Without percent-encoding. `None` if it is empty.
fn decoded(text: &str) -> Result<Option<String>, BadUrl> {
    const BAD: BadUrl = BadUrl("the credentials have a wrong percent-encoding");
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2).ok_or(BAD)?;
        let value = |digit: u8| char::from(digit).to_digit(16).ok_or(BAD);
        // Two digits are a byte.
        bytes.push((value(digits[0])? * 16 + value(digits[1])?) as u8);
        rest = behind;
    }
    let text = String::from_utf8(bytes).map_err(|_| BAD)?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<(String, u16, Option<String>, Option<String>), BadUrl> {
        Url::parse(text, "redis", 6379).map(|url| (url.host, url.port, url.user, url.password))
    }

    #[test]
    fn what_is_not_said_is_left_to_the_engine() {
        let some = |text: &str| Some(text.to_owned());
        let host = || "host".to_owned();
        assert_eq!(parsed("redis://host"), Ok((host(), 6379, None, None)));
        assert_eq!(parsed("redis://host:7/"), Ok((host(), 7, None, None)));
        assert_eq!(parsed("redis://:p%40ss@host"), Ok((host(), 6379, None, some("p@ss"))));
        assert_eq!(parsed("redis://me:a:b@[::1]:7"), Ok(("::1".to_owned(), 7, some("me"), some("a:b"))));
        assert_eq!(parsed("redis://token@[::1]"), Ok(("::1".to_owned(), 6379, some("token"), None)));
    }

    #[test]
    fn what_is_no_url_of_this_engine_is_refused() {
        for text in [
            "",
            "host",
            "nats://host",
            "rediss://host",
            "redis://",
            "redis://:7",
            "redis://host:",
            "redis://host:x",
            "redis://host:+7",
            "redis://host:99999",
            "redis://host/1",
            "redis://[::1",
            "redis://[::1]x",
            "redis://%4@host",
            "redis://%zz@host",
            "redis://%ff@host",
        ] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
