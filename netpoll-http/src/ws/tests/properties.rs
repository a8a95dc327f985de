//! What holds for all streams, tried on generated ones.

use proptest::prelude::*;

use super::*;
use crate::ws::frame::Head;

/// Frames that are each fine, or wrong in a way that matters, mostly the former.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        "[a-z]{0,10}".prop_map(String::into_bytes),
        "[aäß€中😀]{0,60}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..12),
        prop::collection::vec(any::<u8>(), 120..140),
        Just(b"\x03\xe8ok".to_vec()),
        Just("€".as_bytes()[..2].to_vec()),
    ];
    let first = prop_oneof![
        20 => prop::sample::select(vec![0x81, 0x82, 0x01, 0x02, 0x00, 0x00, 0x80, 0x80, 0x89, 0x8a]),
        1 => Just(0x88),
        1 => any::<u8>(),
    ];
    let frame = (first, payload, any::<[u8; 4]>(), 0..40_u8).prop_map(|(first, mut payload, key, fault)| {
        if first & 8 != 0 {
            payload.truncate(125);
        }
        let mut head = Head::masked(Kind::TEXT, payload.len(), key).to_vec();
        head[0] = first;
        if fault == 0 {
            head[1] &= 0x7f;
        }
        Mask::new(key).apply(&mut payload);
        [head, payload].concat()
    });
    prop::collection::vec(frame, 0..12).prop_map(|frames| frames.concat())
}

/// Frame by frame, from the RFC: what a server sees of a stream of whole frames.
fn model(bytes: &[u8], compression: bool, limits: Limits) -> Vec<Seen> {
    let mut seen = Vec::new();
    match model_until_failed(bytes, compression, limits, &mut seen) {
        Ok(()) => seen,
        Err(violation) => {
            seen.push(Seen::Failed(violation));
            seen
        }
    }
}

