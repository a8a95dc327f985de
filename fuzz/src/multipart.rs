//! A form with files comes to the same parts however it arrives, and to what a model says that sees all of it at once.

use netpoll_http::internals::multipart::{MultipartLimits, Parser, PartHead, Step, Violation};

const BOUNDARY: &[u8] = b"x-y";
const DELIMITER: &[u8] = b"\r\n--x-y";

/// What a part says of itself, its data, and whether its end was seen.
type Seen = (PartHead, Vec<u8>, bool);
type Form = (Vec<Seen>, Result<(), Kind>);

/// Of violations the kind: their sentences are for people.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Malformed,
    TooLarge,
}

impl From<Violation> for Kind {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::Malformed(_) => Self::Malformed,
            Violation::TooLarge(_) => Self::TooLarge,
        }
    }
}

fn read(bytes: &[u8], step: usize, limits: MultipartLimits) -> Form {
    let mut parser = Parser::new(BOUNDARY, limits);
    let mut parts: Vec<Seen> = Vec::new();
    for chunk in bytes.chunks(step) {
        let mut rest = chunk;
        loop {
            match parser.next(&mut rest) {
                Ok(Some(Step::Part(head))) => parts.push((head, Vec::new(), false)),
                Ok(Some(Step::Data(data) | Step::Held(data))) => {
                    let (_, all, has_ended) = parts.last_mut().expect("data is of a part");
                    assert!(!data.is_empty() && !*has_ended);
                    all.extend_from_slice(data);
                }
                Ok(Some(Step::PartEnd)) => parts.last_mut().expect("a part ends").2 = true,
                Ok(None) => break,
                Err(violation) => {
                    assert_eq!(parser.finish(), Err(violation));
                    return (parts, Err(violation.into()));
                }
            }
        }
        assert!(rest.is_empty());
    }
    let end = parser.finish().map_err(Kind::from);
    (parts, end)
}

/// The first byte picks limits, the second the size of reads, the others are the form.
///
/// # Panics
/// If two ways of cutting disagree, or the parser and the model do.
pub fn run(data: &[u8]) {
    let [choice, step, bytes @ ..] = data else { return };
    let pick = |shift: u8| usize::from(choice >> shift & 3);
    let limits = MultipartLimits::default()
        .parts_max([256, 2, 1, 0][pick(0)])
        .part_bytes_max([u64::MAX, 7, 1, 0][pick(2)])
        .header_bytes_max([4096, 60, 45, 5][pick(4)])
        .bytes_max([u64::MAX, 200, 90, 3][pick(6)]);
    let whole = read(bytes, bytes.len().max(1), limits);
    for step in [1, usize::from(*step) + 2] {
        assert_eq!(read(bytes, step, limits), whole);
    }
    let mut parts = Vec::new();
    let end = model(bytes, limits, &mut parts);
    assert_eq!(whole, (parts, end));
}

/// RFC 7578 and RFC 2046 section 5.1.1, without padding and an epilogue, and with a preamble of nothing at most.
fn model(bytes: &[u8], limits: MultipartLimits, parts: &mut Vec<Seen>) -> Result<(), Kind> {
    let shown = bytes.len().min(usize::try_from(limits.bytes_max).unwrap_or(usize::MAX));
    // Where it stops for want of bytes it is too large if there are more, and cut short if not.
    let cut = if shown < bytes.len() { Kind::TooLarge } else { Kind::Malformed };
    let mut rest = &bytes[..shown];
    let first = if rest.starts_with(b"\r") { DELIMITER } else { &DELIMITER[2..] };
    let Some(behind) = rest.strip_prefix(first) else {
        return Err(if first.starts_with(rest) { cut } else { Kind::Malformed });
    };
    rest = behind;
    loop {
        match rest {
            [b'-', b'-', tail @ ..] => {
                return match tail {
                    b"" | b"\r\n" if shown == bytes.len() => Ok(()),
                    b"" | b"\r" | b"\r\n" => Err(cut),
                    _ => Err(Kind::Malformed),
                };
            }
            [b'\r', b'\n', tail @ ..] => rest = tail,
            [] | [b'-'] | [b'\r'] => return Err(cut),
            _ => return Err(Kind::Malformed),
        }
        if parts.len() == limits.parts_max {
            return Err(Kind::TooLarge);
        }
        // A section of no lines is its empty line alone.
        let end = if rest.starts_with(b"\r\n") { Some(2) } else { find(rest, b"\r\n\r\n").map(|at| at + 4) };
        let most = limits.header_bytes_max;
        let Some(end) = end.filter(|end| *end <= most) else {
            return Err(if rest.len() > most { Kind::TooLarge } else { cut });
        };
        let head = PartHead::parse(&rest[..end])?;
        rest = &rest[end..];
        parts.push((head, Vec::new(), false));
        let (_, data, has_ended) = parts.last_mut().expect("pushed above");
        let found = find(rest, DELIMITER);
        // What may still become a delimiter is no data yet.
        let held = (1..DELIMITER.len()).rev().find(|held| rest.ends_with(&DELIMITER[..*held])).unwrap_or(0);
        let here = found.unwrap_or(rest.len() - held);
        let most = usize::try_from(limits.part_bytes_max).unwrap_or(usize::MAX);
        data.extend_from_slice(&rest[..here.min(most)]);
        if here > most {
            return Err(Kind::TooLarge);
        }
        if found.is_none() {
            return Err(cut);
        }
        *has_ended = true;
        rest = &rest[here + DELIMITER.len()..];
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
