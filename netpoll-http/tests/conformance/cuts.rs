//! What happens to bytes does not depend on how they were cut, whether they make sense or not.
//!
//! The cases of the table are changed at random: nobody knows what the answer to such bytes should be, but it
//! has to be the same one for every cut, and the canary is served in all of them or in none.

use proptest::prelude::*;
use proptest::sample::select;

use crate::cases::{self, CANARY};
use crate::target::{End, Memory, Outcome, Target};

/// Bytes that mean something to somebody.
const TELLING: &[u8] = b"\r\n\r\n \t:,;=/*?#%\"\\0159afxAFGHT._-+\0\x0b\x16\x7f\x80\xff";

#[derive(Clone, Debug)]
enum Change {
    Replace(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Double(prop::sample::Index, prop::sample::Index),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            _ if bytes.is_empty() => {}
            Change::Replace(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Change::Insert(at, byte) => bytes.insert(at.index(bytes.len()), *byte),
            Change::Remove(at) => drop(bytes.remove(at.index(bytes.len()))),
            Change::Double(from, to) => {
                let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
                let part = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.splice(to..to, part);
            }
        }
    }
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let index = any::<prop::sample::Index>;
    let change = prop_oneof![
        (index(), select(TELLING)).prop_map(|(at, byte)| Change::Replace(at, byte)),
        (index(), select(TELLING)).prop_map(|(at, byte)| Change::Insert(at, byte)),
        index().prop_map(Change::Remove),
        (index(), index()).prop_map(|(from, to)| Change::Double(from, to)),
    ];
    prop::collection::vec(change, 1..4)
}

/// Short requests of the table, without those whose answer may depend on whether the body is there yet.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let all = cases::all_rows().flat_map(|row| (row.cases)()).map(|case| case.request);
    let is_short = |request: &Vec<u8>| request.len() < 300 && !contains(request, b"xpect");
    select(all.filter(is_short).collect::<Vec<_>>())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The statuses in the order in which they came, and the end. A cut may let RST take the place of FIN
/// where the connection is cut without an answer.
fn essence(outcome: &Outcome) -> (Vec<&[u8]>, bool) {
    let starts = outcome.bytes.windows(12).filter(|window| window.starts_with(b"HTTP/1.1 "));
    let statuses = starts.map(|window| &window[9..]).filter(|status| *status != b"100");
    (statuses.collect(), outcome.end == End::Kept)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_cut_changes_what_is_answered(
        mut request in requests(),
        changes in changes(),
        first in any::<prop::sample::Index>(),
        second in any::<prop::sample::Index>(),
    ) {
        changes.iter().for_each(|change| change.apply(&mut request));
        request.extend_from_slice(CANARY);
        let whole = Memory.exchange(&[&request]);
        let (first, second) = (first.index(request.len()), second.index(request.len()));
        let (left, right) = (first.min(second), first.max(second));
        let three = Memory.exchange(&[&request[..left], &request[left..right], &request[right..]]);
        prop_assert_eq!(essence(&whole), essence(&three), "{}", request.escape_ascii());
        let drips: Vec<&[u8]> = request.chunks(1).collect();
        let dripped = Memory.exchange(&drips);
        prop_assert_eq!(essence(&whole), essence(&dripped), "byte by byte: {}", request.escape_ascii());
    }
}
