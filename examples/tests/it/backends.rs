//! What a program runs on is said on its command line, in all of them by the same option.

use std::process::Command;

use netpoll_core::Backend;

use crate::support::{Program, run};

const SOMEWHERE: &str = "127.0.0.1:0";

/// Every program but the mini-program, which has options of its own, with the words that it wants besides.
const PROGRAMS: [(&str, &[&str]); 19] = [
    (env!("CARGO_BIN_EXE_dns"), &[SOMEWHERE]),
    (env!("CARGO_BIN_EXE_echo"), &[SOMEWHERE]),
    (env!("CARGO_BIN_EXE_files"), &[SOMEWHERE]),
    (env!("CARGO_BIN_EXE_graceful_shutdown"), &[SOMEWHERE]),
    (env!("CARGO_BIN_EXE_guestbook"), &[SOMEWHERE]),
    (env!("CARGO_BIN_EXE_hello"), &[SOMEWHERE]),
    (env!("CARGO_BIN_EXE_jobs"), &[]),
    (env!("CARGO_BIN_EXE_key_value_store"), &[SOMEWHERE]),
    (env!("CARGO_BIN_EXE_line_protocol"), &[SOMEWHERE]),
    (env!("CARGO_BIN_EXE_service"), &[SOMEWHERE]),
    (env!("CARGO_BIN_EXE_socket_activation"), &[SOMEWHERE]),
    (env!("CARGO_BIN_EXE_static_routes"), &[SOMEWHERE]),
    (env!("CARGO_BIN_EXE_task_chat"), &[SOMEWHERE]),
    (env!("CARGO_BIN_EXE_task_echo"), &[SOMEWHERE]),
    (env!("CARGO_BIN_EXE_task_proxy"), &[SOMEWHERE, "127.0.0.1:1"]),
    (env!("CARGO_BIN_EXE_tcp_proxy"), &[SOMEWHERE, "127.0.0.1:1"]),
    (env!("CARGO_BIN_EXE_toy_cipher"), &[SOMEWHERE, SOMEWHERE]),
    (env!("CARGO_BIN_EXE_udp_echo"), &[SOMEWHERE]),
    (env!("CARGO_BIN_EXE_websocket_chat"), &[SOMEWHERE]),
];

/// Runs one that is not to start; what it says.
fn refused(program: &str, words: &[&str]) -> String {
    let (code, _, said) = run(Command::new(program).args(words).env_remove("NETPOLL_BACKEND"));
    assert_eq!(code, Some(1), "{program} {words:?}: {said}");
    said
}

#[test]
fn every_program_refuses_a_driver_that_there_is_not() {
    for (program, words) in PROGRAMS {
        let said = refused(program, &[words, &["--backend", "kqueue"]].concat());
        assert!(said.contains("`kqueue` is not one of `auto`"), "{program}: {said}");
    }
}

#[test]
fn a_program_says_what_it_lacks_for_a_driver() {
    if "uring".parse::<Backend>().is_ok() {
        println!("skipped: this build has every driver");
        return;
    }
    let said = refused(env!("CARGO_BIN_EXE_echo"), &[SOMEWHERE, "--backend", "uring"]);
    assert!(said.contains("`uring` needs a build with that feature of netpoll-core"), "{said}");
}

#[test]
fn every_program_prefers_its_option_to_the_environment() {
    for (program, words) in PROGRAMS.iter().filter(|(_, words)| !words.is_empty()) {
        let mut command = Command::new(program);
        command.args(*words).env("NETPOLL_BACKEND", "kqueue");
        let (code, _, said) = run(&mut command);
        assert_eq!(code, Some(1), "{program}: {said}");
        assert!(said.contains("NETPOLL_BACKEND: `kqueue` is not one of"), "{program}: {said}");
        let started = Program::spawn(command.args(["--backend", "epoll"]));
        assert!(started.terminate().1.success(), "{program}");
    }
}
