//! The chunked body.

use super::{Case, Level, bytes, case, change, change_all, controls, each, ok, refused, rows, status, waits};

rows! {
    Must a_chunk_size_is_one_to_sixteen_hexadecimal_digits "9112 7.1",
    Must a_chunk_size_over_the_limit_is_refused "9112 7.1",
    Must a_chunk_line_and_chunk_data_end_with_crlf "9112 7.1",
    Must chunk_extensions_are_checked_and_ignored "9112 7.1.1",
    Ours a_malformed_chunk_extension_is_refused "9112 7.1.1",
    Ours all_chunk_extensions_together_may_have_4_kib "9112 7.1.1",
    Ours a_body_of_more_framing_than_data_is_refused "picohttpparser",
    Must trailers_are_checked_and_have_no_effect "9110 6.5.1",
    Fixture trailers_are_kept_apart_without_those_that_matter "9110 6.5.1",
    Ours a_malformed_trailer_is_refused "9112 7.1.2",
    Ours a_trailer_section_may_have_4_kib "9112 7.1.2",
    Must the_last_chunk_is_any_number_of_zeros "9112 7.1",
    Must an_error_in_an_unwanted_body_ends_the_connection "9112 7.1",
}

const POST: &str = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

fn post(body: &[u8]) -> Vec<u8> {
    bytes(&[POST.as_bytes(), body])
}

pub fn a_chunk_size_is_one_to_sixteen_hexadecimal_digits() -> Vec<Case> {
    let mut cases = each(POST, [b"2", b"02", b"0002", b"0000000000000002"], "\r\nhi\r\n0\r\n\r\n", &ok("hi"));
    cases.extend(each(POST, [b"a", b"A", b"0a", b"0A"], "\r\n0123456789\r\n0\r\n\r\n", &ok("0123456789")));
    cases.extend(each(
        POST,
        [
            b"",
            b"+2",
            b"-2",
            b"0x2",
            b"0X2",
            b"2h",
            b"h2",
            b"2_",
            b"_2",
            b" 2",
            b"2 ",
            b"\t2",
            b"2\t",
            b"2 2",
            b"2,2",
            b"2.0",
            b"\"2\"",
            b"g",
            b"00000000000000002",
            b"\x002",
            b"2\x00",
            b"\xef\xbc\x92",
            b"2\x0b",
            b"two",
            b"2#",
            b"-0",
            b"2\x80",
        ],
        "\r\nhi\r\n0\r\n\r\n",
        &refused(400),
    ));
    // Numbers all the same, some of them with white space that many senders have padded with.
    change(&mut cases, &["2 ", "2\\t", "00000000000000002"], |case| case.at(Level::Ours));
    cases.push(case("many chunks", post(b"1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n0\r\n\r\n"), ok("abcdef")));
    cases.push(case("no chunk but the last", post(b"0\r\n\r\n"), ok("")));
    cases.push(case("bare CRLF is no size", post(b"\r\n0\r\n\r\n"), refused(400)));
    cases.push(case("an extension is no size", post(b";a\r\n0\r\n\r\n"), refused(400)));
    cases.push(case(
        "data that looks like framing",
        post(b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n"),
        ok("\r\n0\r\n\r\n"),
    ));
    cases
}

pub fn a_chunk_size_over_the_limit_is_refused() -> Vec<Case> {
    let small = "POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut cases = each(
        POST,
        [
            b"100001",
            b"FFFFFFFF",
            b"100000000",
            b"7FFFFFFFFFFFFFFF",
            b"8000000000000000",
            b"FFFFFFFFFFFFFFFF",
            b"fffffffffffffffe",
        ],
        "\r\nhi\r\n0\r\n\r\n",
        &refused(413),
    );
    cases.extend(each(
        POST,
        [b"10000000000000002", b"FFFFFFFFFFFFFFFFF", b"100000000000000000000000000000002"],
        "\r\nhi\r\n0\r\n\r\n",
        &refused(400),
    ));
    // Whatever the limit, a number that is too large for an integer is not a small one.
    cases = change_all(cases, |case| case.or(waits()));
    change(&mut cases, &["100001"], |case| case.at(Level::Ours));
    let of_route = cases.len();
    cases.push(case(
        "16 in one chunk",
        format!("{small}10\r\n0123456789abcdef\r\n0\r\n\r\n"),
        ok("0123456789abcdef"),
    ));
    cases.push(case(
        "16 in two chunks",
        format!("{small}8\r\n01234567\r\n8\r\n89abcdef\r\n0\r\n\r\n"),
        ok("0123456789abcdef"),
    ));
    cases.push(case("17 in one chunk", format!("{small}11\r\n0123456789abcdefg\r\n0\r\n\r\n"), refused(413)));
    cases.push(case(
        "17 in two chunks",
        format!("{small}8\r\n01234567\r\n9\r\n89abcdefg\r\n0\r\n\r\n"),
        refused(413),
    ));
    cases[of_route..].iter_mut().for_each(|case| case.level = Some(Level::Fixture));
    cases.push(
        case(
            "a sum that wraps around",
            format!("{small}8\r\n01234567\r\nFFFFFFFFFFFFFFF9\r\nx\r\n0\r\n\r\n"),
            refused(413),
        )
        .or(waits()),
    );
    cases
}

