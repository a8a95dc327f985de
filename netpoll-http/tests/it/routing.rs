//! Which answer a method and a path get, with and without a handler.

use netpoll_http::{App, Handler, Method, Request, RouteLimits, Router, StatusCode, TestClient, routes};

use crate::client;

fn run_time() -> TestClient {
    client(|| {
        Router::new()
            .get("/", |_: &Request| "root")
            .get("/orders/{id}", |req: &Request| req.param::<String>("id"))
            .get("/orders/latest", |_: &Request| "latest")
            .post("/orders", |_: &Request| "made")
            .delete("/orders/{id}", |_: &Request| "gone")
            .on(Method::from_bytes(b"PURGE").expect("a token"), "/cache", |_: &Request| "purged")
            .options("/own", |_: &Request| "own options")
    })
}

fn compile_time() -> TestClient {
    App::new(|_| {
        routes! {
            GET "/" => |_: &Request| "root",
            GET "/orders/{id}" => |req: &Request| req.param::<String>("id"),
            GET "/orders/latest" => |_: &Request| "latest",
            POST "/orders" => |_: &Request| "made",
            DELETE "/orders/{id}" => |_: &Request| "gone",
            PURGE "/cache" => |_: &Request| "purged",
            OPTIONS "/own" => |_: &Request| "own options",
        }
    })
    .test()
}

fn on_both(check: impl Fn(TestClient)) {
    check(run_time());
    check(compile_time());
}

#[test]
fn a_request_goes_to_the_handler_of_its_method_and_path() {
    on_both(|client| {
        assert_eq!(client.get("/").text(), "root");
        assert_eq!(client.get("/orders/7").text(), "7");
        assert_eq!(client.get("/orders/latest?x=y").text(), "latest");
        assert_eq!(client.post("/orders", "").text(), "made");
        assert_eq!(client.request(Method::DELETE, "/orders/7").send().text(), "gone");
        let purge = Method::from_bytes(b"PURGE").expect("a token");
        assert_eq!(client.request(purge, "/cache").send().text(), "purged");
    });
}

#[test]
fn an_unknown_path_is_a_404_and_the_connection_goes_on() {
    on_both(|client| {
        let mut connection = client.connect();
        connection.send(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = connection.response().expect("an answer");
        assert_eq!((response.status, response.text()), (StatusCode::NOT_FOUND, "Not Found\n"));
        assert_eq!(connection.response().expect("the next").text(), "root");
    });
}

#[test]
fn a_known_path_with_another_method_is_a_405_that_lists_the_methods() {
    on_both(|client| {
        let response = client.request(Method::PUT, "/orders/7").send();
        assert_eq!(response.status, StatusCode::METHOD_NOT_ALLOWED);
        let allow = response.header("allow").expect("Allow is a must");
        for method in ["GET", "HEAD", "DELETE"] {
            assert!(allow.split(", ").any(|known| known == method), "{allow}");
        }
        assert!(!allow.contains("POST"));
    });
}

#[test]
fn a_method_that_http_does_not_know_is_a_501_unless_it_has_a_route_somewhere() {
    on_both(|client| {
        for method in ["BREW", "get", "purge", "PURG"] {
            let method = Method::from_bytes(method.as_bytes()).expect("a token");
            assert_eq!(client.request(method, "/").send().status, StatusCode::NOT_IMPLEMENTED);
        }
        let purge = || Method::from_bytes(b"PURGE").expect("a token");
        let elsewhere = client.request(purge(), "/orders").send();
        assert_eq!(
            (elsewhere.status, elsewhere.header("allow")),
            (StatusCode::METHOD_NOT_ALLOWED, Some("POST"))
        );
        assert_eq!(client.request(purge(), "/nowhere").send().status, StatusCode::NOT_FOUND);
    });
}

#[test]
fn head_is_served_by_get() {
    on_both(|client| {
        let response = client.request(Method::HEAD, "/").send();
        assert_eq!((response.status, response.header("content-length")), (StatusCode::OK, Some("4")));
    });
}

#[test]
fn options_is_answered_for_paths_that_have_no_handler_for_it() {
    on_both(|client| {
        let response = client.request(Method::OPTIONS, "/orders").send();
        assert_eq!((response.status, response.header("allow")), (StatusCode::NO_CONTENT, Some("POST")));
        assert_eq!(client.request(Method::OPTIONS, "/own").send().text(), "own options");
        assert_eq!(client.request(Method::OPTIONS, "/nowhere").send().status, StatusCode::NOT_FOUND);
    });
}

#[test]
fn options_of_the_server_lists_the_methods_of_all_routes() {
    on_both(|client| {
        let response = client.request(Method::OPTIONS, "*").send();
        assert_eq!(response.status, StatusCode::NO_CONTENT);
        assert_eq!(response.header("allow"), Some("GET, HEAD, POST, DELETE, PURGE, OPTIONS"));
    });
}

#[test]
fn an_absolute_target_is_routed_by_its_path_and_names_the_host() {
    let client =
        client(|| Router::new().get("/where", |req: &Request| req.host().unwrap_or("nowhere").to_owned()));
    let response = client.raw(b"GET http://real:8080/where HTTP/1.1\r\nHost: other\r\n\r\n");
    assert!(response.ends_with(b"real:8080"));
}

#[test]
#[should_panic(expected = "/orders/{id}")]
fn two_patterns_for_the_same_paths_are_refused_when_the_router_is_built() {
    let _ =
        Router::new().get("/orders/{id}", |_: &Request| "one").get("/orders/{number}", |_: &Request| "two");
}

#[test]
fn a_method_with_a_dash_has_routes_too() {
    let search = || Method::from_bytes(b"M-SEARCH").expect("a token");
    let run_time = client(move || Router::new().on(search(), "/devices", |_: &Request| "found"));
    let compile_time = App::new(|_| {
        routes! {
            "M-SEARCH" "/devices" => (|_: &Request| "found").limits(RouteLimits::default().body_bytes_max(5)),
            "VERSION-CONTROL" "/devices/{id}" => |req: &Request| req.param::<String>("id"),
            GET "/" => |_: &Request| "root",
        }
    })
    .test();
    for client in [run_time, compile_time.clone()] {
        assert_eq!(client.request(search(), "/devices").send().text(), "found");
        assert_eq!(client.get("/devices").header("allow"), Some("M-SEARCH"));
    }
    let control = Method::from_bytes(b"VERSION-CONTROL").expect("a token");
    assert_eq!(compile_time.request(control, "/devices/7").send().text(), "7");
    assert_eq!(compile_time.request(search(), "/").send().status, StatusCode::METHOD_NOT_ALLOWED);
}
