//! The page of a room in a real browser, in two tabs, wide and as narrow as a phone.
//!
//! Without Chromium each test says that it is skipped.

use serde_json::json;

use crate::browser::{LOOKS, Story, fits};
use crate::support::Program;

const IS_OPEN: &str = "room.state === 'open'";
const TEXTS: &str = "[...said.querySelectorAll('.text')].map((text) => text.textContent)";

fn say(story: &mut Story, text: &str) {
    story.eval(&format!("words.value = {}; byId('speak').requestSubmit()", json!(text)));
    story.browser.until("pending.size === 0");
}

fn hears(story: &mut Story, text: &str) {
    story.browser.until(&format!("{TEXTS}.includes({})", json!(text)));
}

/// One tab of each width in the same room; the narrow one is told.
fn two_tabs() -> Option<Story> {
    let mut story = Story::begin(&["--workers", "2"])?;
    for (width, scheme) in [(1280, "light"), (390, "dark")] {
        if width == 390 {
            story.browser.open_tab();
        }
        story.browser.look(width, scheme);
        story.open("/chat");
        story.browser.until(IS_OPEN);
    }
    Some(story)
}

/// The connection of the tab is lost, and it stays away until it is told to come back.
fn lose(story: &mut Story) {
    story.eval(
        "new Promise((done) => { const tell = room.tell; room.tell = (what, value) => { tell(what, value); \
         if (room.state === 'away') { clearTimeout(room.timer); room.tell = tell; done(true); } }; room.socket.close(); })",
    );
}

#[test]
fn what_one_tab_says_the_other_hears_and_what_it_misses_while_its_connection_is_lost_it_hears_later() {
    let Some(mut story) = two_tabs() else { return };
    let width = |story: &mut Story, width| assert_eq!(story.eval(&fits(width)), json!(true));
    say(&mut story, "hello from the phone");
    width(&mut story, 390);
    story.browser.turn();
    hears(&mut story, "hello from the phone");
    say(&mut story, "and back");
    width(&mut story, 1280);
    assert_eq!(story.eval("[byId('count').textContent, byId('names').children.length]"), json!(["2", 2]));
    story.browser.turn();
    hears(&mut story, "and back");

    story.eval("said.firstChild.id = 'kept'");
    lose(&mut story);
    story.browser.turn();
    for nth in 1..=3 {
        say(&mut story, &format!("missed {nth}"));
    }
    story.browser.turn();
    story.eval("room.connect()");
    hears(&mut story, "missed 3");
    let all = ["hello from the phone", "and back", "missed 1", "missed 2", "missed 3"];
    assert_eq!(story.eval(TEXTS), json!(all), "in order, and nothing twice");
    assert_eq!(
        story.eval("said.querySelector('#kept') !== null"),
        json!(true),
        "what it had is not loaded anew"
    );
    story.browser.turn();
    story.end();
}

#[test]
fn when_the_server_restarts_both_tabs_come_back_and_what_was_said_before_the_second_one_did_is_there() {
    let Some(story) = two_tabs() else { return };
    let Story { program, mut browser, .. } = story;
    let addr = program.addr.to_string();
    assert!(program.terminate().1.success());
    browser.until("room.state === 'away' && (clearTimeout(room.timer), true)");
    let program = Program::start(env!("CARGO_BIN_EXE_mini-program"), &["--addr", &addr, "--workers", "2"]);
    browser.turn();
    browser.until(IS_OPEN);
    browser.eval("words.value = 'while you were away'; byId('speak').requestSubmit()");
    browser.until("pending.size === 0");
    browser.turn();
    browser.eval("room.connect()");
    browser.until(&format!("{TEXTS}.includes('while you were away')"));
    // By itself, as well.
    assert!(program.terminate().1.success());
    browser.until("room.state === 'away'");
    let program = Program::start(env!("CARGO_BIN_EXE_mini-program"), &["--addr", &addr, "--workers", "2"]);
    browser.until(IS_OPEN);
    let refused = |complaint: &String| complaint.contains("WebSocket connection to");
    assert!(browser.complaints.iter().all(refused), "{:?}", browser.complaints);
    browser.close();
    assert!(program.terminate().1.success());
}