pub fn a_chunk_line_and_chunk_data_end_with_crlf() -> Vec<Case> {
    let bodies = [
        "2\nhi\r\n0\r\n\r\n",
        "2\rhi\r\n0\r\n\r\n",
        "2\r\rhi\r\n0\r\n\r\n",
        "2\n\rhi\r\n0\r\n\r\n",
        "2\r\nhi\n0\r\n\r\n",
        "2\r\nhi\r0\r\n\r\n",
        "2\r\nhi0\r\n\r\n",
        "2\r\nhix\r\n0\r\n\r\n",
        "2\r\nhi\r\r\n0\r\n\r\n",
        "2\r\nhi\n\r0\r\n\r\n",
        "2\r\nhi\r\n\r\n0\r\n\r\n",
        "2\r\n\r\nhi\r\n0\r\n\r\n",
        "2\r\nhi\r\n0\n\r\n",
        "2\r\nhi\r\n0\r\n\n",
        "2\r\nhi\r\n0\n\n",
        "2\r\nhi\r\n0\r\r\n\r\n",
        "2\r\nhi\r\n0\r\n\rX",
        "1\r\nhi\r\n0\r\n\r\n",
        "2;a\nhi\r\n0\r\n\r\n",
        "2;a\rhi\r\n0\r\n\r\n",
        "2;a\r\rhi\r\n0\r\n\r\n",
        // One byte of a line end is another one, and the rest fits.
        "2xxhi\r\n0\r\n\r\n",
        "2\rxhi\r\n0\r\n\r\n",
        "2x\nhi\r\n0\r\n\r\n",
        "2;a\rxhi\r\n0\r\n\r\n",
        "2\r\nhi\rx0\r\n\r\n",
        "2\r\nhix\n0\r\n\r\n",
        "2\r\nhi\r\n0\rx\r\n",
        "2\r\nhi\r\n0\r\n\rx",
        "2\r\nhi\r\n0\r\nX: y\rx\r\n",
    ];
    let named = |body: &str| case(body.escape_default().to_string(), post(body.as_bytes()), refused(400));
    let mut cases: Vec<Case> = bodies.map(named).into();
    // The end of a section of fields, where 2.2 permits LF alone.
    change(&mut cases, &["2\\r\\nhi\\r\\n0\\r\\n\\n"], |case| case.at(Level::Ours));
    cases
}

pub fn chunk_extensions_are_checked_and_ignored() -> Vec<Case> {
    each(
        &format!("{POST}2"),
        [
            b";a",
            b";a=b",
            b";a=\"b\"",
            b"; a",
            b" ;a",
            b"\t;\ta",
            b" ; a = b",
            b";a;b;c",
            b";a=b;c=d",
            b";a=\"b c\"",
            b";a=\"b;c\"",
            b";a=\"\"",
            b";a=\"b\\\"c\"",
            b";a=\"\xe9\"",
            b";a=\"b\tc\"",
            b" ;a ;b",
            b";a=b ;c",
            b";a =b",
            b";a= b",
            b";a=\"b\" ;c",
            b";!#$%&'*+-.^_`|~09azAZ",
            b";a=5",
        ],
        "\r\nhi\r\n0;last=chunk\r\n\r\n",
        &ok("hi"),
    )
}

