//! Clients in a closed loop that count what becomes of every request.
//!
//! They keep to the protocol: who is told `Connection: close` asks nothing more on that connection, and who means to
//! ask again looks for an EOF first. So whatever is lost was lost by the server, except where an EOF crosses a request
//! on its way, which is counted apart. A few threads, each with an epoll of its own (`part.rs`).

use crate::counts::Counts;
use crate::part::Part;
use benches::runner::Failure;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How a client uses its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// One request for each, with `Connection: close`, and then it waits for the end.
    ClosedByServer,
    /// The same, but the request comes up to this long after the connection.
    Hesitant(Duration),
    /// One request for each, after which it hangs up by itself.
    ClosedByClient,
    /// As many as the server lets it, with pauses up to this between them.
    Kept(Duration),
}

/// What a crowd asks for.
#[derive(Clone, Debug)]
pub struct Question {
    /// Head and body; the head ends with this line where a connection is for one request.
    head: String,
    body: Vec<u8>,
    /// The body of the answer.
    pub expected: Vec<u8>,
}

impl Question {
    /// The plain text.
    pub fn get() -> Self {
        Self {
            head: "GET /plaintext HTTP/1.1\r\nHost: ends\r\n".into(),
            body: Vec::new(),
            expected: b"Hello, World!".into(),
        }
    }

    /// So many bytes, to be echoed.
    pub fn post(bytes: usize) -> Self {
        let body: Vec<u8> = (0..bytes).map(|nth| b'a' + (nth % 26) as u8).collect();
        let head = format!("POST /echo HTTP/1.1\r\nHost: ends\r\nContent-Length: {bytes}\r\n");
        Self { head, expected: body.clone(), body }
    }

    /// The request, which is the last on its connection or not.
    pub fn bytes(&self, closes: bool) -> Vec<u8> {
        let last = if closes { "Connection: close\r\n\r\n" } else { "\r\n" };
        [self.head.as_bytes(), last.as_bytes(), &self.body].concat()
    }
}

/// Clients at work.
pub struct Crowd {
    threads: Vec<JoinHandle<Result<Counts, String>>>,
    shared: Arc<Shared>,
}

/// What the threads of a crowd share.
#[derive(Default)]
pub struct Shared {
    /// Requests answered so far.
    pub answered: AtomicU64,
    /// Nothing more is to be asked.
    pub is_over: AtomicBool,
}

impl Crowd {
    /// Starts a client for each of `manners`, spread over so many threads.
    pub fn start(to: SocketAddr, question: &Question, manners: &[Manner], threads: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = (0..threads).map(|thread| {
            let mine: Vec<(usize, Manner)> =
                manners.iter().copied().enumerate().filter(|(nth, _)| nth % threads == thread).collect();
            let (question, shared) = (question.clone(), Arc::clone(&shared));
            std::thread::spawn(move || {
                Part::new(to, &question, &mine, shared)
                    .and_then(|mut part| part.run())
                    .map_err(|error| error.to_string())
            })
        });
        Self { threads: threads.collect(), shared }
    }

