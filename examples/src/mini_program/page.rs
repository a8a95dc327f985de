//! Pages for browsers: each one document with its style and script in it, made once and the same for everybody.
//!
//! Nothing in a page comes from a request or from another place; what changes is asked for by its script, as any
//! program would ask. A browser that has the page is told so (304), and one that has another gets this one.
//!
//! Invariant: the policy names the digests of this style and this script, so nothing else of either runs. It costs
//! other routes nothing: the bytes are static, and digests are made when the program starts.

use std::sync::LazyLock;

use netpoll_http::{Error, Request, Response, StatusCode};
use sha2::{Digest, Sha256};

/// `GET /`: every route, to be tried.
pub static TRY: LazyLock<Page> = LazyLock::new(|| {
    let script = concat!(
        include_str!("pages/page.js"),
        include_str!("pages/routes.js"),
        include_str!("pages/live.js"),
        include_str!("pages/sent.js"),
        include_str!("pages/try.js"),
    );
    Page::new("mini-program", include_str!("pages/try.html"), script)
});

/// `GET /stats` of a browser: the counters.
pub static STATS: LazyLock<Page> = LazyLock::new(|| {
    let script = concat!(
        include_str!("pages/page.js"),
        include_str!("pages/counters.js"),
        include_str!("pages/samples.js"),
        include_str!("pages/chart.js"),
        include_str!("pages/stats.js"),
    );
    Page::new("mini-program: counters", include_str!("pages/stats.html"), script)
});

/// `GET /chat`: a room to talk in.
pub static CHAT: LazyLock<Page> = LazyLock::new(|| {
    let script =
        concat!(include_str!("pages/page.js"), include_str!("pages/room.js"), include_str!("pages/chat.js"),);
    Page::new("mini-program: chat", include_str!("pages/chat.html"), script)
});

const STYLE: &str = include_str!("pages/page.css");

/// A document and the headers that belong to it.
pub struct Page {
    document: String,
    /// Strong, with its quotes.
    tag: String,
    policy: String,
}

impl Page {
    fn new(title: &str, body: &str, script: &str) -> Self {
        let body = body.replace("{version}", env!("CARGO_PKG_VERSION"));
        let document = format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <link rel=\"icon\" href=\"data:,\">\n<style>{STYLE}</style>\n{body}<script>{script}</script>\n"
        );
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            base64(&Sha256::digest(STYLE)),
            base64(&Sha256::digest(script)),
        );
        let tag = format!("\"{}\"", base64(&Sha256::digest(&document)));
        Self { document, tag, policy }
    }

    /// The page, or that the browser has it already.
    pub fn answer(&'static self, req: &Request<'_>) -> Result<Response, Error> {
        let known = req.header_lines("if-none-match").filter_map(|line| std::str::from_utf8(line).ok());
        let response = if known.flat_map(|list| list.split(',')).any(|tag| self.is_named_by(tag.trim())) {
            Response::new(StatusCode::NOT_MODIFIED)
        } else {
            Response::html(self.document.as_bytes())
        };
        response
            .header("etag", &*self.tag)?
            // It may be kept, and is asked about each time.
            .header("cache-control", "no-cache")?
            .header("content-security-policy", &*self.policy)?
            .header("x-content-type-options", "nosniff")?
            .header("referrer-policy", "no-referrer")
    }

    /// Compared weakly, as RFC 9110 wants it of `If-None-Match` (13.1.2). No tag of ours has a comma in it.
    fn is_named_by(&self, tag: &str) -> bool {
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.tag
    }
}

/// Base64 with padding (RFC 4648, 4), which is how a policy writes digests.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let group =
            three.iter().fold(0, |group, byte| group << 8 | usize::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let digit = ALPHABET[group >> (18 - 6 * place) & 63];
            text.push(if place <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use netpoll_core::Stats;

    use super::*;
    use crate::stats::figures_of_rooms;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let examples = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")];
        for (bytes, text) in examples {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn a_page_has_one_style_and_one_script_and_nothing_from_elsewhere() {
        for page in [&*TRY, &*STATS, &*CHAT] {
            let document = &page.document;
            assert_eq!(document.matches("<style").count() + document.matches("<script").count(), 2);
            assert_eq!(document.matches("</script").count(), 1, "the script does not end itself");
            for elsewhere in
                ["src=", "@import", "url(", "//cdn", "https:", "style=\"", "innerHTML", " onclick"]
            {
                assert!(!document.contains(elsewhere), "{elsewhere}");
            }
        }
    }

    #[test]
    fn every_route_can_be_tried() {
        let routes = include_str!("app.rs").split("pub fn router").nth(1).unwrap();
        let paths = routes.split('"').filter(|text| text.starts_with('/') && !text.contains(' '));
        let tried = include_str!("pages/routes.js");
        let mut count = 0;
        for path in paths.filter(|path| !["/", "/chat"].contains(path)) {
            let start = path.split('{').next().unwrap_or(path);
            assert!(tried.contains(&format!("\"{start}")) || tried.contains(&format!("`{start}")), "{path}");
            count += 1;
        }
        assert!(count >= 14, "{count} routes were found");
    }

    #[test]
    fn every_counter_is_explained() {
        let explained = include_str!("pages/counters.js");
        let rooms = figures_of_rooms(&crate::chat::rooms().stats());
        let all = Stats::default().fields().chain([("open", 0), ("syscalls_total", 0)]).chain(rooms);
        for (name, _) in all {
            assert!(
                explained.contains(&format!("[\"{name}\", ")),
                "{name} is not explained in pages/counters.js"
            );
        }
    }
}