pub fn a_malformed_chunk_extension_is_refused() -> Vec<Case> {
    let mut cases = each(
        &format!("{POST}2"),
        [
            b";",
            b";;",
            b";;a",
            b";a;",
            b"; ",
            b" ",
            b";=",
            b";=b",
            b";a=",
            b";a= ",
            b";a=;b",
            b";a b",
            b";a=b c",
            b";a=\"b",
            b";a=b\"",
            b";a=\"b\"c",
            b";a,b",
            b";a=\"b\\",
            b" a",
            b"=a",
            b"\"a\"",
            b";\"a\"",
            b";a=\xe9",
            b";\xe9",
            b";a ",
            b";a=b ",
            b";a:b",
            b";a=\"b\nc\"",
            b";a=\"b\rc\"",
        ],
        "\r\nhi\r\n0\r\n\r\n",
        &refused(400),
    );
    // Known to smuggle: where the line ends is then in doubt.
    change(&mut cases, &[";a=\\\"b\\nc\\\"", ";a=\\\"b\\rc\\\""], |case| case.at(Level::Must));
    for byte in controls() {
        let in_name = post(&bytes(&[b"2;a", &[byte], b"b\r\nhi\r\n0\r\n\r\n"]));
        let in_quotes = post(&bytes(&[b"2;a=\"", &[byte], b"\"\r\nhi\r\n0\r\n\r\n"]));
        cases.push(case(format!("{byte:#04x} in a name"), in_name, refused(400)));
        cases.push(case(format!("{byte:#04x} in quotes"), in_quotes, refused(400)));
    }
    cases
}

pub fn all_chunk_extensions_together_may_have_4_kib() -> Vec<Case> {
    let one = |len: usize| post(format!("2;{}\r\nhi\r\n0\r\n\r\n", "e".repeat(len - 1)).as_bytes());
    // Data enough that the ratio of framing to data is not what is refused.
    let many = |chunks: usize| {
        let data = "x".repeat(100);
        post(format!("{}0\r\n\r\n", format!("64;{}\r\n{data}\r\n", "e".repeat(98)).repeat(chunks)).as_bytes())
    };
    vec![
        case("4000 bytes", one(4000), ok("hi")),
        case("5000 bytes", one(5000), refused(400)),
        case("20000 bytes", one(20_000), refused(400)),
        case("40 times 100 bytes", many(40), ok("x".repeat(4000))),
        case("42 times 100 bytes", many(42), refused(400)),
    ]
}

pub fn a_body_of_more_framing_than_data_is_refused() -> Vec<Case> {
    let chunks = |count: usize, chunk: &str| post(format!("{}0\r\n\r\n", chunk.repeat(count)).as_bytes());
    vec![
        case("20000 chunks of one byte", chunks(20_000, "1\r\nx\r\n"), ok("x".repeat(20_000))),
        case("21000 chunks of one byte", chunks(21_000, "1\r\nx\r\n"), refused(400)),
        case("30000 chunks of two bytes", chunks(30_000, "2\r\nxx\r\n"), ok("xx".repeat(30_000))),
        case(
            "10000 chunks of one byte with long sizes",
            chunks(10_000, "0000000000000001\r\nx\r\n"),
            refused(400),
        ),
    ]
}

pub fn trailers_are_checked_and_have_no_effect() -> Vec<Case> {
    let mut cases = each(
        &format!("{POST}2\r\nhi\r\n0\r\n"),
        [
            b"X: y\r\n",
            b"X: y\r\nZ:\r\n",
            b"X:y\r\n",
            b"X: \t y \t\r\n",
            b"X: \xe9\r\n",
            b"Content-Length: 100\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: gzip\r\n",
            b"Host: b\r\n",
            b"Connection: close\r\n",
            b"Expect: 417\r\n",
            b"Upgrade: websocket\r\n",
            b"Content-Length: 1\r\nContent-Length: 2\r\n",
            b"GET: /canary\r\n",
        ],
        "\r\n",
        &ok("hi"),
    );
    // Fields that must not be sent here may be refused.
    let harmless = |case: &Case| case.name.starts_with('X');
    cases = change_all(cases, |case| if harmless(&case) { case } else { case.or(refused(400)) });
    let post = "POST /header HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n";
    cases.push(
        case("not merged into the headers", format!("{post}\r\n0\r\nX-Echo: trailer\r\n\r\n"), status(404))
            .at(Level::Fixture),
    );
    cases.push(
        case(
            "not in place of a header",
            format!("{post}X-Echo: header\r\n\r\n0\r\nX-Echo: trailer\r\n\r\n"),
            ok("header"),
        )
        .at(Level::Fixture),
    );
    cases
}

