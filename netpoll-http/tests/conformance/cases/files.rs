//! Files by paths that mean something else to a file system than to a router.

use super::{Case, case, each, head, ok, rows, status};

rows! {
    Fixture a_file_is_named_by_its_path_decoded_once "9110 4.2.3, 3986 2.4",
    Fixture a_path_that_no_file_can_have_is_400 "3986 7.3",
    Fixture what_is_not_a_file_below_the_directory_is_404 "3986 7.3",
    Fixture two_dates_are_no_condition_and_one_before_1970_is_one "9110 13.1.3, 13.1.4",
    Fixture a_range_is_a_list_of_one_that_may_have_empty_members "9110 5.6.1.2, 14.2",
}

const HOST: &str = " HTTP/1.1\r\nHost: a\r\n\r\n";

pub fn a_file_is_named_by_its_path_decoded_once() -> Vec<Case> {
    let get = |path: &str, expect| case(path, format!("GET /files/{path}{HOST}"), expect);
    vec![
        get("file", ok("a file")),
        get("inner/file", ok("an inner file")),
        get("f%69le", ok("a file")),
        get("%66%69%6c%65", ok("a file")),
        get("file?a=../b", ok("a file")),
        get("a%20b", ok("a space")),
        get("a+b", ok("a plus")),
        get("%C3%A9", ok("an e with an accent")),
        // Decoded once: this is the file whose name has a percent sign in it.
        get("%252e", ok("percent 2e")),
        get("...", status(404)),
        case("to HEAD", format!("HEAD /files/file{HOST}"), head(200)),
        case("an absolute target", format!("GET http://a/files/file{HOST}"), ok("a file")),
    ]
}

pub fn a_path_that_no_file_can_have_is_400() -> Vec<Case> {
    each(
        "GET /files/",
        [
            // Parents, plain and in every coding.
            b"..",
            b"../secret",
            b"../../../../../../etc/passwd",
            b"inner/../../secret",
            b"inner/../file",
            b"inner/..",
            b"%2e%2e/secret",
            b"%2E%2E/secret",
            b".%2e/secret",
            b"%2e./secret",
            // A slash that only appears by decoding.
            b"%2e%2e%2fsecret",
            b"..%2Fsecret",
            b"inner%2Ffile",
            b"%2Fetc%2Fpasswd",
            b"file%2f",
            // The end of a C string.
            b"%00",
            b"file%00",
            b"file%00.txt",
            b"%00file",
            b"secret%00/../file",
            // The separator of another system.
            b"..\\secret",
            b"..%5csecret",
            b"..%5Csecret",
            b"inner\\file",
            b"inner%5cfile",
            // Overlong forms of '.', '/' and NUL, a surrogate, and what is no UTF-8.
            b"%c0%ae%c0%ae/secret",
            b"%c0%ae%c0%ae%c0%afsecret",
            b"..%c0%afsecret",
            b"%e0%80%ae%e0%80%ae/secret",
            b"%f0%80%80%ae./secret",
            b"..%e0%80%afsecret",
            b"file%c0%80",
            b"%ed%a0%80",
            b"%ff",
            b"%C3",
            // A percent sign without two digits.
            b"%",
            b"file%",
            b"%2",
            b"%zz",
            b"%u002e%u002e/secret",
            b"%%32%65",
        ],
        HOST,
        &status(400),
    )
}

pub fn what_is_not_a_file_below_the_directory_is_404() -> Vec<Case> {
    each(
        "GET /files/",
        [
            b"missing",
            b"missing/file",
            b"file/",
            b"file/more",
            b"inner/",
            b"inner",
            b"/",
            b"//etc/passwd",
            b"/file",
            b"inner//file",
            b".",
            b"./file",
            b"inner/.",
            b"%2e/file",
            b".hidden",
            b"%2ehidden",
            b"inner/.hidden",
            b"link_out",
            b"link_up/secret",
            b"link_absolute",
            b"%252e%252e/secret",
            b"..;/secret",
            b"....//secret",
            b"file::$DATA",
            b"~",
            b"%EF%BC%8E%EF%BC%8E/secret",
        ],
        HOST,
        &status(404),
    )
}

pub fn two_dates_are_no_condition_and_one_before_1970_is_one() -> Vec<Case> {
    const OLD: &str = "Sun, 20 Jul 1969 20:17:40 GMT";
    const NEW: &str = "Fri, 31 Dec 9999 23:59:59 GMT";
    let get = |lines: &str, expect| {
        let request = format!("GET /files/file HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        case(lines.escape_default().to_string(), request, expect)
    };
    vec![
        get(&format!("If-Modified-Since: {NEW}\r\n"), status(304)),
        get(&format!("If-Modified-Since: {NEW}\r\nIf-Modified-Since: {NEW}\r\n"), ok("a file")),
        get(&format!("If-Modified-Since: {NEW}, {NEW}\r\n"), ok("a file")),
        get(&format!("If-Modified-Since: {OLD}\r\n"), ok("a file")),
        get(&format!("If-Unmodified-Since: {OLD}\r\n"), status(412)),
        get(&format!("If-Unmodified-Since: {OLD}\r\nIf-Unmodified-Since: {OLD}\r\n"), ok("a file")),
        get(&format!("If-Unmodified-Since: {NEW}\r\n"), ok("a file")),
        get("If-Unmodified-Since: yesterday\r\n", ok("a file")),
    ]
}

pub fn a_range_is_a_list_of_one_that_may_have_empty_members() -> Vec<Case> {
    let get = |range: &str, expect| {
        case(range, format!("GET /files/file HTTP/1.1\r\nHost: a\r\nRange: {range}\r\n\r\n"), expect)
    };
    let part = |body: &str| {
        let mut part = ok(body);
        part.answers[0].status = 206;
        part
    };
    vec![
        get("bytes=2-3", part("fi")),
        get("bytes=2-3,", part("fi")),
        get("BYTES=, 2-3 ,,", part("fi")),
        get("bytes=,", ok("a file")),
        get("bytes=0-1,2-3", ok("a file")),
        get("lines=2-3", ok("a file")),
        case(
            "on two lines",
            "GET /files/file HTTP/1.1\r\nHost: a\r\nRange: bytes=2-3\r\nRange: bytes=2-3\r\n\r\n",
            ok("a file"),
        ),
    ]
}
