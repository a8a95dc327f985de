//! Whether an outcome is the expected one, and if not, what is wrong with it.

use crate::answer::{self, Answer};
use crate::cases::{CANARY_BODY, Expect, Then};
use crate::target::{End, Outcome, has_canary};

/// The final answers if they are as expected, else a sentence.
pub fn judge(expect: &Expect, outcome: &Outcome) -> Result<Vec<Answer>, String> {
    let is_served = has_canary(&outcome.bytes);
    if outcome.end == End::Hung {
        return Err("the connection hangs".into());
    }
    if is_served && expect.then != Then::Kept {
        return Err("the canary behind it was served".into());
    }
    let to_head: Vec<bool> = expect.answers.iter().map(|answer| answer.to_head).collect();
    let mut answers = answer::read(&outcome.bytes, &to_head, outcome.end == End::Closed)?;
    answers.retain(|answer| !answer.is_interim());
    if expect.then == Then::Kept {
        check_kept(&mut answers, outcome)?;
    }
    check_answers(expect, &answers)?;
    check_end(expect, &answers, outcome)?;
    answers.iter().try_for_each(check_date)?;
    Ok(answers)
}

/// Takes the canary's answer off.
fn check_kept(answers: &mut Vec<Answer>, outcome: &Outcome) -> Result<(), String> {
    let got = statuses(answers);
    match answers.pop() {
        Some(canary) if canary.status == 200 && canary.body == CANARY_BODY.as_bytes() => {}
        _ => return Err(format!("the canary behind it was not served: got {got:?}")),
    }
    if outcome.end != End::Kept {
        return Err(format!("the connection was not kept: {:?}", outcome.end));
    }
    Ok(())
}

fn check_answers(expect: &Expect, answers: &[Answer]) -> Result<(), String> {
    let expected: Vec<u16> = expect.answers.iter().map(|answer| answer.status).collect();
    if statuses(answers) != expected {
        return Err(format!("expected {expected:?}, got {:?}", statuses(answers)));
    }
    for (expected, got) in expect.answers.iter().zip(answers) {
        if let Some(body) = &expected.body
            && *body != got.body
        {
            return Err(format!("expected body {}, got {}", body.escape_ascii(), got.body.escape_ascii()));
        }
    }
    Ok(())
}

fn check_end(expect: &Expect, answers: &[Answer], outcome: &Outcome) -> Result<(), String> {
    let last = answers.len().saturating_sub(1);
    let says = |range: &[Answer]| range.iter().filter(|answer| answer.says_close()).count();
    let (before, at_last) = (says(&answers[..last]), says(&answers[last..]));
    let announced = usize::from(expect.then == Then::Closed);
    if before > 0 || at_last != announced {
        return Err(format!("close is said {before} times before the last answer and {at_last} times in it"));
    }
    // A client that has said that nothing follows, and sends the canary all the same, may be answered with a reset
    // behind the whole answer (docs/decisions/0008).
    let is_last_word = answers.last().is_some_and(|answer| answer.status < 400);
    match (expect.then, outcome.end) {
        (Then::Closed, End::Reset) if is_last_word => Ok(()),
        (Then::Closed, End::Closed) | (Then::Cut, End::Closed | End::Reset) | (Then::Kept, End::Kept) => {
            Ok(())
        }
        (_, end) => Err(format!("the connection ended as {end:?}")),
    }
}

/// One date, of the form `Sun, 06 Nov 1994 08:49:37 GMT`.
fn check_date(answer: &Answer) -> Result<(), String> {
    let dates: Vec<&[u8]> = answer.all("date").collect();
    let shape = b"Aaa, 00 Aaa 0000 00:00:00 GMT";
    let fits = |date: &[u8]| {
        let is_like = |(byte, like): (&u8, &u8)| match like {
            b'0' => byte.is_ascii_digit(),
            b'a' => byte.is_ascii_lowercase(),
            b'A' => byte.is_ascii_uppercase(),
            _ => byte == like,
        };
        date.len() == shape.len() && date.iter().zip(shape).all(is_like)
    };
    match dates[..] {
        [date] if fits(date) => Ok(()),
        _ => Err(format!(
            "dates in one answer: {:?}",
            dates.iter().map(|d| d.escape_ascii().to_string()).collect::<Vec<_>>()
        )),
    }
}

fn statuses(answers: &[Answer]) -> Vec<u16> {
    answers.iter().map(|answer| answer.status).collect()
}
