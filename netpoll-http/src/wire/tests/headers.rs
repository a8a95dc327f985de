//! HTTP/1.1 header sections.

use super::*;

#[test]
fn a_request_has_exactly_one_host() {
    assert_eq!(refused(with("HTTP/1.1", &[])), Violation::NoHost);
    assert_eq!(refused(with("HTTP/1.1", &["Host: a", "host: a"])), Violation::TwoHosts);
    assert_eq!(refused(with("HTTP/1.0", &["Host: a", "Host: b"])), Violation::TwoHosts);
    assert_eq!(accepted(with("HTTP/1.0", &[])).authority(), None);
}

#[test]
fn a_host_is_a_name_or_address_with_an_optional_port() {
    for host in [
        "a",
        "a.example",
        "A-1.example.:80",
        "127.0.0.1:8080",
        "[::1]",
        "[2001:db8::1]:443",
        "a:",
        "xn--bcher-kva.example",
        "a_b",
        "a%2d:1",
        "~!$&'()*+;=",
    ] {
        assert_eq!(accepted(with("HTTP/1.1", &[&format!("Host: {host}")])).authority(), Some(host));
    }
    for host in [
        "",
        " ",
        "a b",
        "a,b",
        "u@a",
        "a/",
        "http://a",
        "a:b",
        "a:80:80",
        "a:123456",
        ":80",
        "[::1",
        "::1",
        "[::1]80",
        "[::1]:x",
        "[]",
        "[v1.x]",
        "[::1%eth0]",
        "a?b",
        "a#b",
        "a\\b",
        "a\"",
        "%",
        "a%2",
        "a%zz",
        "%41:x",
        "ä",
        "<a>",
        "a:-1",
        "a:+1",
    ] {
        let bytes = with("HTTP/1.1", &[&format!("Host: {host}")]);
        if host == "a,b" {
            accepted(bytes); // A comma is a sub-delim, hence part of a reg-name.
        } else {
            assert_eq!(refused(bytes), Violation::BadHost, "{host:?}");
        }
    }
}

#[test]
fn white_space_before_the_colon_is_refused() {
    assert_eq!(refused(http11(&["Content-Length : 5"])), Violation::SpaceBeforeColon);
    assert_eq!(refused(http11(&["Transfer-Encoding\t: chunked"])), Violation::SpaceBeforeColon);
}

#[test]
fn white_space_before_the_first_header_is_refused() {
    assert_eq!(refused(with("HTTP/1.1", &[" Host: a"])), Violation::LeadingSpace);
    assert_eq!(refused(with("HTTP/1.1", &["\tX: a", "Host: a"])), Violation::LeadingSpace);
}

#[test]
fn a_folded_header_is_refused() {
    assert_eq!(refused(http11(&["X: a", " b"])), Violation::FoldedHeader);
    assert_eq!(refused(http11(&["X: a", "\tb: c"])), Violation::FoldedHeader);
    assert_eq!(refused(http11(&["X:", " b"])), Violation::FoldedHeader);
    assert_eq!(refused(http11(&["X: a", " "])), Violation::FoldedHeader);
}

#[test]
fn a_bare_lf_ends_no_line() {
    for bytes in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX:\nY: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\n\n",
        "GET / HTTP/1.0\r\n\n",
        "GET / HTTP/1.0\n\r\n",
    ] {
        assert_eq!(refused(bytes), Violation::BareLf, "{bytes:?}");
    }
}

#[test]
fn a_broken_line_end_is_refused_before_the_head_is_complete() {
    assert_eq!(refused("GET / HTTP/1.1\n"), Violation::BareLf);
    assert_eq!(refused("GET / HTTP/1.1\r\nHost: a\nX"), Violation::BareLf);
    assert_eq!(status(refused("GET / HTTP/1.1\r\nHost: a\rX")), 400);
    assert_eq!(status(refused("GET / HTTP/1.1\r\nHost: a\r\n X")), 400);
    assert_eq!(status(refused("GET / HTTP/1.1\r\nHost: \0")), 400);
}

#[test]
fn a_broken_name_is_refused_before_the_head_is_complete() {
    assert_eq!(refused("GET / HTTP/1.1\r\nX :"), Violation::SpaceBeforeColon);
    assert_eq!(refused("GET / HTTP/1.1\r\nHost: a\r\nX\r\n"), Violation::NoColon);
    assert_eq!(status(refused("GET / HTTP/1.1\r\nHost: a\r\nX[")), 400);
    let lines = "A: b\r\n".repeat(101);
    assert_eq!(refused(format!("GET / HTTP/1.1\r\n{lines}")), Violation::TooManyHeaders);
}

#[test]
fn a_bare_cr_is_refused_everywhere() {
    for bytes in [
        "GET / HTTP/1.1\rHost: a\r\n\r\n",
        "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET / HTTP/1.1\r\nHo\rst: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r a\r\n\r\n",
    ] {
        assert_eq!(status(refused(bytes)), 400, "{bytes:?}");
    }
}

#[test]
fn a_head_does_not_end_with_crlf_cr_and_something_else() {
    assert_eq!(refused("GET / HTTP/1.1\r\nHost: a\r\n\rX\r\n\r\n"), Violation::BareCr);
    assert_eq!(refused("GET / HTTP/1.1\r\nHost: a\r\n\r\r\n"), Violation::BareCr);
}

