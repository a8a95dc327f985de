//! Which driver workers run on, and who says so. The program's word counts before that of the environment.

use std::io::{self, ErrorKind};
use std::process::Command;

use netpoll_core::{Backend, Builder, Runtime, Workers};

const VARIABLE: &str = "NETPOLL_BACKEND";

fn builder() -> Builder {
    Runtime::builder().workers(Workers::Count(1)).pin(false)
}

/// The backend that a runtime with these settings has.
fn started(builder: Builder) -> io::Result<&'static str> {
    Ok(builder.start()?.handle().setup().backend)
}

/// A process of its own for a test, with this value of the variable, or without it.
fn with(value: Option<&str>, test: &str) {
    let name =
        module_path!().split_once("::").map_or(test.to_owned(), |(_, module)| format!("{module}::{test}"));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &name, "--ignored", "--test-threads=1"]).env_remove(VARIABLE);
    let output = command.envs(value.map(|value| (VARIABLE, value))).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 passed"), "{name}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_backend_that_the_program_names_is_the_one_that_its_workers_have() {
    assert_eq!(started(builder().backend(Backend::Epoll)).unwrap(), "epoll");
    let said = builder().backend(Backend::Epoll).on_start(|worker, _commands| {
        assert_eq!(worker.handle.setup().backend, "epoll");
    });
    said.block_on(async {}).unwrap();
}

#[test]
fn without_a_word_of_anybody_workers_run_on_epoll() {
    with(None, "runs_on_epoll");
    with(Some(""), "runs_on_epoll");
    with(Some("auto"), "runs_on_epoll");
}

#[test]
#[ignore = "in a process of its own, see above"]
fn runs_on_epoll() {
    assert_eq!(started(builder()).unwrap(), "epoll");
}

#[test]
fn a_backend_that_is_none_is_an_error_of_the_start_that_names_the_variable_and_those_that_are() {
    with(Some("kqueue"), "is_refused");
}

#[test]
#[ignore = "in a process of its own, see above"]
fn is_refused() {
    let blocked = builder().block_on(async {}).unwrap_err();
    for error in [started(builder()).unwrap_err(), blocked] {
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().starts_with("NETPOLL_BACKEND: `kqueue` is not one of "), "{error}");
    }
    // Whoever names one does not ask the environment.
    assert_eq!(started(builder().backend(Backend::Epoll)).unwrap(), "epoll");
}
