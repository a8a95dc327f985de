//! Bodies of gigabytes, and a crowd of event streams: what they take of memory, and how they end.
//!
//! Each is a process of its own, whose resident memory is that of one server and its clients. `NETPOLL_VOLUME_MIB` is how much goes each
//! way, 256 by default.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use netpoll_http::{
    Body, BodyReader, Error, Event, Events, Handler, Request, Response, RouteLimits, Router, Running, Server,
};

const PATIENCE: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;
static BLOCK: [u8; 64 << 10] = [b'x'; 64 << 10];

/// Runs a test of this file in a process of its own.
fn alone(test: &str) {
    let program = std::env::current_exe().unwrap();
    let test = format!("gigabytes::{test}");
    let output = Command::new(program)
        .args(["--exact", &test, "--ignored", "--nocapture", "--test-threads=1"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("running 1 test"), "{test}: {text}");
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text.lines().filter(|line| line.starts_with("measured: ")).for_each(|line| println!("{line}"));
}

/// Memory of this process, in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn volume_mib() -> u64 {
    std::env::var("NETPOLL_VOLUME_MIB").map_or(256, |mib| mib.parse().expect("a number of MiB"))
}

async fn count(_: Request<'static>, mut body: BodyReader) -> Result<String, Error> {
    let mut bytes = 0;
    while let Some(chunk) = body.chunk().await? {
        bytes += chunk.len();
    }
    Ok(bytes.to_string())
}

async fn echo(_: Request<'static>, body: BodyReader) -> Response {
    Response::bytes(body)
}

async fn make(req: Request<'static>) -> Response {
    let mib: u64 = req.header_str("x-mib").and_then(|mib| mib.parse().ok()).unwrap_or(0);
    Response::bytes(Body::chunks((0..mib * MIB / BLOCK.len() as u64).map(|_| &BLOCK)))
}

fn addr_of(server: &Running) -> SocketAddr {
    server.addr().as_socket_addr().expect("an address of TCP")
}

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads an answer to its end, and returns how many bytes there were and the last of them.
fn read_all(mut stream: TcpStream) -> (u64, Vec<u8>) {
    let (mut block, mut bytes, mut last) = (vec![0; BLOCK.len()], 0, Vec::new());
    loop {
        match stream.read(&mut block).expect("more, or an end") {
            0 => return (bytes, last),
            read => {
                bytes += read as u64;
                last.extend_from_slice(&block[read.saturating_sub(64)..read]);
                last.drain(..last.len().saturating_sub(64));
            }
        }
    }
}

fn write_blocks(stream: &mut TcpStream, mib: u64) {
    (0..mib * MIB / BLOCK.len() as u64).for_each(|_| stream.write_all(&BLOCK).expect("room in time"));
}

/// So much up, so much down, and both at once.
fn move_bodies(addr: SocketAddr, mib: u64) {
    let head = |path: &str| {
        let length = mib * MIB;
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n")
    };
    let mut up = connect(addr);
    up.write_all(head("/count").as_bytes()).unwrap();
    write_blocks(&mut up, mib);
    let (_, last) = read_all(up);
    assert!(last.ends_with((mib * MIB).to_string().as_bytes()), "{last:?}");

    let mut down = connect(addr);
    let get = format!("GET /make HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-MiB: {mib}\r\n\r\n");
    down.write_all(get.as_bytes()).unwrap();
    let (bytes, last) = read_all(down);
    assert!(bytes > mib * MIB && last.ends_with(b"x\r\n0\r\n\r\n"), "{bytes} bytes, {last:?}");

    let mut both = connect(addr);
    both.write_all(head("/echo").as_bytes()).unwrap();
    let reader = both.try_clone().unwrap();
    let reader = thread::spawn(move || read_all(reader));
    write_blocks(&mut both, mib);
    let (bytes, last) = reader.join().unwrap();
    // Its length was known.
    assert!(bytes > mib * MIB && last.ends_with(b"xxx"), "{bytes} bytes, {last:?}");
}

#[test]
fn bodies_of_any_size_go_up_and_down_in_constant_memory() {
    alone("large_bodies");
}

#[test]
#[ignore = "measures the memory of its process: run by the test above in one of its own"]
fn large_bodies() {
    let any = || RouteLimits::default().unlimited_body();
    let app = move |_: &_| {
        Router::new().post("/count", count.limits(any())).post("/echo", echo.limits(any())).get("/make", make)
    };
    let server = Server::bind("127.0.0.1:0").unwrap().workers(1).app(app).start().unwrap();
    move_bodies(addr_of(&server), 16);
    let (before, begin, mib) = (resident_kib(), Instant::now(), volume_mib());
    move_bodies(addr_of(&server), mib);
    let grown = resident_kib().saturating_sub(before);
    println!("measured: {mib} MiB each of three ways in {:.1?}, {grown} KiB more resident", begin.elapsed());
    assert!(grown < 4 * 1024, "{grown} KiB");
    let report = server.stop(PATIENCE).unwrap();
    assert_eq!((report.cut, report.stats.panics), (0, 0));
}

#[test]
fn a_thousand_event_streams_end_with_a_drain() {
    alone("many_streams");
}

#[test]
#[ignore = "opens two thousand sockets: run by the test above in a process of its own"]
fn many_streams() {
    const STREAMS: usize = 1000;
    let events = |_: &Request<'_>| {
        Events::run(async |client| {
            client.send(Event::data("begun")).await?;
            std::future::pending::<()>().await;
            Ok::<(), Box<dyn std::error::Error>>(())
        })
    };
    let app = move |_: &_| Router::new().get("/events", events);
    let server = Server::bind("127.0.0.1:0").unwrap().workers(2).app(app).start().unwrap();
    let streams: Vec<TcpStream> = (0..STREAMS)
        .map(|_| {
            let mut stream = connect(addr_of(&server));
            stream.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            let (mut heard, mut byte) = (Vec::new(), [0]);
            while !heard.ends_with(b"data: begun\n\n") {
                stream.read_exact(&mut byte).expect("an event");
                heard.push(byte[0]);
            }
            stream
        })
        .collect();
    let readers = thread::spawn(move || {
        for stream in streams {
            let (_, last) = read_all(stream);
            assert!(last.ends_with(b"0\r\n\r\n"), "{last:?}");
        }
    });
    let report = server.stop(PATIENCE).unwrap();
    println!("measured: {STREAMS} event streams end in {:.1?}", report.took);
    assert_eq!((report.open, report.cut, report.stats.panics), (STREAMS as u64, 0, 0));
    readers.join().unwrap();
}
