//! The counts that are kept, where they were made, and when one has grown.
//!
//! The file is text for people and `git diff`: what it holds and where it was made in lines that begin with `#`, then
//! a line for each case, name and count, sorted by name.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::process::Command;

use crate::count;

/// The file, from the top of the repository.
pub const FILE: &str = "benches/instructions.txt";

/// The file, from anywhere on the machine that built the program.
const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");

/// Growth that is let in: 2 %.
const GROWTH_MAX_PERCENT: u64 = 2;

const HEADER: &str = "\
# Instructions of one operation, counted by `cargo bench-instructions`, which fails when one grew by more than 2 %.
# Written by `cargo bench-instructions --update`. Compiler, C library and CPU change the counts: where one differs
# from these, counts are printed and decide nothing.
";

/// What a count depends on besides the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    cpu: String,
    libc: String,
    rustc: String,
}

impl Environment {
    /// That of this run.
    ///
    /// # Errors
    /// A sentence: a program that has to be asked is missing.
    pub fn here() -> Result<Self, String> {
        let cpu = count::cpu_under_valgrind()?;
        Ok(Self { cpu, libc: said_by("getconf", "GNU_LIBC_VERSION")?, rustc: said_by("rustc", "--version")? })
    }

    fn parts(&self) -> [(&'static str, &str); 3] {
        [("cpu", &self.cpu), ("libc", &self.libc), ("rustc", &self.rustc)]
    }

    /// What is not as it was, for people.
    pub fn differences(&self, now: &Environment) -> Vec<String> {
        let pairs = self.parts().into_iter().zip(now.parts());
        let differ = pairs.filter(|(kept, now)| kept != now);
        differ.map(|((part, kept), (_, now))| format!("{part} was {kept}, is {now}")).collect()
    }
}

/// The file as values.
#[derive(Debug, PartialEq, Eq)]
pub struct Kept {
    pub environment: Environment,
    /// Instructions by case.
    pub counts: BTreeMap<String, u64>,
}

impl Kept {
    /// Reads the file.
    ///
    /// # Errors
    /// A sentence: the file is missing or damaged.
    pub fn read() -> Result<Self, String> {
        let text = fs::read_to_string(PATH).map_err(|error| format!("{FILE}: {error}"))?;
        Self::parse(&text).map_err(|line| format!("{FILE}: cannot read: {line}"))
    }

    /// Writes the file.
    ///
    /// # Errors
    /// A sentence: the file cannot be written.
    pub fn write(&self) -> Result<(), String> {
        fs::write(PATH, self.to_string()).map_err(|error| format!("{FILE}: {error}"))
    }

    /// The file's text as values, or the line that is none.
    fn parse(text: &str) -> Result<Self, String> {
        let part = |name: &str| {
            let prefix = format!("# {name}: ");
            let value = text.lines().find_map(|line| line.strip_prefix(&prefix));
            value.map(str::to_owned).ok_or(prefix)
        };
        let environment = Environment { cpu: part("cpu")?, libc: part("libc")?, rustc: part("rustc")? };
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let counts = lines.map(|line| {
            let (name, count) = line.split_once(' ').ok_or(line)?;
            Ok((name.to_owned(), count.trim().parse().map_err(|_| line)?))
        });
        Ok(Self { environment, counts: counts.collect::<Result<_, &str>>()? })
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEADER)?;
        for (part, value) in self.environment.parts() {
            writeln!(f, "# {part}: {value}")?;
        }
        self.counts.iter().try_for_each(|(name, count)| writeln!(f, "{name} {count}"))
    }
}

/// What has become of a case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Within the growth that is let in; the change in percent.
    Same(f64),
    /// Smaller by more than that.
    Shrunk(f64),
    /// Larger by more than that.
    Grown(f64),
    /// Not in the file.
    New,
}

impl Verdict {
    /// Of a case that took `before` instructions and takes `now`.
    pub fn of(before: Option<u64>, now: u64) -> Self {
        let Some(before) = before else { return Verdict::New };
        let percent = (now as f64 / before.max(1) as f64 - 1.0) * 100.0;
        if now * 100 > before * (100 + GROWTH_MAX_PERCENT) {
            Verdict::Grown(percent)
        } else if now * (100 + GROWTH_MAX_PERCENT) < before * 100 {
            Verdict::Shrunk(percent)
        } else {
            Verdict::Same(percent)
        }
    }

    /// Whether the change may go in.
    pub fn is_good(self) -> bool {
        matches!(self, Verdict::Same(_) | Verdict::Shrunk(_))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Same(percent) => write!(f, "{percent:>+8.1}%"),
            Verdict::Shrunk(percent) => write!(f, "{percent:>+8.1}%  less; --update keeps it"),
            Verdict::Grown(percent) => {
                write!(f, "{percent:>+8.1}%  GREW by more than {GROWTH_MAX_PERCENT} %")
            }
            Verdict::New => write!(f, "{:>9}  NEW; --update keeps it", "-"),
        }
    }
}

/// The first line that a program prints for one argument.
fn said_by(program: &str, arg: &str) -> Result<String, String> {
    let output = Command::new(program).arg(arg).output().map_err(|error| format!("{program}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or("unknown").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_the_same() {
        let environment =
            Environment { cpu: "a b".into(), libc: "glibc 2".into(), rustc: "rustc 1 (2)".into() };
        let counts = [("turn".to_owned(), 7), ("parse".to_owned(), 1234)].into();
        let kept = Kept { environment, counts };
        assert_eq!(Kept::parse(&kept.to_string()).as_ref(), Ok(&kept));
        assert!(kept.to_string().ends_with("parse 1234\nturn 7\n"), "sorted by name");
    }

    #[test]
    fn a_damaged_line_is_named() {
        let damaged = format!("{HEADER}# cpu: a\n# libc: b\n# rustc: c\nparse 12x\n");
        assert_eq!(Kept::parse(&damaged), Err("parse 12x".to_owned()));
        assert_eq!(Kept::parse(""), Err("# cpu: ".to_owned()));
    }

    #[test]
    fn growth_counts_from_more_than_two_percent() {
        assert_eq!(Verdict::of(Some(1000), 1020), Verdict::Same((1020.0 / 1000.0 - 1.0) * 100.0));
        assert!(matches!(Verdict::of(Some(1000), 1021), Verdict::Grown(_)));
        assert!(matches!(Verdict::of(Some(1000), 900), Verdict::Shrunk(_)));
        assert!(!Verdict::of(None, 1).is_good() && !Verdict::of(Some(10), 11).is_good());
    }

    #[test]
    fn another_compiler_is_told() {
        let kept = Environment { cpu: "a".into(), libc: "b".into(), rustc: "c".into() };
        let now = Environment { rustc: "d".into(), ..kept.clone() };
        assert_eq!(kept.differences(&now), ["rustc was c, is d"]);
        assert!(kept.differences(&kept).is_empty());
    }
}
