//! The header section.

use super::{Case, Level, bytes, case, change, change_all, controls, each, ok, refused, rows, status};

rows! {
    Must exactly_one_host_is_required_in_http_1_1 "9112 3.2",
    Must a_host_is_a_name_or_address_with_an_optional_port "9112 3.2, 3986 3.2.2",
    Ours an_empty_host_is_taken_where_there_is_none_to_name "9112 3.2",
    Must white_space_before_the_colon_is_refused "9112 5.1",
    Must white_space_before_the_first_header_is_refused "9112 2.2",
    Must a_folded_header_is_refused "9112 5.2",
    Ours a_line_that_ends_with_lf_alone_is_refused "9112 2.2",
    Must a_cr_without_lf_is_refused "9112 2.2",
    Ours a_header_name_is_a_token_with_a_colon_behind_it "9112 2.2, 9110 5.1",
    Ours a_control_character_in_a_value_is_refused "9110 5.5",
    Ours bytes_above_ascii_in_a_value_are_kept "9110 5.5",
    Must spaces_and_tabs_around_a_value_are_not_part_of_it "9110 5.5",
    Ours a_head_may_have_100_lines_and_not_one_more "6585 5",
    Ours a_head_may_have_16_kib_and_not_one_byte_more "6585 5",
    Must an_underscore_in_a_name_is_no_hyphen "9110 5.1",
    Must connection_cannot_name_framing_headers_away "9110 7.6.1",
}

const LINE: &str = "GET / HTTP/1.1\r\nHost: a\r\n";

