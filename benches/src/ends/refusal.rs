//! Part `refusal`: an upload that is refused gets its answer, also by a client that writes all of it before it reads.
//!
//! 8 MB in blocking writes, then one answer is read. A write that fails is a fault even where the answer could still be read:
//! most clients do not look for it then. nginx does the same refusals, where it is installed, and as good as nginx is the target;
//! without it all of them.

use crate::Plan;
use crate::client::{answer, connect};
use crate::program::{Other, is_installed};
use crate::proxy::{Nginx, nginx};
use crate::table::{Row, Target};
use benches::runner::Failure;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::time::Duration;

const PART: &str = "refusal";
const TRIES: u64 = 20;
const UPLOAD_BYTES: usize = 8_000_000;
/// What a client writes at a time.
const PIECE_BYTES: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);

/// A request that is refused, and how.
struct Case {
    line: &'static str,
    chunked: bool,
    /// The server would take so large a body.
    fits: bool,
    status: u16,
    what: &'static str,
}

const CASES: [Case; 6] = [
    Case { line: "POST /login", chunked: false, fits: false, status: 413, what: "413" },
    Case { line: "POST /login", chunked: true, fits: false, status: 413, what: "413, in chunks" },
    Case { line: "POST /nowhere", chunked: false, fits: false, status: 404, what: "404" },
    Case { line: "POST /nowhere", chunked: true, fits: false, status: 404, what: "404, in chunks" },
    Case { line: "GET /me", chunked: false, fits: false, status: 413, what: "413, the body of a GET" },
    Case { line: "POST /orders", chunked: false, fits: true, status: 401, what: "401" },
];

/// What became of the tries of one case.
#[derive(Default, Debug)]
struct Tally {
    /// Everything was written and the answer came whole.
    answered: u64,
    /// The same, but with another status than expected.
    other_status: BTreeMap<u16, u64>,
    broken_pipe: u64,
    reset: u64,
    /// The connection ended, or nothing came.
    nothing: u64,
    /// Of those whose write failed, how many could read the answer all the same.
    read_all_the_same: u64,
}

impl Tally {
    fn in_words(&self) -> String {
        let mut words = format!("{} whole", self.answered);
        for (count, name) in
            [(self.broken_pipe, "EPIPE"), (self.reset, "reset"), (self.nothing, "without an answer")]
        {
            if count > 0 {
                words += &format!(", {count} {name}");
            }
        }
        if self.read_all_the_same > 0 {
            words += &format!(" ({} of them could read the answer)", self.read_all_the_same);
        }
        for (status, count) in &self.other_status {
            words += &format!(", {count} x {status}");
        }
        words
    }
}

pub fn check(plan: &Plan) -> Result<(), Failure> {
    let server = plan.start(0, &["--workers", "1"], None)?;
    let roomy = plan.start(0, &["--workers", "1", "--body-bytes-max", "16000000"], None)?;
    let has_nginx = is_installed("nginx");
    let yardstick = match has_nginx {
        true => Some(Other::start(&nginx(), include_str!("nginx-refusal.conf.in"), &[], "/plaintext")?),
        false => None,
    };
    for case in &CASES {
        let tally = tried(if case.fits { roomy.addr } else { server.addr }, case);
        let (least, by_nginx) = match &yardstick {
            Some(nginx) => {
                let tally = tried(nginx.addr, case);
                // It may refuse for another reason; what counts is that its answer arrives.
                let whole = tally.answered + tally.other_status.values().sum::<u64>();
                (whole, format!("; nginx: {}", tally.in_words()))
            }
            None => (TRIES, "; nginx is not installed".into()),
        };
        let row = Row::new(PART, format!("{}: answered", case.what), tally.answered, Target::AtLeast(least));
        plan.show(&[row.noting(tally.in_words() + &by_nginx)]);
    }
    for (name, upload) in [("behind nginx", ""), ("behind nginx, unbuffered", "proxy_request_buffering off;")]
    {
        if !has_nginx {
            plan.skip(PART, name, format_args!("nginx is not installed"));
            continue;
        }
        let proxy = Nginx { upload, ..Nginx::DEFAULT }.start(server.addr)?;
        for case in &CASES[..3] {
            let tally = tried(proxy.addr, case);
            let row = Row::new(
                PART,
                format!("{name}, {}: answered", case.what),
                tally.answered,
                Target::AtLeast(TRIES),
            );
            plan.show(&[row.noting(tally.in_words())]);
        }
    }
    Ok(())
}

