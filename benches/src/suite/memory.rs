//! What idle connections cost: resident bytes before and after one request on each.

use crate::contestants::Spec;
use crate::measure::start;
use crate::results::Memory;
use crate::workloads::Kind;
use benches::runner::{Failure, Load, SERVER_CPU, Server, resident_bytes};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// Connections that are held.
pub const CONNECTIONS: usize = 10_000;

/// Measures one HTTP contestant. The connections come from many addresses, because one has not enough ports.
pub fn of(spec: &Spec, programs: &Path) -> Result<Memory, Failure> {
    let path = "/plaintext";
    let server = start(spec, Kind::Http, path, &[SERVER_CPU], 1)?;
    settle();
    let empty = resident_bytes(server.pid())?;
    let fresh = without_a_request(&server, empty)?;
    // Another process, so that what the first connections left behind does not make the next ones cheaper.
    drop(server);
    let server = start(spec, Kind::Http, path, &[SERVER_CPU], 1)?;
    settle();
    let empty = resident_bytes(server.pid())?;
    let load = Load { programs, path };
    let (held, connections) =
        load.hold(server.port, &format!("--connections {CONNECTIONS} --sources 100 --seconds 60"))?;
    settle();
    let idle = resident_bytes(server.pid())?.saturating_sub(empty) as f64 / connections as f64;
    drop(held);
    Ok(Memory {
        contestant: spec.name.clone(),
        connections,
        empty_bytes: empty,
        fresh_bytes: Some(fresh),
        idle_bytes: idle,
    })
}

/// Bytes per connection that has been accepted and has not spoken.
fn without_a_request(server: &Server, empty: u64) -> Result<f64, Failure> {
    // Fewer than later: these are held in this process, and one source address has some 28 000 ports.
    let count = CONNECTIONS / 2;
    let streams: Vec<TcpStream> = (0..count)
        .map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)))
        .collect::<Result<_, _>>()?;
    settle();
    let used = resident_bytes(server.pid())?.saturating_sub(empty) as f64;
    Ok(used / streams.len() as f64)
}

/// Nothing tells when a server has come to rest.
fn settle() {
    std::thread::sleep(Duration::from_millis(300));
}
