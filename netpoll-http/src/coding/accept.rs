//! What `Accept-Encoding` says (RFC 9110 section 12.5.3).
//!
//! Invariant: nothing that a client sends is an error. An element that cannot be read is left out, of one that comes twice
//! the first counts, and without the field nothing is coded: clients that can decode say so.

use super::Coding;

/// How much a client wants each coding, in thousandths; zero is a refusal, and `None` was not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    codings: [Option<u16>; Coding::ALL.len()],
    identity: Option<u16>,
    others: Option<u16>,
}

impl Accepted {
    /// Reads the lines of the field, which are one list.
    pub fn read<'l>(lines: impl Iterator<Item = &'l [u8]>) -> Self {
        let mut accepted = Self::default();
        for element in lines.flat_map(|line| line.split(|byte| *byte == b',')) {
            let mut parts = element.split(|byte| *byte == b';');
            let name = parts.next().unwrap_or_default().trim_ascii();
            let weight = match (parts.next(), parts.next()) {
                (None, _) => Some(1000),
                (Some(weight), None) => parse_weight(weight.trim_ascii()),
                _ => None,
            };
            let (Some(place), Some(weight)) = (accepted.place(name), weight) else { continue };
            place.get_or_insert(weight);
        }
        accepted
    }

    fn place(&mut self, name: &[u8]) -> Option<&mut Option<u16>> {
        if name == b"*" {
            return Some(&mut self.others);
        }
        if name.eq_ignore_ascii_case(b"identity") {
            return Some(&mut self.identity);
        }
        let coding = Coding::named(name)?;
        Some(&mut self.codings[coding as usize])
    }

    fn weight(&self, coding: Coding) -> u16 {
        self.codings[coding as usize].or(self.others).unwrap_or(0)
    }

    /// Whether an answer without a coding is refused: by name, or by `*` where it has none.
    pub fn refuses_identity(&self) -> bool {
        self.identity.or(self.others) == Some(0)
    }

    /// The coding that is wanted most, of equals the one that is offered first. `None` if none is wanted, or an answer
    /// without a coding is said to be wanted more.
    pub fn best(&self, offered: impl Iterator<Item = Coding>) -> Option<Coding> {
        let mut best = None;
        // Who does not name identity takes it, and rather has what it does name.
        let mut most = self.identity.unwrap_or(0).saturating_sub(1);
        for coding in offered {
            let weight = self.weight(coding);
            if weight > most {
                (best, most) = (Some(coding), weight);
            }
        }
        best
    }
}

/// `q=0.75`, in thousandths.
fn parse_weight(text: &[u8]) -> Option<u16> {
    let (name, value) = text.split_at_checked(2)?;
    if !name.eq_ignore_ascii_case(b"q=") {
        return None;
    }
    let (whole, fraction) = match value {
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (*whole, fraction),
        [whole] => (*whole, &[][..]),
        _ => return None,
    };
    let mut thousandths = match whole {
        b'0' => 0,
        b'1' => 1000,
        _ => return None,
    };
    for (digit, worth) in fraction.iter().zip([100, 10, 1]) {
        if !digit.is_ascii_digit() {
            return None;
        }
        thousandths += u16::from(digit - b'0') * worth;
    }
    (thousandths <= 1000).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Coding::{Br, Gzip, Zstd};

    fn read(list: &str) -> Accepted {
        Accepted::read(list.as_bytes().split(|byte| *byte == b'|'))
    }

    fn best(list: &str) -> Option<Coding> {
        read(list).best([Zstd, Br, Gzip].into_iter())
    }

    #[test]
    fn what_is_wanted_most_is_taken_and_of_equals_what_is_offered_first() {
        assert_eq!(best("gzip, deflate, br, zstd"), Some(Zstd));
        assert_eq!(best("gzip, br"), Some(Br));
        assert_eq!(best("gzip;q=1.0, br;q=0.9, zstd;q=0.001"), Some(Gzip));
        assert_eq!(best("gzip;q=0.5, br;q=0.501"), Some(Br));
        assert_eq!(best("GZip , BR;Q=0.2"), Some(Gzip));
        assert_eq!(best("x-gzip"), Some(Gzip));
        assert_eq!(best("deflate, compress, sdch"), None);
        assert_eq!(best("gzip;q=0.5|br"), Some(Br), "lines are one list");
    }

    #[test]
    fn a_star_stands_for_what_is_not_named() {
        assert_eq!(best("*"), Some(Zstd));
        assert_eq!(best("*, zstd;q=0, br;q=0"), Some(Gzip));
        assert_eq!(best("gzip, *;q=0"), Some(Gzip));
        assert_eq!(best("*;q=0"), None);
        assert!(read("*;q=0").refuses_identity() && read("gzip, *;q=0").refuses_identity());
        assert!(!read("identity, *;q=0").refuses_identity() && !read("*").refuses_identity());
    }

    #[test]
    fn an_answer_without_a_coding_may_be_wanted_more_or_refused() {
        assert_eq!(best("gzip;q=0.5, identity"), None);
        assert_eq!(best("gzip;q=0.5, identity;q=0.5"), Some(Gzip));
        assert_eq!(best("identity;q=0.5, gzip"), Some(Gzip));
        assert_eq!(best("identity;q=0, gzip;q=0.1"), Some(Gzip));
        assert!(read("identity;q=0, gzip;q=0.1").refuses_identity());
        assert_eq!(best(""), None);
        assert!(!read("").refuses_identity());
    }

    #[test]
    fn what_is_refused_is_not_taken_and_the_first_of_two_counts() {
        assert_eq!(best("gzip;q=0, br;q=0.0, zstd;q=0.000"), None);
        assert_eq!(best("gzip;q=0, gzip"), None);
        assert_eq!(best("gzip, gzip;q=0"), Some(Gzip));
    }

    #[test]
    fn an_element_that_cannot_be_read_is_left_out() {
        for bad in [
            "gzip;q=2",
            "gzip;q=1.001",
            "gzip;q=-1",
            "gzip;q=.5",
            "gzip;q=0.5000",
            "gzip;q=a",
            "gzip;q",
            "gzip;q=",
            "gzip;level=9",
            "gzip;q=1;q=1",
            "gz ip",
            "gzip q=1",
            ";q=1",
            "gzip;",
            "gzip;q=0,5",
        ] {
            assert!(matches!(best(bad), None | Some(Gzip)), "{bad}");
            assert!(best(&format!("{bad}, br;q=0.1")).is_some(), "{bad}");
        }
        assert_eq!(best("gzip;q=2"), None);
        assert_eq!(best("gzip;q=0.12x"), None);
        assert_eq!(best("gzip; q=0.5 , ,,"), Some(Gzip), "white space and empty elements mean nothing");
        assert_eq!(best("gzip;q=1.000"), Some(Gzip));
    }

    #[test]
    fn weights_are_read_to_the_thousandth() {
        for (text, weight) in
            [("q=0", 0), ("q=0.", 0), ("q=1.", 1000), ("q=0.1", 100), ("q=0.05", 50), ("q=0.999", 999)]
        {
            assert_eq!(parse_weight(text.as_bytes()), Some(weight), "{text}");
        }
    }
}