fn tried(to: SocketAddr, case: &Case) -> Tally {
    let framing = match case.chunked {
        true => "Transfer-Encoding: chunked".into(),
        false => format!("Content-Length: {UPLOAD_BYTES}"),
    };
    let head = format!("{} HTTP/1.1\r\nHost: ends\r\n{framing}\r\n\r\n", case.line);
    let piece = match case.chunked {
        true => [format!("{PIECE_BYTES:x}\r\n").as_bytes(), &vec![b'x'; PIECE_BYTES], b"\r\n"].concat(),
        false => vec![b'x'; PIECE_BYTES],
    };
    let mut tally = Tally::default();
    for nth in 0..TRIES {
        match upload(nth as usize, to, head.as_bytes(), &piece, case.chunked) {
            Ok((None, Ok(status))) if status == case.status => tally.answered += 1,
            Ok((None, Ok(status))) => *tally.other_status.entry(status).or_default() += 1,
            Ok((None, Err(error))) | Ok((Some(error), Err(_))) | Err(error) => tally.count(&error),
            Ok((Some(error), Ok(_))) => {
                tally.count(&error);
                tally.read_all_the_same += 1;
            }
        }
    }
    tally
}

impl Tally {
    fn count(&mut self, error: &io::Error) {
        match error.kind() {
            ErrorKind::BrokenPipe => self.broken_pipe += 1,
            ErrorKind::ConnectionReset => self.reset += 1,
            _ => self.nothing += 1,
        }
    }
}

/// Writes everything, then reads: the error that a write met, and what the answer was.
fn upload(
    nth: usize,
    to: SocketAddr,
    head: &[u8],
    piece: &[u8],
    chunked: bool,
) -> io::Result<(Option<io::Error>, io::Result<u16>)> {
    let mut stream = connect(nth, to, PATIENCE)?;
    let mut write = || -> io::Result<()> {
        stream.write_all(head)?;
        let mut left = UPLOAD_BYTES;
        while left > 0 {
            let bytes = left.min(PIECE_BYTES);
            // The last piece of a chunked body is as long as the others; only what has a length has to be exact.
            stream.write_all(if chunked { piece } else { &piece[..bytes] })?;
            left -= bytes;
        }
        if chunked { stream.write_all(b"0\r\n\r\n") } else { Ok(()) }
    };
    let fault = write().err();
    Ok((fault, answer(&mut stream, PATIENCE)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    /// What becomes of uploads to a server that does this with each connection.
    fn tally(serve: fn(&mut TcpStream)) -> Tally {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(&mut stream.unwrap());
            }
        });
        tried(to, &CASES[0])
    }

    const REFUSAL: &[u8] = b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\n\r\n";

    /// Reads until the client hangs up.
    fn read_all(stream: &mut TcpStream) {
        let mut piece = [0; 64 * 1024];
        while let Ok(1..) = stream.read(&mut piece) {}
    }

    #[test]
    fn an_upload_that_is_answered_and_read_to_its_end_is_whole() {
        let tally = tally(|stream| {
            stream.write_all(REFUSAL).unwrap();
            let mut left = UPLOAD_BYTES;
            let mut piece = [0; 64 * 1024];
            while left > 0 {
                match stream.read(&mut piece) {
                    Ok(bytes @ 1..) => left = left.saturating_sub(bytes),
                    _ => return,
                }
            }
            read_all(stream);
        });
        assert_eq!((tally.answered, tally.in_words()), (TRIES, "20 whole".into()));
    }

    #[test]
    fn an_upload_whose_write_fails_is_not_whole_though_the_answer_can_be_read() {
        let tally = tally(|stream| {
            stream.write_all(REFUSAL).unwrap();
            stream.read_exact(&mut [0; 64 * 1024]).unwrap();
        });
        assert_eq!(tally.answered, 0, "{tally:?}");
        assert_eq!(tally.broken_pipe + tally.reset, TRIES, "{tally:?}");
    }

    #[test]
    fn an_answer_of_another_kind_is_not_the_one_expected() {
        let tally = tally(|stream| {
            stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").unwrap();
            read_all(stream);
        });
        assert_eq!((tally.answered, tally.in_words()), (0, "0 whole, 20 x 502".into()));
    }
}