fn model_until_failed(
    mut bytes: &[u8],
    compression: bool,
    limits: Limits,
    seen: &mut Vec<Seen>,
) -> Result<(), Violation> {
    // Opcode, whether compressed, payload so far, fragments.
    let mut message: Option<(u8, bool, Vec<u8>, u32)> = None;
    while let [first, behind @ ..] = bytes {
        let (fin, rsv, opcode) = (first & 0x80 != 0, first & 0x70, first & 0xf);
        if !matches!(opcode, 0..=2 | 8..=10) {
            return Err(Violation::ReservedOpcode);
        }
        if rsv != 0 && !(rsv == 0x40 && compression && matches!(opcode, 1 | 2)) {
            return Err(Violation::ReservedBits);
        }
        if opcode == 0 && message.is_none() {
            return Err(Violation::NothingToContinue);
        }
        if matches!(opcode, 1 | 2) && message.is_some() {
            return Err(Violation::MessageInMessage);
        }
        if opcode >= 8 && !fin {
            return Err(Violation::ControlFragmented);
        }
        let [second, behind @ ..] = behind else { return Ok(()) };
        if second & 0x80 == 0 {
            return Err(Violation::NotMasked);
        }
        let length = second & 0x7f;
        if opcode >= 8 && length > 125 {
            return Err(Violation::ControlTooLong);
        }
        let length_bytes = match length {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if behind.len() < length_bytes {
            return Ok(());
        }
        let (long, behind) = behind.split_at(length_bytes);
        let len = long.iter().fold(0_u64, |len, byte| len << 8 | u64::from(*byte));
        let len = if length_bytes == 0 { u64::from(length) } else { len };
        if length_bytes == 2 && len < 126 || length_bytes == 8 && len < 65_536 {
            return Err(Violation::LengthNotMinimal);
        }
        if len >> 63 != 0 {
            return Err(Violation::LengthTooLarge);
        }
        if behind.len() < 4 {
            return Ok(());
        }
        let (key, behind) = behind.split_at(4);
        if opcode < 8 {
            let (_, _, so_far, fragments) = message.get_or_insert((opcode, rsv != 0, Vec::new(), 0));
            *fragments += 1;
            if opcode == 0 && *fragments > limits.fragments_max {
                return Err(Violation::TooManyFragments);
            }
            if so_far.len() as u64 + len > u64::from(limits.message_bytes_max) {
                return Err(Violation::MessageTooLarge);
            }
        }
        let here = behind.len().min(len as usize);
        let (payload, behind) = behind.split_at(here);
        let payload: Vec<u8> = payload.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect();
        let is_whole = here as u64 == len;
        if let (0..=2, Some((kind, is_compressed, so_far, _))) = (opcode, &mut message) {
            so_far.extend(&payload);
            if *kind == 1 && !*is_compressed {
                match std::str::from_utf8(so_far) {
                    Ok(_) => {}
                    Err(error) if error.error_len().is_none() && !(fin && is_whole) => {}
                    Err(_) => return Err(Violation::BadText),
                }
            }
        }
        if !is_whole {
            return Ok(());
        }
        match opcode {
            8 => {
                let close = Close::parse(&payload)?;
                seen.push(Seen::Close(close.code.map(CloseCode::get), close.reason.to_owned()));
                return Ok(());
            }
            9 => seen.push(Seen::Ping(payload)),
            10 => seen.push(Seen::Pong(payload)),
            _ if fin => match message.take().expect("one has begun") {
                (kind, true, payload, _) => seen.push(Seen::Compressed(kind == 1, payload)),
                (1, false, payload, _) => {
                    seen.push(Seen::Text(String::from_utf8(payload).expect("judged above")))
                }
                (_, false, payload, _) => seen.push(Seen::Binary(payload)),
            },
            _ => {}
        }
        bytes = behind;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn however_a_stream_is_cut_a_reader_sees_what_the_rfc_says(
        stream in streams(),
        steps in prop::collection::vec(1_usize..90, 1..9),
        compression: bool,
        message_bytes_max in prop::sample::select(vec![30, 300, 1 << 20]),
        fragments_max in prop::sample::select(vec![3, 100]),
    ) {
        let limits = Limits { message_bytes_max, fragments_max };
        let expected = model(&stream, compression, limits);
        prop_assert_eq!(&seen_within(&stream, Role::Server, compression, limits), &expected);
        let (mut reader, mut seen) = (Reader::new(Role::Server, compression, limits), Vec::new());
        let (mut at, mut steps) = (0, steps.into_iter().cycle());
        while at < stream.len() {
            let end = stream.len().min(at + steps.next().unwrap_or(1));
            feed(&mut reader, &stream[at..end], &mut seen);
            at = end;
            prop_assert!(reader.gathered_bytes() <= (2 * end).max(512).min(message_bytes_max as usize + 125));
            prop_assert!(!reader.is_between_messages() || reader.gathered_bytes() == 0);
        }
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn what_is_sent_is_what_is_read(
        payload in prop::collection::vec(any::<u8>(), 0..70_000),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        key: [u8; 4],
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).chain([0, payload.len()]).collect();
        cuts.sort_unstable();
        let fragments = cuts.len() - 1;
        let (mut of_client, mut of_server) = (Vec::new(), Vec::new());
        for (at, piece) in cuts.windows(2).map(|ends| &payload[ends[0]..ends[1]]).enumerate() {
            let kind = match (at == 0, at + 1 == fragments) {
                (true, true) => Kind::BINARY,
                (true, false) => Kind::BINARY.first(),
                (false, true) => Kind::LAST,
                (false, false) => Kind::CONTINUATION,
            };
            frame::push_masked(&mut of_client, kind, piece, key);
            frame::push(&mut of_server, kind, piece);
        }
        for (role, bytes) in [(Role::Server, of_client), (Role::Client, of_server)] {
            for step in [bytes.len(), 4096] {
                let (seen, _) = seen_in_steps(Reader::new(role, false, Limits::default()), &bytes, step);
                prop_assert!(seen == [Seen::Binary(payload.clone())]);
            }
        }
    }

    #[test]
    fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..300), compression: bool) {
        let seen = seen_within(&bytes, Role::Client, compression, Limits::default());
        let ends = seen.iter().filter(|seen| matches!(seen, Seen::Close(..) | Seen::Failed(_))).count();
        prop_assert!(ends <= 1);
    }
}
