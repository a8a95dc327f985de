//! The chat room: what one says all hear, on whatever worker they are.

use serde_json::json;

use crate::chromium::Browser;
use crate::member::{Member, OPENING};
use crate::support::Program;

const PROGRAM: &str = env!("CARGO_BIN_EXE_websocket_chat");

fn join(program: &Program, name: &str) -> Member {
    Member::open(program, &format!("/room?name={name}"), &["Origin: http://a"])
}

fn until(member: &mut Member, text: &str) {
    while member.text() != text {}
}

#[test]
fn what_one_says_all_hear_and_in_a_drain_they_are_told_to_come_back() {
    let mut program = Program::start(PROGRAM, &["127.0.0.1:0"]);
    let mut members: Vec<_> = (0..8).map(|nth| join(&program, &format!("m{nth}"))).collect();
    // Each hears of the last one, so all are in the room.
    members.iter_mut().for_each(|member| until(member, "m7 has come"));
    for nth in 0..8 {
        members[nth].say("hello");
        members.iter_mut().for_each(|member| until(member, &format!("m{nth}: hello")));
    }
    drop(members.pop());
    members.iter_mut().for_each(|member| until(member, "m7 has left"));
    // Who is too long, has no name, or is somebody else's page, is not let in.
    assert_eq!(program.get("/room?name=a").said().0, 426);
    let of_another = program.request("GET", "/room?name=a", &["Origin: http://b", OPENING], "");
    assert_eq!(of_another.said().0, 403);

    program.ask_to_end();
    for member in &mut members {
        let (code, reason) = member.goodbye();
        assert!(code == 1012 && reason.starts_with("retry="), "{code} {reason}");
        member.send(0x88, b"");
        assert!(member.is_over());
    }
    drop(members);
    let (printed, status) = program.wait();
    assert!(status.success() && printed.contains(" 0 of them cut"), "{printed}");
}

#[test]
fn its_page_joins_says_what_is_typed_and_comes_back_when_the_server_does() {
    let Some(mut browser) = Browser::start() else { return };
    let program = Program::start(PROGRAM, &["127.0.0.1:0"]);
    let addr = program.addr.to_string();
    for (width, scheme) in [(1280, "light"), (390, "dark")] {
        browser.look(width, scheme);
        browser.open(&format!("http://{addr}/?name=ann"));
        browser.until("document.getElementById('state').textContent === 'You are ann'");
        browser.eval("document.getElementById('words').value = 'hello <b>all</b>'");
        browser.eval("document.querySelector('button').click()");
        browser.until("document.getElementById('said').lastChild?.textContent === 'ann: hello <b>all</b>'");
        assert_eq!(browser.eval(&format!("document.documentElement.scrollWidth <= {width}")), json!(true));
    }
    assert!(program.terminate().1.success());
    browser.until("document.getElementById('state').textContent.startsWith('away')");
    let program = Program::start(PROGRAM, &[&addr]);
    browser.until("document.getElementById('state').textContent === 'You are ann'");
    browser.close();
    assert!(program.terminate().1.success());
}
