//! What a client accepts can be read whatever it says, and a body that is decoded keeps to its bounds.

use netpoll_http::Coding;
use netpoll_http::internals::coding::{Accepted, Bounds, Undecoded, decode};

const ALL: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];

/// The first byte picks bounds; the others are a field, and once more a body.
///
/// # Panics
/// If a coding is chosen that is not offered, lines are not one list, a bound is passed, or makes another body of one.
pub fn run(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else { return };
    judge_field(rest);
    judge_body(choice, rest);
}

fn judge_field(field: &[u8]) {
    let accepted = Accepted::read([field].into_iter());
    assert_eq!(accepted, Accepted::read(field.split(|byte| *byte == b',')), "lines are one list");
    let best = accepted.best(ALL.into_iter());
    for offered in ALL {
        let alone = accepted.best([offered].into_iter());
        assert!(alone.is_none_or(|coding| coding == offered));
        assert!(best.is_some() || alone.is_none(), "what is wanted alone is wanted among others");
    }
    if let Some(best) = best {
        assert_eq!(accepted.best([best].into_iter()), Some(best));
    }
}

fn judge_body(choice: u8, body: &[u8]) {
    let bytes_max = [0, 100, 5000, 1 << 20][usize::from(choice) % 4];
    let ratio_max = [1, 20, 5000, usize::MAX][usize::from(choice) / 4 % 4];
    let bounded = decode(Coding::Gzip, body, Bounds { bytes_max, ratio_max });
    let whole = decode(Coding::Gzip, body, Bounds { bytes_max: 8 << 20, ratio_max: usize::MAX });
    match (bounded, whole) {
        (Ok(bounded), whole) => {
            assert!(bounded.len() <= bytes_max);
            assert_eq!(whole.as_ref(), Ok(&bounded), "a bound makes no other body");
        }
        // What comes out behind the bound is not looked at.
        (Err(Undecoded::TooLarge | Undecoded::TooDense), Ok(whole)) => {
            assert!(whole.len() > bytes_max || whole.len() > 64 * 1024);
        }
        (Err(Undecoded::TooLarge | Undecoded::TooDense), Err(_)) => {}
        (Err(bounded), whole) => assert_eq!(whole, Err(bounded)),
    }
}
