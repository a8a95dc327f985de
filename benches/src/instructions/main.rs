//! `cargo bench-instructions`: how many instructions the hot paths take, held against `benches/instructions.txt`.
//!
//! Each case runs twice under callgrind, with two numbers of rounds; the difference leaves out start and end. Time
//! varies with the machine and its neighbours, a count repeats to the digit, so a count may decide whether a change
//! is let in: the program fails when a case grew by more than 2 %.
//!
//! ```text
//! cargo bench-instructions [CASE...]            compare, all cases or those whose name holds a word
//! cargo bench-instructions --update             rewrite the file, after a change that is worth its price
//! ```
//!
//! A count still depends on the compiler, and on code that the C library and `memchr` choose by CPU. The C library is
//! told to use what every x86_64 has; compiler, C library and what the CPU offers under valgrind are kept in the
//! file. Where one of them differs the counts are printed and decide nothing.
//!
//! Exit status: 0 nothing grew, 1 something did or the file lacks a case, 2 could not count, 3 not comparable.

mod cases;
mod count;
mod kept;

use std::process::ExitCode;

use cases::{CASES, Case};
use kept::{Environment, Kept, Verdict};

fn main() -> ExitCode {
    let args = benches::arguments(include_str!("main.rs"));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        // What the program asks of itself, under callgrind.
        [count::RUN, name, rounds] => run(name, rounds),
        [count::CPU] => {
            println!("{}", count::cpu());
            Ok(ExitCode::SUCCESS)
        }
        ["--update"] => update(),
        _ => match args.iter().find(|arg| arg.starts_with('-')) {
            Some(unknown) => Err(format!("unknown option {unknown}; known: --update")),
            None => compare(&args),
        },
    };
    done.unwrap_or_else(|reason| {
        eprintln!("instructions: {reason}");
        ExitCode::from(2)
    })
}

fn run(name: &str, rounds: &str) -> Result<ExitCode, String> {
    let case = CASES.iter().find(|case| case.name == name).ok_or("no such case")?;
    let rounds = rounds.parse().map_err(|error| format!("{rounds}: {error}"))?;
    (case.run)(rounds);
    Ok(ExitCode::SUCCESS)
}

fn update() -> Result<ExitCode, String> {
    let environment = Environment::here()?;
    let counts = CASES.iter().map(|case| Ok((case.name.to_owned(), count::instructions(case)?)));
    let kept = Kept { environment, counts: counts.collect::<Result<_, String>>()? };
    kept.write()?;
    println!("{}: {} cases", kept::FILE, CASES.len());
    Ok(ExitCode::SUCCESS)
}

fn compare(words: &[&str]) -> Result<ExitCode, String> {
    let is_wanted = |case: &&Case| words.is_empty() || words.iter().any(|word| case.name.contains(word));
    let kept = Kept::read()?;
    let environment = Environment::here()?;
    println!("{:<28}{:>10}{:>10}{:>9}", "case", "kept", "now", "change");
    let mut is_good = true;
    for case in CASES.iter().filter(is_wanted) {
        let now = count::instructions(case)?;
        let before = kept.counts.get(case.name).copied();
        let verdict = Verdict::of(before, now);
        is_good &= verdict.is_good();
        let before = before.map_or_else(|| "-".to_owned(), |before| before.to_string());
        println!("{:<28}{before:>10}{now:>10}{verdict}", case.name);
    }
    for name in kept.counts.keys().filter(|name| CASES.iter().all(|case| case.name != **name)) {
        println!("{name:<28} is kept, but there is no such case");
        is_good = false;
    }
    let differences = kept.environment.differences(&environment);
    if !differences.is_empty() {
        println!("not comparable, decides nothing: {}", differences.join("; "));
        return Ok(ExitCode::from(3));
    }
    if is_good {
        return Ok(ExitCode::SUCCESS);
    }
    println!("where the price is worth it: cargo bench-instructions --update");
    Ok(ExitCode::FAILURE)
}