#[test]
fn who_has_missed_more_than_the_room_remembers_is_shown_how_much_and_where() {
    let Some(mut story) = two_tabs() else { return };
    say(&mut story, "before");
    lose(&mut story);
    story.browser.turn();
    // No socket may say so much alone, and 256 messages are remembered.
    story.eval(
        "var others = [...Array(30).keys()].map((nth) => new Room('lobby', `a-key-of-some-other-tab-${nth}`, () => {})); \
         for (const other of others) other.connect()",
    );
    story.browser.until("others.every((other) => other.state === 'open')");
    story.eval(
        "for (let nth = 0; nth < 10; nth++) for (const other of others) other.say(`${nth}`, undefined)",
    );
    story.browser.until("said.children.length === 300");
    story.eval("for (const other of others) other.leave(1000)");
    // The other tab may have left by now.
    story.browser.until("here.count <= 2");
    story.browser.turn();
    story.eval("var was = number(room.at); room.connect()");
    story.browser.until("said.querySelector('.gap') && room.state === 'open' && head === null");
    let gap = story.eval("said.querySelector('.gap').textContent");
    let missing: u64 = gap.as_str().unwrap().split(' ').next().unwrap().parse().unwrap();
    // Each line behind it is a message, or says of so many who have come or left.
    let behind = "[...said.querySelectorAll('.gap ~ *')]";
    let shown = format!("{behind}.reduce((sum, line) => sum + Number(line.dataset.count ?? 1), 0)");
    let shown = story.eval(&shown).as_u64().unwrap();
    let all = story.eval("number(room.at) - was").as_u64().unwrap();
    assert!(missing + shown == all && missing >= 100, "{missing} and {shown} of {all}");
    let before = story.eval("said.querySelector('.gap').previousSibling.textContent");
    assert!(before.as_str().unwrap().ends_with("before"), "{before}");
    story.browser.turn();
    story.end();
}

#[test]
fn what_is_said_is_shown_as_text_fits_on_a_phone_and_is_bounded() {
    let Some(mut story) = Story::begin(&["--workers", "1"]) else { return };
    let markup = "<img src=x onerror='window.ran=1'><script>window.ran=1</script>";
    let long = "x".repeat(900);
    for (nth, (width, scheme)) in LOOKS.into_iter().enumerate() {
        story.browser.look(width, scheme);
        story.open(&format!("/chat?room=room-{nth}"));
        story.browser.until(IS_OPEN);
        for text in [markup, &long, "\u{202e}\u{0634}\u{0627}\u{064a} \u{9f8d}\u{4e95} \u{1f375}"] {
            say(&mut story, text);
            hears(&mut story, text);
        }
        story.eval("byId('here').open = true");
        assert_eq!(story.eval(&fits(width)), json!(true), "{width} {scheme}");
        assert_eq!(story.eval("said.scrollWidth <= said.clientWidth"), json!(true), "a long word is broken");
        assert_eq!(story.eval("document.documentElement.scrollHeight <= innerHeight"), json!(true));
        assert_eq!(
            story.eval("byId('speak').getBoundingClientRect().bottom <= innerHeight"),
            json!(true),
            "what is typed in is in sight"
        );
    }
    assert_eq!(story.eval("typeof ran + document.images.length"), json!("undefined0"));

    // More than is kept, of which the newest is in sight unless somebody reads above.
    story.eval("for (let nth = 0; nth < 1000; nth++) note(`note ${nth}`)");
    assert_eq!(story.eval("[said.children.length, said.lastChild.textContent]"), json!([300, "note 999"]));
    let is_near = "said.scrollHeight - said.scrollTop - said.clientHeight < 2";
    assert_eq!(story.eval(is_near), json!(true));
    story.eval("said.scrollTop = 0");
    story.browser.until("!isFollowing");
    story.eval("note('below')");
    assert_eq!(story.eval("[said.scrollTop, byId('newest').hidden]"), json!([0, false]));
    story.eval("byId('newest').click()");
    assert_eq!(story.eval(&format!("[{is_near}, byId('newest').hidden]")), json!([true, true]));
    story.end();
}

#[test]
fn what_is_not_sent_is_said_and_stays_to_be_sent_again() {
    let Some(mut story) = Story::begin(&["--workers", "1"]) else { return };
    story.open("/chat");
    story.browser.until(IS_OPEN);
    story.eval(&format!("words.value = '{}'; byId('speak').requestSubmit()", "x".repeat(1001)));
    let hint = "byId('hint').textContent";
    assert_eq!(story.eval(hint), json!("1 character too many: a message has 1000."));
    assert_eq!(story.eval("words.value.length"), json!(1001), "it is still there");
    // What the page would not send, and what it sends too fast, the server refuses.
    story.eval("room.socket.send(JSON.stringify({ text: 'x'.repeat(1001) }))");
    story.browser.until(&format!("{hint}.startsWith('text: must have at most 1000 characters')"));
    story.eval("for (let nth = 0; nth < 12; nth++) speak(`quick ${nth}`)");
    story.browser.until("pending.size === 0");
    // Two, or fewer if it has taken its time.
    let failed = story.eval("said.querySelectorAll('.failed').length");
    assert!((1..=2).contains(&failed.as_u64().unwrap()), "{failed}");
    assert_eq!(story.eval(&format!("{hint}.startsWith('too fast')")), json!(true));
    // A session has one socket: the other one says so, and does not fight for it.
    story.eval("var other = new Room('lobby', room.key, () => {}); other.connect()");
    story.browser.until("room.state === 'over'");
    assert_eq!(story.eval("byId('state').textContent"), json!("Closed: this session goes on elsewhere."));
    story.eval("byId('again').click()");
    story.browser.until(&format!("{IS_OPEN} && other.state === 'over'"));
    assert_eq!(story.eval("said.querySelectorAll('.failed').length"), failed);
    story.eval("said.querySelector('.failed button').click()");
    story.browser.until("pending.size === 0");
    story.end();
}
