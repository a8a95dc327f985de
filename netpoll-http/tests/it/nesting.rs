//! Routers in routers, what finds no route, and what one route has of its own.

use std::cell::RefCell;
use std::panic::Location;
use std::sync::Once;
use std::time::Duration;

use netpoll_core::time::sleep;
use netpoll_http::{
    App, Error, Files, Handler, HeaderName, HeaderValue, Limits, Method, Parts, RateLimit, Reply, Request,
    RouteLimits, Router, StatusCode, TestClient, errors, routes,
};

use crate::{client, text};

fn method(name: &str) -> Method {
    Method::from_bytes(name.as_bytes()).expect("a token")
}

fn ask(client: &TestClient, name: &str, path: &str) -> (u16, String) {
    let answer = client.request(method(name), path).send();
    (answer.status.as_u16(), answer.text().to_owned())
}

fn said(status: u16, text: &str) -> (u16, String) {
    (status, text.to_owned())
}

#[test]
fn one_handler_may_have_several_methods() {
    let client = client(|| {
        let which = |req: &Request| req.method_str().to_owned();
        Router::new().route("/x", [Method::PUT, method("PURGE"), Method::GET], which)
    });
    for name in ["PUT", "PURGE", "GET"] {
        assert_eq!(ask(&client, name, "/x"), said(200, name));
    }
    assert_eq!(client.request(Method::HEAD, "/x").send().header("content-length"), Some("4"));
    let refused = client.request(Method::POST, "/x").send();
    assert_eq!((refused.status.as_u16(), refused.header("allow")), (405, Some("PUT, PURGE, GET, HEAD")));
}

#[test]
fn a_route_for_any_method_takes_those_that_have_no_other() {
    let client = client(|| {
        Router::new()
            .any("/x", |req: &Request| format!("any {}", req.method_str()))
            .get("/x", |_: &Request| "get")
            .any("/all/{*rest}", async |req: Request| req.param::<String>("rest"))
    });
    assert_eq!(ask(&client, "GET", "/x"), said(200, "get"));
    for name in ["POST", "DELETE", "OPTIONS", "BREW", "TRACE"] {
        assert_eq!(ask(&client, name, "/x"), said(200, &format!("any {name}")));
        assert_eq!(ask(&client, name, "/all/a/b"), said(200, "a/b"));
    }
    let head =
        |path: &str| client.request(Method::HEAD, path).send().header("content-length").map(str::to_owned);
    assert_eq!((head("/x").as_deref(), head("/all/a").as_deref()), (Some("3"), Some("1")));
    assert_eq!(ask(&client, "GET", "/nowhere").0, 404);
}

#[test]
#[should_panic = "route ANY \"/{b}\" matches the same paths as ANY \"/{a}\""]
fn two_routes_for_any_method_of_the_same_paths_are_refused() {
    let _ = Router::new().any("/{a}", |_: &Request| "a").any("/{b}", |_: &Request| "b");
}

#[test]
#[should_panic = "route \"/x\" is for no method"]
fn a_route_for_no_method_is_refused() {
    let _ = Router::new().route("/x", [], |_: &Request| "x");
}

#[test]
fn the_root_of_a_nested_router_is_at_its_prefix_with_a_slash_and_without() {
    let client = client(|| {
        let inner = || {
            Router::new()
                .get("/", |_: &Request| "all")
                .post("/", |req: &Request| req.body().len().to_string())
                .get("/{id}", |req: &Request| req.param::<String>("id"))
        };
        let shops = Router::new().nest("/items", inner());
        Router::new().nest("/items", inner()).nest("/slash/", inner()).nest("/shops/{shop}", shops)
    });
    for root in ["/items", "/items/", "/slash", "/slash/", "/shops/7/items", "/shops/7/items/"] {
        assert_eq!(ask(&client, "GET", root), said(200, "all"), "{root}");
        assert_eq!(client.post(root, "four").text(), "4", "{root}");
        let refused = client.request(Method::PUT, root).send();
        assert_eq!((refused.status.as_u16(), refused.header("allow")), (405, Some("GET, HEAD, POST")));
    }
    assert_eq!(ask(&client, "GET", "/items/7"), said(200, "7"));
    assert_eq!(ask(&client, "GET", "/items//").0, 404);
    assert_eq!(ask(&client, "GET", "/itemsx").0, 404);
}

