//! The name server of the examples on nothing but a blocking socket: `recvfrom`, answer, `sendto`, over and over.
//!
//! What a server without batches cannot do with fewer system calls. One thread.
//! Use: `dns-floor --port 5300`.

#[path = "../../../examples/src/dns/message.rs"]
mod message;
#[path = "../../../examples/src/dns/zone.rs"]
mod zone;

use benches::{known_options, option};
use message::{BYTES_MAX, Question, Verdict};
use std::error::Error;
use std::net::{Ipv4Addr, UdpSocket};
use zone::Zone;

fn main() -> Result<(), Box<dyn Error>> {
    let args = benches::arguments(include_str!("dns-floor.rs"));
    known_options(&args, &["--port"], &[])?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, option(&args, "--port", 5300)?))?;
    let (zone, mut question, mut answer) = (Zone::example(), [0; BYTES_MAX + 1], Vec::new());
    loop {
        let (len, peer) = socket.recv_from(&mut question)?;
        answer.clear();
        match Question::parse(&question[..len]) {
            Verdict::Question(question) => zone.answer(&question, &mut answer),
            Verdict::Fault(fault) => fault.answer(&mut answer),
            Verdict::Silence => continue,
        }
        // Who has gone meanwhile is no news here.
        let _ = socket.send_to(&answer, peer);
    }
}
