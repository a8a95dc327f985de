//! mini-program is set up by its command line, the environment and a file, and says which of them is wrong.

use std::path::PathBuf;
use std::process::Command;

use crate::support::{Program, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_mini-program");

/// A file of settings that is gone behind its test.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: impl AsRef<[u8]>) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What it says when it does not start; the exit code is that of a wrong option.
fn refused(command: &mut Command) -> String {
    let (code, output, errors) = run(command);
    assert_eq!((code, output.as_str()), (Some(2), ""), "{errors}");
    assert!(
        errors.starts_with("mini-program: ") && errors.ends_with("; --help lists the options\n"),
        "{errors}"
    );
    errors
}

#[test]
fn the_command_line_counts_before_the_environment_and_that_before_the_file() {
    let file = File::new(
        "order.conf",
        "# three of each\nworkers = 3\nbudget = 3\n\n  wait = spin\nbody-bytes-max=3\n",
    );
    let mut command = Command::new(PROGRAM);
    command
        .env("MINI_PROGRAM_BUDGET", "2")
        .env("MINI_PROGRAM_WORKERS", "2")
        .env("MINI_PROGRAM_WAIT", "block");
    command.args(["--addr", "127.0.0.1:0", "--workers", "1", "--config", file.path()]);

    let program = Program::spawn(&mut command);

    assert!(program.printed.contains("(1 worker, budget 2, wait block"), "{}", program.printed);
    assert_eq!(program.request("POST", "/echo", &[], "four").status, 413);
    assert_eq!(program.request("POST", "/echo", &[], "two").status, 200);
    assert!(program.terminate().1.success());
}

#[test]
fn the_file_may_be_named_in_the_environment_unless_the_command_line_names_another() {
    let (first, second) = (File::new("first.conf", "budget = 1"), File::new("second.conf", "budget = 2"));
    for (arguments, budget) in [(&[][..], "budget 1,"), (&["--config", second.path()], "budget 2,")] {
        let mut command = Command::new(PROGRAM);
        command.env("MINI_PROGRAM_CONFIG", first.path()).env("MINI_PROGRAM_ADDR", "127.0.0.1:0");
        let program = Program::spawn(command.args(arguments));
        assert!(program.printed.contains(budget), "{}", program.printed);
        assert!(program.terminate().1.success());
    }
}

#[test]
fn a_wrong_line_of_the_file_is_named_with_its_number() {
    for (text, said) in [
        ("\n# a slip\nwrokers = 2\n", ":3: wrokers: there is no such option; "),
        ("workers = many", ":1: workers \"many\": "),
        ("addr = 127.0.0.1:0\nshare-port", ":2: \"share-port\" is no `name = value`; "),
        ("share-port = yes", ":1: share-port \"yes\": "),
        ("drain = 1\ndrain = 1", ":2: drain: stands in this file twice; "),
        ("config = other.conf", ":1: config: there is no such option; "),
        ("--drain = 1", ":1: --drain: there is no such option; "),
        ("cpus = 0-2\nworkers = 2", ":2: workers 2 does not fit the 3 CPUs of "),
    ] {
        let file = File::new("wrong.conf", text);
        let errors = refused(Command::new(PROGRAM).args(["--addr", "127.0.0.1:0", "--config", file.path()]));
        assert!(errors.contains(&format!("{}{said}", file.path())), "{text:?}: {errors}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let (binary, long) =
        (File::new("binary.conf", b"drain = \xff"), File::new("long.conf", "#".repeat(70_000)));
    for (path, why) in
        [("/nowhere.conf", "No such file"), (binary.path(), "UTF-8"), (long.path(), "65536 bytes")]
    {
        let errors = refused(Command::new(PROGRAM).args(["--config", path]));
        assert!(errors.contains(&format!("--config {path}: ")) && errors.contains(why), "{errors}");
    }
}

#[test]
fn a_wrong_variable_is_named() {
    let errors = refused(Command::new(PROGRAM).env("MINI_PROGRAM_COLOUR", "red"));
    assert!(errors.contains("MINI_PROGRAM_COLOUR, in the environment: there is no such option"), "{errors}");
    let errors = refused(Command::new(PROGRAM).env("MINI_PROGRAM_DRAIN", ""));
    assert!(errors.contains("MINI_PROGRAM_DRAIN \"\": "), "{errors}");
}

#[test]
fn the_version_is_that_of_the_package() {
    let (code, output, errors) =
        run(Command::new(PROGRAM).arg("--version").env("MINI_PROGRAM_COLOUR", "red"));
    let expected = format!("mini-program {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((code, output, errors), (Some(0), expected, String::new()));
}