pub fn exactly_one_host_is_required_in_http_1_1() -> Vec<Case> {
    vec![
        case("one", "GET /host HTTP/1.1\r\nHost: a.example\r\n\r\n", ok("a.example")),
        case("in any case of letters", "GET /host HTTP/1.1\r\nhOST: a.example\r\n\r\n", ok("a.example")),
        case("none", "GET / HTTP/1.1\r\n\r\n", refused(400)).or(status(400)),
        case("none but others", "GET / HTTP/1.1\r\nX-Host: a\r\nHos: a\r\n\r\n", refused(400))
            .or(status(400)),
        case("two that differ", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", refused(400)).or(status(400)),
        case("two that are equal", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", refused(400))
            .or(status(400)),
        case("two in different case", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nHOST: a\r\n\r\n", refused(400))
            .or(status(400)),
        case("none in HTTP/1.0", "GET /host HTTP/1.0\r\n\r\n", ok("none").closed()).at(Level::Ours),
        case("two in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", refused(400)).or(status(400)),
    ]
}

pub fn a_host_is_a_name_or_address_with_an_optional_port() -> Vec<Case> {
    let good = [
        "a",
        "A.example",
        "a:80",
        "a:",
        "a.example.:8080",
        "127.0.0.1:1",
        "[::1]",
        "[::1]:80",
        "[2001:db8::1]:443",
        "a-b_c~d",
        "xn--bcher-kva.example",
        "a%20b",
    ];
    let mut bad = each(
        "GET / HTTP/1.1\r\nHost: ",
        [
            b"",
            b"a b",
            b"a/b",
            b"a@b",
            b"user:pw@a",
            b"a?b",
            b"a#b",
            b"a\\b",
            b"http://a",
            b"a:80:80",
            b"a:x",
            b"a:-1",
            b"a:+1",
            b"a: 80",
            b"a :80",
            b":80",
            b"[::1",
            b"::1",
            b"[::1]x",
            b"[::g]",
            b"[]",
            b"[a]",
            b"a\"b",
            b"<a>",
            b"a%zz",
            b"a%0",
            b"a:123456",
            b"a\tb",
            b"\xc3\xa9.example",
            b"{a}",
            b"a|b",
            b"a^b",
            b"`a`",
        ],
        "\r\n\r\n",
        &refused(400),
    );
    // An empty name and a long port fit the grammar.
    change(&mut bad, &["", ":80", "a:123456"], |case| case.at(Level::Ours));
    let mut cases: Vec<Case> =
        good.map(|host| case(host, format!("GET /host HTTP/1.1\r\nHost: {host}\r\n\r\n"), ok(host))).into();
    change(&mut cases, &["a%20b"], |case| case.at(Level::Ours));
    // It is the request that is wrong, not its framing: the connection may stay.
    cases.extend(change_all(bad, |case| case.or(status(400))));
    cases
}

pub fn an_empty_host_is_taken_where_there_is_none_to_name() -> Vec<Case> {
    vec![
        case("the asterisk", "OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n", status(204)).at(Level::Fixture),
        case("blanks", "OPTIONS * HTTP/1.1\r\nHost: \t\r\n\r\n", status(204)).at(Level::Fixture),
        case("an absolute target", "GET http://b.example/host HTTP/1.1\r\nHost:\r\n\r\n", ok("b.example")),
        case("a path", "GET / HTTP/1.1\r\nHost:\r\n\r\n", refused(400)).or(status(400)),
        case("two", "OPTIONS * HTTP/1.1\r\nHost:\r\nHost:\r\n\r\n", refused(400))
            .or(status(400))
            .at(Level::Must),
        case("none", "OPTIONS * HTTP/1.1\r\n\r\n", refused(400)).or(status(400)).at(Level::Must),
    ]
}

pub fn white_space_before_the_colon_is_refused() -> Vec<Case> {
    let mut cases = each(
        "POST /echo HTTP/1.1\r\n",
        [
            b"Host : a\r\n",
            b"Host: a\r\nX : y\r\n",
            b"Host: a\r\nX\t: y\r\n",
            b"Host: a\r\nX  : y\r\n",
            b"Host: a\r\nContent-Length : 5\r\n",
            b"Host: a\r\nTransfer-Encoding : chunked\r\n",
            b"Host: a\r\nTransfer-Encoding\t: chunked\r\n",
            b"Host: a\r\nX\x0b: y\r\n",
            b"Host: a\r\nX\xa0: y\r\n",
        ],
        "\r\n0\r\n\r\n",
        &refused(400),
    );
    // No white space by the grammar.
    change(&mut cases, &["Host: a\\r\\nX\\x0b: y\\r\\n", "Host: a\\r\\nX\\xa0: y\\r\\n"], |case| {
        case.at(Level::Ours)
    });
    cases
}

pub fn white_space_before_the_first_header_is_refused() -> Vec<Case> {
    let mut cases = each(
        "GET / HTTP/1.1\r\n",
        [
            b" Host: a\r\n",
            b"\tHost: a\r\n",
            b" \r\nHost: a\r\n",
            b" X: y\r\nHost: a\r\n",
            b" Content-Length: 5\r\nHost: a\r\n",
        ],
        "\r\n",
        &refused(400),
    );
    // Reject, or drop the line; without the dropped Host it is a request without one.
    let without_host = |case: &Case| case.request.windows(7).filter(|w| w.ends_with(b"\nHost:")).count() == 0;
    cases = change_all(cases, |case| {
        let other = if without_host(&case) { status(400) } else { ok("hello") };
        case.or(other)
    });
    cases
}

pub fn a_folded_header_is_refused() -> Vec<Case> {
    let mut cases = each(
        LINE,
        [
            b"X: a\r\n b\r\n",
            b"X: a\r\n\tb\r\n",
            b"X:\r\n a\r\n",
            b"X: a\r\n \r\n",
            b"X: a\r\n b\r\n\tc\r\n",
            b"Transfer-Encoding:\r\n chunked\r\n",
            b"Content-Length: 1\r\n 0\r\n",
            b"X: a\r\n Transfer-Encoding: chunked\r\n",
        ],
        "\r\n",
        &refused(400),
    );
    // Reject, or unfold; unfolded, two of them are framing that the bytes behind do not fit.
    let chunked = "Transfer-Encoding:\\r\\n chunked\\r\\n";
    change(&mut cases, &[chunked], |case| case.or(ok("hello").closed()));
    let is_framing = |case: &Case| case.name == chunked || case.name.starts_with("Content-Length");
    change_all(cases, |case| if is_framing(&case) { case } else { case.or(ok("hello")) })
}

pub fn a_line_that_ends_with_lf_alone_is_refused() -> Vec<Case> {
    let heads = [
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \ny\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\n: y\r\n\r\n",
    ];
    heads.map(|head| case(head.escape_default().to_string(), head, refused(400))).into()
}

pub fn a_cr_without_lf_is_refused() -> Vec<Case> {
    let heads = [
        "GET / HTTP/1.1\rHost: a\r\r",
        "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
        "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET\r/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX:\ry\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\r: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \rTransfer-Encoding: chunked\r\n\r\n",
        // CRLF CR X: some parsers take the CR for the end of the head.
        "GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\rGET /canary HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\rHost: a\r\n\r\n",
    ];
    // Or each CR is replaced by a space; these make sense then.
    let spaced = [
        "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
        "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET\r/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX:\ry\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \rTransfer-Encoding: chunked\r\n\r\n",
    ];
    let named = |head: &str| case(head.escape_default().to_string(), head, refused(400));
    heads.map(|head| if spaced.contains(&head) { named(head).or(ok("hello")) } else { named(head) }).into()
}

pub fn a_header_name_is_a_token_with_a_colon_behind_it() -> Vec<Case> {
    let lines: [&[u8]; 8] = [
        b"no-colon\r\n",
        b": empty\r\n",
        b":\r\n",
        b" : x\r\n",
        b"a b: c\r\n",
        b"=: c\r\n",
        b"\"X\": c\r\n",
        b"GET / HTTP/1.1\r\n",
    ];
    let mut cases = each(LINE, lines, "\r\n", &refused(400));
    let not_token =
        (0..=0xff_u8).filter(|byte| !byte.is_ascii_alphanumeric() && !b"!#$%&'*+-.^_`|~:\r\n".contains(byte));
    for byte in not_token {
        let request = bytes(&[LINE.as_bytes(), b"X", &[byte], b"Y: z\r\n\r\n"]);
        cases.push(case(format!("{byte:#04x} in a name"), request, refused(400)));
    }
    cases.push(
        case("every token character", format!("{LINE}!#$%&'*+-.^_`|~09azAZ: x\r\n\r\n"), ok("hello"))
            .at(Level::Must),
    );
    cases.push(
        case(
            "a second colon is part of the value",
            "GET /header HTTP/1.1\r\nHost: a\r\nX-Echo:: b\r\n\r\n",
            ok(": b"),
        )
        .at(Level::Must),
    );
    cases
}

pub fn a_control_character_in_a_value_is_refused() -> Vec<Case> {
    let mut cases = Vec::new();
    for byte in controls() {
        for (place, value) in
            [("first", [byte, b'b', b'c']), ("inside", [b'a', byte, b'c']), ("last", [b'a', b'b', byte])]
        {
            let request = bytes(&[LINE.as_bytes(), b"X: ", &value, b"\r\n\r\n"]);
            let case = case(format!("{byte:#04x} {place}"), request, refused(400));
            // NUL is rejected or replaced by a space; the others may be retained.
            cases.push(if byte == 0 { case.at(Level::Must).or(ok("hello")) } else { case });
        }
    }
    cases
}

pub fn bytes_above_ascii_in_a_value_are_kept() -> Vec<Case> {
    let values: [&[u8]; 6] = [b"\x85a\xa0", b"\x80", b"\xff", b"caf\xe9", b"\xc3\xa9", b"a\xe2\x80\x8b"];
    let echoed = |value: &[u8]| {
        let request = bytes(&[b"GET /header HTTP/1.1\r\nHost: a\r\nX-Echo: ", value, b"\r\n\r\n"]);
        case(format!("{}", value.escape_ascii()), request, ok(value))
    };
    values.map(echoed).into()
}

pub fn spaces_and_tabs_around_a_value_are_not_part_of_it() -> Vec<Case> {
    let echoed = |raw: &str, value: &str| {
        let request = format!("GET /header HTTP/1.1\r\nHost: a\r\nX-Echo:{raw}\r\n\r\n");
        case(raw.escape_default().to_string(), request, ok(value))
    };
    vec![
        echoed(" a", "a"),
        echoed("a", "a"),
        echoed(" \t a b \t ", "a b"),
        echoed("\ta\t", "a"),
        echoed("a\tb", "a\tb"),
        echoed("", ""),
        echoed(" \t ", ""),
        case("around Host", "GET /host HTTP/1.1\r\nHost:\t a \t\r\n\r\n", ok("a")),
        case(
            "around Content-Length",
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: \t2\t \r\n\r\nhi",
            ok("hi"),
        ),
        case(
            "around Transfer-Encoding",
            "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tchunked \t\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            ok("hi"),
        ),
    ]
}

pub fn a_head_may_have_100_lines_and_not_one_more() -> Vec<Case> {
    let with = |lines: usize| format!("{LINE}{}\r\n", "X: y\r\n".repeat(lines - 1));
    vec![
        case("100", with(100), ok("hello")),
        case("101", with(101), refused(431)),
        case("1000", with(1000), refused(431)),
    ]
}

pub fn a_head_may_have_16_kib_and_not_one_byte_more() -> Vec<Case> {
    let of = |len: usize| {
        let (value, rest) = ("v".repeat(8000), len - LINE.len() - "X: \r\nY: \r\n\r\n".len() - 8000);
        format!("{LINE}X: {value}\r\nY: {}\r\n\r\n", "w".repeat(rest))
    };
    vec![
        // To the byte only with the target of the fixture.
        case("16384 bytes", of(16_384), ok("hello")).at(Level::Fixture),
        case("16385 bytes", of(16_385), refused(431)),
        case("100000 bytes", of(100_000), refused(431)),
        case("a name of 20000 bytes", format!("{LINE}{}: y\r\n\r\n", "X".repeat(20_000)), refused(431)),
    ]
}

pub fn an_underscore_in_a_name_is_no_hyphen() -> Vec<Case> {
    vec![
        case("Transfer_Encoding", format!("{LINE}Transfer_Encoding: chunked\r\n\r\n"), ok("hello"))
            .or(refused(400)),
        case("Content_Length", format!("{LINE}Content_Length: 5\r\n\r\n"), ok("hello")).or(refused(400)),
        case(
            "beside the real one",
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent_Length: 9\r\nContent-Length: 2\r\n\r\nhi",
            ok("hi"),
        )
        .or(refused(400)),
        case("another name", "GET /header HTTP/1.1\r\nHost: a\r\nX_Echo: b\r\n\r\n", status(404))
            .at(Level::Fixture),
    ]
}

pub fn connection_cannot_name_framing_headers_away() -> Vec<Case> {
    let post = "POST /echo HTTP/1.1\r\nHost: a.example\r\n";
    vec![
        case(
            "content-length",
            format!("{post}Connection: content-length\r\nContent-Length: 2\r\n\r\nhi"),
            ok("hi"),
        )
        .or(refused(400)),
        case(
            "transfer-encoding",
            format!(
                "{post}Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
            ),
            ok("hi"),
        )
        .or(refused(400)),
        case("host", "GET /host HTTP/1.1\r\nHost: a.example\r\nConnection: host\r\n\r\n", ok("a.example"))
            .or(refused(400)),
        case(
            "both lengths are still two",
            format!(
                "{post}Connection: content-length\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            refused(400),
        )
        .or(ok("").closed()),
    ]
}
