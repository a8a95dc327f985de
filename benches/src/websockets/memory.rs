//! What peers make a server keep, by its resident memory.

use std::io;

use crate::exchange::{Connection, Site};
use crate::wire::{self, CONTINUATION, MASK, Out, PING, TEXT};

/// Sockets that are held at a time.
const SOCKETS: usize = 200;
const ECHO_BYTES: usize = 256 * 1024;

/// Figures, each with its unit.
///
/// # Errors
/// There is no such process, or it takes no more connections.
pub fn measure(site: &Site, pid: u32) -> io::Result<Vec<(&'static str, i64, &'static str)>> {
    // What is allocated once is allocated.
    drop(open(site, SOCKETS, |_| {})?);
    let mut figures = Vec::new();
    let before = resident(pid)?;
    let idle = open(site, 10 * SOCKETS, |_| {})?;
    let count = idle.len() as i64;
    figures.push(("an idle socket", (resident(pid)? - before) / count, "bytes"));
    drop(idle);

    let before = resident(pid)?;
    let payload = vec![b'x'; ECHO_BYTES];
    let echoed = open(site, SOCKETS, |connection| {
        connection.send(&wire::frame(TEXT, &payload));
        connection.read_until(|frames| !frames.is_empty());
    })?;
    figures.push(("a socket that has echoed 256 KiB", (resident(pid)? - before) / SOCKETS as i64, "bytes"));
    drop(echoed);

    let before = resident(pid)?;
    let announced = open(site, SOCKETS, |connection| {
        let mut frame = vec![0x82, 0xff];
        frame.extend((1_u64 << 20).to_be_bytes());
        frame.extend(MASK);
        frame.extend([b'x'; 100]);
        connection.send(&frame);
    })?;
    figures.push((
        "a socket that has announced 1 MiB and sent 100 bytes",
        (resident(pid)? - before) / SOCKETS as i64,
        "bytes",
    ));
    drop(announced);

    let before = resident(pid)?;
    let one = Out::new(CONTINUATION, b"x").more().bytes().repeat(1000);
    let fragments = open(site, 8, |connection| {
        connection.send(&Out::new(TEXT, b"x").more().bytes());
        (0..10).for_each(|_| connection.send(&one));
    })?;
    figures.push((
        "a socket that has sent 10 000 fragments of a byte",
        (resident(pid)? - before) / 8,
        "bytes",
    ));
    drop(fragments);

    let before = resident(pid)?;
    let pings = wire::frame(PING, &[b'p'; 125]).repeat(500);
    // 12 MiB of them from each of four that read nothing.
    let flood = open(site, 4, |connection| (0..192).for_each(|_| connection.send(&pings)))?;
    figures.push((
        "four sockets that have sent 12 MiB of pings and read nothing",
        resident(pid)? - before,
        "bytes",
    ));
    drop(flood);
    Ok(figures)
}

fn open(site: &Site, count: usize, then: impl Fn(&mut Connection)) -> io::Result<Vec<Connection>> {
    let opened = (0..count).map(|_| {
        let mut connection = Connection::to(site)?;
        connection.send(site.opening("").as_bytes());
        connection.read_head();
        match &connection.head {
            Some(head) if head.status == 101 => then(&mut connection),
            _ => return Err(io::Error::other("an opening was refused")),
        }
        Ok(connection)
    });
    opened.collect()
}

fn resident(pid: u32) -> io::Result<i64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<i64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("no RssAnon"))
}
