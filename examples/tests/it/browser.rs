//! The pages of mini-program, but for the chat, in a real browser, wide and as narrow as a phone, light and dark.
//!
//! Without Chromium each test says that it is skipped.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::chromium::Browser;
use crate::support::Program;

pub const LOOKS: [(u32, &str); 4] = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")];

/// Nothing in a page is wider than the window. What it says of itself may grow on a phone when something sticks out.
pub fn fits(width: u32) -> String {
    format!("(document.documentElement.scrollWidth <= {width})")
}

pub struct Story {
    pub program: Program,
    pub browser: Browser,
    /// One browser at a time: each is several busy processes.
    _turn: MutexGuard<'static, ()>,
}

impl Story {
    pub fn begin(arguments: &[&str]) -> Option<Self> {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let browser = Browser::start()?;
        let arguments = [&["--addr", "127.0.0.1:0"], arguments].concat();
        let program = Program::start(env!("CARGO_BIN_EXE_mini-program"), &arguments);
        Some(Self { program, browser, _turn: turn })
    }

    pub fn open(&mut self, path: &str) {
        let url = format!("http://{}{path}", self.program.addr);
        self.browser.open(&url);
    }

    pub fn eval(&mut self, expression: &str) -> Value {
        self.browser.eval(expression)
    }

    /// Nothing was complained about, and the program ends as it should.
    pub fn end(self) {
        assert_eq!(self.browser.complaints, [""; 0]);
        self.browser.close();
        assert!(self.program.terminate().1.success());
    }
}

#[test]
fn the_front_page_tries_every_route_and_keeps_the_session() {
    let Some(mut story) = Story::begin(&["--workers", "2"]) else { return };
    let mut grounds = Vec::new();
    for (width, scheme) in LOOKS {
        story.browser.look(width, scheme);
        story.open("/");
        let count = story.eval("document.querySelectorAll('.route').length");
        story.eval("byId('all').click()");
        story.browser.until("byId('summary').dataset.state === 'done'");
        let said = story.eval("byId('summary').textContent");
        assert_eq!(said, json!(format!("All {count} routes answered as they should.")), "{width} {scheme}");
        assert_eq!(story.eval("document.querySelectorAll('.status.good').length"), count);
        assert_eq!(story.eval(&fits(width)), json!(true), "{width} {scheme}");
        grounds.push(story.eval("getComputedStyle(document.body).backgroundColor"));
    }
    assert!(grounds[0] != grounds[1] && grounds[2] == grounds[0] && grounds[3] == grounds[1], "{grounds:?}");

    story.open("/");
    let line = story.eval("byId('session').textContent");
    assert!(line.as_str().unwrap().starts_with("Logged in as openid-ann, until "), "{line}");
    story.eval("byId('me').querySelector('form button').click()");
    story.browser.until("byId('me').querySelector('.status.good')");
    let answer = story.eval("byId('me').querySelector('.answer').textContent");
    assert!(answer.as_str().unwrap().contains("\"openid\": \"openid-ann\""), "{answer}");
    story.end();
}

#[test]
fn what_comes_back_is_shown_as_text_and_never_run() {
    let Some(mut story) = Story::begin(&["--workers", "1"]) else { return };
    story.open("/");
    let markup = "<img src=x onerror='window.ran=1'><script>window.ran=1</script>";
    for (route, field) in [("login", ""), ("order", "note"), ("orders", ""), ("echo", "body")] {
        if !field.is_empty() {
            story.eval(&format!("byId('{route}').querySelector('[name={field}]').value = {}", json!(markup)));
        }
        story.eval(&format!("byId('{route}').querySelector('form button').click()"));
        story.browser.until(&format!("byId('{route}').querySelector('.status.good')"));
        let shown = story.eval(&format!("byId('{route}').querySelector('.answer').textContent"));
        assert_eq!(shown.as_str().unwrap().contains(markup), route != "login", "{shown}");
    }
    assert_eq!(story.eval("document.images.length + document.scripts.length"), json!(1));
    assert_eq!(story.eval("typeof ran"), json!("undefined"));
    assert_eq!(story.browser.complaints, [""; 0]);

    story.eval("document.body.append(make('script', {}, 'window.ran=1'))");
    assert_eq!(story.eval("typeof ran"), json!("undefined"), "the policy forbids what is not the page's own");
    // What the browser says of it comes when it likes.
    story.browser.complaints.clear();
    story.browser.close();
    assert!(story.program.terminate().1.success());
}

#[test]
fn an_answer_that_is_an_error_is_shown_with_its_reason() {
    let Some(mut story) = Story::begin(&["--workers", "1"]) else { return };
    story.open("/");
    story.eval("byId('me').querySelector('form button').click()");
    story.browser.until("byId('me').querySelector('.status.bad')");
    let shown = story.eval("byId('me').querySelector('.exchange').textContent");
    assert!(
        shown.as_str().unwrap().contains("401 Unauthorized")
            && shown.as_str().unwrap().contains("log in first")
    );
    story.eval("byId('all').click()");
    story.browser.until("byId('summary').dataset.state === 'done'");
    story.eval("byId('with-session').click(); byId('me').querySelector('form button').click()");
    story.browser.until("byId('me').querySelector('.status.bad')");
    let line = story.eval("byId('session').textContent");
    assert!(
        line.as_str().unwrap().starts_with("Logged in"),
        "a request without the session does not end it: {line}"
    );
    story.browser.close();
    assert!(story.program.terminate().1.success());
}

