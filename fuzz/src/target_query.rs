//! Percent decoding, query pairs and cookies against a byte-by-byte model.

use netpoll_http::internals::wire::target::{
    DecodeError, cookie_pairs, decode_form, decode_segment, file_path, query_pairs, query_value,
};

/// # Panics
/// If a decoder and the model disagree, or a file path could leave its folder.
pub fn run(data: &[u8]) {
    for (name, value) in cookie_pairs(data) {
        assert!(!name.is_empty() && !name.contains(['=', ';']) && !value.contains(';'));
    }
    let Ok(raw) = std::str::from_utf8(data) else { return };
    assert_eq!(decode_segment(raw).map(String::from), model(raw, false));
    assert_eq!(decode_form(raw).map(String::from), model(raw, true));

    if let Ok(path) = file_path(raw) {
        assert_eq!(model(raw, false).as_deref(), Ok(&*path));
        assert!(!path.contains(['\0', '\\']));
        let mut depth = 0_usize;
        for segment in path.split('/') {
            depth = depth.checked_add_signed(if segment == ".." { -1 } else { 1 }).expect("below the folder");
        }
        assert_eq!(depth, raw.split('/').count());
    }

    let pairs: Vec<_> = query_pairs(raw).collect();
    let parts: Vec<_> = raw.split('&').filter(|part| !part.is_empty()).collect();
    assert_eq!(pairs.len(), parts.len());
    for (pair, part) in pairs.iter().zip(parts) {
        let mut sides = part.splitn(2, '=');
        let name = model(sides.next().unwrap_or_default(), true);
        let value = model(sides.next().unwrap_or_default(), true);
        match pair {
            Ok((pair_name, pair_value)) => {
                assert_eq!((Ok(&**pair_name), Ok(&**pair_value)), (name.as_deref(), value.as_deref()));
                assert!(query_value(raw, pair_name).map_or(true, |found| found.is_some()));
            }
            Err(error) => assert!(name == Err(*error) || value == Err(*error)),
        }
    }
}

fn model(raw: &str, plus_is_space: bool) -> Result<String, DecodeError> {
    let bytes = raw.as_bytes();
    let (mut decoded, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let (byte, len) = match bytes[at] {
            b'%' => {
                let digits = bytes.get(at + 1..at + 3).ok_or(DecodeError::BadEscape)?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(DecodeError::BadEscape);
                }
                let digits = std::str::from_utf8(digits).expect("ASCII");
                (u8::from_str_radix(digits, 16).expect("two digits"), 3)
            }
            b'+' if plus_is_space => (b' ', 1),
            byte => (byte, 1),
        };
        decoded.push(byte);
        at += len;
    }
    String::from_utf8(decoded).map_err(|_| DecodeError::NotUtf8)
}
