//! A head means the same however it arrives, and what is accepted has one reading.

use netpoll_http::internals::wire::{
    Framing, Head, HeadIndex, HeadReader, Known, Limits, Method, Progress, Scan, Violation, parse,
};

/// Bytes of a head and what a second, slow and naive reading of it needs.
type Verdict = Result<Option<usize>, Violation>;

fn trickle(bytes: &[u8], mut step: impl FnMut() -> usize, limits: &Limits) -> Verdict {
    let (mut scan, mut index) = (Scan::default(), HeadIndex::new());
    let (mut start, mut end) = (0, 0);
    while end < bytes.len() {
        end = bytes.len().min(end + step());
        match parse(&bytes[start..end], &mut scan, limits, &mut index) {
            Ok(Progress::Partial { skip }) => start += skip,
            Ok(Progress::Done(head)) => return Ok(Some(start + head.consumed())),
            Err(error) => return Err(error.violation()),
        }
    }
    Ok(None)
}

/// The first byte picks limits and the size of reads, the others are what the peer sends.
///
/// # Panics
/// If two ways of cutting disagree, or an accepted head breaks a rule.
pub fn run(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let limits = match choice & 1 {
        0 => Limits::default(),
        _ => Limits { head_bytes_max: 96, headers_max: 4, target_bytes_max: 24 },
    };
    let mut index = HeadIndex::new();
    let whole = match parse(bytes, &mut Scan::default(), &limits, &mut index) {
        Ok(Progress::Partial { skip }) => {
            assert!(bytes[..skip].iter().all(|byte| b"\r\n".contains(byte)) && skip <= 8);
            compare(bytes, &limits, None, false);
            Ok(None)
        }
        Ok(Progress::Done(head)) => {
            let bytes = head.bytes;
            assert!(head.skipped <= 8 && bytes.len() <= limits.head_bytes_max);
            check(&head, bytes);
            compare(&data[1..], &limits, Some(&head), false);
            let (copy, index) = (bytes.to_vec(), head.index().clone());
            let copy = Head::new(&copy, &index);
            assert_eq!(
                (copy.method_name(), copy.target(), copy.path(), copy.query(), copy.authority()),
                (head.method_name(), head.target(), head.path(), head.query(), head.authority())
            );
            Ok(Some(head.consumed()))
        }
        Err(error) => Err(error.violation()),
    };
    remember(bytes, &limits);
    let read_bytes = usize::from(choice >> 1) % 9 + 1;
    for step in [1, read_bytes] {
        let split = trickle(bytes, || step, &limits);
        assert!(same(&split, &whole), "{step}: {split:?} {whole:?}");
    }
}

/// Has a reader read a head several times, and its header section behind other request lines: what is remembered makes no difference.
fn remember(bytes: &[u8], limits: &Limits) {
    let section = bytes.windows(2).position(|pair| pair == b"\r\n").map_or(&[][..], |at| &bytes[at + 2..]);
    let lines = ["GET / HTTP/1.1\r\n", "HEAD /a/longer?path HTTP/1.1\r\n", "GET / HTTP/1.0\r\n"];
    let others = lines.map(|line| [line.as_bytes(), section].concat());
    let mut reader = HeadReader::new();
    for bytes in
        [bytes, bytes, bytes, &others[0], &others[1], &others[0], &others[2], &others[2], &others[2], bytes]
    {
        let Some(len) = reader.parse_whole(bytes, &Scan::default(), limits) else { continue };
        let head = Head::new(&bytes[..len], reader.index());
        let mut index = HeadIndex::new();
        let Ok(Progress::Done(first)) = parse(bytes, &mut Scan::default(), limits, &mut index) else {
            panic!("only a reader that has read others takes {}", bytes.escape_ascii());
        };
        assert_eq!(head.bytes, first.bytes);
        assert_eq!(
            (head.method_name(), head.target(), head.path(), head.query(), head.authority()),
            (first.method_name(), first.target(), first.path(), first.query(), first.authority())
        );
        assert_eq!(
            (head.minor_version, head.keep_alive, head.expect_continue, head.upgrade, head.framing),
            (first.minor_version, first.keep_alive, first.expect_continue, first.upgrade, first.framing)
        );
        assert!(head.headers().eq(first.headers()));
    }
}

/// White space behind a header name gets one of two sentences: which depends on what is seen behind it.
fn same(split: &Verdict, whole: &Verdict) -> bool {
    let blank = [Violation::SpaceBeforeColon, Violation::BadHeaderName];
    match (split, whole) {
        (Err(split), Err(whole)) => split == whole || (blank.contains(split) && blank.contains(whole)),
        (split, whole) => split == whole,
    }
}

