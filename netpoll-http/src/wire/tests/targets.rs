//! Decoding of paths, queries and cookies.

use std::borrow::Cow;

use super::super::target::*;

#[test]
fn nothing_is_copied_when_there_is_nothing_to_decode() {
    assert!(matches!(decode_segment("a+b"), Ok(Cow::Borrowed("a+b"))));
    assert!(matches!(decode_form("a-b"), Ok(Cow::Borrowed("a-b"))));
}

#[test]
fn escapes_are_decoded_once() {
    assert_eq!(decode_segment("%41%2f%2541+").unwrap(), "A/%41+");
    assert_eq!(decode_segment("%C3%a4").unwrap(), "\u{e4}");
    assert_eq!(decode_segment("%00").unwrap(), "\0");
    assert_eq!(decode_form("a+b%2B").unwrap(), "a b+");
}

#[test]
fn broken_escapes_are_an_error() {
    for raw in ["%", "%4", "a%", "%zz", "%4g", "%+1", "%%41"] {
        assert_eq!(decode_segment(raw), Err(DecodeError::BadEscape), "{raw}");
        assert_eq!(decode_form(raw), Err(DecodeError::BadEscape), "{raw}");
    }
}

#[test]
fn overlong_utf8_and_surrogates_are_an_error() {
    for raw in ["%c0%af", "%e0%80%af", "%ed%a0%80", "%ff", "%c3", "%f4%90%80%80"] {
        assert_eq!(decode_segment(raw), Err(DecodeError::NotUtf8), "{raw}");
    }
}

#[test]
fn a_file_path_cannot_leave_its_folder() {
    for raw in
        ["/../a", "/a/..", "..", "/%2e%2e/a", "/.%2E", "/a%2fb", "/..%2fa", "/a%00", "/a\\b", "/%5c..%5ca"]
    {
        assert_eq!(file_path(raw), Err(DecodeError::UnsafePath), "{raw}");
    }
    assert_eq!(file_path("/%252e%252e/a").unwrap(), "/%2e%2e/a", "decoded once");
    assert_eq!(file_path("/a/..b/c...").unwrap(), "/a/..b/c...");
    assert_eq!(file_path("/a%20b").unwrap(), "/a b");
}

#[test]
fn a_query_is_pairs_in_order() {
    let pairs: Vec<_> = query_pairs("a=1&b=x+y&&c&d=&=e&f=1=2&a=%26").map(Result::unwrap).collect();
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
    let expected = [("a", "1"), ("b", "x y"), ("c", ""), ("d", ""), ("", "e"), ("f", "1=2"), ("a", "&")];
    assert_eq!(pairs, expected);
    assert_eq!(query_pairs("").count(), 0);
}

#[test]
fn a_query_value_is_the_first_of_its_name() {
    assert_eq!(query_value("a=1&%62=2&b=3", "b").unwrap().as_deref(), Some("2"));
    assert_eq!(query_value("a=1", "b"), Ok(None));
    assert_eq!(query_value("a=%&b=1", "a"), Err(DecodeError::BadEscape));
    assert_eq!(query_value("a=%&b=1", "b").unwrap().as_deref(), Some("1"), "others do not matter");
}

#[test]
fn cookies_are_pairs_as_they_were_sent() {
    let pairs: Vec<_> = cookie_pairs(b"a=1; b=\"x y\";c=d=e ;f; =g;; h=;\xff=1; i=%41").collect();
    assert_eq!(pairs, [("a", "1"), ("b", "\"x y\""), ("c", "d=e"), ("h", ""), ("i", "%41")]);
}
