//! What a file is, by the ending of its name.
//!
//! The types that the web is made of, as the IANA registry has them. Text is said to be UTF-8, because text that is
//! written today is; JSON and SVG say it themselves.

/// What nothing is known of. Browsers save it.
const UNKNOWN: &str = "application/octet-stream";

/// Endings in lower case, and their types. Searched from the front, once per file: the common ones come first.
const TYPES: &[(&str, &str)] = &[
    ("html", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("webp", "image/webp"),
    ("avif", "image/avif"),
    ("gif", "image/gif"),
    ("ico", "image/vnd.microsoft.icon"),
    ("woff2", "font/woff2"),
    ("woff", "font/woff"),
    ("ttf", "font/ttf"),
    ("otf", "font/otf"),
    ("wasm", "application/wasm"),
    ("map", "application/json"),
    ("webmanifest", "application/manifest+json"),
    ("txt", "text/plain; charset=utf-8"),
    ("md", "text/markdown; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("xml", "application/xml"),
    ("htm", "text/html; charset=utf-8"),
    ("pdf", "application/pdf"),
    ("zip", "application/zip"),
    ("gz", "application/gzip"),
    ("mp4", "video/mp4"),
    ("webm", "video/webm"),
    ("mp3", "audio/mpeg"),
    ("m4a", "audio/mp4"),
    ("ogg", "audio/ogg"),
    ("wav", "audio/vnd.wave"),
    ("vtt", "text/vtt; charset=utf-8"),
    ("rs", "text/plain; charset=utf-8"),
    ("log", "text/plain; charset=utf-8"),
    ("toml", "application/toml"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
];

/// The type of a file with this name, with or without a path before it.
pub(super) fn by_name(name: &str) -> &'static str {
    let name = name.rsplit('/').next().unwrap_or(name);
    let Some((_, ending)) = name.rsplit_once('.') else { return UNKNOWN };
    let known = TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(ending));
    known.map_or(UNKNOWN, |(_, media_type)| media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ending_of_a_name_decides() {
        for (name, media_type) in [
            ("index.html", "text/html; charset=utf-8"),
            ("a.b/app.min.JS", "text/javascript; charset=utf-8"),
            ("site.tar.gz", "application/gzip"),
            ("html", UNKNOWN),
            ("a.css/file", UNKNOWN),
            ("what.ever", UNKNOWN),
            (".html", "text/html; charset=utf-8"),
            ("", UNKNOWN),
        ] {
            assert_eq!(by_name(name), media_type, "{name}");
        }
    }

    #[test]
    fn every_ending_stands_once_and_in_lower_case() {
        let mut endings: Vec<&str> = TYPES.iter().map(|(ending, _)| *ending).collect();
        assert!(endings.iter().all(|ending| ending.bytes().all(|byte| !byte.is_ascii_uppercase())));
        endings.sort_unstable();
        endings.dedup();
        assert_eq!(endings.len(), TYPES.len());
    }
}
