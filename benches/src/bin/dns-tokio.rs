//! The name server of the examples on tokio's `UdpSocket`, as its documentation has it: `recv_from`, answer, `send_to`.
//!
//! A current-thread runtime and mimalloc. Needs feature `peers`.
//! Use: `dns-tokio --port 5300`.

#[path = "../../../examples/src/dns/message.rs"]
mod message;
#[path = "../../../examples/src/dns/zone.rs"]
mod zone;

use benches::{known_options, option};
use message::{BYTES_MAX, Question, Verdict};
use std::error::Error;
use std::net::Ipv4Addr;
use tokio::net::UdpSocket;
use zone::Zone;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn Error>> {
    let args = benches::arguments(include_str!("dns-tokio.rs"));
    known_options(&args, &["--port"], &[])?;
    let port = option(&args, "--port", 5300)?;
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(serve(port))
}

async fn serve(port: u16) -> Result<(), Box<dyn Error>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let (zone, mut question, mut answer) = (Zone::example(), [0; BYTES_MAX + 1], Vec::new());
    loop {
        let (len, peer) = socket.recv_from(&mut question).await?;
        answer.clear();
        match Question::parse(&question[..len]) {
            Verdict::Question(question) => zone.answer(&question, &mut answer),
            Verdict::Fault(fault) => fault.answer(&mut answer),
            Verdict::Silence => continue,
        }
        // Who has gone meanwhile is no news here.
        let _ = socket.send_to(&answer, peer).await;
    }
}
