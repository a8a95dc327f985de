//! Files: bodies that are files, and the handler that serves a directory.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use netpoll_core::sim::{Faults, Options};
use netpoll_http::{
    App, Body, Error, FileRange, Files, HeaderValue, Method, Parts, Request, Response, Router, Server,
    StatusCode, TestClient, TestResponse, routes,
};

use crate::text;

/// A directory `root` with a file beside it, gone when dropped.
struct Tree(PathBuf);

/// `Sun, 06 Nov 1994 08:49:37 GMT`, which is also when the simulated world begins.
const EXAMPLE_SECONDS: u64 = 784_111_777;
const EXAMPLE_DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

impl Tree {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("files-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let tree = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        std::fs::create_dir_all(tree.root().join("docs/empty")).unwrap();
        std::fs::write(tree.0.join("secret"), "secret").unwrap();
        tree.write("ten.txt", b"0123456789");
        tree.write("site.css", b"p{}");
        tree.write("docs/index.html", b"<p>");
        tree.write("docs/a b+c.txt", b"space");
        tree.write("docs/a:b", b"colon");
        tree.write("empty", b"");
        tree.write(".env", b"hidden");
        tree.write(".well-known/it", b"known");
        tree
    }

    fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.root().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        self.touch(name, EXAMPLE_SECONDS, 5);
    }

    fn touch(&self, name: &str, seconds: u64, nanos: u32) {
        let file = File::options().append(true).open(self.root().join(name)).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::new(seconds, nanos)).unwrap();
    }

    fn files(&self) -> Files {
        Files::new(self.root()).unwrap()
    }

    fn client(&self) -> TestClient {
        serving(self.files())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn serving(files: Files) -> TestClient {
    App::new(move |_| {
        Router::new()
            .get("/f/{*rest}", files.clone())
            .get("/f/", files.clone())
            .post("/f/{*rest}", files.clone())
            .get("/text", |_: &Request| "text")
    })
    .test()
}

fn get(client: &TestClient, target: &str, headers: &[(&str, &str)]) -> TestResponse {
    let request = client.request(Method::GET, target);
    headers.iter().fold(request, |request, (name, value)| request.header(name, value)).send()
}

/// The tag of `/f/ten.txt`, with its quotes.
fn tag_of_ten(client: &TestClient) -> String {
    client.get("/f/ten.txt").header("etag").expect("a tag").to_owned()
}

fn status(client: &TestClient, target: &str) -> u16 {
    client.get(target).status.as_u16()
}

#[test]
fn a_file_is_served_with_what_there_is_to_know_of_it() {
    let tree = Tree::new();
    let tag = tag_of_ten(&tree.client());
    let bytes = tree.client().raw(b"GET /f/ten.txt HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        text(&bytes),
        format!(
            "HTTP/1.1 200 OK\r\nServer: netpoll\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 10\r\n\
             Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nEtag: {tag}\r\n\
             Content-Type: text/plain; charset=utf-8\r\nAccept-Ranges: bytes\r\n\r\n0123456789"
        )
    );
    assert!(tag.starts_with("\"a-") && tag.ends_with('"'), "{tag}");
    let served = tree.client().get("/f/site.css");
    assert_eq!((served.header("content-type"), served.text()), (Some("text/css; charset=utf-8"), "p{}"));
    let served = tree.client().get("/f/empty");
    assert_eq!((served.status, served.body.len()), (StatusCode::OK, 0));
    assert_eq!(served.header("content-type"), Some("application/octet-stream"));
}

#[test]
fn a_name_is_decoded_once() {
    let tree = Tree::new();
    tree.write("100%.txt", b"percent");
    tree.write("%41", b"encoded");
    let client = tree.client();
    assert_eq!(client.get("/f/docs/a%20b+c.txt").text(), "space", "a plus is a plus");
    assert_eq!(client.get("/f/t%65n.txt").text(), "0123456789");
    assert_eq!(client.get("/f/100%25.txt").text(), "percent");
    assert_eq!(client.get("/f/%2541").text(), "encoded");
    assert_eq!(status(&client, "/f/%252e%252e/secret"), 404);
}

#[test]
fn nothing_outside_of_the_directory_is_served() {
    let tree = Tree::new();
    symlink("../secret", tree.root().join("out")).unwrap();
    symlink(tree.0.join("secret"), tree.root().join("absolute")).unwrap();
    symlink("..", tree.root().join("up")).unwrap();
    symlink("/proc/self/root", tree.root().join("magic")).unwrap();
    symlink("loop", tree.root().join("loop")).unwrap();
    symlink("ten.txt", tree.root().join("within")).unwrap();
    let client = tree.client();
    for name in ["out", "absolute", "up/secret", "up/root/ten.txt", "magic/etc/passwd", "loop", "loop/a"] {
        assert_eq!(status(&client, &format!("/f/{name}")), 404, "{name}");
    }
    // Where a path is walked name by name no link is followed (docs/TUNING.md, macOS).
    if cfg!(all(target_os = "linux", not(netpoll_portable))) {
        assert_eq!(client.get("/f/within").text(), "0123456789", "a link that stays inside is followed");
    }
}

#[test]
fn what_is_not_there_to_be_served_is_404_and_says_nothing_else() {
    let tree = Tree::new();
    let fifo = tree.root().join("fifo");
    assert!(Command::new("mkfifo").arg(fifo).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(tree.root().join("socket")).unwrap();
    symlink("/dev/null", tree.root().join("null")).unwrap();
    let client = tree.client();
    let long = "x".repeat(300);
    let names = [
        "missing",
        "missing/file",
        "ten.txt/",
        "ten.txt/more",
        "fifo",
        "fifo/",
        "socket",
        "null",
        ".env",
        ".well-known/it",
        "docs/.",
        "./ten.txt",
        "docs//index.html",
        "docs/empty",
        "docs/empty/",
        "docs/empty//",
        &long,
    ];
    for name in names {
        let served = client.get(&format!("/f/{name}"));
        assert_eq!((served.status.as_u16(), served.text()), (404, "Not Found\n"), "{name}");
        assert_eq!(served.header("etag"), None);
    }
    assert_eq!(status(&client, "/f//ten.txt"), 404);
}

#[test]
fn names_with_a_dot_in_front_are_served_where_the_program_says_so() {
    let tree = Tree::new();
    let client = serving(tree.files().dot_files(true));
    assert_eq!(client.get("/f/.well-known/it").text(), "known");
    assert_eq!(status(&client, "/f/./ten.txt"), 404);
    assert_eq!(status(&client, "/f/../secret"), 400);
}

#[test]
fn a_directory_is_its_index_behind_a_slash() {
    let tree = Tree::new();
    let client = tree.client();
    let index = client.get("/f/docs/");
    assert_eq!((index.text(), index.header("content-type")), ("<p>", Some("text/html; charset=utf-8")));
    let moved = client.get("/f/docs?q=1&r");
    assert_eq!((moved.status.as_u16(), moved.header("location")), (308, Some("./docs/?q=1&r")));
    assert_eq!(client.get("/f/d%6Fcs").header("location"), Some("./d%6Fcs/"), "as it was sent");

    assert_eq!(status(&client, "/f/"), 404);
    tree.write("index.html", b"top");
    assert_eq!(client.get("/f/").text(), "top", "a route without parameters is the directory itself");
    tree.write("http:/index.html", b"no scheme");
    assert_eq!(client.get("/f/http:").header("location"), Some("./http:/"));
}

#[test]
fn only_get_and_head_reach_files() {
    let client = Tree::new().client();
    let refused = client.post("/f/ten.txt", "x");
    assert_eq!((refused.status.as_u16(), refused.header("allow")), (405, Some("GET, HEAD")));
    let refused = client.request(Method::PUT, "/f/ten.txt").send();
    assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[test]
fn head_has_the_head_of_get_and_no_file() {
    let tree = Tree::new();
    let client = tree.client();
    let head = client.request(Method::HEAD, "/f/ten.txt").header("Range", "bytes=2-3").send();
    let whole = client.get("/f/ten.txt");
    assert_eq!((head.status, &head.headers), (StatusCode::OK, &whole.headers));
    let bytes =
        client.raw(b"HEAD /f/ten.txt HTTP/1.1\r\nHost: a\r\n\r\nGET /text HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!text(&bytes).contains("0123") && text(&bytes).ends_with("text"));
    let stats = client.stats();
    assert_eq!(stats.syscalls_sendfile, 1, "that of the GET");
}

#[test]
fn a_range_of_one_part_is_206() {
    let tree = Tree::new();
    let client = tree.client();
    let tag = tag_of_ten(&client);
    for (range, content_range, body) in [
        ("bytes=0-0", "bytes 0-0/10", "0"),
        ("bytes=2-5", "bytes 2-5/10", "2345"),
        ("bytes=7-", "bytes 7-9/10", "789"),
        ("bytes=-4", "bytes 6-9/10", "6789"),
        ("bytes=0-100", "bytes 0-9/10", "0123456789"),
    ] {
        let part = get(&client, "/f/ten.txt", &[("Range", range)]);
        assert_eq!((part.status.as_u16(), part.text()), (206, body), "{range}");
        assert_eq!(part.header("content-range"), Some(content_range));
        assert_eq!(part.header("etag"), Some(&*tag));
    }
    for range in ["bytes=10-", "bytes=-0", "bytes=99-100"] {
        let refused = get(&client, "/f/ten.txt", &[("Range", range)]);
        assert_eq!((refused.status.as_u16(), refused.header("content-range")), (416, Some("bytes */10")));
    }
    assert_eq!(get(&client, "/f/empty", &[("Range", "bytes=0-")]).status.as_u16(), 416);
}

#[test]
fn ranges_that_are_not_served_are_answered_with_the_whole_file() {
    let tree = Tree::new();
    let client = tree.client();
    for range in ["bytes=0-1,3-4", "bytes=5-2", "bytes=x", "lines=1-2", ""] {
        let whole = get(&client, "/f/ten.txt", &[("Range", range)]);
        assert_eq!((whole.status.as_u16(), whole.text()), (200, "0123456789"), "{range}");
        assert_eq!(whole.header("content-range"), None);
    }
    let twice = get(&client, "/f/ten.txt", &[("Range", "bytes=0-1"), ("Range", "bytes=2-3")]);
    assert_eq!(twice.status.as_u16(), 200);
}

#[test]
fn a_part_of_another_state_of_the_file_is_not_sent() {
    let tree = Tree::new();
    let client = tree.client();
    let part = |if_range: &str| {
        get(&client, "/f/ten.txt", &[("Range", "bytes=2-3"), ("If-Range", if_range)]).status.as_u16()
    };
    let tag = tag_of_ten(&client);
    assert_eq!(part(&tag), 206);
    assert_eq!(part(&format!("W/{tag}")), 200);
    let lines = [("Range", "bytes=2-3"), ("If-Range", &*tag), ("If-Range", "\"other\"")];
    assert_eq!(get(&client, "/f/ten.txt", &lines).status.as_u16(), 200, "which of two states is meant?");
    assert_eq!(part("\"other\""), 200);
    assert_eq!(part(EXAMPLE_DATE), 200, "a date is not strong enough");
}

#[test]
fn what_the_peer_has_already_is_304() {
    let tree = Tree::new();
    let client = serving(tree.files().cache_control(HeaderValue::from_static("max-age=60")));
    let tag = &*tag_of_ten(&client);
    let (weak, listed) = (format!("W/{tag}"), format!("\"x\", ,{tag},"));
    for (name, value, expected) in [
        ("If-None-Match", tag, 304),
        ("If-None-Match", &*weak, 304),
        ("If-None-Match", &*listed, 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", "\"x\"", 200),
        ("If-None-Match", tag.trim_matches('"'), 200),
        ("If-Modified-Since", EXAMPLE_DATE, 304),
        ("If-Modified-Since", "Sunday, 06-Nov-94 08:49:37 GMT", 304),
        ("If-Modified-Since", "Sun Nov  6 08:49:37 1994", 304),
        ("If-Modified-Since", "Sun, 06 Nov 1994 08:49:38 GMT", 304),
        ("If-Modified-Since", "Sun, 06 Nov 1994 08:49:36 GMT", 200),
        ("If-Modified-Since", "yesterday", 200),
    ] {
        let answer = get(&client, "/f/ten.txt", &[(name, value)]);
        assert_eq!(answer.status.as_u16(), expected, "{name}: {value}");
        assert_eq!((answer.header("etag"), answer.header("cache-control")), (Some(tag), Some("max-age=60")));
        assert_eq!(answer.body.len(), if expected == 304 { 0 } else { 10 });
    }
    let newer = [("If-None-Match", "\"x\""), ("If-Modified-Since", EXAMPLE_DATE)];
    assert_eq!(get(&client, "/f/ten.txt", &newer).status.as_u16(), 200, "the tag wins");
    let lines = [("If-None-Match", "\"x\""), ("If-None-Match", tag)];
    assert_eq!(get(&client, "/f/ten.txt", &lines).status.as_u16(), 304);
    let mut connection = client.connect();
    connection.send(format!("GET /f/ten.txt HTTP/1.1\r\nHost: a\r\nIf-None-Match: {tag}\r\n\r\n").as_bytes());
    connection.send(b"GET /text HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.response().unwrap().header("content-length"), None);
    assert_eq!(connection.response().unwrap().text(), "text", "nothing stood behind the head");
}

#[test]
fn what_the_peer_expects_to_be_otherwise_is_412() {
    let tree = Tree::new();
    let client = tree.client();
    let tag = &*tag_of_ten(&client);
    let weak = format!("W/{tag}");
    for (name, value, expected) in [
        ("If-Match", tag, 200),
        ("If-Match", "*", 200),
        ("If-Match", &*weak, 412),
        ("If-Match", "\"x\"", 412),
        ("If-Unmodified-Since", EXAMPLE_DATE, 200),
        ("If-Unmodified-Since", "Sun, 06 Nov 1994 08:49:36 GMT", 412),
        ("If-Unmodified-Since", "yesterday", 200),
        ("If-Unmodified-Since", "Sun, 20 Jul 1969 20:17:40 GMT", 412),
        ("If-Unmodified-Since", "Thu, 01 Jan 1601 00:00:00 GMT", 412),
    ] {
        assert_eq!(get(&client, "/f/ten.txt", &[(name, value)]).status.as_u16(), expected, "{name}: {value}");
    }
}

#[test]
fn two_dates_are_no_condition() {
    let tree = Tree::new();
    let client = tree.client();
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    let both = &*format!("{EARLIER}, {EARLIER}");
    for name in ["If-Modified-Since", "If-Unmodified-Since"] {
        for date in [EARLIER, EXAMPLE_DATE] {
            let lines = [(name, date), (name, date)];
            assert_eq!(get(&client, "/f/ten.txt", &lines).status.as_u16(), 200, "{name}: {date}, twice");
        }
        assert_eq!(get(&client, "/f/ten.txt", &[(name, both)]).status.as_u16(), 200, "{name}, as a list");
    }
}

#[test]
fn a_file_from_before_1970_has_its_date() {
    let tree = Tree::new();
    let file = File::options().append(true).open(tree.root().join("ten.txt")).unwrap();
    file.set_modified(UNIX_EPOCH - Duration::from_secs(14_182_940)).unwrap();
    let client = tree.client();
    let date = "Sun, 20 Jul 1969 20:17:40 GMT";
    assert_eq!(client.get("/f/ten.txt").header("last-modified"), Some(date));
    let status = |name: &str, value: &str| get(&client, "/f/ten.txt", &[(name, value)]).status.as_u16();
    assert_eq!(status("If-Modified-Since", date), 304);
    assert_eq!(status("If-Modified-Since", "Sun, 20 Jul 1969 20:17:39 GMT"), 200);
    assert_eq!(status("If-Unmodified-Since", date), 200);
    assert_eq!(status("If-Unmodified-Since", "Sun, 20 Jul 1969 20:17:39 GMT"), 412);
}

#[test]
fn files_of_one_size_and_one_time_have_tags_of_their_own() {
    let tree = Tree::new();
    tree.write("ten.txt", b"first 10 b");
    let client = tree.client();
    let first = tag_of_ten(&client);
    assert_eq!(first, tag_of_ten(&client), "it stays while the file does");
    // As a build does that gives all its files the time 1.
    tree.write("next.txt", b"other 10 b");
    std::fs::rename(tree.root().join("next.txt"), tree.root().join("ten.txt")).unwrap();
    assert_ne!(first, tag_of_ten(&client));
    assert_eq!(get(&client, "/f/ten.txt", &[("If-None-Match", &first)]).status.as_u16(), 200);
}

#[test]
fn a_changed_file_has_another_tag_and_no_date_in_the_future() {
    let tree = Tree::new();
    let client = tree.client();
    let tag = || client.get("/f/ten.txt").header("etag").map(str::to_owned);
    let first = tag();
    tree.touch("ten.txt", EXAMPLE_SECONDS, 6);
    assert_ne!(first, tag(), "a nanosecond later");
    tree.touch("ten.txt", EXAMPLE_SECONDS + 1000, 0);
    assert_eq!(client.get("/f/ten.txt").header("last-modified"), Some(EXAMPLE_DATE));
}

#[test]
fn hooks_see_the_answer_and_may_change_its_head() {
    let tree = Tree::new();
    let files = tree.files();
    let client = App::new(move |_| {
        Router::new().get("/{*rest}", files.clone()).after(|_: &Request, parts: &mut Parts| {
            let seen = parts.headers.contains_key("etag");
            parts.headers.insert("x-seen", HeaderValue::from(u16::from(seen)));
            if parts.error.as_ref().is_some_and(|error| std::error::Error::source(error).is_some()) {
                parts.headers.insert("x-source", HeaderValue::from_static("kept"));
            }
        })
    })
    .test();
    let answer = client.get("/ten.txt");
    assert_eq!((answer.header("x-seen"), answer.text()), (Some("1"), "0123456789"));
    let answer = client.get("/missing");
    assert_eq!((answer.header("x-seen"), answer.header("x-source")), (Some("0"), Some("kept")));
}

#[test]
fn a_route_table_of_the_compiler_serves_files_too() {
    let tree = Tree::new();
    let files = tree.files();
    let client = App::new(move |_| {
        let files = files.clone();
        routes! { GET "/f/{*path}" => files, }
    })
    .test();
    assert_eq!(client.get("/f/ten.txt").text(), "0123456789");
}

#[test]
fn a_directory_that_is_not_there_is_named_in_the_error() {
    let error = Files::new("/no/such/place").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("/no/such/place"), "{error}");
}

/// Routes whose bodies are files, without `Files`.
fn bodies(root: &Path) -> Router {
    let (large, small) = (root.join("large"), root.join("ten.txt"));
    let opened = move |path: &Path| File::open(path).map_err(Error::internal);
    let open = opened;
    Router::new()
        .get("/large", move |_: &Request| {
            Ok(Response::bytes(Body::file(open(&large)?).map_err(Error::internal)?))
        })
        .get("/part", move |_: &Request| {
            Ok(Response::text(FileRange::new(opened(&small)?, 3, 4)).status(StatusCode::CREATED))
        })
        .get("/text", |_: &Request| "text")
}

#[test]
fn pipelined_answers_around_a_large_file_keep_their_order() {
    let tree = Tree::new();
    let large: Vec<u8> = (0..2_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    tree.write("large", &large);
    for (seed, faults) in [(0, Faults::none()), (1, Faults::stormy()), (2, Faults::stormy())] {
        let mut options = Options::default();
        (options.seed, options.faults) = (seed, faults);
        let root = tree.root();
        let client = App::new(move |_| bodies(&root)).test_with(options);
        let mut connection = client.connect();
        for path in ["/text", "/large", "/part", "/large", "/text"] {
            connection.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        }
        connection.run();
        let mut next = || connection.response().expect("an answer");
        assert_eq!(next().text(), "text");
        assert!(next().body == large);
        let part = next();
        assert_eq!((part.status, part.text()), (StatusCode::CREATED, "3456"));
        assert!(next().body == large);
        assert_eq!(next().text(), "text");
        assert!(!connection.is_closed());
        drop(connection);
        client.run();
        assert_eq!((client.open(), client.blocks_in_use()), (0, 0));
    }
}

#[test]
fn only_a_regular_file_can_be_a_body() {
    for path in ["/dev/null", "/proc"] {
        let error = Body::file(File::open(path).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path}");
    }
    let body = Body::file(File::open("/proc/self/exe").unwrap()).unwrap();
    assert!(body.length().is_some_and(|length| length > 1000));
}

#[test]
fn a_file_that_is_cut_while_it_is_served_resets_the_connection() {
    let tree = Tree::new();
    tree.write("large", &vec![b'x'; 3 << 20]);
    let client = tree.client();
    let mut connection = client.connect();
    connection.stop_reading();
    connection.send(b"GET /f/large HTTP/1.1\r\nHost: a\r\n\r\nGET /text HTTP/1.1\r\nHost: a\r\n\r\n");
    File::options().append(true).open(tree.root().join("large")).unwrap().set_len(1 << 20).unwrap();
    connection.start_reading();
    assert!(connection.is_reset());
    let bytes = connection.received();
    assert!(bytes.len() < 2 << 20 && !bytes.ends_with(b"text"), "{}", bytes.len());
    assert_eq!((client.open(), client.stats().failed), (0, 1));
}

#[test]
fn a_slow_reader_of_a_huge_file_costs_little_memory_and_nobody_else() {
    let tree = Tree::new();
    File::create(tree.root().join("huge")).unwrap().set_len(1 << 40).unwrap();
    let client = tree.client();
    let mut slow = client.connect();
    slow.stop_reading();
    slow.send(b"GET /f/huge HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.blocks_in_use() < 16, "{}", client.blocks_in_use());
    assert_eq!(client.get("/text").text(), "text");
    client.advance(Duration::from_secs(60));
    assert!(slow.is_reset(), "it did not read");
    assert_eq!((client.open(), client.blocks_in_use()), (0, 0));
}

#[test]
fn a_file_is_the_last_answer_of_a_connection_that_closes() {
    let tree = Tree::new();
    tree.write("large", &vec![b'x'; 1 << 20]);
    let client = tree.client();
    let bytes = client.raw(b"GET /f/large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(bytes.iter().filter(|byte| **byte == b'x').count(), 1 << 20);
    let bytes = client.raw(b"GET /f/ten.txt HTTP/1.0\r\n\r\n");
    assert!(bytes.ends_with(b"\r\n\r\n0123456789"));
}

#[test]
fn on_a_real_socket_files_leave_by_sendfile_and_close_behind_themselves() {
    let tree = Tree::new();
    let large: Vec<u8> = (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    tree.write("large", &large);
    let files = tree.files();
    let server = Server::bind("127.0.0.1:0").unwrap().workers(1);
    let server = server.app(move |_| Router::new().get("/{*rest}", files.clone())).start().unwrap();
    let mut stream = TcpStream::connect(server.addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let request = |name: &str| format!("GET /{name} HTTP/1.1\r\nHost: a\r\n\r\n");
    let pipelined = [request("ten.txt"), request("large"), request("missing"), request("large")].concat();
    stream.write_all(pipelined.as_bytes()).unwrap();
    let mut end = stream.try_clone().unwrap();
    end.write_all(b"GET /ten.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let whole = |from: usize| bytes[from..].windows(4).position(|at| at == b"\r\n\r\n").unwrap() + from + 4;
    let (first, second) = (whole(0), whole(whole(0)));
    assert_eq!(&bytes[first..first + 10], b"0123456789");
    assert!(bytes[second..second + large.len()] == large);
    assert!(bytes.ends_with(b"0123456789"));
    let third = whole(whole(second + large.len()));
    assert!(bytes[third..third + large.len()] == large);

    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let below = |path: PathBuf| path.starts_with(tree.root()) && path != tree.root();
    let left = open.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(below)).count();
    assert_eq!(left, 0, "every file is closed");
    let report = server.stop(Duration::from_secs(5)).unwrap();
    assert!(report.stats.syscalls_sendfile >= 2 + 2 * 6, "{}", report.stats.syscalls_sendfile);
}

#[test]
fn without_a_descriptor_left_the_answer_is_503_and_serving_goes_on() {
    let test = "files::with_few_descriptors";
    let script = format!("ulimit -n 30; exec \"$0\" --exact {test} --ignored --nocapture --test-threads=1");
    let program = std::env::current_exe().unwrap();
    let output = Command::new("sh").arg("-c").arg(script).arg(program).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Run by `without_a_descriptor_left_the_answer_is_503_and_serving_goes_on` with 30 descriptors.
#[test]
#[ignore = "needs a process of its own"]
fn with_few_descriptors() {
    let tree = Tree::new();
    let client = tree.client();
    let mut crowd = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        crowd.push(file);
    }
    assert_eq!(client.get("/f/ten.txt").status, StatusCode::SERVICE_UNAVAILABLE);
    crowd.clear();
    assert_eq!(client.get("/f/ten.txt").text(), "0123456789");
}

/// A tree with files that lie compressed beside others, which are as old as those.
fn with_compressed() -> (Tree, TestClient) {
    let tree = Tree::new();
    tree.write("app.js", b"start() // and the rest");
    tree.write("app.js.br", b"br of app");
    tree.write("app.js.gz", b"gzip of app");
    tree.write("docs/index.html.zst", b"zstd of index");
    tree.write("ten.txt.gz", b"gzip of ten");
    tree.touch("ten.txt.gz", EXAMPLE_SECONDS - 1, 999_999_999);
    tree.write("alone.css.gz", b"of nothing");
    let client = serving(tree.files().precompressed(true));
    (tree, client)
}

#[test]
fn a_file_that_lies_compressed_beside_another_is_sent_to_who_accepts_it() {
    let (tree, client) = with_compressed();
    let seen = |target: &str, accepted: &str| {
        let response = get(&client, target, &[("Accept-Encoding", accepted)]);
        assert_eq!(
            (response.status, response.header("vary")),
            (StatusCode::OK, Some("accept-encoding")),
            "{target}"
        );
        (response.header("content-encoding").unwrap_or("-").to_owned(), response.text().to_owned())
    };
    let is = |coding: &str, text: &str| (coding.to_owned(), text.to_owned());
    assert_eq!(seen("/f/app.js", "gzip, deflate, br, zstd"), is("br", "br of app"));
    assert_eq!(seen("/f/app.js", "gzip, br;q=0.5"), is("gzip", "gzip of app"));
    assert_eq!(
        seen("/f/app.js", "zstd, br;q=0.5"),
        is("br", "br of app"),
        "what is not there is passed over"
    );
    assert_eq!(seen("/f/app.js", "zstd"), is("-", "start() // and the rest"));
    assert_eq!(seen("/f/app.js", "br;q=0.2, identity"), is("-", "start() // and the rest"));
    assert_eq!(seen("/f/docs/", "zstd"), is("zstd", "zstd of index"));
    assert_eq!(seen("/f/ten.txt", "gzip"), is("-", "0123456789"), "it was made of an older one");
    assert_eq!(seen("/f/app.js.br", "br"), is("-", "br of app"), "asked for by its own name");
    let typed = get(&client, "/f/app.js", &[("Accept-Encoding", "br")]);
    assert_eq!(typed.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(status(&client, "/f/alone.css"), 404, "there is nothing that it is a coding of");
    let off = serving(tree.files());
    let plain = get(&off, "/f/app.js", &[("Accept-Encoding", "br")]);
    assert_eq!(
        (plain.header("content-encoding"), plain.header("vary")),
        (None, None),
        "nobody has asked for it"
    );
}

#[test]
fn a_compressed_file_has_a_tag_and_ranges_of_its_own() {
    let (_tree, client) = with_compressed();
    let tag = |accepted: &str| {
        let response = get(&client, "/f/app.js", &[("Accept-Encoding", accepted)]);
        response.header("etag").expect("a tag").to_owned()
    };
    let (plain, coded) = (tag("identity"), tag("br"));
    assert!(plain != coded && coded.starts_with("\"9-"), "{coded} is strong, and of nine bytes");
    let again = |accepted: &str, tag: &str| {
        let response = get(&client, "/f/app.js", &[("Accept-Encoding", accepted), ("If-None-Match", tag)]);
        assert_eq!(response.header("vary"), Some("accept-encoding"));
        response.status.as_u16()
    };
    assert_eq!([again("br", &coded), again("br", &plain), again("identity", &coded)], [304, 200, 200]);
    let part = |tag: &str| {
        get(&client, "/f/app.js", &[("Accept-Encoding", "br"), ("Range", "bytes=3-"), ("If-Range", tag)])
    };
    let of_coded = part(&coded);
    assert_eq!((of_coded.status.as_u16(), of_coded.text()), (206, "of app"));
    assert_eq!(of_coded.header("content-range"), Some("bytes 3-8/9"));
    assert_eq!(of_coded.header("content-encoding"), Some("br"));
    assert_eq!(part(&plain).text(), "br of app", "parts of two files are not put together");
    let head = client.request(Method::HEAD, "/f/app.js").header("Accept-Encoding", "br").send();
    assert_eq!((head.header("content-length"), head.header("content-encoding")), (Some("9"), Some("br")));
}

#[cfg(feature = "compression")]
#[test]
fn a_file_passes_the_hook_that_compresses_as_it_is() {
    let (tree, _) = with_compressed();
    tree.write("large.txt", &[b'x'; 5000]);
    let files = tree.files().precompressed(true);
    let router = move |_: &_| {
        Router::new().get("/f/{*rest}", files.clone()).after(netpoll_http::Compress::new().hook())
    };
    let client = App::new(router).test();
    for method in [Method::GET, Method::HEAD] {
        let ask =
            |target: &str| client.request(method.clone(), target).header("Accept-Encoding", "gzip").send();
        let large = ask("/f/large.txt");
        assert_eq!((large.header("content-encoding"), large.header("content-length")), (None, Some("5000")));
        assert!(
            large.header("etag").is_some_and(|tag| tag.starts_with('"')),
            "{method}: its tag stays strong"
        );
        let coded = ask("/f/app.js");
        assert_eq!(
            (coded.header("content-encoding"), coded.header("content-length")),
            (Some("gzip"), Some("11"))
        );
    }
}
