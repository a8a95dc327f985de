//! Hooks, layers, errors and those who watch: none of them can tell, but by the version.

use std::sync::mpsc::channel;
use std::time::Duration;

use netpoll_http::{App, Completed, Compress, Error, Http2, RateLimit, Request, Router, StatusCode, errors};

use crate::peer::*;
use crate::served;

#[test]
fn a_panic_is_answered_with_500_and_costs_no_other_request() {
    let client = served(|_| {
        Router::new()
            .get("/", |_: &Request| "hello")
            .get("/sync", |_: &Request| -> &str { panic!("as it was told") })
            .get("/async", async |_: Request<'static>| -> &str {
                netpoll_core::task::yield_now().await;
                panic!("as it was told")
            })
            .get("/wait", async |_: Request<'static>| {
                netpoll_core::time::sleep(Duration::from_secs(1)).await;
                "waited"
            })
    });
    let mut peer = Peer::new(&client);
    peer.get(1, "/wait");
    assert_eq!(peer.get(3, "/sync").status, Some(500));
    assert_eq!(peer.get(5, "/async").status, Some(500));
    client.advance(Duration::from_secs(2));
    assert_eq!(peer.answer(1).text(), "waited");
    peer.assert_well(7);
    assert_eq!(client.stats().panics, 2);
}

#[test]
fn hooks_before_and_after_see_every_request_and_may_wait() {
    let client = served(|_| {
        let sign_in = |req: &Request| match req.header("x-user") {
            Some(user) => {
                req.extensions().insert(String::from_utf8_lossy(user).into_owned());
                Ok(())
            }
            None => Err(Error::from(StatusCode::UNAUTHORIZED)),
        };
        Router::new()
            .get("/", |req: &Request| req.extensions().get::<String>().cloned())
            .post("/", |req: &Request| req.body().len().to_string())
            .before(sign_in)
            .before(async |req: Request<'static>| {
                netpoll_core::time::sleep(Duration::from_secs(1)).await;
                if req.header("x-user") == Some(b"eve") {
                    Err(Error::from(StatusCode::FORBIDDEN))
                } else {
                    Ok(())
                }
            })
    });
    let mut peer = Peer::new(&client);
    assert_eq!(peer.get(1, "/").status, Some(401));
    peer.ask(3, &with(&[("x-user", "ada")]), true);
    peer.ask(5, &with(&[("x-user", "eve")]), true);
    peer.ask(7, &with(&[(":method", "POST"), ("x-user", "ada")]), false);
    peer.send(DATA, END_STREAM, 7, b"12345");
    assert_eq!(peer.answer(3), Answer::default());
    client.advance(Duration::from_secs(2));
    assert_eq!((peer.answer(3).text(), peer.answer(5).status), ("ada", Some(403)));
    assert_eq!(peer.answer(7).text(), "5");
}

#[test]
fn layers_work_as_ever() {
    let client = served(|_| {
        let limit = RateLimit::per_address(2, 2);
        Router::new()
            .get("/", |_: &Request| "hello ".repeat(1000))
            .after(Compress::new().hook())
            .before(move |req: &Request| limit.check(req))
    });
    let mut peer = Peer::new(&client);
    let answer = {
        peer.ask(1, &with(&[("accept-encoding", "gzip")]), true);
        peer.answer(1)
    };
    assert_eq!((answer.status, &answer.body[..2]), (Some(200), &[0x1f, 0x8b][..]));
    assert_eq!(peer.get(3, "/").body.len(), 6000);
    assert_eq!(peer.get(5, "/").status, Some(429));
}

#[test]
fn errors_look_as_the_server_writes_them() {
    let client = App::new(|_| Router::new()).errors(errors::json).http2(Http2::default()).test();
    let mut peer = Peer::new(&client);
    let answer = peer.get(1, "/nowhere");
    assert!(answer.status == Some(404) && answer.text().starts_with('{'), "{answer:?}");
    peer.ask(3, &with(&[(":authority", "user@a")]), true);
    let answer = peer.answer(3);
    assert!(answer.status == Some(400) && answer.text().starts_with('{'), "{answer:?}");
}

#[test]
fn whoever_watches_hears_of_each_request_once_and_of_its_end() {
    let (sender, ended) = channel();
    let client = App::new(|_| {
        Router::new()
            .get("/", |_: &Request| "hello")
            .post("/", |req: &Request| req.body().len().to_string())
            .get("/large/{n}", |_: &Request| vec![0; 100_000])
            .get("/fails", |_: &Request| Err::<&str, _>(Error::internal("no disk")))
            .get("/panics", |_: &Request| -> &str { panic!("as it was told") })
            .get("/wait", async |_: Request<'static>| std::future::pending::<&str>().await)
    })
    .on_complete(move |_| {
        let sender = sender.clone();
        move |done: &Completed<'_>| {
            let line = format!(
                "{:?} {} {:?} {:?} {} {} {:?}",
                done.request.version(),
                done.request.target(),
                done.route,
                done.status.map(|status| status.as_u16()),
                done.outcome,
                done.bytes_out - done.head_bytes_out,
                done.error,
            );
            sender.send(line).unwrap();
        }
    })
    .http2(Http2::default())
    .test();
    let mut peer = Peer::new(&client);
    let told = || {
        let line = ended.try_recv().unwrap_or_else(|_| "nothing".to_owned());
        line.strip_prefix("HTTP/2.0 ").map(str::to_owned).unwrap_or(line)
    };
    peer.get(1, "/");
    assert_eq!(told(), "/ Some(\"/\") Some(200) answered 5 None");
    peer.get(3, "/nowhere");
    assert!(told().starts_with("/nowhere None Some(404) not_found "));
    peer.get(5, "/fails");
    assert!(told().starts_with("/fails Some(\"/fails\") Some(500) answered "));
    peer.get(7, "/panics");
    let line = told();
    assert!(line.contains(" Some(500) panicked ") && line.ends_with("Some(\"as it was told\")"), "{line}");
    peer.ask(9, &with(&[(":authority", "user@a")]), true);
    assert!(told().contains(" Some(400) malformed "));
    peer.ask(11, &with(&[(":method", "POST")]), false);
    assert_eq!(told(), "nothing");
    peer.send(DATA, END_STREAM, 11, b"1234");
    assert_eq!(told(), "/ Some(\"/\") Some(200) answered 1 None");
    // One that is not taken, and one that is taken back.
    peer.get(13, "/large/1");
    assert_eq!(told(), "nothing");
    peer.send(RST_STREAM, 0, 13, &CANCEL.to_be_bytes());
    assert!(told().starts_with("/large/1 Some(\"/large/{n}\") Some(200) abandoned "));
    peer.get(15, "/wait");
    peer.send(RST_STREAM, 0, 15, &CANCEL.to_be_bytes());
    assert_eq!(told(), "/wait Some(\"/wait\") None abandoned 0 None");
    // Cut by a drain.
    peer.get(17, "/wait");
    client.begin_drain(Duration::from_secs(1));
    client.advance(Duration::from_secs(3));
    assert_eq!(told(), "/wait Some(\"/wait\") None cut 0 None");
    assert_eq!(told(), "nothing");
}
