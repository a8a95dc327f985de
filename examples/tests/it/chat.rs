//! The rooms of mini-program, by hand; what the page does of them is in `chat_page`.

use serde_json::{Value, json};

use crate::member::{Member, OPENING};
use crate::support::Program;

const JSON: &str = "Content-Type: application/json";
const KEY: &str = "0123456789abcdef";

fn start(arguments: &[&str]) -> Program {
    let arguments = [&["--addr", "127.0.0.1:0"], arguments].concat();
    Program::start(env!("CARGO_BIN_EXE_mini-program"), &arguments)
}

/// The cookie of a user who has logged in.
fn log_in(program: &Program, code: &str) -> String {
    let answer = program.request("POST", "/login", &[JSON], &format!(r#"{{"code":"{code}"}}"#));
    let cookie = answer.header("set-cookie").unwrap();
    format!("Cookie: {}", cookie.split(';').next().unwrap())
}

/// In a room, and what it was welcomed with.
fn enter(program: &Program, target: &str, headers: &[&str]) -> (Member, Value) {
    let mut member = Member::open(program, target, headers);
    let welcome = member.json("welcome");
    (member, welcome)
}

fn say(member: &mut Member, text: &str) {
    member.say(&json!({ "text": text }).to_string());
}

/// What is said until it is this.
fn until(member: &mut Member, text: &str) -> Vec<Value> {
    let mut heard = Vec::new();
    loop {
        let message = member.json("message");
        let is_it = message["text"] == text;
        heard.push(message);
        if is_it {
            return heard;
        }
    }
}

fn names(here: &Value) -> Vec<&str> {
    here["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

#[test]
fn whoever_is_logged_in_speaks_by_that_name_and_others_are_guests_on_all_workers() {
    let program = start(&["--workers", "3"]);
    let cookie = log_in(&program, "demo-ann");
    let (mut ann, welcome) = enter(&program, "/chat/lobby", &[&cookie, "Origin: http://a"]);
    assert_eq!((&welcome["name"], &welcome["is_guest"]), (&json!("openid-ann"), &json!(false)));
    let mut guests: Vec<_> = (0..6).map(|_| enter(&program, "/chat/lobby", &[])).collect();
    let (_, last) = guests.last().unwrap();
    assert_eq!((&last["is_guest"], &last["here"]["count"]), (&json!(true), &json!(7)));
    assert!(names(&last["here"]).contains(&"openid-ann"), "{last}");
    let (mut elsewhere, _) = enter(&program, "/chat/elsewhere", &[]);

    say(&mut ann, "<b>hello</b> \u{1f375}\nall");
    for (guest, _) in &mut guests {
        let message = guest.json("message");
        let said = [&message["name"], &message["text"]];
        assert_eq!(said, [&json!("openid-ann"), &json!("<b>hello</b> \u{1f375}\nall")]);
        assert_eq!(message["mark"], json!(null));
    }
    let (guest, welcome) = &mut guests[0];
    guest.say(r#"{"text":" hi ","mark":"7"}"#);
    let heard = until(&mut ann, "hi").pop().unwrap();
    assert_eq!((&heard["name"], &heard["mark"]), (&welcome["name"], &json!("7")));
    say(&mut elsewhere, "nobody");
    assert_eq!(elsewhere.json("message")["text"], "nobody");
    say(&mut ann, "bye");
    assert_eq!(until(&mut ann, "bye").len(), 1, "what is said elsewhere is not heard");
    ann.send(0x88, &1000u16.to_be_bytes());
    let (guest, _) = &mut guests[1];
    let left = loop {
        let presence = guest.json("presence");
        if presence["is_here"] == json!(false) {
            break presence;
        }
    };
    assert_eq!((&left["name"], &left["count"]), (&json!("openid-ann"), &json!(6)));

    let stats = program.get("/stats.json").json();
    assert_eq!((&stats["rooms"], &stats["rooms_dropped"]), (&json!(2), &json!(0)), "{stats}");
    assert!(stats["rooms_members"].as_u64() >= Some(7), "{stats}");
}

#[test]
fn a_newcomer_gets_the_last_messages_and_who_comes_back_gets_what_it_has_missed() {
    let program = start(&["--workers", "2"]);
    let (mut ann, _) = enter(&program, "/chat/lobby", &[]);
    for nth in 1..=8 {
        say(&mut ann, &format!("number {nth}"));
    }
    until(&mut ann, "number 8");
    let target = format!("/chat/lobby?key={KEY}");
    let (mut ben, welcome) = enter(&program, &target, &[]);
    assert_eq!(welcome["is_anew"], json!(true));
    assert_eq!(until(&mut ben, "number 8").len(), 8);
    // Its own coming is behind that.
    let at = ben.json("presence")["at"].as_str().unwrap().to_owned();
    drop(ben);
    say(&mut ann, "number 9");
    say(&mut ann, "number 10");
    until(&mut ann, "number 10");

    // As the one whose session waits for it, and as somebody whose session has never been.
    for key in [KEY, "another-key-of-a-tab"] {
        let (mut back, welcome) = enter(&program, &format!("/chat/lobby?key={key}&from={at}"), &[]);
        assert_eq!((&welcome["is_anew"], &welcome["missing"]), (&json!(false), &json!(0)));
        assert_eq!(welcome["at"], json!(at));
        let texts: Vec<_> =
            until(&mut back, "number 10").iter().map(|message| message["text"].clone()).collect();
        assert_eq!(texts, ["number 9", "number 10"]);
    }
    let (mut fresh, welcome) = enter(&program, &target, &[]);
    assert_eq!(welcome["is_anew"], json!(true), "a page that says nothing has nothing");
    assert_eq!(until(&mut fresh, "number 10").len(), 10);
    let other_life = "/chat/lobby?from=00000000000000ff.3";
    let (mut lost, welcome) = enter(&program, other_life, &[]);
    assert_eq!(welcome["is_anew"], json!(true));
    assert_eq!(until(&mut lost, "number 10").len(), 10);
}

#[test]
fn what_is_too_long_too_fast_or_no_message_is_refused_with_a_reason_and_heard_by_nobody() {
    let program = start(&["--workers", "1"]);
    let (mut ann, _) = enter(&program, "/chat/lobby", &[]);
    let long = json!({ "text": "\u{8336}".repeat(1001), "mark": "m" }).to_string();
    let marked = json!({ "text": "x", "mark": "m".repeat(41) }).to_string();
    for (said, why) in [
        (&*long, "text: must have at most 1000 characters, has 1001"),
        (r#"{"text":" \n"}"#, "text: must not be empty"),
        (r#"{"text":1}"#, "not {\"text\":"),
        (r#"{"text":"x","room":"y"}"#, "not {\"text\":"),
        ("hello", "not {\"text\":"),
        (&marked, "mark: must have at most 40 characters"),
    ] {
        ann.say(said);
        let refused = ann.json("refused");
        assert!(refused["why"].as_str().unwrap().starts_with(why), "{said}: {refused}");
        assert_eq!(refused["mark"], if said == long { json!("m") } else { json!(null) });
    }
    say(&mut ann, &"\u{8336}".repeat(1000));
    assert_eq!(ann.json("message")["text"].as_str().unwrap().chars().count(), 1000);

    // Fewer would do on a machine that has nothing else to do.
    for nth in 0..200 {
        ann.say(&json!({ "text": "quick", "mark": format!("{nth}") }).to_string());
    }
    let refused = ann.json("refused");
    assert!(refused["why"].as_str().unwrap().starts_with("too fast: 10 messages at once"), "{refused}");
    assert!((1..=500).contains(&refused["wait"].as_u64().unwrap()), "{refused}");
    let (code, reason) = ann.goodbye();
    assert_eq!((code, &*reason), (1008, "too many messages that were refused"));

    let (mut ben, _) = enter(&program, "/chat/lobby", &[]);
    ben.send(0x81, &vec![b'x'; 17 * 1024]);
    assert_eq!(ben.goodbye().0, 1009);
    let (mut cid, _) = enter(&program, "/chat/lobby", &[]);
    cid.send(0x82, b"bytes");
    assert_eq!(cid.goodbye(), (1003, "words only".to_owned()));
}

#[test]
fn who_may_not_enter_is_told_why() {
    let program = start(&["--workers", "1"]);
    let ask = |target: &str, header: &str| {
        let answer = program.request("GET", target, &[OPENING, header], "");
        (answer.status, answer.body)
    };
    for of_another in ["http://b", "http://a.b", "null", "https://a:81", "ftp://a"] {
        let (status, said) = ask("/chat/lobby", &format!("Origin: {of_another}"));
        assert!(status == 403 && said.starts_with("origin: "), "{of_another}: {status} {said}");
    }
    for (target, named) in [
        ("/chat/a%20b", "room: "),
        ("/chat/%3Cb%3E", "room: "),
        (&*format!("/chat/{}", "a".repeat(33)), "room: "),
        ("/chat/lobby?key=short", "query parameter `key`: "),
        ("/chat/lobby?from=yesterday", "query parameter `from`: "),
    ] {
        let (status, said) = ask(target, "X-Nothing: 1");
        assert!(status == 400 && said.starts_with(named), "{target}: {status} {said}");
    }
    assert_eq!(program.get("/chat/lobby").status, 426);
    // A page behind a proxy that ends TLS, and a room of other letters.
    for headers in [["Origin: https://a"], ["Origin: http://A"]] {
        enter(&program, "/chat/%E8%8C%B6%E9%A4%A8", &headers);
    }
}

#[test]
fn in_a_drain_members_are_told_when_to_come_back() {
    let mut program = start(&["--workers", "2"]);
    let mut members: Vec<_> = (0..4).map(|_| enter(&program, "/chat/lobby", &[]).0).collect();
    program.ask_to_end();
    for member in &mut members {
        let (code, reason) = member.goodbye();
        let wait: u64 = reason.strip_prefix("retry=").unwrap().parse().unwrap();
        assert!(code == 1012 && wait <= 5000, "{code} {reason}");
        member.send(0x88, &1012u16.to_be_bytes());
        assert!(member.is_over());
    }
    assert!(program.wait().1.success());
}
