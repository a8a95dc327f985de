//! Forms with files, as the mini-program takes them, by hand and from a browser.

use std::io::Write;
use std::net::TcpStream;

use serde_json::json;

use crate::browser::Story;
use crate::support::{Answer, Program};

const FORM: &str = "Content-Type: multipart/form-data; boundary=x";

fn start(arguments: &[&str]) -> (Program, String) {
    let arguments = [&["--addr", "127.0.0.1:0", "--workers", "1"], arguments].concat();
    let program = Program::start(env!("CARGO_BIN_EXE_mini-program"), &arguments);
    let login = r#"{"code":"demo-ann"}"#;
    let answer = program.request("POST", "/login", &["Content-Type: application/json"], login);
    let session = format!("Authorization: Bearer {}", answer.json()["token"].as_str().unwrap());
    (program, session)
}

/// A part, with these parameters of its name.
fn part(parameters: &str, data: &str) -> String {
    format!("--x\r\nContent-Disposition: form-data; {parameters}\r\n\r\n{data}\r\n")
}

/// Sends the head of a request without its body.
fn begin(program: &Program, headers: &[&str]) -> TcpStream {
    let mut stream = program.connect();
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    stream.write_all(format!("POST /upload HTTP/1.1\r\nHost: a\r\n{headers}\r\n").as_bytes()).unwrap();
    stream
}

#[test]
fn each_part_is_counted_and_digested() {
    let (program, session) = start(&[]);
    let form = format!(
        "{}--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\nhello\r\n--x--\r\n",
        part("name=\"note\"", "")
    );
    let answer = program.request("POST", "/upload", &[FORM, &session], &form);
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let hello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let expected = json!({
        "parts": [
            { "name": "note", "bytes": 0, "sha256": empty },
            { "name": "file", "filename": "a.txt", "type": "text/plain", "bytes": 5, "sha256": hello },
        ],
        "bytes": 5,
    });
    assert_eq!((answer.status, answer.json()), (200, expected));
    assert!(program.terminate().1.success());
}

#[test]
fn what_is_no_form_or_too_much_of_one_is_refused_with_a_reason() {
    let (program, session) = start(&["--upload-bytes-max", "10000"]);
    let ask = |headers: &[&str], body: &str| {
        let answer = program.request("POST", "/upload", headers, body);
        (answer.status, answer.body)
    };
    let end = "--x--\r\n";
    let many: String = (0..17).map(|nth| part(&format!("name=\"{nth}\""), "")).collect();
    let long = part(&format!("name=\"{}\"", "n".repeat(1100)), "");
    let large = part("name=\"a\"", &"d".repeat(10_000));
    for (form, status) in [
        (format!("{}{end}", part("name=\"a\"", "data")), 200),
        (part("name=\"a\"", "data"), 400),
        (format!("{many}{end}"), 413),
        (format!("{long}{end}"), 413),
        (format!("{large}{end}"), 413),
    ] {
        let (given, said) = ask(&[FORM, &session], &form);
        assert_eq!(given, status, "{said}");
        assert!(given == 200 || said.lines().count() == 1 && said.len() > 1, "{said:?}");
    }
    assert_eq!(ask(&["Content-Type: text/plain", &session], "x").0, 415);
    assert_eq!(ask(&["Content-Type: multipart/form-data", &session], "x").0, 400);

    // Who may not, or says in advance that it is too much, is told so before it sends anything.
    let mut stranger = begin(&program, &[FORM, "Content-Length: 9000"]);
    assert_eq!(Answer::read(&mut stranger).status, 401);
    let mut large = begin(&program, &[FORM, &session, "Content-Length: 10001"]);
    assert_eq!(Answer::read(&mut large).status, 413);
    // Who does not, when it is.
    let mut endless = begin(&program, &[FORM, &session, "Transfer-Encoding: chunked"]);
    let chunk = |data: &str| format!("{:x}\r\n{data}\r\n", data.len());
    endless.write_all(chunk(&part("name=\"a\"", "")[..45]).as_bytes()).unwrap();
    endless.write_all(chunk("\r\n\r\n").as_bytes()).unwrap();
    for _ in 0..3 {
        endless.write_all(chunk(&"d".repeat(4000)).as_bytes()).unwrap();
    }
    assert_eq!(Answer::read(&mut endless).status, 413);
    assert!(program.terminate().1.success());
}

#[test]
fn an_upload_of_any_length_takes_the_memory_of_a_few_pieces() {
    let (program, session) = start(&[]);
    let bytes: usize = 48 << 20;
    let before = program.peak_resident_bytes();
    let (head, end) = (part("name=\"a\"", ""), "\r\n--x--\r\n");
    let head = head.strip_suffix("\r\n").unwrap();
    let length = format!("Content-Length: {}", head.len() + bytes + end.len());
    let mut stream = begin(&program, &[FORM, &session, &length]);
    stream.write_all(head.as_bytes()).unwrap();
    let piece = vec![7; 1 << 20];
    for _ in 0..bytes >> 20 {
        stream.write_all(&piece).unwrap();
    }
    stream.write_all(end.as_bytes()).unwrap();
    let answer = Answer::read(&mut stream);
    assert_eq!((answer.status, &answer.json()["bytes"]), (200, &json!(bytes)));
    let grown = program.peak_resident_bytes() - before;
    assert!(grown < 4 << 20, "{grown} bytes");
    assert!(program.terminate().1.success());
}

#[test]
fn the_front_page_sends_files_and_shows_how_far_it_is() {
    let Some(mut story) = Story::begin(&["--workers", "1"]) else { return };
    story.browser.look(390, "light");
    story.open("/");
    story.eval("byId('login').querySelector('form button').click()");
    story.browser.until("byId('login').querySelector('.status.good')");
    story.eval(
        "var chosen = new DataTransfer(); for (const name of ['a.bin', '<b>.txt']) chosen.items.add(new File(['x'.repeat(3e6)], name)); \
         var card = byId('upload'), shown = []; card.querySelector('input').files = chosen.files; \
         new MutationObserver(() => shown.push(card.querySelector('.status').textContent)).observe(card.querySelector('.status'), { childList: true })",
    );
    story.eval("card.querySelector('form button').click()");
    story.browser.until("card.querySelector('.status.good')");
    let answer = story.eval("card.querySelector('.answer').textContent");
    let answer = answer.as_str().unwrap();
    assert!(
        answer.contains("\"bytes\": 6000000") && answer.contains("\"filename\": \"<b>.txt\""),
        "{answer}"
    );
    story.browser.until("shown.includes('100 % sent')");
    assert_eq!(story.eval("document.documentElement.scrollWidth <= 390"), json!(true));
    story.end();
}
