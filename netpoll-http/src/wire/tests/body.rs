//! Where a request body ends, and what may follow it.

use super::*;

fn framing(lines: &[&str]) -> Framing {
    accepted(http11(lines)).framing
}

#[test]
fn length_and_encoding_together_are_refused_in_either_order() {
    for encoding in ["chunked", "identity", "x", "", "gzip, chunked"] {
        let encoding = format!("Transfer-Encoding: {encoding}");
        assert_eq!(refused(http11(&["Content-Length: 5", &encoding])), Violation::LengthAndEncoding);
        assert_eq!(refused(http11(&[&encoding, "Content-Length: 5"])), Violation::LengthAndEncoding);
    }
}

#[test]
fn a_content_length_is_nothing_but_digits() {
    for length in [
        "",
        "+5",
        "-5",
        "-0",
        "0x5",
        "5 ,",
        "5,",
        "5 5",
        "5, 6",
        "5, 5",
        "5e1",
        "5.0",
        "\"5\"",
        "'5'",
        "five",
        "\u{665}",
        "5;",
        "5_0",
        "0b1",
        ",5",
        "5\t5",
        "--5",
        "18446744073709551616x",
    ] {
        let bytes = http11(&[&format!("Content-Length: {length}")]);
        assert_eq!(refused(bytes), Violation::BadContentLength, "{length:?}");
    }
}

#[test]
fn a_content_length_with_leading_zeros_is_decimal() {
    assert_eq!(framing(&["Content-Length: 0010"]), Framing::Length(10));
    assert_eq!(framing(&["Content-Length: 000000000000000000000000000000"]), Framing::Length(0));
}

#[test]
fn a_content_length_over_63_bits_is_a_413() {
    assert_eq!(framing(&["Content-Length: 9223372036854775807"]), Framing::Length(i64::MAX as u64));
    for length in ["9223372036854775808", "18446744073709551616", "99999999999999999999999"] {
        assert_eq!(refused(http11(&[&format!("Content-Length: {length}")])), Violation::BodyTooLarge);
    }
}

#[test]
fn several_content_lengths_are_refused_even_if_equal() {
    assert_eq!(refused(http11(&["Content-Length: 5", "Content-Length: 5"])), Violation::TwoContentLengths);
    assert_eq!(refused(http11(&["Content-Length: 5", "content-length: 6"])), Violation::TwoContentLengths);
}

#[test]
fn a_transfer_encoding_in_http_1_0_is_refused() {
    let bytes = with("HTTP/1.0", &["Transfer-Encoding: chunked"]);
    assert_eq!(refused(bytes), Violation::EncodingInHttp10);
}

#[test]
fn one_plain_chunked_in_any_case_is_the_only_transfer_encoding() {
    for coding in ["chunked", "Chunked", "CHUNKED", " \tchunked\t "] {
        assert_eq!(framing(&[&format!("Transfer-Encoding: {coding}")]), Framing::Chunked, "{coding:?}");
    }
}

#[test]
fn a_transfer_encoding_that_does_not_end_with_one_plain_chunked_is_a_400() {
    for codings in [
        "",
        "identity",
        "gzip",
        "chunked, gzip",
        "chunked, identity",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "gzip,,chunked",
        "chunked;q=1",
        "chunked; a",
        "gzip;a=b, chunked",
        "\"chunked\"",
        "chunked chunked",
        "xchunked",
        "chunkedx",
        "chunke",
        "chunked\u{a0}",
        "ch\u{212a}unked",
        "gzip, chunked, chunked",
        ",",
        "chunked=1",
    ] {
        let bytes = http11(&[&format!("Transfer-Encoding: {codings}")]);
        assert_eq!(refused(bytes), Violation::BadTransferEncoding, "{codings:?}");
    }
}

#[test]
fn another_coding_before_chunked_is_a_501() {
    for codings in ["gzip, chunked", "gzip,deflate,chunked", "identity, chunked"] {
        let bytes = http11(&[&format!("Transfer-Encoding: {codings}")]);
        assert_eq!(refused(bytes), Violation::UnknownTransferEncoding, "{codings}");
    }
}

#[test]
fn the_codings_of_all_lines_count_as_one_list() {
    let lines = |first: &str, second: &str| {
        refused(http11(&[&format!("Transfer-Encoding: {first}"), &format!("transfer-encoding: {second}")]))
    };
    assert_eq!(lines("gzip", "chunked"), Violation::UnknownTransferEncoding);
    assert_eq!(lines("chunked", "gzip"), Violation::BadTransferEncoding);
    assert_eq!(lines("chunked", "chunked"), Violation::BadTransferEncoding);
    assert_eq!(lines("chunked", ""), Violation::BadTransferEncoding);
    assert_eq!(lines("", "chunked"), Violation::BadTransferEncoding);
}

