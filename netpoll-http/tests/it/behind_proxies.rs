//! Who the client is, behind proxies that are trusted and those that are not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use netpoll_core::ConnLimits;
use netpoll_http::{
    ClientAddr, Error, Forwarded, Metrics, RateLimit, Request, Router, Running, Server, StatusCode, errors,
};

fn served(router: impl Fn() -> Router + Send + Sync + 'static) -> (Running, SocketAddr) {
    let running =
        Server::bind("127.0.0.1:0").unwrap().workers(1).app(move |_worker| router()).start().unwrap();
    let addr = running.addr().as_socket_addr().unwrap();
    (running, addr)
}

/// The status and the body of an answer to a request with these lines in its head.
fn ask(to: SocketAddr, lines: &str) -> (u16, String) {
    asked(to, "/", lines)
}

fn ask_for(to: SocketAddr, path: &str) -> (u16, String) {
    asked(to, path, "")
}

fn asked(to: SocketAddr, path: &str, lines: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(to).unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn whence(req: &Request) -> String {
    format!("{} {}", req.client_ip().unwrap(), req.extensions().get::<ClientAddr>().is_some())
}

#[test]
fn the_client_is_the_first_from_the_end_whom_no_trusted_proxy_is() {
    let proxies = Forwarded::x_forwarded_for(["127.0.0.1", "10.0.0.0/8"]).unwrap();
    let (running, addr) = served(move || {
        let proxies = proxies.clone();
        Router::new().before(move |req: &Request| proxies.note(req)).get("/", whence)
    });
    for (lines, client) in [
        ("", "127.0.0.1 false"),
        ("X-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7 true"),
        ("X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.1.2.3\r\n", "192.0.2.7 true"),
        (
            "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-For: 10.1.2.3\r\n",
            "192.0.2.7 true",
        ),
        ("X-Forwarded-For: 6.6.6.6, nonsense, 10.1.2.3\r\n", "10.1.2.3 true"),
        ("X-Forwarded-For: nonsense\r\n", "127.0.0.1 false"),
        ("X-Forwarded-For:\r\n", "127.0.0.1 false"),
        ("X-Forwarded-For: 10.0.0.1, 10.0.0.2\r\n", "10.0.0.1 true"),
        // What is not read does not count.
        ("Forwarded: for=192.0.2.7\r\n", "127.0.0.1 false"),
    ] {
        assert_eq!(ask(addr, lines), (200, client.to_owned()), "{lines}");
    }
    drop(running);
}

#[test]
fn a_proxy_may_be_named_as_a_socket_of_both_families_shows_it() {
    for proxies in ["::ffff:127.0.0.1", "::ffff:127.0.0.0/104"] {
        let proxies = Forwarded::x_forwarded_for([proxies]).unwrap();
        let (_running, addr) = served(move || {
            let proxies = proxies.clone();
            Router::new().before(move |req: &Request| proxies.note(req)).get("/", whence)
        });
        assert_eq!(ask(addr, "X-Forwarded-For: 192.0.2.7\r\n").1, "192.0.2.7 true");
    }
}

#[test]
fn a_client_of_ipv4_has_its_address_on_a_socket_of_both_families_too() {
    let running = Server::bind("[::]:0").unwrap().workers(1).app(|_worker| {
        let proxies = Forwarded::x_forwarded_for(["10.0.0.0/8"]).unwrap();
        let noted = Router::new().before(move |req: &Request| proxies.note(req)).get("/noted", whence);
        Router::new().get("/", whence).merge(noted)
    });
    let running = running.start().unwrap();
    let addr = SocketAddr::from(([127, 0, 0, 1], running.addr().port().unwrap()));
    for path in ["/", "/noted"] {
        assert_eq!(ask_for(addr, path), (200, "127.0.0.1 false".to_owned()), "{path}");
    }
}

#[test]
fn the_standard_field_is_read_as_well_and_nobody_is_believed_who_is_not_trusted() {
    let (running, addr) = served(|| {
        let proxies = Forwarded::rfc_7239(["127.0.0.0/8"]).unwrap();
        Router::new().before(move |req: &Request| proxies.note(req)).get("/", whence)
    });
    let lines =
        "Forwarded: for=6.6.6.6;host=\"a,b\", For=\"[2001:db8::7]:80\";proto=https, for=127.0.0.9\r\n";
    assert_eq!(ask(addr, lines), (200, "2001:db8::7 true".to_owned()));
    drop(running);
    let (running, addr) = served(|| {
        let proxies = Forwarded::rfc_7239(["10.0.0.0/8", "unix"]).unwrap();
        Router::new().before(move |req: &Request| proxies.note(req)).get("/", whence)
    });
    assert_eq!(ask(addr, lines), (200, "127.0.0.1 false".to_owned()));
    drop(running);
    assert!(Forwarded::x_forwarded_for(["10.0.0.1/8"]).unwrap_err().to_string().contains("10.0.0.1/8"));
}

#[test]
fn a_quote_that_a_client_has_opened_neither_hides_it_nor_shows_another() {
    let (running, addr) = served(|| {
        let proxies = Forwarded::rfc_7239(["127.0.0.1", "10.0.0.0/8"]).unwrap();
        Router::new().before(move |req: &Request| proxies.note(req)).get("/", whence)
    });
    // In front of the comma is the client's, and so is what the proxy quotes of it.
    for (line, client) in [
        ("for=6.6.6.6;by=\", for=192.0.2.7", "192.0.2.7 true"),
        ("x=\", for=192.0.2.7;host=\"a,for=6.6.6.6;b\"", "192.0.2.7 true"),
        ("x=\", for=192.0.2.7;host=\"a\", for=10.0.0.1", "192.0.2.7 true"),
        ("x=\"\\, for=\"[2001:db8::7]:80\"", "2001:db8::7 true"),
        ("for=\"192.0.2.7:_port\"", "192.0.2.7 true"),
        ("for=\"[fe80::7%eth0]\"", "fe80::7 true"),
        ("for=192.0.2.7, for=10.0.0.1;junk", "127.0.0.1 false"),
    ] {
        assert_eq!(ask(addr, &format!("Forwarded: {line}\r\n")), (200, client.to_owned()), "{line}");
    }
    drop(running);
}

#[test]
fn a_limit_counts_the_client_and_not_its_proxy() {
    let limit = RateLimit::per_address(1, 1);
    let proxies = Forwarded::x_forwarded_for(["127.0.0.1"]).unwrap();
    let (running, addr) = served(move || {
        let (proxies, limit) = (proxies.clone(), limit.clone());
        Router::new()
            .before(move |req: &Request| proxies.note(req))
            .before(move |req: &Request| limit.check(req))
            .get("/", whence)
    });
    let status = |client: &str| ask(addr, &format!("X-Forwarded-For: {client}\r\n")).0;
    assert_eq!([status("192.0.2.7"), status("192.0.2.7"), status("192.0.2.8")], [200, 429, 200]);
    drop(running);
}

#[test]
fn a_header_of_the_proxy_protocol_names_the_client_of_the_service_and_operators_send_none() {
    let running = Server::bind("127.0.0.1:0")
        .unwrap()
        .workers(1)
        .proxy_protocol(true)
        .bind_reserved("127.0.0.1:0")
        .unwrap()
        .app(|_worker| Router::new().get("/", whence))
        .start()
        .unwrap();
    let addr = |addr: netpoll_core::Address| addr.as_socket_addr().unwrap();
    let mut stream = TcpStream::connect(addr(running.addr())).unwrap();
    stream.write_all(b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 80\r\nGET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\n192.0.2.7 false"), "{answer}");
    let mut stranger = TcpStream::connect(addr(running.addr())).unwrap();
    stranger.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    answer.clear();
    // Closed with a request unread: an end, or a reset.
    let _ = stranger.read_to_string(&mut answer);
    assert_eq!(answer, "");
    assert_eq!(ask(addr(running.reserved_addr().unwrap()), ""), (200, "127.0.0.1 false".to_owned()));
    drop(running);
}

#[test]
fn operators_have_a_service_of_their_own_that_has_room_and_is_not_counted() {
    let metrics = Metrics::new();
    let shown = metrics.clone();
    let running = Server::bind("127.0.0.1:0")
        .unwrap()
        .workers(1)
        .runtime(|builder| builder.limits(ConnLimits::default().connections_max(1)))
        .errors(errors::json)
        .admin("127.0.0.1:0", move |_worker| Router::new().get("/", shown.handler()))
        .unwrap()
        .bind_reserved("127.0.0.1:0")
        .unwrap()
        .on_complete(metrics.hook())
        .app(|_worker| {
            Router::new()
                .get("/", whence)
                .before(|_: &Request| Err::<(), Error>(StatusCode::FORBIDDEN.into()))
        })
        .start()
        .unwrap();
    let addr = |addr: netpoll_core::Address| addr.as_socket_addr().unwrap();
    let (admin, main) = (addr(running.admin_addr().unwrap()), addr(running.addr()));
    assert!(admin != main && Some(admin) != running.reserved_addr().map(addr));
    assert_eq!(ask(main, "").0, 403);
    // In the middle of a request, and so not idle: the only place is taken.
    let mut holds = TcpStream::connect(main).unwrap();
    holds.write_all(b"GET / HT").unwrap();
    for _ in 0..2 {
        let (status, figures) = ask(admin, "");
        assert_eq!(status, 200);
        assert!(figures.contains("netpoll_http_requests_total{route=\"/\",class=\"4xx\"} 1\n"), "{figures}");
        assert!(!figures.contains("class=\"2xx\""), "{figures}");
    }
    let (status, problem) = ask_for(admin, "/nowhere");
    assert_eq!((status, problem.contains("\"status\":404")), (404, true), "{problem}");
    drop(running);
}