#[test]
#[should_panic = "route GET \"/items\" matches the same paths as GET \"/items\""]
fn the_root_of_a_nested_router_takes_no_path_twice() {
    let inner = Router::new().get("/", |_: &Request| "all");
    let _ = Router::new().get("/items", |_: &Request| "mine").nest("/items", inner);
}

#[test]
fn a_router_at_the_root_is_merged() {
    let client = client(|| Router::new().nest("/", Router::new().get("/", |_: &Request| "root")));
    assert_eq!(ask(&client, "GET", "/"), said(200, "root"));
}

fn log_after(name: &'static str) -> impl Fn(&Request<'_>, &mut Parts) {
    move |_: &Request, parts: &mut Parts| {
        parts.headers.append("x-after", HeaderValue::from_static(name));
    }
}

fn afters(client: &TestClient, name: &str, path: &str) -> Vec<String> {
    let answer = client.request(method(name), path).send();
    let lines = answer.headers.into_iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-after"));
    lines.map(|(_, value)| value).collect()
}

#[test]
fn a_fallback_takes_what_nothing_has() {
    let client = client(|| {
        let fallback = |req: &Request| {
            (StatusCode::NOT_FOUND, format!("no {} {} {}", req.method_str(), req.path(), text(req.body())))
        };
        Router::new().get("/", |_: &Request| "root").fallback(fallback)
    });
    assert_eq!(ask(&client, "GET", "/"), said(200, "root"));
    assert_eq!(ask(&client, "GET", "/x"), said(404, "no GET /x "));
    assert_eq!(ask(&client, "BREW", "/x"), said(404, "no BREW /x "));
    assert_eq!(ask(&client, "OPTIONS", "/x"), said(404, "no OPTIONS /x "));
    assert_eq!(client.post("/x", "body").text(), "no POST /x body");
    assert_eq!(ask(&client, "POST", "/").0, 405);
    assert_eq!(ask(&client, "OPTIONS", "*").0, 204);
    let head = client.request(Method::HEAD, "/x").send();
    assert_eq!(head.header("content-length"), Some("11"));

    let mut upload = client.connect();
    upload.send(b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(text(&upload.received()), "HTTP/1.1 100 Continue\r\n\r\n");
    upload.send(b"he");
    upload.send(b"llo");
    assert_eq!(upload.response().expect("an answer").text(), "no POST /up hello");
}

#[test]
fn any_handler_may_be_a_fallback() {
    let waits = || {
        Router::new().fallback(async |req: Request| {
            sleep(Duration::from_millis(1)).await;
            req.path().to_owned()
        })
    };
    let waiting = client(waits);
    let mut connection = waiting.connect();
    connection.send(b"GET /async HTTP/1.1\r\nHost: a\r\n\r\n");
    waiting.advance(Duration::from_millis(5));
    assert_eq!(connection.response().expect("an answer").text(), "/async");

    let files =
        client(|| Router::new().fallback(Files::new(env!("CARGO_MANIFEST_DIR")).expect("a directory")));
    assert_eq!(ask(&files, "GET", "/nowhere").0, 404);
    let by_hand =
        |req: &Request, reply: Reply| reply.bytes(StatusCode::OK, "text/plain", req.path().as_bytes());
    assert_eq!(ask(&client(move || Router::new().fallback(by_hand)), "GET", "/hand"), said(200, "/hand"));
}

#[test]
fn a_nested_router_has_its_own_fallback_or_that_around_it_and_its_hooks_in_any_case() {
    let client = client(|| {
        let deep = Router::new().get("/x", |_: &Request| "x").after(log_after("deep"));
        let with = Router::new()
            .get("/x", |_: &Request| "x")
            .fallback(|_: &Request| "nested")
            .after(log_after("with"))
            .nest("/deep", deep);
        let without = Router::new().get("/x", |_: &Request| "x").after(log_after("without"));
        Router::new()
            .nest("/with", with)
            .nest("/without", without)
            .fallback(|_: &Request| "outer")
            .after(log_after("outer"))
    });
    for (path, text, hooks) in [
        ("/with/y", "nested", &["with", "outer"][..]),
        ("/with/deep/y", "nested", &["deep", "with", "outer"]),
        ("/without/y", "outer", &["without", "outer"]),
        ("/y", "outer", &["outer"]),
        ("/with/x", "x", &["with", "outer"]),
    ] {
        assert_eq!(ask(&client, "GET", path), said(200, text), "{path}");
        assert_eq!(afters(&client, "GET", path), hooks, "{path}");
    }
}

#[test]
fn what_begins_with_a_prefix_is_the_nested_routers_whatever_parameters_stand_around_it() {
    let client = client(|| {
        let deny = |req: &Request| match req.header("x-key") {
            Some(_) => Ok(()),
            None => Err(Error::from(StatusCode::UNAUTHORIZED)),
        };
        let stats = Router::new().get("/{day}/all", |_: &Request| "stats");
        let admin = Router::new()
            .get("/users", |_: &Request| "users")
            .nest("/stats", stats)
            .fallback(|_: &Request| "nothing here")
            .before(deny);
        let pages = |_: &Request| "page";
        Router::new()
            .merge(Router::new().nest("/admin", admin))
            .get("/{*path}", pages)
            .get("/{page}", pages)
            .get("/{page}/{part}", pages)
            .get("/{page}/", pages)
            .get("/admin/open", |_: &Request| "open")
            .nest("/{shop}/items", Router::new().get("/{id}", |_: &Request| "item"))
    });
    let with_key = |path: &str| {
        let answer = client.request(Method::GET, path).header("X-Key", "1").send();
        (answer.status.as_u16(), answer.text().to_owned())
    };
    for path in [
        "/admin",
        "/admin/",
        "/admin/secret",
        "/admin/a/b/c",
        "/admin/stats",
        "/admin/stats/7",
        "/admin/items",
        "/admin/items/7",
        "/admin//",
    ] {
        assert_eq!(ask(&client, "GET", path).0, 401, "{path}");
        assert_eq!(ask(&client, "PUT", path).0, 401, "{path}");
        assert_eq!(with_key(path), said(200, "nothing here"), "{path}");
    }
    assert_eq!(with_key("/admin/users"), said(200, "users"));
    assert_eq!(with_key("/admin/stats/7/all"), said(200, "stats"));
    assert_eq!(ask(&client, "GET", "/admin/open"), said(200, "open"));
    for path in ["/adminx", "/adminx/secret", "/a", "/a/b", "/a/b/c"] {
        assert_eq!(ask(&client, "GET", path), said(200, "page"), "{path}");
    }
    assert_eq!(ask(&client, "GET", "/a/items/7"), said(200, "item"));
    assert_eq!(ask(&client, "GET", "/a/items/7/8").0, 404);
    assert_eq!(ask(&client, "GET", "/a/items").0, 404);
}

#[test]
#[should_panic = "a pattern begins with `/`"]
fn a_prefix_that_is_no_path_is_refused() {
    let _ = Router::new().nest("admin", Router::new());
}

#[test]
fn a_hook_of_a_nested_router_guards_what_it_has_not_against_the_fallback() {
    let client = client(|| {
        let refuse = |_: &Request| Err::<(), _>(Error::from(StatusCode::UNAUTHORIZED));
        let inner = Router::new().get("/x", |_: &Request| "x").before(refuse);
        Router::new().nest("/in", inner).fallback(|_: &Request| "outer")
    });
    assert_eq!(ask(&client, "GET", "/in/y").0, 401);
    assert_eq!(ask(&client, "GET", "/y"), said(200, "outer"));
}

#[test]
fn a_merged_router_brings_its_fallback_along() {
    let client = client(|| Router::new().merge(Router::new().fallback(|_: &Request| "merged")));
    assert_eq!(ask(&client, "GET", "/y"), said(200, "merged"));
}

#[test]
#[should_panic = "both routers have a fallback"]
fn two_fallbacks_at_one_place_are_refused() {
    let with = || Router::new().fallback(|_: &Request| "it");
    let _ = with().merge(with());
}

#[test]
fn a_handler_for_methods_that_a_path_has_not_says_which_it_has() {
    let client = client(|| {
        let nested = Router::new()
            .get("/x", |_: &Request| "x")
            .method_not_allowed(|_: &Request| (StatusCode::METHOD_NOT_ALLOWED, "nested"))
            .after(log_after("nested"));
        Router::new()
            .get("/x", |_: &Request| "x")
            .get("/async", |_: &Request| "x")
            .nest("/in", nested)
            .method_not_allowed(async |req: Request| {
                sleep(Duration::from_millis(1)).await;
                (StatusCode::METHOD_NOT_ALLOWED, format!("not {} {}", req.method_str(), text(req.body())))
            })
            .after(log_after("outer"))
    });
    let slow = |request: &str| {
        let mut connection = client.connect();
        connection.send(request.as_bytes());
        client.advance(Duration::from_millis(5));
        connection.response().expect("an answer")
    };
    let put = slow("PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!((put.status.as_u16(), put.text()), (405, "not PUT body"));
    assert_eq!((put.header("allow"), put.header("x-after")), (Some("GET, HEAD"), Some("outer")));
    let nested = client.request(Method::PUT, "/in/x").send();
    assert_eq!((nested.status.as_u16(), nested.text()), (405, "nested"));
    assert_eq!(nested.header("allow"), Some("GET, HEAD"));
    assert_eq!(afters(&client, "PUT", "/in/x"), ["nested", "outer"]);
    assert_eq!(ask(&client, "OPTIONS", "/x").0, 204);
    assert_eq!(ask(&client, "BREW", "/x").0, 501);
    assert_eq!(ask(&client, "PUT", "/y").0, 404);
}

#[test]
fn headers_that_were_asked_of_a_reply_reach_an_answer_that_waits() {
    use netpoll_http::Endpoint;
    for with_after in [false, true] {
        let client = client(move || {
            let waits = (async |_: Request| {
                sleep(Duration::from_millis(1)).await;
                "text"
            })
            .into_endpoint();
            let router = Router::new().get("/", move |req: &Request, reply: Reply| {
                let name = HeaderName::from_static("x-asked");
                waits.call(req, reply.with_header(name, HeaderValue::from_static("1")).close())
            });
            if with_after { router.after(log_after("it")) } else { router }
        });
        let mut connection = client.connect();
        connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.advance(Duration::from_millis(5));
        let answer = connection.response().expect("an answer");
        assert_eq!((answer.text(), answer.header("x-asked")), ("text", Some("1")));
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(connection.is_closed());
    }
}

#[test]
fn a_compile_time_table_can_be_nested_and_merged_with_all_it_has() {
    let client = App::new(|_| {
        let table = || {
            routes! {
                GET "/" => |_: &Request| "root",
                GET "/{id}" => |req: &Request| req.param::<String>("id"),
                POST "/{id}" => (|req: &Request| req.body().len().to_string())
                    .limits(RouteLimits::default().body_bytes_max(3)),
                PUT "/{id}" => |req: &Request| req.body().len().to_string(),
                "M-SEARCH" "/devices" => async |_: Request| "found",
            }
            .limits(RouteLimits::default().body_bytes_max(5))
            .after(log_after("table"))
        };
        Router::new()
            .nest("/in", table())
            .merge(table())
            .fallback(|_: &Request| "nothing")
            .after(log_after("router"))
    })
    .test();
    for prefix in ["/in", ""] {
        assert_eq!(ask(&client, "GET", &format!("{prefix}/")), said(200, "root"));
        assert_eq!(ask(&client, "GET", &format!("{prefix}/7")), said(200, "7"));
        assert_eq!(ask(&client, "M-SEARCH", &format!("{prefix}/devices")), said(200, "found"));
        assert_eq!(afters(&client, "GET", &format!("{prefix}/7")), ["table", "router"]);
        let put = |name: &str, bytes: usize| {
            client
                .request(method(name), &format!("{prefix}/7"))
                .body(vec![b'x'; bytes])
                .send()
                .status
                .as_u16()
        };
        assert_eq!([put("POST", 3), put("POST", 4), put("PUT", 5), put("PUT", 6)], [200, 413, 200, 413]);
    }
    assert_eq!(ask(&client, "GET", "/in"), said(200, "root"));
    assert_eq!(ask(&client, "GET", "/a/b/c"), said(200, "nothing"));
}

#[test]
fn routers_keep_their_limits_when_they_are_nested() {
    let at_most = |bytes| RouteLimits::default().body_bytes_max(bytes);
    let client = client(move || {
        let own = (|_: &Request| "own").limits(at_most(3));
        let inner = Router::new().post("/own", own).post("/all", |_: &Request| "all").limits(at_most(5));
        let outer = Router::new().post("/all", |_: &Request| "outer").nest("/in", inner);
        outer.limits(at_most(7)).before(|_: &Request| ())
    });
    for (path, most, text) in [("/in/own", 3, "own"), ("/in/all", 5, "all"), ("/all", 7, "outer")] {
        assert_eq!(client.post(path, vec![b'x'; most]).text(), text);
        assert_eq!(client.post(path, vec![b'x'; most + 1]).status, StatusCode::PAYLOAD_TOO_LARGE);
    }
}

#[test]
fn a_route_may_have_a_deadline_of_its_own() {
    let at = |millis| RouteLimits::default().handler_timeout(Duration::from_millis(millis));
    let router = move || {
        let never = async |_: Request| std::future::pending::<()>().await;
        Router::new()
            .get("/short", never.limits(at(100)))
            .get("/long", never.limits(at(60_000)))
            .get("/plain", never)
            .post("/short", never.limits(at(100)))
            .fallback(never.limits(at(200)))
    };
    let limits = Limits::default().handler_timeout(Duration::from_secs(1));
    let client = App::new(move |_| router()).limits(limits).errors(errors::json).test();
    for (request, millis) in [
        ("GET /short HTTP/1.1\r\nHost: a\r\n\r\n", 100),
        ("POST /short HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab", 100),
        ("POST /short HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 100),
        ("GET /fallback HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("GET /plain HTTP/1.1\r\nHost: a\r\n\r\n", 1000),
        ("GET /long HTTP/1.1\r\nHost: a\r\n\r\n", 60_000),
    ] {
        let mut connection = client.connect();
        connection.send(request.as_bytes());
        client.advance(Duration::from_millis(millis - 50));
        assert!(connection.response().is_none(), "{request}");
        client.advance(Duration::from_millis(100));
        let answer = connection.response().unwrap_or_else(|| panic!("no answer to {request}"));
        assert_eq!(answer.status.as_u16(), 503, "{request}");
    }
}

#[test]
#[should_panic = "RouteLimits::handler_timeout is zero"]
fn a_deadline_of_zero_is_refused() {
    let zero = RouteLimits::default().handler_timeout(Duration::ZERO);
    let _ = Router::new().get("/", (|_: &Request| "x").limits(zero));
}

thread_local!(static PANICKED_AT: RefCell<Option<String>> = const { RefCell::new(None) });

/// Where a panic of `act` says that it was.
fn blamed(act: impl FnOnce()) -> String {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let place = info.location().map(|place| format!("{}:{}", place.file(), place.line()));
            PANICKED_AT.set(place);
            others(info);
        }));
    });
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(act)).is_err(), "it was to panic");
    PANICKED_AT.take().expect("the hook ran")
}

