//! Where a body ends.

use super::{Case, Level, case, change, change_all, each, head, ok, refused, rows, status, waits};

rows! {
    Must content_length_beside_transfer_encoding_is_refused "9112 6.1",
    Must a_content_length_is_decimal_digits "9112 6.3",
    Must leading_zeros_of_a_content_length_are_just_zeros "9110 8.6",
    Ours a_content_length_over_the_limit_is_refused_with_413 "9110 8.6, 15.5.14",
    Must a_second_content_length_is_refused_even_if_it_is_equal "9112 6.3",
    Must transfer_encoding_in_http_1_0_is_refused "9112 6.1",
    Must the_one_transfer_encoding_is_chunked "9112 6.1, 6.3, 7",
    Ours another_transfer_coding_before_chunked_is_501 "9112 6.1",
    Must a_transfer_encoding_that_is_not_exactly_chunked_is_refused "9112 6.3, 7",
    Must without_a_length_there_is_no_body "9112 6.3",
    Must a_body_is_framed_whatever_the_method "9110 9.3.1",
    Must body_bytes_are_never_taken_for_a_request "9112 9.3.2",
    Ours an_unwanted_body_is_skipped_up_to_64_kib "9112 9.3",
}

const POST: &str = "POST /echo HTTP/1.1\r\nHost: a\r\n";
const CHUNKS: &str = "2\r\nhi\r\n0\r\n\r\n";

pub fn content_length_beside_transfer_encoding_is_refused() -> Vec<Case> {
    let mut cases = Vec::new();
    for coding in
        ["chunked", "identity", "gzip", "xchunked", "", "chunked, chunked", "\"chunked\"", "gzip, chunked"]
    {
        let lines = [
            format!("Content-Length: 2\r\nTransfer-Encoding: {coding}\r\n"),
            format!("Transfer-Encoding: {coding}\r\nContent-Length: 2\r\n"),
        ];
        for (order, lines) in ["CL, TE", "TE, CL"].into_iter().zip(lines) {
            let case = case(format!("{order}: {coding}"), format!("{POST}{lines}\r\n{CHUNKS}"), refused(400));
            // By the transfer coding alone, whose last is chunked, and then the end.
            let ends_chunked = matches!(coding, "chunked" | "gzip, chunked" | "chunked, chunked");
            cases.push(if ends_chunked { case.or(ok("hi").closed()) } else { case });
        }
    }
    for lines in [
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 2\r\nX: y\r\ntransfer-encoding: chunked\r\n",
        "CONTENT-LENGTH: 2\r\nTRANSFER-ENCODING: chunked\r\n",
        "Content-Length: \r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let name = lines.escape_default().to_string();
        let case = case(name, format!("{POST}{lines}\r\n{CHUNKS}"), refused(400));
        // Or by the transfer coding alone, and then the end.
        cases.push(case.or(ok("hi").closed()));
    }
    cases
}

