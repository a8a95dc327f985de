//! Every lie is counted, by its kind and no more than once; every good answer is a request.

use crate::server::{Act, GOOD, echo, load, output, serve};
use serde_json::{Value, json};

/// One lie in ten answers, on 4 connections, until 200 requests have been asked; the report.
fn lied_to(lie: impl Fn() -> Act + Send + Sync + 'static) -> Value {
    lied_to_with("", lie)
}

fn lied_to_with(options: &str, lie: impl Fn() -> Act + Send + Sync + 'static) -> Value {
    let to = serve(move |nth| if nth % 10 == 3 { lie() } else { Act::Answer(GOOD.to_vec()) });
    load(to, &format!("--connections 4 --requests 200 --count-errors {options}"))
}

#[track_caller]
fn assert_counted(report: &Value, kind: &str) {
    let mut expected = json!({ "wrong_status": 0, "wrong_body": 0, "framing": 0, "closed": 0, "reset": 0,
        "timeout": 0, "surplus": 0, "connect": 0 });
    expected[kind] = 20.into();
    assert_eq!(report["errors"], expected);
    let good = if kind == "surplus" { 200 } else { 180 };
    assert_eq!(report["requests"], good, "what was answered well");
    assert_eq!(report["unanswered"], 0);
    let opened = report["connections_opened"].as_u64().unwrap();
    assert!((20..=24).contains(&opened), "4 connections, and one for each that failed while more was to ask");
}

#[test]
fn a_wrong_status_is_counted() {
    let lie = || Act::Answer(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_vec());
    assert_counted(&lied_to(lie), "wrong_status");
}

#[test]
fn a_wrong_body_is_counted() {
    let lie = || Act::Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, Mars!!".to_vec());
    assert_counted(&lied_to(lie), "wrong_body");
}

#[test]
fn an_answer_without_a_length_is_counted() {
    let lie = || Act::AnswerAndClose(b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\nHello, World!".to_vec());
    assert_counted(&lied_to(lie), "framing");
}

#[test]
fn a_truncated_answer_is_counted_as_a_close() {
    let lie = || Act::AnswerAndClose(GOOD[..GOOD.len() - 3].to_vec());
    assert_counted(&lied_to(lie), "closed");
}

#[test]
fn a_surplus_answer_is_counted_beside_the_good_one() {
    assert_counted(&lied_to(|| Act::Answer(GOOD.repeat(2))), "surplus");
}

#[test]
fn an_answer_that_never_comes_is_counted_when_its_time_is_up() {
    let report = lied_to_with("--timeout-ms 700", || Act::Ignore);
    assert_counted(&report, "timeout");
    assert!(report["max_us"].as_u64().unwrap() >= 700_000, "with its age");
}

#[test]
fn a_reset_is_counted() {
    assert_counted(&lied_to(|| Act::Reset), "reset");
}

#[test]
fn the_first_error_ends_the_run_unless_errors_are_counted() {
    let to = serve(|nth| Act::Answer(if nth == 7 { b"nonsense".to_vec() } else { GOOD.to_vec() }));
    let output = output(to, "--connections 2");
    assert!(!output.status.success() && output.stdout.is_empty());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("framing") && said.contains("nonsense"), "{said}");
}

#[test]
fn a_body_is_expected_to_be_what_the_option_says() {
    let to = serve(|_| Act::Answer(GOOD.to_vec()));
    assert!(!output(to, "--requests 10 --path /x --expect Hello").status.success());
    assert!(output(to, "--requests 10 --path /x").status.success());
}

#[test]
fn churn_opens_as_many_connections_as_requests() {
    let to = serve(|_| Act::AnswerAndClose(GOOD.to_vec()));
    let report = load(to, "--churn --connections 8 --requests 300");
    assert_eq!(report["requests"], 300);
    assert_eq!(report["connections_opened"], 300);
}

#[test]
fn what_churn_receives_behind_an_answer_is_surplus() {
    let to = serve(|nth| Act::AnswerAndClose(GOOD.repeat(1 + usize::from(nth % 10 == 0))));
    let report = load(to, "--churn --connections 8 --requests 300 --count-errors");
    assert_eq!((&report["requests"], &report["errors"]["surplus"]), (&json!(270), &json!(30)));
}

#[test]
fn a_post_wants_its_body_back() {
    let to = serve(|_| Act::Echo);
    for bytes in ["0", "3", "100", "300000"] {
        let report = load(to, &format!("--post {bytes} --connections 2 --requests 20"));
        assert_eq!(report["requests"], 20, "{bytes} bytes");
    }
    assert!(!output(serve(|_| Act::Answer(GOOD.to_vec())), "--post 13 --requests 20").status.success());
}

#[test]
fn an_echo_is_compared_byte_for_byte() {
    let to = echo(|_| {});
    for options in ["--echo 1 --depth 8", "--echo 100", "--echo 1000000"] {
        let report = load(to, &format!("{options} --connections 2 --requests 40"));
        assert_eq!(report["requests"], 40, "{options}");
    }
    let said = output(echo(|byte| *byte ^= 1), "--echo 100 --requests 40");
    assert!(String::from_utf8_lossy(&said.stderr).contains("wrong_body"));
}