/// Holds a verdict against httparse. It is more lenient in what it takes, and must never be stricter.
fn compare(bytes: &[u8], limits: &Limits, whole: Option<&Head<'_>>, refused: bool) {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut request = httparse::Request::new(&mut headers[..limits.headers_max]);
    match (request.parse(bytes), whole) {
        (Ok(httparse::Status::Complete(len)), Some(head)) => {
            assert_eq!(len, head.consumed());
            assert_eq!((request.method, request.path), (Some(head.method_name()), Some(head.target())));
            assert_eq!(request.version, Some(head.minor_version));
            assert!(request.headers.iter().map(|header| (header.name, header.value)).eq(head.headers()));
        }
        // It knows 1.0 and 1.1 only.
        (Err(httparse::Error::Version), Some(head)) if !has_known_version(head.bytes) => {}
        (other, Some(_)) => panic!("taken, but {other:?}"),
        (Ok(httparse::Status::Complete(_)), None) => assert!(refused, "complete"),
        // It refuses a version before we know which of two errors that is.
        (Err(httparse::Error::Version), None) => {}
        (Err(error), None) => assert!(refused, "{error:?}"),
        (Ok(httparse::Status::Partial), None) => {}
    }
}

/// Whether the request line ends in one of them.
fn has_known_version(head: &[u8]) -> bool {
    let line = head.trim_ascii_start().split(|&byte| byte == b'\r').next().unwrap_or_default();
    line.ends_with(b"HTTP/1.0") || line.ends_with(b"HTTP/1.1")
}

/// Reads an accepted head again, line by line, and compares.
fn check(head: &Head<'_>, bytes: &[u8]) {
    let text = bytes.strip_suffix(b"\r\n\r\n").expect("a head ends with an empty line");
    let mut lines = Vec::new();
    for line in text.split(|&byte| byte == b'\n') {
        lines.push(line.strip_suffix(b"\r").unwrap_or(line));
    }
    let line_ends = bytes.windows(2).filter(|pair| pair == b"\r\n").count();
    assert_eq!(line_ends, lines.len() + 1, "every LF is part of a CRLF");
    assert_eq!(bytes.iter().filter(|&&byte| byte == b'\r').count(), line_ends, "every CR, too");
    assert!(!bytes.iter().any(|&byte| byte == 0x7f || (byte < b' ' && !b"\t\r\n".contains(&byte))));

    let request_line = format!("{} {} HTTP/1.", head.method_name(), head.target());
    let minor_version =
        lines[0].strip_prefix(request_line.as_bytes()).expect("the parts are in their places");
    assert!(matches!(minor_version, [b'0'..=b'9']));
    assert_eq!(head.minor_version, u8::from(minor_version != b"0"));
    assert!(head.target().bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b'#'));
    assert!(head.path().starts_with('/') || (head.path() == "*" && head.method == Method::Options));
    assert!(!head.path().contains('?') && head.minor_version <= 1);

    let mut fields = Vec::new();
    for line in &lines[1..] {
        let colon = line.iter().position(|&byte| byte == b':').expect("a colon");
        let value = String::from_utf8_lossy(&line[colon + 1..]);
        let value = value.trim_matches([' ', '\t']).to_owned();
        fields.push((String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase(), value));
    }
    let seen: Vec<_> = head
        .headers()
        .map(|(name, value)| (name.to_ascii_lowercase(), String::from_utf8_lossy(value).into_owned()))
        .collect();
    assert_eq!(seen, fields);

    let all = |name: &str| -> Vec<&str> {
        fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str()).collect()
    };
    let hosts = all("host");
    assert!(hosts.len() == 1 || (hosts.is_empty() && head.minor_version == 0));
    assert_eq!(head.known(Known::Host).is_some(), !hosts.is_empty());
    assert!(head.authority().is_none_or(|host| !host.contains(['/', '@', ' ', '?', '#'])));
    let lengths = all("content-length");
    let codings = all("transfer-encoding");
    match head.framing {
        Framing::None => assert!(lengths.is_empty() && codings.is_empty()),
        Framing::Length(length) => {
            assert!(codings.is_empty() && lengths.len() == 1);
            assert!(lengths[0].bytes().all(|byte| byte.is_ascii_digit()));
            assert_eq!(lengths[0].trim_start_matches('0').parse().unwrap_or(0), length);
        }
        Framing::Chunked => {
            assert!(lengths.is_empty() && head.minor_version == 1);
            assert_eq!(codings.join(",").to_ascii_lowercase(), "chunked");
        }
    }
    let options = all("connection").join(",").to_ascii_lowercase();
    let option = |name: &str| options.split(',').any(|option| option.trim_matches([' ', '\t']) == name);
    assert_eq!(head.keep_alive, !option("close") && (head.minor_version == 1 || option("keep-alive")));
    let may_upgrade = head.minor_version == 1 && option("upgrade") && !all("upgrade").is_empty();
    assert_eq!(head.upgrade, may_upgrade);
    let expectations = all("expect").join(",");
    let expects = head.minor_version == 1 && expectations.split(',').any(|member| !member.trim().is_empty());
    assert_eq!(head.expect_continue, expects && head.framing.has_body());
}
