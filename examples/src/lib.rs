//! What the small programs share: the words of a command line, one option of which is the same in all.

use std::io;
use std::vec::IntoIter;

use netpoll_core::Backend;

/// The driver that `--backend auto|epoll|uring|mio` asks for, [`Backend::Auto`] without it, and the other words behind the program's name.
///
/// # Errors
/// There is no such driver, or it is not in this build (`InvalidInput`).
pub fn words() -> io::Result<(Backend, IntoIter<String>)> {
    split(std::env::args().skip(1)).map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))
}

fn split(words: impl Iterator<Item = String>) -> Result<(Backend, IntoIter<String>), String> {
    let (mut backend, mut others) = (Backend::Auto, Vec::new());
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        let name = match word.strip_prefix("--backend") {
            Some("") => words.next().ok_or("--backend wants a name")?,
            Some(rest) if rest.starts_with('=') => rest[1..].to_owned(),
            _ => {
                others.push(word);
                continue;
            }
        };
        backend = name.parse().map_err(|error| format!("--backend: {error}"))?;
    }
    Ok((backend, others.into_iter()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<(Backend, Vec<String>), String> {
        split(line.split_whitespace().map(String::from)).map(|(backend, others)| (backend, others.collect()))
    }

    #[test]
    fn the_option_stands_anywhere_and_is_not_among_the_other_words() {
        let words = vec!["127.0.0.1:1".to_owned(), "docs".to_owned()];
        for line in ["--backend epoll 127.0.0.1:1 docs", "127.0.0.1:1 --backend=epoll docs"] {
            assert_eq!(read(line), Ok((Backend::Epoll, words.clone())), "{line}");
        }
        assert_eq!(read("127.0.0.1:1 docs"), Ok((Backend::Auto, words)));
    }

    #[test]
    fn what_is_wrong_is_said_with_the_option_in_it() {
        assert_eq!(read("--backend"), Err("--backend wants a name".to_owned()));
        let said = read("--backend kqueue").unwrap_err();
        assert!(said.starts_with("--backend: `kqueue` is not one of `auto`, "), "{said}");
    }
}
