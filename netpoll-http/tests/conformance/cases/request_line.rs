//! The start of a connection and the request line.

use super::{Case, Level, bytes, case, change, controls, each, head, ok, refused, rows, silence, status};

rows! {
    Ours up_to_four_empty_lines_before_a_request_line_are_skipped "9112 2.2",
    Ours a_malformed_request_line_is_refused "9112 3",
    Ours a_version_that_is_not_http_digit_dot_digit_is_refused "9110 2.5",
    Ours another_major_version_is_refused_with_505 "9110 15.6.6",
    Ours a_higher_minor_version_is_served_as_1_1 "9110 2.5",
    Ours a_target_with_a_byte_that_no_uri_has_is_refused "9112 3.2",
    Ours a_target_may_have_8192_bytes_and_not_one_more "9112 3",
    Must the_authority_of_an_absolute_target_replaces_the_host "9112 3.2.2",
    Ours an_absolute_target_of_another_scheme_or_without_a_host_is_refused "9112 3.2.2, 9110 4.2.1",
    Ours an_asterisk_goes_with_options_only "9112 3.2.4",
    Ours connect_is_refused "9110 9.3.6",
    Ours an_unknown_method_is_501_and_a_known_one_without_a_route_405 "9110 9.1, 15.5.6",
    Ours the_http2_preface_is_refused_with_505 "9113 3.3",
    Ours a_tls_handshake_is_cut_without_an_answer "a plain port",
    Ours routing_sees_the_path_as_it_was_sent "9110 4.2.3",
}

const HOST: &str = "\r\nHost: a\r\n\r\n";

