//! What keeps mini-program from starting is said in one line, and the exit code tells whose fault it is.

use std::net::TcpListener;
use std::process::Command;

use crate::support::run;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mini-program");

/// Starts it in vain: the exit code, and the one line that it said.
fn refused(command: &mut Command) -> (Option<i32>, String) {
    let (code, output, errors) = run(command);
    assert_eq!(output, "", "nothing on standard output");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    (code, errors.trim_end().to_owned())
}

#[test]
fn an_option_that_makes_no_sense_is_named() {
    for (arguments, wrong) in [
        (&["--colour"][..], "--colour"),
        (&["--workers", "many"], "--workers \"many\""),
        (&["--cpus", "2-1"], "--cpus \"2-1\""),
        (&["--cpus", "8191"], "CPU 8191"),
        (&["--addr", "nonsense"], "--addr \"nonsense\""),
        (&["--wait", "never"], "--wait \"never\""),
        (&["--drain"], "--drain"),
        (&["--drain", "-1"], "--drain \"-1\""),
        (&["--workers", "99999"], "--workers \"99999\""),
        (&["--rate-limit", "2000000000"], "--rate-limit \"2000000000\""),
        (&["--rate-limit", "0"], "--rate-limit \"0\""),
        (&["--idle-timeout", "0"], "--idle-timeout \"0\""),
        (&["stray"], "stray"),
    ] {
        let (code, said) = refused(Command::new(PROGRAM).arg("--addr=127.0.0.1:0").args(arguments));
        assert_eq!(code, Some(2), "{said}");
        assert!(said.starts_with("mini-program: ") && said.contains(wrong), "{said}");
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for workers in ["1", "2"] {
        let (code, said) = refused(Command::new(PROGRAM).args(["--addr", &addr, "--workers", workers]));
        assert_eq!(code, Some(1));
        assert!(said.contains(&addr) && said.contains("in use"), "{said}");
    }
}

#[test]
fn too_few_file_descriptors_are_said_before_anything_else_happens() {
    let script = "ulimit -n 20; exec \"$0\" --addr 127.0.0.1:0";
    let (code, said) = refused(Command::new("sh").args(["-c", script, PROGRAM]));
    assert_eq!(code, Some(1));
    assert!(said.contains("20 file descriptors") && said.contains("ulimit -n"), "{said}");
}

#[test]
fn help_is_no_error_and_shows_the_defaults() {
    let (code, output, errors) = run(Command::new(PROGRAM).arg("--help"));
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(output.contains("[127.0.0.1:8080]") && output.contains("--budget"), "{output}");
}
