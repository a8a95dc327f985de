//! The frames of an open WebSocket come to the same messages however they arrive, and to what a model says that sees all of them at once.

use netpoll_http::internals::ws::{Close, CloseCode, Event, Limits, Reader, Role, Violation};

/// An event that owns what it says.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Message { is_text: bool, is_compressed: bool, payload: Vec<u8> },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<CloseCode>, String),
    Failed(Violation),
}

fn seen(event: &Event<'_>) -> Seen {
    let message = |is_text, is_compressed, payload: &[u8]| Seen::Message {
        is_text,
        is_compressed,
        payload: payload.to_vec(),
    };
    match event {
        Event::Text(text) => message(true, false, text.as_bytes()),
        Event::Binary(payload) => message(false, false, payload),
        Event::Compressed { is_text, payload } => message(*is_text, true, payload),
        Event::Ping(payload) => Seen::Ping(payload.to_vec()),
        Event::Pong(payload) => Seen::Pong(payload.to_vec()),
        Event::Close(close) => Seen::Close(close.code, close.reason.to_owned()),
        Event::Failed(violation) => Seen::Failed(*violation),
    }
}

#[derive(Clone, Copy)]
struct Setting {
    role: Role,
    compression: bool,
    limits: Limits,
}

fn read(bytes: &[u8], step: usize, setting: Setting) -> Vec<Seen> {
    let mut reader = Reader::new(setting.role, setting.compression, setting.limits);
    let (mut all, mut fed) = (Vec::new(), 0);
    for chunk in bytes.chunks(step) {
        let mut chunk = chunk.to_vec();
        let mut rest = chunk.as_mut_slice();
        while let Some(event) = reader.next(&mut rest) {
            all.push(seen(&event));
        }
        assert!(rest.is_empty());
        fed += chunk.len();
        assert!(reader.gathered_bytes() <= (2 * fed).max(512));
        assert!(reader.gathered_bytes() <= setting.limits.message_bytes_max as usize + 125);
        if reader.is_between_messages() || reader.is_done() {
            assert_eq!(reader.gathered_bytes(), 0);
        }
    }
    assert_eq!(reader.is_done(), matches!(all.last(), Some(Seen::Failed(_) | Seen::Close(..))));
    all
}

/// The first byte picks role, extension and limits, the second the size of reads, the others are the stream.
///
/// # Panics
/// If two ways of cutting disagree, or the reader and the model do.
pub fn run(data: &[u8]) {
    let [choice, step, bytes @ ..] = data else { return };
    let setting = Setting {
        role: if choice & 1 == 0 { Role::Server } else { Role::Client },
        compression: choice & 2 != 0,
        limits: Limits {
            message_bytes_max: [16, 300, 1 << 20][usize::from(choice >> 2) % 3],
            fragments_max: [3, 16_384][usize::from(choice >> 4) % 2],
        },
    };
    let whole = read(bytes, bytes.len().max(1), setting);
    for step in [1, usize::from(*step) + 2] {
        assert_eq!(read(bytes, step, setting), whole);
    }
    let mut expected = Vec::new();
    if let Err(violation) = model(bytes, setting, &mut expected) {
        expected.push(Seen::Failed(violation));
    }
    assert_eq!(whole, expected);
}

/// RFC 6455 sections 5 and 8.1, frame by frame.
fn model(mut bytes: &[u8], setting: Setting, seen: &mut Vec<Seen>) -> Result<(), Violation> {
    // Whether text, whether compressed, payload, fragments.
    let mut message: Option<(bool, bool, Vec<u8>, u32)> = None;
    while let Some(&first) = bytes.first() {
        let (is_last, bits, opcode) = (first >> 7 == 1, first >> 4 & 7, first & 15);
        match opcode {
            0..=2 | 8..=10 => {}
            _ => return Err(Violation::ReservedOpcode),
        }
        let may_be_compressed = setting.compression && (1..=2).contains(&opcode);
        if bits != 0 && !(bits == 4 && may_be_compressed) {
            return Err(Violation::ReservedBits);
        }
        match (opcode, &message) {
            (0, None) => return Err(Violation::NothingToContinue),
            (1 | 2, Some(_)) => return Err(Violation::MessageInMessage),
            (8.., _) if !is_last => return Err(Violation::ControlFragmented),
            _ => {}
        }
        let Some(&second) = bytes.get(1) else { return Ok(()) };
        match (setting.role, second >> 7) {
            (Role::Server, 0) => return Err(Violation::NotMasked),
            (Role::Client, 1) => return Err(Violation::Masked),
            _ => {}
        }
        let short = second & 127;
        if opcode >= 8 && short > 125 {
            return Err(Violation::ControlTooLong);
        }
        let length_bytes = [0, 2, 8][usize::from(short.saturating_sub(125))];
        let Some(long) = bytes.get(2..2 + length_bytes) else { return Ok(()) };
        let long = long.iter().fold(0, |length, &byte| length << 8 | u64::from(byte));
        let length = match length_bytes {
            0 => u64::from(short),
            2 if long < 126 => return Err(Violation::LengthNotMinimal),
            8 if long < 1 << 16 => return Err(Violation::LengthNotMinimal),
            8 if long >= 1 << 63 => return Err(Violation::LengthTooLarge),
            _ => long,
        };
        let key_bytes = if setting.role == Role::Server { 4 } else { 0 };
        let Some(key) = bytes.get(2 + length_bytes..2 + length_bytes + key_bytes) else { return Ok(()) };
        let behind = &bytes[2 + length_bytes + key_bytes..];
        if opcode < 8 {
            let (_, _, payload, fragments) = message.get_or_insert((opcode == 1, bits == 4, Vec::new(), 0));
            *fragments += 1;
            if opcode == 0 && *fragments > setting.limits.fragments_max {
                return Err(Violation::TooManyFragments);
            }
            if length > u64::from(setting.limits.message_bytes_max) - payload.len() as u64 {
                return Err(Violation::MessageTooLarge);
            }
        }
        let here = behind.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        let is_whole = here as u64 == length;
        let unmasked = behind[..here].iter().zip((0..4).cycle());
        let unmasked: Vec<u8> = unmasked.map(|(byte, at)| byte ^ key.get(at).copied().unwrap_or(0)).collect();
        bytes = &behind[here..];
        match opcode {
            8.. if !is_whole => return Ok(()),
            8 => {
                let close = Close::parse(&unmasked)?;
                seen.push(Seen::Close(close.code, close.reason.to_owned()));
                return Ok(());
            }
            9 => seen.push(Seen::Ping(unmasked)),
            10 => seen.push(Seen::Pong(unmasked)),
            _ => {
                let Some((is_text, is_compressed, payload, _)) = &mut message else {
                    unreachable!("begun above")
                };
                payload.extend(unmasked);
                let is_end = is_last && is_whole;
                if *is_text && !*is_compressed {
                    match std::str::from_utf8(payload) {
                        Err(error) if is_end || error.error_len().is_some() => {
                            return Err(Violation::BadText);
                        }
                        _ => {}
                    }
                }
                if is_end && let Some((is_text, is_compressed, payload, _)) = message.take() {
                    seen.push(Seen::Message { is_text, is_compressed, payload });
                }
                if !is_whole {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}