#[track_caller]
fn here() -> String {
    let place = Location::caller();
    format!("{}:{}", place.file(), place.line())
}

/// Names the line of the expression as the one to blame.
macro_rules! blames {
    ($act:expr) => {
        assert_eq!(blamed(|| drop($act)), here(), "{}", stringify!($act))
    };
}

#[test]
fn what_is_wrong_with_a_router_is_told_at_the_line_that_said_it() {
    let x = |_: &Request| "x";
    let with = || Router::new().get("/x", x);
    let zero = || RouteLimits::default().handler_timeout(Duration::ZERO);
    blames!(with().get("/x", x));
    blames!(with().post("no/slash", x));
    blames!(with().on(Method::GET, "/x", x));
    blames!(with().route("/x", [Method::POST, Method::GET], x));
    blames!(with().route("/y", [], x));
    blames!(with().any("/{", x));
    blames!(with().merge(with()));
    blames!(Router::new().get("/in/x", x).nest("/in", with()));
    blames!(with().limits(zero()));
    blames!(with().get("/y", x.limits(zero())));
    blames!(with().fallback(x.limits(zero())));
    blames!(with().method_not_allowed(x.limits(zero())));
    blames!(with().fallback(x).merge(with().fallback(x)));
    blames!(routes! { GET "/" => x.limits(zero()) });
    blames!(routes! { GET "/" => x }.limits(zero()));
    blames!(RateLimit::per_address(0, 1));
    blames!(App::new(|_| Router::new()).limits(Limits::default().headers_max(0)).test());
}
