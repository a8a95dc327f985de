//! HTTP/1.1 from the first byte of a connection to the end of the request line.

use super::*;

#[test]
fn up_to_four_empty_lines_before_a_request_are_skipped() {
    for lines in 0..=4 {
        let bytes = ["\r\n".repeat(lines), "GET / HTTP/1.1\r\nHost: a\r\n\r\n".into()].concat();
        let head = accepted(&bytes);
        assert_eq!((head.skipped, head.consumed()), (lines * 2, bytes.len()));
    }
    assert_eq!(
        refused("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        Violation::TooManyEmptyLines
    );
}

#[test]
fn empty_lines_are_dropped_at_once_and_still_counted() {
    let (mut scan, mut index) = (Scan::default(), HeadIndex::new());
    for _ in 0..4 {
        let progress = parse(b"\r\n", &mut scan, &Limits::default(), &mut index);
        assert!(matches!(progress, Ok(Progress::Partial { skip: 2 })));
    }
    let error = parse(b"\r\n", &mut scan, &Limits::default(), &mut index).expect_err("a fifth line");
    assert_eq!(error.violation(), Violation::TooManyEmptyLines);
}

#[test]
fn empty_lines_end_with_crlf_too() {
    assert_eq!(refused("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), Violation::BareLf);
    assert_eq!(refused("\r\rGET / HTTP/1.1\r\nHost: a\r\n\r\n"), Violation::BareCr);
}

#[test]
fn a_request_line_without_a_version_is_refused() {
    for bytes in ["GET /\r\n", "GET / \r\n", "GET\r\n", "GET /\r\nHost: a\r\n\r\n"] {
        assert_eq!(status(refused(bytes)), 400, "{bytes:?}");
    }
}

#[test]
fn a_request_line_has_exactly_two_single_spaces() {
    for line in [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        " GET / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / HTTP/1.1\t",
        "GET /a b HTTP/1.1",
        "GET / HTTP/1.1 x",
        "G(T / HTTP/1.1",
        "GET HTTP/1.1",
        ": / HTTP/1.1",
    ] {
        assert_eq!(status(refused(format!("{line}\r\nHost: a\r\n\r\n"))), 400, "{line:?}");
    }
}

#[test]
fn a_version_of_another_shape_is_a_400() {
    for version in [
        "HTTP/1",
        "HTTP/1.",
        "http/1.1",
        "HTTP 1.1",
        "HTTP/1,1",
        "HTTP/a.b",
        "HTTP/11",
        "ICY/1.0",
        "HTTP/1.1.",
    ] {
        assert_eq!(status(refused(format!("GET / {version}\r\nHost: a\r\n\r\n"))), 400, "{version}");
    }
    assert_eq!(refused("GET / HTTQ/1.1\r\n\r\n"), Violation::BadVersion);
}

#[test]
fn another_major_version_is_a_505_at_once() {
    for version in ["HTTP/2.0", "HTTP/3.0", "HTTP/0.9", "HTTP/0.1", "HTTP/2.1", "HTTP/9.9"] {
        assert_eq!(refused(format!("GET / {version}")), Violation::VersionNotSupported, "{version}");
    }
}

#[test]
fn a_later_minor_version_is_read_as_1_1() {
    for minor in 2..=9 {
        let head = accepted(format!("GET /a HTTP/1.{minor}\r\nHost: a\r\n\r\n"));
        assert_eq!((head.minor_version, head.keep_alive, head.path()), (1, true, "/a"));
    }
    assert_eq!(refused("GET / HTTP/1.2\r\n\r\n"), Violation::NoHost, "with the rules of 1.1");
    for version in ["HTTP/1.:", "HTTP/1./", "HTTP/1.a"] {
        assert_eq!(status(refused(format!("GET / {version}\r\nHost: a\r\n\r\n"))), 400, "{version}");
    }
}

#[test]
fn an_empty_host_goes_with_the_asterisk_and_with_an_absolute_target() {
    assert_eq!(accepted("OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n").authority(), None);
    assert_eq!(accepted("GET http://b/ HTTP/1.1\r\nHost: \r\n\r\n").authority(), Some("b"));
    assert_eq!(refused("GET / HTTP/1.1\r\nHost:\r\n\r\n"), Violation::BadHost);
    assert_eq!(refused("OPTIONS * HTTP/1.1\r\nHost: :80\r\n\r\n"), Violation::BadHost);
    assert_eq!(refused("OPTIONS * HTTP/1.1\r\nHost:\r\nHost:\r\n\r\n"), Violation::TwoHosts);
    assert_eq!(refused("OPTIONS * HTTP/1.1\r\n\r\n"), Violation::NoHost);
}

#[test]
fn the_http2_preface_is_a_505() {
    assert_eq!(refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Violation::VersionNotSupported);
}

#[test]
fn a_target_is_printable_ascii() {
    for byte in (0..=b' ').chain(0x7f..=0xff) {
        let bytes = [b"GET /a", &[byte][..], b"b HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        assert_eq!(status(refused(bytes)), 400, "byte {byte:#x}");
    }
    assert_eq!(refused("GET /ä HTTP/1.1\r\nHost: a\r\n\r\n"), Violation::BadTarget);
    for byte in (0x21..0x7f).filter(|&byte| byte != b'#') {
        let bytes = [b"GET /a", &[byte][..], b"b HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        assert_eq!(accepted(bytes).target().as_bytes()[2], byte);
    }
}

#[test]
fn a_target_with_a_fragment_is_refused() {
    for target in ["/#", "/a#b", "/a?b#c", "/a#b?c", "http://a/#x", "http://a#x"] {
        assert_eq!(
            refused(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")),
            Violation::BadTarget,
            "{target}"
        );
    }
}

#[test]
fn a_target_of_8000_bytes_is_taken_and_one_over_the_limit_is_a_414() {
    let request = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(len - 1));
    assert_eq!(accepted(request(8000)).target().len(), 8000);
    assert_eq!(accepted(request(8192)).target().len(), 8192);
    assert_eq!(refused(request(8193)), Violation::TargetTooLong);
    assert_eq!(refused(&request(100_000)[..50_000]), Violation::TargetTooLong, "before it ends");
}

#[test]
fn an_absolute_target_replaces_the_host() {
    let head = accepted("GET HTTP://b.example:81/p?q HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((head.authority(), head.path(), head.query()), (Some("b.example:81"), "/p", Some("q")));
    let head = accepted("GET https://b?q HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((head.authority(), head.path(), head.query()), (Some("b"), "/", Some("q")));
    assert_eq!(refused("GET http://b/ HTTP/1.1\r\n\r\n"), Violation::NoHost, "which is still required");
}

#[test]
fn an_absolute_target_needs_a_valid_host_and_a_known_scheme() {
    for target in ["http:///p", "http://", "http://u@b/", "http://u:p@b/", "http://b:x/", "http://[::1/"] {
        assert_eq!(
            refused(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")),
            Violation::BadHost,
            "{target}"
        );
    }
    for target in ["ftp://b/", "b/c", "a:80", "://b/", "http:/b", "**", "?q", "httpx://b/"] {
        assert_eq!(
            refused(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")),
            Violation::BadTarget,
            "{target}"
        );
    }
}

#[test]
fn the_target_asterisk_goes_with_options_only() {
    assert_eq!(accepted("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").path(), "*");
    assert_eq!(refused("GET * HTTP/1.1\r\nHost: a\r\n\r\n"), Violation::AsteriskNotOptions);
}

#[test]
fn connect_is_a_501() {
    assert_eq!(refused("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"), Violation::ConnectNotSupported);
    assert_eq!(refused("CONNECT "), Violation::ConnectNotSupported, "without waiting for the rest");
}

#[test]
fn methods_are_case_sensitive_tokens() {
    for (name, method) in [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("POST", Method::Post),
        ("PUT", Method::Put),
        ("DELETE", Method::Delete),
        ("OPTIONS", Method::Options),
        ("PATCH", Method::Patch),
        ("TRACE", Method::Trace),
        ("get", Method::Other),
        ("BREW", Method::Other),
        ("M-SEARCH", Method::Other),
        ("connect", Method::Other),
    ] {
        let head = accepted(format!("{name} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!((head.method, head.method_name()), (method, name));
    }
}

#[test]
fn an_endless_method_is_a_501() {
    let method = |len: usize| "A".repeat(len);
    assert_eq!(accepted(format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", method(32))).method_name().len(), 32);
    assert_eq!(refused(format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", method(33))), Violation::MethodTooLong);
    assert_eq!(refused(method(1000)), Violation::MethodTooLong);
}

#[test]
fn a_tls_handshake_gets_no_answer() {
    let violation = refused(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    assert!(WireError::from(violation).is_silent());
}

#[test]
fn garbage_is_refused_with_its_first_byte() {
    for byte in (0..=255).filter(|&byte| !super::super::framing::is_token_byte(byte) && byte != b'\r') {
        assert!(verdict(&[byte]).is_err(), "byte {byte:#x}");
    }
}

#[test]
fn a_broken_request_line_is_refused_before_it_ends() {
    assert_eq!(status(refused("0#[")), 400);
    let target = "a".repeat(100);
    for end in ["\t", "\r", "\x7f", " X", " HTTP/1.1 ", " HTTP/1.1X", "  "] {
        assert_eq!(status(refused(format!("GET /{target}{end}"))), 400, "{end:?}");
    }
    assert_eq!(refused(format!("GET /{}", "a".repeat(8192))), Violation::TargetTooLong);
}

#[test]
fn the_path_stays_as_it_was_sent() {
    for path in ["/%00", "/a%2Fb", "/../x", "/%c0%af", "/a\\b", "//", "/./", "/%zz"] {
        assert_eq!(accepted(format!("GET {path}?x HTTP/1.1\r\nHost: a\r\n\r\n")).path(), path);
    }
}

#[test]
fn the_query_begins_after_the_first_question_mark() {
    let query = |target: &str| accepted(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).query();
    assert_eq!(query("/a"), None);
    assert_eq!(query("/a?"), Some(""));
    assert_eq!(query("/a?b?c=/d"), Some("b?c=/d"));
}