    /// How many requests have been answered so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Lets all requests that have been sent come to their end, and adds up.
    ///
    /// # Errors
    /// This machine could not do it: no ports, no descriptors.
    pub fn finish(self) -> Result<Counts, Failure> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let mut counts = Counts::default();
        for thread in self.threads {
            counts += &thread.join().map_err(|_| "a thread of clients panicked")??;
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, World!";

    /// What a scripted server does with a connection once it has read a request on it.
    #[derive(Clone, Copy)]
    enum Act {
        Say(&'static str),
        SayAndEnd(&'static str),
        /// FIN, and no more: the request has been read.
        End,
        /// RST, right behind these words.
        Reset(&'static str),
    }

    /// Ends connections with the kernel's RST.
    fn reset(stream: &TcpStream) {
        socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// The counts of one client of this manner, whose requests meet these acts, one after the other, and good answers
    /// from then on.
    fn counted(manner: Manner, acts: &'static [Act]) -> Counts {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let acted = Arc::new(AtomicU64::new(0));
        let done = Arc::clone(&acted);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut piece = [0; 1024];
                // A request is one small segment, and nothing comes behind it.
                while let Ok(bytes @ 1..) = stream.read(&mut piece) {
                    let closes = piece[..bytes].ends_with(b"close\r\n\r\n");
                    let act = acts.get(done.fetch_add(1, Ordering::SeqCst) as usize).copied();
                    match act.unwrap_or(Act::Say(GOOD)) {
                        Act::Say(words) if !closes => stream.write_all(words.as_bytes()).unwrap(),
                        Act::Say(words) | Act::SayAndEnd(words) => {
                            stream.write_all(words.as_bytes()).unwrap();
                            break;
                        }
                        Act::End => break,
                        Act::Reset(words) => {
                            stream.write_all(words.as_bytes()).unwrap();
                            reset(&stream);
                            break;
                        }
                    }
                }
            }
        });
        let crowd = Crowd::start(to, &Question::get(), &[manner], 1);
        let begun = Instant::now();
        while acted.load(Ordering::SeqCst) <= acts.len() as u64 {
            assert!(begun.elapsed() < Duration::from_secs(20), "the client asks no more");
            std::thread::yield_now();
        }
        crowd.finish().unwrap()
    }

    /// All counts but those of good answers and of connections that were fine.
    fn faults(counts: &Counts) -> Counts {
        Counts { answered: 0, established: 0, slow_connects: 0, ..counts.clone() }
    }

    const KEPT: Manner = Manner::Kept(Duration::ZERO);

    #[test]
    fn an_eof_without_an_answer_on_a_new_connection_is_a_loss() {
        for manner in [Manner::ClosedByServer, Manner::ClosedByClient, KEPT] {
            let counts = counted(manner, &[Act::End]);
            assert_eq!(faults(&counts), Counts { lost: 1, ..Counts::default() }, "{manner:?}");
        }
    }

    #[test]
    fn a_client_that_hesitates_loses_its_request_to_an_eof_that_comes_before_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hesitant = Manner::Hesitant(Duration::from_secs(3600));
        let crowd = Crowd::start(listener.local_addr().unwrap(), &Question::get(), &[hesitant], 1);
        drop(listener.accept().unwrap());
        // It comes again when it has seen the end.
        let _second = listener.accept().unwrap();
        let counts = crowd.finish().unwrap();
        assert_eq!(faults(&counts), Counts { lost: 1, ..Counts::default() });
    }

    #[test]
    fn a_reset_without_an_answer_on_a_new_connection_is_a_reset() {
        for manner in [Manner::ClosedByServer, Manner::ClosedByClient, KEPT] {
            let counts = counted(manner, &[Act::Reset("")]);
            assert_eq!(faults(&counts), Counts { reset: 1, ..Counts::default() }, "{manner:?}");
        }
    }

    #[test]
    fn the_end_of_a_kept_connection_without_an_answer_is_counted_apart() {
        let counts = counted(KEPT, &[Act::Say(GOOD), Act::End, Act::Say(GOOD), Act::Reset("")]);
        assert_eq!(faults(&counts), Counts { crossed_eof: 1, crossed_reset: 1, ..Counts::default() });
    }

    #[test]
    fn an_eof_between_requests_costs_nothing() {
        // The client rests long enough for the EOF to come first.
        let counts = counted(Manner::Kept(Duration::from_millis(500)), &[Act::SayAndEnd(GOOD); 4]);
        assert_eq!(counts.not_answered(), counts.crossed(), "{counts:?}");
        assert!(counts.closed_between >= 1 && counts.answered >= 4, "{counts:?}");
    }

    #[test]
    fn a_client_that_is_told_to_close_asks_on_another_connection() {
        const LAST: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 13\r\n\r\nHello, World!";
        let counts = counted(KEPT, &[Act::SayAndEnd(LAST)]);
        assert_eq!(faults(&counts), Counts { told_to_close: 1, ..Counts::default() });
    }

    #[test]
    fn a_reset_behind_a_whole_answer_is_noticed() {
        let counts = counted(Manner::ClosedByServer, &[Act::Reset(GOOD)]);
        assert_eq!(counts.reset_behind + counts.reset + counts.cut, 1, "{counts:?}");
        assert_eq!(counts.answered + counts.reset, counts.established, "{counts:?}");
    }

    #[test]
    fn half_an_answer_is_no_answer() {
        let counts = counted(
            Manner::ClosedByServer,
            &[Act::SayAndEnd("HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello")],
        );
        assert_eq!(faults(&counts), Counts { cut: 1, ..Counts::default() });
    }

    #[test]
    fn other_answers_are_counted_by_their_status_and_wrong_ones_as_wrong() {
        let counts = counted(
            KEPT,
            &[
                Act::Say("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"),
                Act::Say("HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, Wurld!"),
                Act::Say("HTTP/1.1 200 OK\r\n\r\n"),
            ],
        );
        let expected = Counts { wrong: 2, statuses: [(502, 1)].into(), ..Counts::default() };
        assert_eq!(faults(&counts), expected);
    }

    #[test]
    fn a_port_that_nobody_listens_on_refuses() {
        let to = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let crowd = Crowd::start(to, &Question::get(), &[KEPT], 1);
        // A hundredth of a second between tries: the first one is over before a clock can tell.
        std::thread::sleep(Duration::from_millis(1));
        let counts = crowd.finish().unwrap();
        assert_eq!(counts.refused, counts.not_answered(), "{counts:?}");
    }
}