#[test]
fn a_header_has_a_colon_and_a_token_before_it() {
    assert_eq!(refused(http11(&["Foo"])), Violation::NoColon);
    assert_eq!(refused(http11(&[": a"])), Violation::BadHeaderName);
    assert_eq!(refused(http11(&["F(o: a"])), Violation::BadHeaderName);
    assert_eq!(refused(http11(&["F\u{e4}: a"])), Violation::BadHeaderName);
    assert_eq!(refused(http11(&["F o: a"])), Violation::BadHeaderName);
    assert_eq!(refused(http11(&["\"F\": a"])), Violation::BadHeaderName);
    assert_eq!(refused(http11(&["F\0: a"])), Violation::BadHeaderName);
}

#[test]
fn a_control_character_in_a_value_is_refused() {
    for byte in (0..b' ').filter(|byte| !b"\t\r\n".contains(byte)).chain([0x7f]) {
        for value in [vec![byte], vec![b'a', byte], vec![byte, b'a'], vec![b' ', byte, b' ']] {
            let bytes = [b"GET / HTTP/1.1\r\nHost: a\r\nX:", &value[..], b"\r\n\r\n"].concat();
            assert_eq!(status(refused(bytes)), 400, "{value:?}");
        }
    }
}

#[test]
fn bytes_above_0x7f_are_kept_in_values_and_never_trimmed() {
    let head = accepted(b"GET / HTTP/1.1\r\nHost: a\r\nX: \x85\xa0a\xff\x80 \r\n\r\n");
    assert_eq!(head.header("x"), Some(&b"\x85\xa0a\xff\x80"[..]));
}

#[test]
fn blanks_and_tabs_around_a_value_are_not_part_of_it() {
    let head = accepted(http11(&["A: \t a b\t ", "B:c", "C:", "D: \t "]));
    let values: Vec<_> = ["a", "b", "c", "d"].iter().filter_map(|name| head.header(name)).collect();
    assert_eq!(values, [&b"a b"[..], b"c", b"", b""]);
}

#[test]
fn more_than_100_headers_are_a_431() {
    let lines = vec!["A: b"; 99];
    assert_eq!(accepted(http11(&lines)).headers().count(), 100);
    assert_eq!(refused(http11(&[lines, vec!["A: b"]].concat())), Violation::TooManyHeaders);
}

#[test]
fn a_head_over_16_kib_is_a_431_even_if_it_never_ends() {
    let request = |len: usize| {
        let (start, end) = ("GET / HTTP/1.1\r\nHost: a\r\nX: ", "\r\n\r\n");
        [start, &"x".repeat(len - start.len() - end.len()), end].concat()
    };
    assert_eq!(accepted(request(16 * 1024)).bytes.len(), 16 * 1024);
    assert_eq!(refused(request(16 * 1024 + 1)), Violation::HeadTooLarge);
    assert_eq!(refused(&request(100_000)[..16 * 1024]), Violation::HeadTooLarge);
    assert!(matches!(verdict(&request(100_000).as_bytes()[..16 * 1024 - 1]), Ok(None)));
}

#[test]
fn limits_can_be_tightened() {
    let limits = Limits { head_bytes_max: 64, headers_max: 2, target_bytes_max: 4 };
    let verdict = |bytes: &str| verdict_within(bytes.as_bytes(), &limits).map(|head| head.is_some());
    assert_eq!(verdict("GET /abc HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n"), Ok(true));
    assert_eq!(verdict("GET /abcd HTTP/1.1\r\nHost: a\r\n\r\n"), Err(Violation::TargetTooLong));
    assert_eq!(verdict("GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nA: b\r\n\r\n"), Err(Violation::TooManyHeaders));
    assert_eq!(
        verdict("GET / HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n"),
        Err(Violation::HeadTooLarge)
    );
}

#[test]
fn a_name_with_an_underscore_has_no_effect_on_framing() {
    let head = accepted(http11(&["Content_Length: 5", "Transfer_Encoding: chunked"]));
    assert_eq!(head.framing, Framing::None);
}

#[test]
fn framing_headers_named_by_connection_keep_their_effect() {
    let head = accepted(http11(&["Connection: content-length, host", "Content-Length: 5"]));
    assert_eq!((head.framing, head.authority()), (Framing::Length(5), Some("a")));
}

#[test]
fn headers_are_found_by_name_in_any_case_and_in_order() {
    let head = accepted(http11(&["X-A: 1", "Content-Type: t", "x-a: 2", "Cookie: c=d"]));
    assert_eq!(head.header("X-a"), Some(&b"1"[..]));
    assert_eq!(head.index().all(head.bytes, "x-A").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!(head.known(Known::ContentType), Some(&b"t"[..]));
    assert_eq!(head.known(Known::Cookie), Some(&b"c=d"[..]));
    assert_eq!(head.headers().nth(2), Some(("Content-Type", &b"t"[..])));
}

#[test]
fn a_copy_of_the_head_and_its_index_make_the_same_head() {
    let head = accepted("POST http://b/p?q=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nX: y\r\n\r\n");
    let (bytes, index) = (head.bytes.to_vec(), head.index().clone());
    let copy = Head::new(&bytes, &index);
    assert_eq!((copy.method, copy.method_name()), (Method::Post, "POST"));
    assert_eq!((copy.target(), copy.path(), copy.query()), ("http://b/p?q=1", "/p", Some("q=1")));
    assert_eq!((copy.authority(), copy.framing), (Some("b"), Framing::Length(3)));
    assert_eq!(copy.header("x"), Some(&b"y"[..]));
}
