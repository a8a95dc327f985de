//! Whether what came back is what was asked, or something else that the RFCs permit.

use crate::answers::{self, Answer, Answers};
use crate::cases::{Case, Expect, Level, Then};
use crate::exchange::{End, Outcome, exchange};
use crate::site::{self, CANARY, Site, Want};

/// What came of a case.
#[derive(Debug)]
pub enum Verdict {
    Passed {
        /// Refused, though the RFCs permit to serve it.
        is_stricter: bool,
    },
    Failed {
        expected: String,
        /// How many final answers came.
        answers: usize,
        got: String,
    },
    /// The server lacks the route, or the case is about the fixture only.
    NotJudged,
}

/// Sends the case and judges the outcome.
pub fn judge(site: &Site, case: &Case, level: Level) -> Verdict {
    if site::lacks_route(site, case, level) {
        return Verdict::NotJudged;
    }
    let request = site::request(case);
    let to_head = case.expect.answers.iter().map(|answer| answer.to_head).collect();
    let trial = Trial { site, case, level, to_head };
    // A connection that has to end may break under the canary and take the answer with it (9112 9.6 has lingering
    // as a SHOULD). That the canary is not served is known by then; the answer may come without it.
    let with_canary = trial.run(&[&request, CANARY].concat());
    let is_cut = case.expect.then == Then::Closed
        && matches!(&with_canary, Verdict::Failed { answers, .. } if *answers < case.expect.answers.len());
    if is_cut { trial.run(&request) } else { with_canary }
}

/// A case and where it is sent.
struct Trial<'a> {
    site: &'a Site,
    case: &'a Case,
    level: Level,
    to_head: Vec<bool>,
}

impl Trial<'_> {
    fn run(&self, bytes: &[u8]) -> Verdict {
        let is_done = |bytes: &[u8]| {
            let last = answers::read(bytes, &self.to_head, false).finals.pop();
            last.is_some_and(|last| self.site.is_canary(&last))
        };
        let outcome = match exchange(self.site.to, bytes, is_done) {
            Ok(outcome) => outcome,
            Err(error) => return self.failed(0, error.to_string()),
        };
        let is_ended = matches!(outcome.end, End::Closed | End::Reset);
        let answers = answers::read(&outcome.bytes, &self.to_head, is_ended);
        if answers.interims > 0 && answers::find(bytes, b"HTTP/1.0\r\n").is_some() {
            return self.failed(answers.finals.len(), "a 1xx to HTTP/1.0".to_owned());
        }
        let fits = |expect: &&Expect| fits(self.site, &self.wants(expect), expect.then, &answers, &outcome);
        // A message that may be refused and the connection kept can be parsed, and silence is no answer to it.
        let is_parsed = self.case.or.iter().any(|other| other.then == Then::Kept && is_refusal(other));
        let is_mute =
            is_parsed && outcome.end == End::Closed && answers.finals.len() < self.case.expect.answers.len();
        match self.permitted().find(|expect| !is_mute && fits(expect)) {
            Some(expect) => {
                let may_serve = self.level == Level::Ours || self.permitted().any(|other| !is_refusal(other));
                Verdict::Passed { is_stricter: may_serve && is_refusal(expect) }
            }
            None => self.failed(answers.finals.len(), describe(self.site, &answers, &outcome)),
        }
    }

    fn permitted(&self) -> impl Iterator<Item = &Expect> {
        std::iter::once(&self.case.expect).chain(&self.case.or)
    }

    fn wants(&self, expect: &Expect) -> Vec<Want> {
        site::wants(self.case, self.level, expect)
    }

    fn failed(&self, answers: usize, got: String) -> Verdict {
        let one = |expect: &Expect| format!("{}, then {}", names(&self.wants(expect)), then(expect.then));
        let expected: Vec<String> = self.permitted().map(one).collect();
        Verdict::Failed { expected: expected.join("; or "), answers, got }
    }
}

/// Whether the last answer is a refusal for what the case is about, not for a route.
fn is_refusal(expect: &Expect) -> bool {
    let of_the_message = |status| (400..600).contains(&status) && !matches!(status, 404 | 405);
    expect.answers.last().is_none_or(|last| of_the_message(last.status))
}

fn fits(site: &Site, wants: &[Want], then: Then, answers: &Answers, outcome: &Outcome) -> bool {
    let is_ended = matches!(outcome.end, End::Closed | End::Reset);
    // A broken connection may take the last answer with it.
    let is_clean = answers.rest.is_empty() || outcome.end == End::Reset;
    let finals = &answers.finals;
    let all_fit = wants.iter().zip(finals).all(|(want, answer)| site.fits(want, answer));
    if !is_clean || !all_fit {
        return false;
    }
    if then == Then::Waits {
        return finals.is_empty() && outcome.end == End::Silent;
    }
    if let Some(missing) = wants.get(finals.len()) {
        let announced = finals.last().is_some_and(|last| last.is_last);
        let is_last = finals.len() + 1 == wants.len();
        return is_ended && (announced || (is_last && *missing == Want::Refusal));
    }
    let behind = &finals[wants.len()..];
    match then {
        // A server need not keep a connection, but says so; a refusal, or a body it does not want, may end it.
        Then::Kept if behind.is_empty() => {
            let may_end = |(want, answer): (&Want, &Answer)| {
                answer.is_last || (matches!(want, Want::Any | Want::Refusal) && answer.status >= 400)
            };
            is_ended && wants.last().zip(finals.last()).is_some_and(may_end)
        }
        Then::Kept => behind.len() == 1 && site.is_canary(&behind[0]),
        Then::Closed | Then::Cut => behind.is_empty() && is_ended,
        Then::Waits => false,
    }
}

fn names(wants: &[Want]) -> String {
    let name = |want: &Want| match want {
        Want::Plain => "Hello".to_owned(),
        Want::Echo(body) => format!("echo of {}", short(body)),
        Want::Refusal => "refusal".to_owned(),
        Want::Any => "any answer".to_owned(),
    };
    let names: Vec<String> = wants.iter().map(name).collect();
    if names.is_empty() { "no answer".to_owned() } else { names.join(", ") }
}

fn then(then: Then) -> &'static str {
    match then {
        Then::Kept => "the canary",
        Then::Closed | Then::Cut => "the end",
        Then::Waits => "silence",
    }
}

fn describe(site: &Site, answers: &Answers, outcome: &Outcome) -> String {
    let one = |answer: &Answer| {
        let (status, body) = (answer.status, short(&answer.body));
        if site.is_canary(answer) { format!("canary ({status})") } else { format!("{status} {body}") }
    };
    let mut parts: Vec<String> = answers.finals.iter().map(one).collect();
    if !answers.rest.is_empty() {
        parts.push(format!("bytes that are no answer: {}", short(&answers.rest)));
    }
    parts.push(
        match outcome.end {
            End::Kept => "kept open",
            End::Closed => "closed",
            End::Reset => "reset",
            End::Silent => "the connection hangs",
        }
        .to_owned(),
    );
    parts.join(", ")
}

/// The first bytes, in ASCII.
pub fn short(bytes: &[u8]) -> String {
    const SHOWN: usize = 160;
    let dots = if bytes.len() > SHOWN { ".." } else { "" };
    format!("{}{dots}", bytes[..bytes.len().min(SHOWN)].escape_ascii())
}
