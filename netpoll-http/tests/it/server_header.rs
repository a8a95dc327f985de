//! What the server calls itself.

use netpoll_http::{App, Json, Request, Response, Router, Server, ServerHeader, StatusCode, header};

use crate::text;

fn router() -> Router {
    Router::new()
        .get("/", |_: &Request| "hello")
        .get("/json", |_: &Request| Json(7))
        .get("/teapot", |_: &Request| StatusCode::IM_A_TEAPOT)
        .get("/own", |_: &Request| {
            Response::new(StatusCode::OK).header(header::SERVER, "mine").expect("a header").body("own")
        })
        .get("/panics", |_: &Request| -> &'static str { panic!("so that the server answers") })
}

/// The lines that name a server, in answers of each kind: those of handlers, and those of the server.
fn names(name: impl Into<ServerHeader>) -> Vec<Vec<String>> {
    let client = App::new(|_worker| router()).server_header(name).test();
    let asked = ["/", "/json", "/teapot", "/own", "/panics", "/nowhere"];
    let mut answers: Vec<Vec<u8>> = asked
        .map(|path| {
            client.raw(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes())
        })
        .into();
    answers.push(client.raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    answers.push(client.raw(b"HEAD / HTTP/1.0\r\n\r\n"));
    answers.push(client.raw(b"GET / HTTP/1.1\r\n\r\n"));
    answers.push(client.raw(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n"));
    let lines = |answer: &Vec<u8>| {
        let (head, _) = text(answer).split_once("\r\n\r\n").expect("a whole head");
        head.lines()
            .filter(|line| line.to_ascii_lowercase().starts_with("server"))
            .map(str::to_owned)
            .collect()
    };
    answers.iter().map(lines).collect()
}

#[test]
fn every_answer_names_the_server_as_it_was_told_to() {
    for name in ["netpoll", "x", "shop/1.4", "a-name-of-a-service/10.20.30 (and a comment beside)"] {
        let expected = vec![format!("Server: {name}")];
        for (number, lines) in names(name).iter().enumerate() {
            assert_eq!(*lines, expected, "answer {number}");
        }
    }
    assert!(names(String::from("owned")).iter().all(|lines| lines == &["Server: owned"]));
    assert_eq!(names("n".repeat(128))[0], [format!("Server: {}", "n".repeat(128))]);
}

#[test]
fn no_answer_names_the_server_where_that_is_left_out() {
    assert!(names(None).iter().all(Vec::is_empty));
}

#[test]
fn the_rest_of_an_answer_does_not_depend_on_the_name() {
    let answer = |name: ServerHeader| {
        let client = App::new(|_worker| router()).server_header(name).test();
        text(&client.raw(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")).to_owned()
    };
    let rest = "Content-Type: text/plain; charset=utf-8\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                Content-Length: 5\r\n\r\nhello";
    assert_eq!(answer("shop/1.4".into()), format!("HTTP/1.1 200 OK\r\nServer: shop/1.4\r\n{rest}"));
    assert_eq!(answer(None.into()), format!("HTTP/1.1 200 OK\r\n{rest}"));
}

#[test]
fn a_name_that_would_be_no_header_keeps_a_server_from_starting() {
    let long = "n".repeat(129);
    for name in ["", " ", "a\r\nSet-Cookie: b", "a\nb", "a ", " a", "a\tb", "\u{e9}", "a\0", &long] {
        let server = Server::bind("127.0.0.1:0").unwrap().server_header(name.to_owned());
        let error = server.app(|_worker| router()).start().expect_err(name);
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().starts_with("server_header"), "{error}");
    }
}