#[test]
fn the_counters_are_grouped_rated_and_drawn_with_zeros_folded_away() {
    let Some(mut story) = Story::begin(&["--workers", "2"]) else { return };
    story.open("/stats");
    for _ in 0..50 {
        assert_eq!(story.program.get("/plaintext").status, 200);
    }
    story.browser.until("samples.points.length >= 3 && samples.snapshots.at(-1).requests > 50");
    let rows = "groups.flatMap((group) => group.rows)";
    // A level may have been something else before.
    let counts = "!row.kind.startsWith('level')";
    let is_zero = "row.total.textContent.startsWith('0') && samples.snapshots.at(-1)[row.name] === 0";
    let is_folded = "Boolean(row.element.closest('details:not([open])'))";
    let wrong =
        format!("{rows}.filter((row) => {counts} && ({is_zero}) !== {is_folded}).map((row) => row.name)");
    assert_eq!(story.eval(&wrong), json!([]), "zeros are folded, and nothing else is");
    let folded = story.eval(&format!("{rows}.filter((row) => {is_folded}).length"));
    assert!(folded.as_u64() >= Some(20), "{folded}");
    assert_eq!(
        story.eval("charts.every((chart) => chart.lines[0].getAttribute('d').startsWith('M'))"),
        json!(true)
    );
    assert_eq!(story.eval("tiles.every(({ figure }) => figure.textContent !== '–')"), json!(true));
    assert_eq!(story.eval("groups.some((group) => group.card.textContent.includes('Others'))"), json!(false));
    assert_eq!(story.eval("byId('scope').length"), json!(3));
    story.eval("byId('scope').value = '1'; byId('scope').dispatchEvent(new Event('change'))");
    let of_one =
        "groups[0].rows[0].total.textContent === whole(samples.snapshots.at(-1).per_worker[1].requests)";
    assert_eq!(story.eval(of_one), json!(true), "one worker's alone");
    story.end();
}

#[test]
fn the_counters_explain_themselves_by_keyboard_and_fit_on_a_phone() {
    let Some(mut story) = Story::begin(&["--workers", "2"]) else { return };
    for (width, scheme) in LOOKS {
        story.browser.look(width, scheme);
        story.open("/stats");
        story.browser.until("samples.points.length >= 2");
        // With everything unfolded and each explanation shown in turn.
        story.eval("document.querySelectorAll('details').forEach((each) => each.open = true)");
        let stick_out = format!(
            "[...document.querySelectorAll('.name')].filter((name) => {{ name.focus(); const tip = \
             byId(name.getAttribute('aria-describedby')); return !(tip.textContent.length > 4 && \
             getComputedStyle(tip).display === 'block' && {}); }}).map((name) => name.textContent)",
            fits(width)
        );
        assert_eq!(story.eval(&stick_out), json!([]), "{width} {scheme}");
        assert_eq!(story.eval(&fits(width)), json!(true), "{width} {scheme}");
    }
    story.eval("document.querySelector('.row .name').focus()");
    story.browser.press("Escape");
    let open = "[...document.querySelectorAll('.tip')].filter((tip) => getComputedStyle(tip).display !== 'none').length";
    assert_eq!(story.eval(open), json!(0), "Escape takes an explanation away");

    story.eval("isPaused = true; charts[0].svg.focus()");
    story.browser.press("ArrowLeft");
    assert_eq!(
        story.eval("charts.every((chart) => chart.cursor.getAttribute('visibility') === 'visible')"),
        json!(true)
    );
    story.browser.press("Escape");
    assert_eq!(
        story.eval("charts.every((chart) => chart.cursor.getAttribute('visibility') === 'hidden')"),
        json!(true)
    );
    story.end();
}

#[test]
fn what_the_page_of_counters_keeps_is_bounded_and_begins_anew_with_another_process() {
    let Some(mut story) = Story::begin(&["--workers", "1"]) else { return };
    story.open("/stats");
    story.browser.until("samples.snapshots.length > 0");
    story.eval(
        "var kept = new Samples(), at = (seconds) => ({ ...structuredClone(samples.snapshots[0]), requests: 10 * \
         seconds, uptime_seconds: seconds }); for (let second = 1; second <= 1000; second++) kept.add(at(second))",
    );
    assert_eq!(story.eval("[kept.points.length, kept.snapshots.length]"), json!([302, 6]));
    assert_eq!(story.eval("[kept.rate('requests', -1), kept.window]"), json!([10, 300]));
    story.eval("kept.add(at(2))");
    assert_eq!(story.eval("[kept.points.length, kept.snapshots.length]"), json!([1, 1]));
    assert_eq!(story.browser.complaints, [""; 0]);

    let Story { program, mut browser, _turn } = story;
    assert!(program.terminate().1.success());
    browser.until("byId('state').textContent.startsWith('No answer since')");
    browser.close();
}
