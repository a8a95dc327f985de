//! One zone, in a table that does not change while it is served.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::message::{A, AAAA, ANY, Code, MX, Question, SOA, Section, TXT};

/// How long others may remember an answer, in seconds.
const SECONDS: u32 = 300;

/// A record of one name.
struct Record {
    kind: u16,
    data: Vec<u8>,
}

/// What is known below one name.
pub struct Zone {
    /// Its own name, as labels in small letters.
    apex: Vec<Vec<u8>>,
    soa: Vec<u8>,
    /// By what stands in front of the zone's name: nothing, or one label, in small letters.
    names: HashMap<Vec<u8>, Vec<Record>>,
}

impl Zone {
    /// `example.test`, which is nobody's (RFC 6761).
    pub fn example() -> Self {
        let mut soa = wire("ns.example.test");
        soa.extend(wire("admin.example.test"));
        // Serial, refresh, retry, expire, and how long it may be remembered that a name does not exist.
        for word in [1_u32, 3600, 600, 86_400, 60] {
            soa.extend(word.to_be_bytes());
        }
        let mut zone = Self { apex: vec![b"example".to_vec(), b"test".to_vec()], soa, names: HashMap::new() };
        zone.add("", A, Ipv4Addr::new(192, 0, 2, 1).octets());
        zone.add("", AAAA, Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets());
        zone.add("", MX, [&10_u16.to_be_bytes()[..], &wire("mail.example.test")].concat());
        zone.add("", TXT, text("served by netpoll"));
        zone.add("www", A, Ipv4Addr::new(192, 0, 2, 80).octets());
        zone.add("mail", A, Ipv4Addr::new(192, 0, 2, 25).octets());
        for index in 0..40_u8 {
            zone.add("many", A, Ipv4Addr::new(192, 0, 2, 100 + index).octets());
        }
        zone
    }

    fn add(&mut self, name: &str, kind: u16, data: impl Into<Vec<u8>>) {
        self.names.entry(name.as_bytes().to_vec()).or_default().push(Record { kind, data: data.into() });
    }

    /// Writes the answer to a question.
    pub fn answer(&self, question: &Question<'_>, out: &mut Vec<u8>) {
        let labels = question.labels().count();
        let is_ours = labels >= self.apex.len()
            && question
                .labels()
                .skip(labels - self.apex.len())
                .zip(&self.apex)
                .all(|(asked, own)| asked.eq_ignore_ascii_case(own));
        if !is_ours {
            return question.reply(Code::Refused, out).finish();
        }
        // Where the zone's own name begins in the one that was asked for.
        let apex_start: usize =
            question.labels().take(labels - self.apex.len()).map(|label| 1 + label.len()).sum();
        let Some(records) = self.records(question, labels - self.apex.len()) else {
            let mut answer = question.reply(Code::NoSuchName, out);
            answer.record(Section::Authority, apex_start, SOA, 60, &self.soa);
            return answer.finish();
        };
        let mut answer = question.reply(Code::Answered, out);
        let mut is_empty = true;
        if apex_start == 0 && matches!(question.kind, SOA | ANY) {
            answer.record(Section::Answer, 0, SOA, SECONDS, &self.soa);
            is_empty = false;
        }
        for record in records.iter().filter(|record| question.kind == record.kind || question.kind == ANY) {
            answer.record(Section::Answer, 0, record.kind, SECONDS, &record.data);
            is_empty = false;
        }
        if is_empty {
            // The name exists, but has nothing of the kind.
            answer.record(Section::Authority, apex_start, SOA, 60, &self.soa);
        }
        answer.finish();
    }

    /// What is known of a name with so many labels in front of the zone's.
    fn records(&self, question: &Question<'_>, labels: usize) -> Option<&[Record]> {
        let mut small = [0; 63];
        let label = match labels {
            0 => &[],
            1 => question.labels().next()?,
            _ => return None,
        };
        let small = &mut small[..label.len()];
        small.copy_from_slice(label);
        small.make_ascii_lowercase();
        self.names.get(&*small).map(Vec::as_slice)
    }
}

/// A name as it stands in messages.
fn wire(name: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = name.split('.').flat_map(text).collect();
    bytes.push(0);
    bytes
}

/// A text of at most 255 bytes with its length in front.
fn text(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}