pub fn a_content_length_is_decimal_digits() -> Vec<Case> {
    let mut cases = each(
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: ",
        [
            b"",
            b"+2",
            b"-2",
            b"-0",
            b"0x2",
            b"2x",
            b"2 2",
            b"2,3",
            b"2, 2",
            b"2;",
            b"2.0",
            b"2e0",
            b"\"2\"",
            b"'2'",
            b"_2",
            b"2_0",
            b"0b10",
            b"two",
            b"\xef\xbc\x92",
            b"\xb2",
            b"2\x0b",
            b"\x0c2",
            b"2\x00",
            b",2",
            b"2,",
            b"2\t2",
            b"NaN",
            b"0x",
            b"$2",
        ],
        "\r\n\r\nhi",
        &refused(400),
    );
    // Lists of one value, however often it stands there.
    change(&mut cases, &["2, 2", ",2", "2,"], |case| case.or(ok("hi")));
    cases.push(case("in a GET", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", refused(400)));
    cases
}

pub fn leading_zeros_of_a_content_length_are_just_zeros() -> Vec<Case> {
    let zeros = "0".repeat(30);
    vec![
        case("02", format!("{POST}Content-Length: 02\r\n\r\nhi"), ok("hi")),
        case("002", format!("{POST}Content-Length: 002\r\n\r\nhi"), ok("hi")),
        case("thirty zeros and 2", format!("{POST}Content-Length: {zeros}2\r\n\r\nhi"), ok("hi"))
            .or(refused(400)),
        case("00", format!("{POST}Content-Length: 00\r\n\r\n"), ok("")),
        case("0", format!("{POST}Content-Length: 0\r\n\r\n"), ok("")),
        case("010 is ten", format!("{POST}Content-Length: 010\r\n\r\n0123456789"), ok("0123456789")),
    ]
}

pub fn a_content_length_over_the_limit_is_refused_with_413() -> Vec<Case> {
    let nines = "9".repeat(100);
    let mut cases = each(
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: ",
        [
            b"1048577",
            b"4294967296",
            b"9223372036854775807",
            b"9223372036854775808",
            b"18446744073709551615",
            b"18446744073709551616",
            b"18446744073709551618",
            b"99999999999999999999999",
            nines.as_bytes(),
        ],
        "\r\n\r\nhi",
        &refused(413),
    );
    // Whatever the limit, a number that is too large for an integer is not a small one.
    cases =
        change_all(cases, |case| if case.name.len() < 19 { case } else { case.at(Level::Must).or(waits()) });
    let small = "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length:";
    let of_route = [
        case("of a route, reached", format!("{small} 16\r\n\r\n0123456789abcdef"), ok("0123456789abcdef")),
        case("of a route, passed", format!("{small} 17\r\n\r\n0123456789abcdefg"), refused(413)),
    ];
    cases.extend(of_route.map(|case| case.at(Level::Fixture)));
    cases
}

pub fn a_second_content_length_is_refused_even_if_it_is_equal() -> Vec<Case> {
    let cases = each(
        POST,
        [
            b"Content-Length: 2\r\nContent-Length: 2\r\n",
            b"Content-Length: 2\r\nContent-Length: 3\r\n",
            b"Content-Length: 2\r\nX: y\r\ncontent-length: 2\r\n",
            b"Content-Length: 2, 2\r\n",
            b"Content-Length: 2,2\r\n",
            b"Content-Length: 2\r\nContent-Length: \r\n",
            b"Content-Length: 2\r\nContent-Length: 02\r\n",
            b"Content-Length: \r\nContent-Length: 2\r\n",
        ],
        "\r\nhi",
        &refused(400),
    );
    // Equal ones, and empty elements of their list, may also be taken for one.
    let mut cases = change_all(cases, |case| if case.name.contains('3') { case } else { case.or(ok("hi")) });
    let zeros = format!("{POST}Content-Length: 0\r\nContent-Length: 0\r\n\r\n");
    cases.push(case("0 and 0", zeros, refused(400)).or(ok("")));
    cases
}

pub fn transfer_encoding_in_http_1_0_is_refused() -> Vec<Case> {
    let post = "POST /echo HTTP/1.0\r\n";
    // Or it is processed, one way or another, and then the connection ends.
    let cases = vec![
        case("chunked", format!("{post}Transfer-Encoding: chunked\r\n\r\n{CHUNKS}"), refused(400)),
        case(
            "with keep-alive",
            format!("{post}Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}"),
            refused(400),
        ),
        case("identity", format!("{post}Transfer-Encoding: identity\r\n\r\n"), refused(400)),
        case(
            "with a length",
            format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{CHUNKS}"),
            refused(400),
        ),
        case("in a GET", "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", refused(400)),
    ];
    change_all(cases, |case| case.or(status(200).closed()))
}

pub fn the_one_transfer_encoding_is_chunked() -> Vec<Case> {
    each(
        POST,
        [
            b"Transfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: Chunked\r\n",
            b"transfer-encoding: CHUNKED\r\n",
            b"Transfer-Encoding:chunked\r\n",
            b"Transfer-Encoding:  chunked\t\r\n",
        ],
        "\r\n2\r\nhi\r\n0\r\n\r\n",
        &ok("hi"),
    )
}

pub fn another_transfer_coding_before_chunked_is_501() -> Vec<Case> {
    each(
        POST,
        [
            b"Transfer-Encoding: gzip, chunked\r\n",
            b"Transfer-Encoding: gzip,chunked\r\n",
            b"Transfer-Encoding: identity, chunked\r\n",
            b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: x, y, chunked\r\n",
        ],
        "\r\n2\r\nhi\r\n0\r\n\r\n",
        &refused(501),
    )
}

pub fn a_transfer_encoding_that_is_not_exactly_chunked_is_refused() -> Vec<Case> {
    let mut cases = each(
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ",
        [
            b"",
            b"identity",
            b"gzip",
            b"xchunked",
            b"chunkedx",
            b"chunke",
            b"chunked, gzip",
            b"chunked, identity",
            b"chunked, chunked",
            b"chunked,chunked",
            b"chunked\r\nTransfer-Encoding: chunked",
            b"chunked\r\nTransfer-Encoding: identity",
            b"chunked\r\nTransfer-Encoding: ",
            b"chunked;q=1",
            b"chunked; a=b",
            b";chunked",
            b", chunked",
            b"chunked,",
            b"chunked, ,",
            b",",
            b"\"chunked\"",
            b"'chunked'",
            b"chunked gzip",
            b"gzip chunked",
            b"chunked\x0b",
            b"\x0bchunked",
            b"chunked\x00",
            b"\xa0chunked",
            b"chun\xcb\x8bed",
            b"[chunked]",
            b"gzip, , chunked",
            b"chunk\td",
            b"chunked,\r\nTransfer-Encoding: gzip",
        ],
        "\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        &refused(400),
    );
    // The last coding is chunked: beside empty elements, a repetition, parameters, or a NUL that may be a space.
    let last_is_chunked = [
        "chunked, chunked",
        "chunked,chunked",
        "chunked\\r\\nTransfer-Encoding: chunked",
        "chunked\\r\\nTransfer-Encoding: ",
        "chunked;q=1",
        "chunked; a=b",
        ", chunked",
        "chunked,",
        "chunked, ,",
        "gzip, , chunked",
        "chunked\\x00",
    ];
    change(&mut cases, &last_is_chunked, |case| case.at(Level::Ours));
    cases
}

pub fn without_a_length_there_is_no_body() -> Vec<Case> {
    let cases = vec![
        case("POST", "POST /echo HTTP/1.1\r\nHost: a\r\n\r\n", ok("")),
        case("PUT", "PUT /echo HTTP/1.1\r\nHost: a\r\n\r\n", ok("")),
        case("POST in HTTP/1.0", "POST /echo HTTP/1.0\r\n\r\n", ok("").closed()),
        case(
            "with a content type",
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n\r\n",
            ok(""),
        ),
    ];
    // 9110 15.5.12: a length may be asked for.
    change_all(cases, |case| case.or(status(411)).or(refused(411)))
}

pub fn a_body_is_framed_whatever_the_method() -> Vec<Case> {
    let with = |method: &str, target: &str, framing: &str| {
        format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{framing}")
    };
    let (length, chunked) =
        ("Content-Length: 2\r\n\r\nhi", "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
    let mut cases = Vec::new();
    for (name, framing) in [("length", length), ("chunked", chunked)] {
        for method in ["GET", "DELETE", "OPTIONS", "PATCH", "PUT", "POST"] {
            cases.push(case(format!("{method} with {name}"), with(method, "/echo", framing), ok("hi")));
        }
        cases.push(case(format!("GET / with {name}"), with("GET", "/", framing), ok("hello")));
        cases.push(case(format!("HEAD with {name}"), with("HEAD", "/", framing), head(200)));
        cases.push(case(format!("TRACE with {name}"), with("TRACE", "/", framing), status(405)));
        cases.push(case(format!("an unknown method with {name}"), with("BREW", "/", framing), status(501)));
        cases.push(case(format!("no route with {name}"), with("POST", "/nowhere", framing), status(404)));
        cases.push(case(format!("OPTIONS * with {name}"), with("OPTIONS", "*", framing), status(204)));
    }
    cases
}

pub fn body_bytes_are_never_taken_for_a_request() -> Vec<Case> {
    let inner = "GET /canary HTTP/1.1\r\nHost: evil\r\n\r\n";
    let length = inner.len();
    let chunks = format!("{length:x}\r\n{inner}\r\n0\r\n\r\n");
    let framings = [
        ("length", format!("Content-Length: {length}\r\n\r\n{inner}")),
        ("chunked", format!("Transfer-Encoding: chunked\r\n\r\n{chunks}")),
    ];
    let mut cases = Vec::new();
    for (name, framing) in framings {
        let with = |line: &str| format!("{line} HTTP/1.1\r\nHost: a\r\n{framing}");
        cases.push(case(format!("{name}, read by a handler"), with("POST /header"), status(404)));
        cases.push(case(format!("{name}, not read"), with("GET /"), ok("hello")));
        cases.push(case(format!("{name}, no route"), with("POST /nowhere"), status(404)));
        cases.push(case(format!("{name}, no such method"), with("POST /"), status(405)));
        cases.push(case(format!("{name}, over the limit"), with("POST /small"), refused(413)).or(ok(inner)));
    }
    cases
}

pub fn an_unwanted_body_is_skipped_up_to_64_kib() -> Vec<Case> {
    let length = |len: usize| {
        format!("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{}", "x".repeat(len))
    };
    let chunked = |len: usize| {
        let half = len / 2;
        let (one, two) = ("x".repeat(half), "y".repeat(len - half));
        format!(
            "POST /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{half:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n",
            len - half
        )
    };
    vec![
        case("a length of 65536", length(65_536), status(404)),
        case("a length of 65537", length(65_537), refused(404)),
        case("a length of 200000", length(200_000), refused(404)),
        case("chunks of 65536", chunked(65_536), status(404)),
        // The answer leaves before the chunks can be counted, so it cannot say that it is the last.
        case("chunks of 65537", chunked(65_537), status(404).cut()),
    ]
}