pub fn trailers_are_kept_apart_without_those_that_matter() -> Vec<Case> {
    let post = "POST /trailers HTTP/1.1\r\nHost: a\r\nX-Head: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n";
    let told = |trailers: &str, told: &str| case(trailers, format!("{post}{trailers}\r\n"), ok(told));
    vec![
        told("", ""),
        told("X: y\r\n", "X=y;"),
        told("X: \t y z \t\r\nx:\r\n", "X=y z;x=;"),
        told("Content-Length: 5\r\nX: y\r\n", "X=y;"),
        told("transfer-encoding: chunked\r\nTE: trailers\r\nX: y\r\n", "X=y;"),
        told("X: y\r\nHOST: b\r\nConnection: close\r\n", "X=y;"),
        told("Authorization: x\r\nCookie: a=b\r\nUpgrade: h2c\r\nExpect: 100-continue\r\n", ""),
        told("Content_Length: 5\r\n", "Content_Length=5;"),
    ]
}

pub fn a_malformed_trailer_is_refused() -> Vec<Case> {
    let mut cases = each(
        &format!("{POST}2\r\nhi\r\n0\r\n"),
        [
            b"X\r\n",
            b": y\r\n",
            b" X: y\r\n",
            b"\tX: y\r\n",
            b"X: y\r\n z\r\n",
            b"X: y\r\n\tz\r\n",
            b"X : y\r\n",
            b"X: y\n",
            b"X: y\r",
            b"X: a\rb\r\n",
            b"X: a\nb\r\n",
            b"X: \x00\r\n",
            b"X: \x7f\r\n",
            b"X\x00: y\r\n",
            b"X Y: z\r\n",
            b"X\xe9: y\r\n",
            b"GET / HTTP/1.1\r\n",
        ],
        "\r\n",
        &refused(400),
    );
    // As in the head: 9112 5.1, 5.2 and 2.2, 9110 5.5.
    change(&mut cases, &["X : y\\r\\n"], |case| case.at(Level::Must));
    let or_repaired = ["X: y\\r\\n z\\r\\n", "X: y\\r\\n\\tz\\r\\n", "X: a\\rb\\r\\n", "X: \\x00\\r\\n"];
    change(&mut cases, &or_repaired, |case| case.at(Level::Must).or(ok("hi")));
    cases
}

pub fn a_trailer_section_may_have_4_kib() -> Vec<Case> {
    let of = |len: usize| post(format!("2\r\nhi\r\n0\r\nX: {}\r\n\r\n", "t".repeat(len)).as_bytes());
    let lines = |count: usize| post(format!("2\r\nhi\r\n0\r\n{}\r\n", "X: y\r\n".repeat(count)).as_bytes());
    vec![
        case("4000 bytes", of(4000), ok("hi")),
        case("5000 bytes", of(5000), refused(431)),
        case("20000 bytes", of(20_000), refused(431)),
        case("600 short lines", lines(600), ok("hi")),
        case("1000 short lines", lines(1000), refused(431)),
    ]
}

pub fn the_last_chunk_is_any_number_of_zeros() -> Vec<Case> {
    each(POST, [b"0", b"00", b"000", b"0000000000000000", b"0;a", b"0 ;a=\"b\""], "\r\n\r\n", &ok(""))
}

pub fn an_error_in_an_unwanted_body_ends_the_connection() -> Vec<Case> {
    let head = "POST /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bodies =
        ["x\r\n\r\n", "2\r\nhi0\r\n\r\n", "2\nhi\r\n0\r\n\r\n", "0\r\n X\r\n\r\n", "FFFFFFFFFFFFFFFF\r\n"];
    let named = |body: &str| {
        let request = format!("{head}{body}");
        case(body.escape_default().to_string(), request, status(404).cut()).or(refused(400)).or(waits())
    };
    let mut cases: Vec<Case> = bodies.map(named).into();
    change(&mut cases, &["0\\r\\n X\\r\\n\\r\\n"], |case| case.at(Level::Ours));
    cases
}
