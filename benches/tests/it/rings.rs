//! Runtimes side by side: who fails is named, and the others are measured.

use std::fs::{Permissions, set_permissions, write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// A program that runs `floor` with these options on the port that is last on its own command line.
fn stand_in(file: &Path, options: &str) {
    let floor = env!("CARGO_BIN_EXE_floor");
    let script =
        format!("#!/bin/sh\nfor last; do :; done\nexec {floor} {options} --port \"${{last##*:}}\"\n");
    write(file, script).unwrap();
    set_permissions(file, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn who_does_not_start_or_answers_wrongly_is_named_and_the_others_are_measured() {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        println!("skipped: the server and the client have a CPU each");
        return;
    }
    let directory = std::env::temp_dir().join(format!("netpoll-rings-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("release")).unwrap();
    symlink(env!("CARGO_BIN_EXE_load"), directory.join("load")).unwrap();
    stand_in(&directory.join("mini-program"), "");
    stand_in(&directory.join("release/http-monoio"), "--json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rings"));
    command.arg("--programs").arg(&directory).arg("--peers").arg(&directory);
    command.args(["--rounds", "1", "--seconds", "0.05", "--steal-max", "99", "--other-max", "99"]);
    let output = command.args(["--only", "plain,open"]).output().unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    let (said, text) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{said}{text}");
    let lines = |beginning: &str| text.lines().filter(|line| line.starts_with(beginning)).count();
    for measured in ["| netpoll |", "| netpoll, on epoll |"] {
        assert_eq!(lines(measured), 2, "{text}");
    }
    for left_out in ["by hand: ", "monoio: load: ", "compio: ", "glommio: ", "kimojio: "] {
        assert_eq!(lines(&format!("left out: {left_out}")), 2, "{text}");
    }
    assert_eq!(lines("1 rounds kept, 0 dropped"), 2, "{text}");
}

#[test]
fn a_load_that_there_is_not_is_refused_before_anything_is_built() {
    let output = Command::new(env!("CARGO_BIN_EXE_rings")).args(["--only", "churn,quic"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "rings: --only quic: none of plaintext, pipelined, churn, open-loop\n");
}
