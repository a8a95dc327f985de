//! The service does what its first comment says.

use serde_json::{Value, json};

use crate::support::{Answer, Program};

const ADA: &str = "Authorization: Bearer ada-7";
const BOB: &str = "Authorization: Bearer bob-9";
const JSON: &str = "Content-Type: application/json";

fn start() -> Program {
    Program::start(env!("CARGO_BIN_EXE_service"), &["127.0.0.1:0"])
}

fn add(program: &Program, who: &str, title: &str) -> Answer {
    program.request("POST", "/notes", &[who, JSON], &format!(r#"{{"title":"{title}"}}"#))
}

#[test]
fn service_is_at_most_200_lines_long() {
    assert!(include_str!("../../src/bin/service.rs").lines().count() <= 200);
}

#[test]
fn notes_of_service_are_made_shown_page_by_page_and_taken_away_by_their_owner() {
    let program = start();
    let made = add(&program, ADA, "tea");
    assert_eq!(
        (made.said(), made.header("location")),
        ((201, r#"{"id":1,"title":"tea"}"#), Some("/notes/1"))
    );
    assert_eq!(add(&program, BOB, "rum").status, 201);
    assert_eq!(add(&program, ADA, "milk").status, 201);

    let get = |who, target| program.request("GET", target, &[who], "");
    assert_eq!(get(ADA, "/notes/1").said(), (200, r#"{"id":1,"title":"tea"}"#));
    assert_eq!(get(ADA, "/notes?limit=1").said(), (200, r#"[{"id":1,"title":"tea"}]"#));
    assert_eq!(get(ADA, "/notes?after=1").said(), (200, r#"[{"id":3,"title":"milk"}]"#));
    assert_eq!(get(BOB, "/notes/").said(), (200, r#"[{"id":2,"title":"rum"}]"#));

    assert_eq!(program.request("DELETE", "/notes/1", &[BOB], "").status, 404, "it is not his");
    assert_eq!(program.request("DELETE", "/notes/1", &[ADA], "").status, 204);
    assert_eq!(get(ADA, "/notes/1").status, 404);
    assert!(program.terminate().1.success());
}

#[test]
fn errors_of_service_are_json_whoever_finds_them() {
    let program = start();
    let problem = |answer: Answer| {
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", answer.head);
        (answer.status, answer.json()["detail"].as_str().unwrap_or_default().to_owned())
    };
    let said = |status, detail: &str| (status, detail.to_owned());
    assert_eq!(problem(program.get("/nowhere")), said(404, "nothing is at /nowhere"));
    assert_eq!(problem(program.request("GET", "/notes/9", &[ADA], "")), said(404, "you have no note 9"));
    assert_eq!(problem(add(&program, ADA, "")), said(422, "a title has 1 to 80 characters"));
    let half = program.request("POST", "/notes", &[ADA, JSON], "{}");
    assert_eq!(problem(half), said(400, "request body: missing field `title` at line 1 column 2"));
    let page = program.request("GET", "/notes?limit=many", &[ADA], "");
    assert_eq!(problem(page), said(400, "query parameter `limit`: invalid digit found in string"));
    assert_eq!(problem(program.request("POST", "/health", &[], "")).0, 405);
    assert!(program.terminate().1.success());
}

#[test]
fn nobody_without_a_token_learns_what_service_has() {
    let program = start();
    for target in ["/notes", "/notes/1", "/notes/nothing/at/all"] {
        for token in ["X-No-Token: 1", "Authorization: Bearer ada-8", "Authorization: ada-7"] {
            let answer = program.request("GET", target, &[token], "");
            assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{target}");
        }
    }
    assert_eq!(program.get("/health").said(), (200, "well"));
    assert!(program.terminate().1.success());
}

#[test]
fn pictures_of_service_may_be_larger_than_all_else() {
    let program = start();
    assert_eq!(add(&program, ADA, "tea").status, 201);
    let picture = "x".repeat(100 << 10);
    assert_eq!(program.request("GET", "/notes/1/picture", &[ADA], "").status, 404);
    assert_eq!(program.request("PUT", "/notes/1/picture", &[ADA], &picture).status, 204);
    assert_eq!(program.request("GET", "/notes/1/picture", &[ADA], "").body, picture);
    assert_eq!(add(&program, ADA, &picture).status, 413);
    assert_eq!(program.request("PUT", "/notes/1/picture", &[ADA], &"x".repeat(5 << 20)).status, 413);
    assert!(program.terminate().1.success());
}

#[test]
fn every_answer_of_service_has_an_id_and_a_line_with_it() {
    let program = start();
    let given = |id: &str, target: &str, who: &str| {
        let answer = program.request("GET", target, &[&format!("X-Request-Id: {id}"), who], "");
        answer.header("x-request-id").expect("an id").to_owned()
    };
    assert_eq!(given("a1", "/notes", ADA), "a1");
    assert_eq!(given("b2", "/nowhere", "X: y"), "b2");
    let own = given("no id!", "/notes/1", "X: y");
    assert!(own.len() == 32 && own.bytes().all(|digit| digit.is_ascii_hexdigit()), "{own}");
    assert_eq!(program.request("BAD TARGET", "/", &[], "").status, 400);

    let (printed, status) = program.terminate();
    let lines = printed.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(status.success() && lines.len() == 4, "{printed}");
    // Lines of one worker are in order.
    let line_of = |id: &str| lines.iter().find(|line| line["request_id"] == id).expect("a line with it");
    let seen = |id: &str| (line_of(id)["route"].clone(), line_of(id)["status"].as_u64());
    assert_eq!(seen("a1"), (json!("/notes"), Some(200)));
    assert_eq!(seen("b2"), (Value::Null, Some(404)));
    assert_eq!(seen(&own), (json!("/notes/{id}"), Some(401)));
    assert!(lines.iter().any(|line| line["status"] == 400 && line["outcome"] == "malformed"), "{printed}");
}

#[test]
fn service_counts_its_requests_by_their_routes() {
    let program = start();
    assert_eq!(program.request("GET", "/notes/7", &[ADA], "").status, 404);
    assert_eq!(program.request("GET", "/notes/8", &[ADA], "").status, 404);
    let figures = program.get("/metrics").body;
    let line = "netpoll_http_requests_total{route=\"/notes/{id}\",class=\"4xx\"} 2\n";
    assert!(figures.contains(line), "{figures}");
    assert!(program.terminate().1.success());
}

#[test]
fn service_lets_one_page_of_another_origin_in() {
    let program = start();
    let asked = ["Origin: http://localhost:3000", "Access-Control-Request-Method: POST"];
    let answer = program.request("OPTIONS", "/notes", &asked, "");
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (204, Some("http://localhost:3000"))
    );
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET, POST, PUT, DELETE"));
    let refused = program.request("GET", "/notes", &asked[..1], "");
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), {
        (401, Some("http://localhost:3000"))
    });
    let other = program.request("GET", "/health", &["Origin: http://evil.example"], "");
    assert_eq!((other.header("access-control-allow-origin"), other.header("vary")), (None, Some("origin")));
    assert!(program.terminate().1.success());
}