#[test]
fn a_request_without_length_and_encoding_has_no_body() {
    assert_eq!(framing(&[]), Framing::None);
    assert!(!framing(&[]).has_body() && !framing(&["Content-Length: 0"]).has_body());
}

#[test]
fn a_body_is_framed_the_same_with_every_method() {
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "POST", "FOO"] {
        let head = accepted(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"));
        assert_eq!(head.framing, Framing::Length(5), "{method}");
    }
}

#[test]
fn bytes_after_the_head_are_left_alone() {
    let request = http11(&["Content-Length: 5"]);
    let bytes = [&request[..], b"\n\0\xff\r\r"].concat();
    assert_eq!(accepted(&bytes).consumed(), request.len());
}

#[test]
fn http_1_1_stays_open_unless_any_connection_option_says_close() {
    let stays_open = |lines: &[&str]| accepted(http11(lines)).keep_alive;
    assert!(stays_open(&[]));
    assert!(stays_open(&["Connection: keep-alive"]));
    assert!(stays_open(&["Connection: closed, x-close"]));
    for lines in [
        &["Connection: close"][..],
        &["connection: CLOSE"],
        &["Connection: keep-alive, close"],
        &["Connection: close, keep-alive"],
        &["Connection: ,\tClose ,x"],
        &["Connection: x", "Connection: keep-alive", "Connection: close"],
    ] {
        assert!(!stays_open(lines), "{lines:?}");
    }
}

#[test]
fn http_1_0_closes_unless_keep_alive_is_asked_for() {
    let stays_open = |lines: &[&str]| accepted(with("HTTP/1.0", lines)).keep_alive;
    assert!(!stays_open(&[]));
    assert!(stays_open(&["Connection: Keep-Alive"]));
    assert!(!stays_open(&["Connection: keep-alive, close"]));
    assert!(!stays_open(&["Connection: x"]));
}

#[test]
fn a_client_that_waits_for_100_continue_is_noticed_in_any_case() {
    let waits = |lines: &[&str]| accepted(http11(lines)).expect_continue;
    assert!(waits(&["Expect: 100-Continue", "Content-Length: 5"]));
    assert!(waits(&["Expect: 100-continue", "Transfer-Encoding: chunked"]));
    assert!(!waits(&["Expect: 100-continue"]), "nothing is to come");
    assert!(!waits(&["Expect: 100-continue", "Content-Length: 0"]), "nothing is to come");
    assert!(!waits(&["Content-Length: 5"]));
}

#[test]
fn expectations_are_a_list_that_may_have_empty_members_and_several_lines() {
    let waits = |lines: &[&str]| accepted(http11(&[&["Content-Length: 5"], lines].concat())).expect_continue;
    assert!(waits(&["Expect: 100-continue, 100-CONTINUE"]) && waits(&["Expect: ,100-continue ,, "]));
    assert!(
        waits(&["Expect: 100-continue", "Expect: 100-continue"])
            && waits(&["Expect:", "Expect: 100-continue"])
    );
    assert!(!waits(&["Expect:"]) && !waits(&["Expect: , ,"]), "nothing is expected");
}

#[test]
fn an_expectation_in_http_1_0_is_ignored() {
    for expectation in ["Expect: 100-continue", "Expect: x"] {
        assert!(!accepted(with("HTTP/1.0", &[expectation, "Content-Length: 5"])).expect_continue);
    }
}

#[test]
fn another_expectation_is_a_417() {
    for lines in [
        &["Expect: x"][..],
        &["Expect: 100-continue, x"],
        &["Expect: ,x"],
        &["Expect: 100-continue", "Expect: x"],
        &["Expect: 100-continued"],
    ] {
        assert_eq!(refused(http11(lines)), Violation::BadExpectation, "{lines:?}");
    }
}

#[test]
fn an_upgrade_needs_http_1_1_and_both_headers() {
    let both = ["Connection: keep-alive, Upgrade", "Upgrade: websocket"];
    assert!(accepted(http11(&both)).upgrade);
    assert!(!accepted(with("HTTP/1.0", &both)).upgrade);
    assert!(!accepted(http11(&both[..1])).upgrade);
    assert!(!accepted(http11(&both[1..])).upgrade);
}
