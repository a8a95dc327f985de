//! A compressed message is the same for an inflater that is new and for one that has seen others, is bounded by its limit, and what is deflated comes back.

use std::cell::RefCell;

use netpoll_http::internals::ws::{Deflater, Event, Inflater, Limits, Violation};

thread_local! {
    // One that has seen all other inputs, as that of a worker has.
    static DEFLATER: RefCell<Deflater> = RefCell::new(Deflater::new());
    static USED: RefCell<Inflater> = RefCell::new(Inflater::new());
}

/// The message, or what is wrong with it.
fn inflate(inflater: &mut Inflater, payload: &[u8], message_bytes_max: u32) -> Result<Vec<u8>, Violation> {
    let limits = Limits { message_bytes_max, ..Limits::default() };
    match inflater.inflate(false, payload, &limits) {
        Event::Binary(bytes) => Ok(bytes.to_vec()),
        Event::Failed(violation) => Err(violation),
        other => panic!("{other:?}"),
    }
}

/// The first byte picks the limit, the others are the payload, and once more a message.
///
/// # Panics
/// If what an inflater has seen makes a difference, a limit is passed or a message changes on its way.
pub fn run(data: &[u8]) {
    let Some((&choice, payload)) = data.split_first() else { return };
    let limit = [100, 4096, 65_536, 1 << 20][usize::from(choice) % 4];
    let message = inflate(&mut Inflater::new(), payload, limit);
    USED.with_borrow_mut(|used| {
        DEFLATER.with_borrow_mut(|deflater| judge(payload, limit, &message, used, deflater))
    });
}

fn judge(
    payload: &[u8],
    limit: u32,
    message: &Result<Vec<u8>, Violation>,
    used: &mut Inflater,
    deflater: &mut Deflater,
) {
    let half = payload.get(payload.len() / 2..).unwrap_or_default();
    for other in [half, payload, half, b"\xff"] {
        let _ = inflate(used, other, 1 << 16);
        assert_eq!(inflate(used, payload, limit), *message);
    }
    match message {
        Ok(message) => {
            assert!(message.len() <= limit as usize);
            assert_eq!(
                inflate(used, payload, u32::MAX >> 8).as_ref(),
                Ok(message),
                "a limit changes no message"
            );
            if let Some(less) = (message.len() as u32).checked_sub(1) {
                assert_eq!(inflate(used, payload, less), Err(Violation::MessageTooLarge));
            }
            let limits = Limits { message_bytes_max: limit, ..Limits::default() };
            match used.inflate(true, payload, &limits) {
                Event::Text(text) => assert_eq!(text.as_bytes(), message),
                Event::Failed(Violation::BadText) => assert!(std::str::from_utf8(message).is_err()),
                other => panic!("{other:?}"),
            }
        }
        Err(violation) => {
            assert!(matches!(violation, Violation::MessageTooLarge | Violation::BadCompression))
        }
    }
    for message in [payload.to_vec(), payload.repeat(40)] {
        if let Some(payload) = deflater.deflate(&message) {
            assert!(payload.len() < message.len());
            assert_eq!(inflate(used, payload, 1 << 20), Ok(message));
        }
    }
}
