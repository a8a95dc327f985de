//! A name server for one zone: DNS over UDP (RFC 1035), answered from a table.
//!
//! Run it with `cargo run --bin dns` (or with an address behind it), then `dig @127.0.0.1 -p 5300 www.example.test` shows
//! `192.0.2.80`; `MX`, `TXT` and `AAAA` of `example.test` have answers too, `nothing.example.test` is said not to exist, and
//! what is not in the zone is refused. Ctrl-C ends the server and prints what it did.
//!
//! It shows a [`DatagramProtocol`]: one value for each worker, called for each datagram, whose answers leave together behind
//! the batch. Nothing in it waits, keeps state between two questions, or allocates for one. Questions are taken apart in
//! `message.rs`, which believes nothing it reads; names are looked up in `zone.rs`.

mod message;
mod zone;

use std::fmt::Display;
use std::io::{self, Write};
use std::rc::Rc;

use netpoll_core::{Datagram, DatagramProtocol, DatagramSocket, Runtime, UdpOptions, Workers};

use message::{Question, Verdict};
use zone::Zone;

/// Answers questions about one zone.
struct NameServer {
    zone: Rc<Zone>,
}

impl DatagramProtocol for NameServer {
    fn received(&mut self, socket: &mut DatagramSocket<'_>, datagram: Datagram<'_>) {
        // A message of one packet is all that a question may be; what is longer was cut, and is nobody's question.
        if datagram.is_truncated() {
            return;
        }
        let zone = &self.zone;
        let reply = match Question::parse(datagram.bytes()) {
            Verdict::Question(question) => {
                socket.append(datagram.path(), |out| zone.answer(&question, out)).1
            }
            Verdict::Fault(fault) => socket.append(datagram.path(), |out| fault.answer(out)).1,
            // Not a question: answering would let two name servers talk to each other for ever.
            Verdict::Silence => return,
        };
        socket.count_requests(u64::from(reply));
    }
}

fn say(text: impl Display) {
    // Whoever closed our output (`| head -1`) does not want to read this, but may want the server.
    let _ = writeln!(io::stdout(), "{text}");
}

fn main() -> io::Result<()> {
    let (backend, mut args) = examples::words()?;
    let addr = args.next().unwrap_or("127.0.0.1:5300".to_owned());
    let mut builder = Runtime::builder().backend(backend).stop_on_signals(true);
    if let Some(workers) = args.next() {
        let workers = workers.parse().map_err(|_| io::Error::other("usage: dns [HOST:PORT [WORKERS]]"))?;
        builder = builder.workers(Workers::Count(workers));
    }
    // Questions come one by one, and none is longer than this (RFC 6891 recommends 1232 for answers).
    let options = UdpOptions::default().datagram_bytes_max(message::BYTES_MAX).join_received(false);
    let server = builder
        .udp_options(options)
        .bind_udp(addr, |_worker| NameServer { zone: Rc::new(Zone::example()) })?
        .start()?;
    say(format_args!("dns answers on {}", server.udp_addrs()[0]));

    let report = server.wait()?;
    say(format_args!("{report}\n{}", report.stats));
    Ok(())
}
