//! Chunked bodies.

use super::*;

/// The data and the bytes consumed, None for an unfinished body; the same for reads of every size.
fn decoded_within(body: &[u8], body_bytes_max: u64) -> Result<Option<(Vec<u8>, usize)>, Violation> {
    let [whole, steps @ ..] = [body.len().max(1), 1, 2, 3, 5].map(|step| {
        let (mut decoder, mut out, mut consumed) = (Decoder::new(), Vec::new(), 0);
        for read in body.chunks(step) {
            let decoded = match decoder.decode(read, &mut out, body_bytes_max) {
                Ok(decoded) => decoded,
                Err(error) => {
                    let again = decoder.decode(b"0\r\n\r\n", &mut out, body_bytes_max);
                    assert_eq!(again, Err(error), "an error is final");
                    return Err(error.violation());
                }
            };
            consumed += decoded.consumed;
            if decoded.done {
                return Ok(Some((out, consumed)));
            }
            assert_eq!(decoded.consumed, read.len(), "an unfinished body takes everything");
        }
        Ok(None)
    });
    for step in steps {
        assert_eq!(step, whole, "{}", body.escape_ascii());
    }
    whole
}

fn decoded(body: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, Violation> {
    decoded_within(body.as_ref(), 1 << 30).map(|done| done.map(|(data, _)| data))
}

#[test]
fn a_body_is_the_data_of_its_chunks() {
    assert_eq!(decoded("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"), Ok(Some(b"hello world".to_vec())));
    assert_eq!(decoded("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n").map(|d| d.unwrap().len()), Ok(20));
    assert_eq!(decoded("2\r\n\r\n\r\n0\r\n\r\n"), Ok(Some(b"\r\n".to_vec())));
}

#[test]
fn what_follows_the_body_is_left_to_the_next_request() {
    let body = b"1\r\nx\r\n0\r\n\r\nGET / HTTP/1.1\r\n";
    assert_eq!(decoded_within(body, 10), Ok(Some((b"x".to_vec(), 11))));
}

#[test]
fn an_unfinished_body_is_never_a_complete_one() {
    let body = b"5;a=\"b\"\r\nhello\r\n0\r\nT: u\r\n\r\n";
    for end in 0..body.len() {
        assert_eq!(decoded(&body[..end]), Ok(None));
    }
    assert!(decoded(body).unwrap().is_some());
}

#[test]
fn a_last_chunk_has_any_number_of_zeros_up_to_sixteen() {
    for zeros in ["0", "000", "0000000000000000"] {
        assert_eq!(decoded(format!("{zeros}\r\n\r\n")), Ok(Some(Vec::new())));
    }
    assert_eq!(decoded("00000000000000000\r\n\r\n"), Err(Violation::BadChunkSize));
}

#[test]
fn a_chunk_size_is_1_to_16_hexadecimal_digits() {
    for size in
        ["", ";x", "+5", "-5", "0x5", "5_", "_5", "g", " 5", "\t5", "5g", "5.", "\u{665}", "5\0", "5,", "\n5"]
    {
        assert_eq!(
            decoded(format!("{size}\r\nhello\r\n0\r\n\r\n")),
            Err(Violation::BadChunkSize),
            "{size:?}"
        );
    }
    assert_eq!(decoded("5 \r\nhello\r\n0\r\n\r\n"), Err(Violation::BadChunkExtension), "a space after it");
    assert_eq!(decoded("0000000000000005\r\nhello\r\n0\r\n\r\n"), Ok(Some(b"hello".to_vec())));
}

#[test]
fn a_chunk_size_that_overflows_is_refused() {
    assert_eq!(decoded("10000000000000000\r\n"), Err(Violation::BadChunkSize));
    assert_eq!(decoded("ffffffffffffffff\r\n"), Err(Violation::BodyTooLarge));
    assert_eq!(decoded_within(b"ffffffffffffffff\r\nx", u64::MAX), Ok(None));
}

#[test]
fn a_chunk_over_the_rest_of_the_limit_is_a_413_before_its_data() {
    assert_eq!(decoded_within(b"5\r\nhello\r\n0\r\n\r\n", 5), Ok(Some((b"hello".to_vec(), 15))));
    assert_eq!(decoded_within(b"6\r", 5), Err(Violation::BodyTooLarge));
    assert_eq!(decoded_within(b"5\r\nhello\r\n1\r", 5), Err(Violation::BodyTooLarge));
    assert_eq!(decoded_within(b"2\r\nhi\r\nfffffffffffffffe\r", u64::MAX), Err(Violation::BodyTooLarge));
}

#[test]
fn a_chunk_line_ends_with_exactly_crlf() {
    for body in ["5\nhello\r\n0\r\n\r\n", "\r\n", "\n"] {
        assert_eq!(decoded(body), Err(Violation::BadChunkSize), "{body:?}");
    }
    for body in [
        "5\rXhello\r\n",
        "5\r\rhello\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello\rX0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5;a\rX\r\nhello\r\n",
    ] {
        assert_eq!(decoded(body), Err(Violation::BadChunkLineEnd), "{body:?}");
    }
    for body in ["5;a\nhello\r\n0\r\n\r\n", "5;a=\"\n\"\r\nhello\r\n"] {
        assert_eq!(decoded(body), Err(Violation::BadChunkExtension), "{body:?}");
    }
}

#[test]
fn extensions_follow_their_grammar_and_are_ignored() {
    for extension in [
        ";a",
        ";a=b",
        ";a=\"b\"",
        ";a=\"\"",
        ";a=\"b;c\\\"d\\\\ \t\"",
        ";a;b=c;d",
        " ;a",
        "\t;\ta",
        " ; a = b ; c",
        "; a=\"b\" ;c",
        ";a ;b",
        ";a=\"\u{e4}\"",
    ] {
        let body = format!("5{extension}\r\nhello\r\n0{extension}\r\n\r\n");
        assert_eq!(decoded(&body), Ok(Some(b"hello".to_vec())), "{extension:?}");
    }
    for extension in [
        ";",
        "; ",
        ";;a",
        ";=b",
        ";a=",
        ";a=;b",
        ";a b",
        ";a=b c",
        ";a=\"b\"c",
        ";a=\"b",
        ";a\0",
        ";a=\"\0\"",
        ";a=\"\x7f\"",
        ";a=\"\\\0\"",
        ";a(",
        ";a=b=c",
        " a",
        ";a=\u{e4}",
        " ",
        ";a ",
        ";a=b ",
        ";a=\"b\" ",
        ";a\u{1}",
        ";a\r",
    ] {
        let verdict = decoded(format!("5{extension}\r\nhello\r\n0\r\n\r\n"));
        assert!(
            matches!(verdict, Err(Violation::BadChunkExtension | Violation::BadChunkLineEnd)),
            "{extension:?}: {verdict:?}"
        );
    }
}

#[test]
fn extensions_of_all_chunks_together_are_at_most_4_kib() {
    let chunk = format!("1;{}\r\nx\r\n", "a".repeat(1022));
    let chunks = |count: usize| chunk.repeat(count);
    assert_eq!(decoded(chunks(4) + "0\r\n\r\n"), Ok(Some(b"xxxx".to_vec())));
    assert_eq!(decoded(chunks(4) + "0;"), Err(Violation::ChunkExtensionsTooLarge));
    assert_eq!(decoded(format!("1;{}", "a".repeat(5000))), Err(Violation::ChunkExtensionsTooLarge));
}

#[test]
fn a_long_body_of_tiny_chunks_is_refused() {
    let tiny = "1\r\nx\r\n";
    assert_eq!(decoded(tiny.repeat(25_000)), Err(Violation::TooMuchChunkOverhead));
    assert_eq!(decoded(tiny.repeat(1000) + "0\r\n\r\n").map(|data| data.unwrap().len()), Ok(1000));
    let small = format!("10\r\n{}\r\n", "x".repeat(16)).repeat(20_000) + "0\r\n\r\n";
    assert!(decoded(small).is_ok(), "chunks of 16 bytes are fine at any length");
}

#[test]
fn trailers_are_checked_like_headers() {
    for trailer in
        [" A: b", ": b", "A b", "A : b", "A: b\n", "A: b\rX", "A: \0", "A: b\r\n c", "A\r", "\n", "A(: b"]
    {
        assert_eq!(decoded(format!("0\r\n{trailer}\r\n\r\n")), Err(Violation::BadTrailer), "{trailer:?}");
    }
    assert_eq!(decoded("0\r\nA: b\r\nC:\r\n\r\n"), Ok(Some(Vec::new())));
    assert_eq!(decoded("0\r\n\rX"), Err(Violation::BadTrailer));
}

#[test]
fn trailers_are_at_most_4_kib() {
    let trailer = |len: usize| format!("0\r\nA:{}\r\n\r\n", "b".repeat(len - 4));
    assert!(decoded(trailer(4096)).is_ok());
    assert_eq!(decoded(trailer(4097)), Err(Violation::TrailersTooLarge));
}

#[test]
fn trailers_are_kept_apart_without_those_that_mean_something_in_a_head() {
    let mut decoder = Decoder::new();
    let body =
        b"0\r\nDigest: \tabc \r\nContent-Length: 5\r\nHOST: b\r\nX:\xff\r\nTransfer-Encoding: chunked\r\n\
        Connection: close\r\n\r\n";
    let done = decoder.decode(body, &mut Vec::new(), 0).unwrap();
    assert_eq!(done, Decoded { consumed: body.len(), done: true });
    let trailers = decoder.into_trailers();
    let trailers: Vec<_> = trailers.iter().collect();
    assert_eq!(trailers, [("Digest", &b"abc"[..]), ("X", &b"\xff"[..])]);
}