pub fn up_to_four_empty_lines_before_a_request_line_are_skipped() -> Vec<Case> {
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let behind = |lines: &str| bytes(&[lines.as_bytes(), GET]);
    let between = |lines: &str| {
        bytes(&[b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", lines.as_bytes(), GET])
    };
    vec![
        case("one", behind("\r\n"), ok("hello")),
        case("four", behind("\r\n\r\n\r\n\r\n"), ok("hello")),
        case("five", behind("\r\n\r\n\r\n\r\n\r\n"), refused(400)),
        case("four between two requests", between("\r\n\r\n\r\n\r\n"), ok("hi").and(ok("hello"))),
        case("five between two requests", between("\r\n\r\n\r\n\r\n\r\n"), ok("hi").and(refused(400))),
        case("a bare LF", behind("\n"), refused(400)),
        case("a bare LF behind an empty line", behind("\r\n\n"), refused(400)),
        case("a bare CR", behind("\r"), refused(400)),
        case("CR CR LF", behind("\r\r\n"), refused(400)),
    ]
}

pub fn a_malformed_request_line_is_refused() -> Vec<Case> {
    let mut cases = each(
        "",
        [
            b"GET /",
            b"GET",
            b"/",
            b"GET  / HTTP/1.1",
            b"GET /  HTTP/1.1",
            b"GET / HTTP/1.1 ",
            b"GET / HTTP/1.1\t",
            b" GET / HTTP/1.1",
            b"\tGET / HTTP/1.1",
            b"GET\t/ HTTP/1.1",
            b"GET /\tHTTP/1.1",
            b"GET /a b HTTP/1.1",
            b"GET HTTP/1.1",
            b"GET /HTTP/1.1",
            b"GET  HTTP/1.1",
            b"GET / HTTP/1.1 HTTP/1.1",
            b" / HTTP/1.1",
            b"G(T / HTTP/1.1",
            b"GE\"T / HTTP/1.1",
            b"GET: / HTTP/1.1",
            b"G\x00T / HTTP/1.1",
            b"G\x80T / HTTP/1.1",
            b"GET /\x0bHTTP/1.1",
            b"GET\x0c/ HTTP/1.1",
            b"GET \xc2\xa0/ HTTP/1.1",
            b"GET index.html HTTP/1.1",
            b"GET a:80 HTTP/1.1",
            b"GET ?a HTTP/1.1",
            b"GET /a#b HTTP/1.1",
        ],
        HOST,
        &refused(400),
    );
    cases.push(case("an HTTP/0.9 request", "GET /\r\n\r\n", refused(400)));
    cases.push(case("a response", "HTTP/1.1 200 OK\r\nHost: a\r\n\r\n", refused(400)));
    cases
}

pub fn a_version_that_is_not_http_digit_dot_digit_is_refused() -> Vec<Case> {
    each(
        "GET / ",
        [
            b"HTTP/1",
            b"HTTP/1.",
            b"HTTP/.1",
            b"HTTP/",
            b"HTTP",
            b"HTTP/11",
            b"HTTP/2",
            b"HTTP/1.10",
            b"HTTP/1.1.1",
            b"HTTP/01.1",
            b"HTTP/10.1",
            b"HTTP/1,1",
            b"HTTP/1.x",
            b"HTTP/x.1",
            b"HTTP/+1.1",
            b"HTTP/-1.1",
            b"HTTP/1.1x",
            b"HTTP 1.1",
            b"http/1.1",
            b"Http/1.1",
            b"HTTPS/1.1",
            b"HTP/1.1",
            b"ICY/1.1",
            b"RTSP/1.0",
            b"1.1",
            b"HTTP/\xef\xbc\x91.1",
            b"HTTP/1.\x00",
        ],
        HOST,
        &refused(400),
    )
}

pub fn another_major_version_is_refused_with_505() -> Vec<Case> {
    each(
        "GET / ",
        [b"HTTP/0.9", b"HTTP/0.0", b"HTTP/2.0", b"HTTP/2.1", b"HTTP/3.0", b"HTTP/9.9"],
        HOST,
        &refused(505),
    )
}

pub fn a_higher_minor_version_is_served_as_1_1() -> Vec<Case> {
    let mut cases = each("GET / ", [b"HTTP/1.2", b"HTTP/1.3", b"HTTP/1.9"], HOST, &ok("hello"));
    let chunks = "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    cases.push(case("in chunks", format!("POST /echo HTTP/1.2\r\nHost: a\r\n{chunks}"), ok("hi")));
    cases.push(case("without a host", "GET / HTTP/1.2\r\n\r\n", refused(400)));
    // It is a SHOULD.
    super::change_all(cases, |case| case.or(refused(505)))
}

pub fn a_target_with_a_byte_that_no_uri_has_is_refused() -> Vec<Case> {
    let with = |byte: u8| bytes(&[b"GET /path/a", &[byte], b"b HTTP/1.1", HOST.as_bytes()]);
    let with_query = |byte: u8| bytes(&[b"GET /?a=", &[byte], b" HTTP/1.1", HOST.as_bytes()]);
    let odd = controls().chain([b'\t', b'\r', b'\n']).chain(0x80..=0xff);
    let mut cases: Vec<Case> =
        odd.map(|byte| case(format!("{byte:#04x}"), with(byte), refused(400))).collect();
    for byte in [0, 0x7f, 0xe9] {
        cases.push(case(format!("{byte:#04x} in the query"), with_query(byte), refused(400)));
    }
    cases.push(case("well-formed UTF-8", "GET /path/\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", refused(400)));
    cases
}

pub fn a_target_may_have_8192_bytes_and_not_one_more() -> Vec<Case> {
    let path = |len: usize| format!("/path/{}", "x".repeat(len - "/path/".len()));
    let get = |path: &str| format!("GET {path} HTTP/1.1{HOST}");
    vec![
        case("8000 bytes", get(&path(8000)), ok(path(8000))),
        case("8192 bytes", get(&path(8192)), ok(path(8192))),
        case("8193 bytes", get(&path(8193)), refused(414)),
        case("8193 bytes, most of them a query", get(&format!("/?{}", "q".repeat(8191))), refused(414)),
        case("as long as a head may be", get(&path(16_000)), refused(414)),
        case("longer than a head may be", get(&path(100_000)), refused(414)),
    ]
}

pub fn the_authority_of_an_absolute_target_replaces_the_host() -> Vec<Case> {
    vec![
        case("another host", "GET http://b.example/host HTTP/1.1\r\nHost: a\r\n\r\n", ok("b.example")),
        case(
            "with a port",
            "GET http://b.example:81/host HTTP/1.1\r\nHost: a:80\r\n\r\n",
            ok("b.example:81"),
        ),
        case("upper-case scheme", "GET HTTP://b.example/host HTTP/1.1\r\nHost: a\r\n\r\n", ok("b.example")),
        case("an IPv6 address", "GET http://[::1]:80/host HTTP/1.1\r\nHost: a\r\n\r\n", ok("[::1]:80")),
        case("no path", "GET http://b.example HTTP/1.1\r\nHost: a\r\n\r\n", ok("hello")).at(Level::Fixture),
        case(
            "no path but a query",
            "GET http://b.example?a=/canary HTTP/1.1\r\nHost: a\r\n\r\n",
            ok("hello"),
        )
        .at(Level::Fixture),
        case(
            "in HTTP/1.0, without Host",
            "GET http://b.example/host HTTP/1.0\r\n\r\n",
            ok("b.example").closed(),
        ),
        case("Host is still required", "GET http://b.example/host HTTP/1.1\r\n\r\n", refused(400))
            .or(status(400)),
        case(
            "Host is still checked",
            "GET http://b.example/host HTTP/1.1\r\nHost: a b\r\n\r\n",
            refused(400),
        )
        .or(status(400)),
    ]
}

pub fn an_absolute_target_of_another_scheme_or_without_a_host_is_refused() -> Vec<Case> {
    let mut cases = each(
        "GET ",
        [
            b"ftp://a/",
            b"file:///etc/passwd",
            b"http:///",
            b"http://",
            b"http:/a",
            b"http:a",
            b"://a/",
            b"http://:80/",
            b"http://user@a/",
            b"http://a:b/",
            b"http://[::1/",
            b"http://a/#b",
            b"urn:a",
            b"javascript:0",
        ],
        &format!(" HTTP/1.1{HOST}"),
        &refused(400),
    );
    // 9110 4.2.1: an empty host MUST be rejected.
    change(&mut cases, &["http:///", "http://", "http://:80/"], |case| case.at(Level::Must).or(status(400)));
    cases
}

pub fn an_asterisk_goes_with_options_only() -> Vec<Case> {
    vec![
        case("OPTIONS", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", status(204)).at(Level::Must),
        case("GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", refused(400)),
        case("HEAD", "HEAD * HTTP/1.1\r\nHost: a\r\n\r\n", head(400).closed()),
        case("POST", "POST * HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", refused(400)),
        case("OPTIONS and more than an asterisk", "OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n", refused(400)),
    ]
}

pub fn connect_is_refused() -> Vec<Case> {
    vec![
        case("authority form", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", refused(501)),
        case("origin form", "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", refused(501)),
        case(
            "behind a good request",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\nCONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
            ok("hello").and(refused(501)),
        ),
    ]
}

pub fn an_unknown_method_is_501_and_a_known_one_without_a_route_405() -> Vec<Case> {
    let long = "M".repeat(33);
    vec![
        case("unknown", "BREW / HTTP/1.1\r\nHost: a\r\n\r\n", status(501)),
        case(
            "unknown, of odd token characters",
            "!#$%&'*+-.^_`|~ / HTTP/1.1\r\nHost: a\r\n\r\n",
            status(501),
        ),
        case("lower case", "get / HTTP/1.1\r\nHost: a\r\n\r\n", status(501)),
        case("mixed case", "Get / HTTP/1.1\r\nHost: a\r\n\r\n", status(501)),
        case("known", "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", status(405)),
        case("TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", status(405)),
        case("known, with a body", "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", status(405))
            .at(Level::Must),
        case("nowhere", "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", status(404)),
        case("HEAD of a GET route", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", head(200)).at(Level::Must),
        case("OPTIONS of a route", "OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n", status(204)),
        case("longer than any", format!("{long} / HTTP/1.1\r\nHost: a\r\n\r\n"), refused(501)),
    ]
}

pub fn the_http2_preface_is_refused_with_505() -> Vec<Case> {
    vec![
        case("preface and SETTINGS", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", refused(505)),
        case("with a Host", "PRI * HTTP/2.0\r\nHost: a\r\n\r\n", refused(505)),
    ]
}

pub fn a_tls_handshake_is_cut_without_an_answer() -> Vec<Case> {
    vec![
        case("the start of a ClientHello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", silence()),
        case("its first byte", b"\x16", silence()),
    ]
}

pub fn routing_sees_the_path_as_it_was_sent() -> Vec<Case> {
    let paths = [
        "/path/%00",
        "/path/a%2Fb",
        "/path/a%2fb",
        "/path/../echo",
        "/path/..%2f..",
        "/path/./a",
        "/path//a",
        "/path/a/",
        "/path/%c0%ae%c0%ae/",
        "/path/%",
        "/path/%zz",
        "/path/%u0041",
        "/path/a;b=c",
        "/path/a:b@c!$&'()*+,=~",
        "/path/%2e%2e/",
        "/path/http://b/c",
    ];
    let mut cases: Vec<Case> =
        paths.map(|path| case(path, format!("GET {path} HTTP/1.1{HOST}"), ok(path))).into();
    cases.push(case(
        "a query is not part of it",
        "GET /path/a?b=/canary HTTP/1.1\r\nHost: a\r\n\r\n",
        ok("/path/a"),
    ));
    cases.push(case(
        "an encoded slash is no slash",
        "GET /%70ath/a HTTP/1.1\r\nHost: a\r\n\r\n",
        status(404),
    ));
    cases.push(case("case matters", "GET /ECHO HTTP/1.1\r\nHost: a\r\n\r\n", status(404)));
    cases
}
