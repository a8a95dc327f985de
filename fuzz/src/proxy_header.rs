//! The header of the PROXY protocol: what it is does not change when more follows, and it is judged from the fewest bytes that say so.

use netpoll_core::internals::{Parsed, parse_proxy_header};

/// # Panics
/// If a beginning is judged otherwise than the whole.
pub fn run(data: &[u8]) {
    let whole = parse_proxy_header(data);
    if let Parsed::Header { bytes, .. } = whole {
        assert!(bytes <= data.len());
        assert_eq!(parse_proxy_header(&data[..bytes]), whole);
    }
    let judged =
        (0..data.len()).map(|end| parse_proxy_header(&data[..end])).find(|seen| *seen != Parsed::Partial);
    assert!(judged.is_none_or(|judged| judged == whole));
}
