//! Forms with files, part by part while they arrive.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netpoll_core::sim::Options;
use netpoll_http::multipart::MultipartLimits;
use netpoll_http::{
    App, BodyReader, Error, Handler, Method, Multipart, Request, RouteLimits, Router, StatusCode, TestClient,
    TestConnection,
};

/// A directory of a test, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("multipart-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(&self.0)
            .expect("the folder is there")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A form of a title, a file and a field that nobody reads.
fn form(file: &[u8]) -> Vec<u8> {
    let title = "--x\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\ntea\r\n";
    let picture = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"../a.jpg\"\r\nContent-Type: image/jpeg\r\n\r\n";
    let rest = "\r\n--x\r\nContent-Disposition: form-data; name=\"rest\"\r\n\r\nof it\r\n--x--\r\n";
    [title.as_bytes(), picture.as_bytes(), file, rest.as_bytes()].concat()
}

fn app(path: &Path, options: Options) -> TestClient {
    let path = path.to_owned();
    let router = move |_: &_| {
        let path = path.clone();
        let upload = async move |req: Request, body: BodyReader| {
            let mut form = Multipart::new(&req, body)?;
            let mut answer = String::new();
            while let Some(part) = form.next().await? {
                match (part.name().to_owned(), part.filename().map(str::to_owned)) {
                    (name, None) if name == "rest" => answer += "rest;",
                    (name, None) => answer += &format!("{name}={};", part.text().await?),
                    (name, Some(filename)) => {
                        let kind = part.content_type().unwrap_or("-").to_owned();
                        let bytes = part.save(path.join("saved")).await?;
                        answer += &format!("{name}={filename} {kind} {bytes};");
                    }
                }
            }
            Ok(answer)
        };
        Router::new().post("/", upload.limits(RouteLimits::default().unlimited_body()))
    };
    App::new(router).test_with(options)
}

fn client(folder: &Folder) -> TestClient {
    app(&folder.0, Options::default())
}

/// Sends a form in pieces of so many bytes.
fn send(client: &TestClient, form: &[u8], pieces: usize) -> TestConnection {
    let mut connection = client.connect();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=x\r\n";
    connection.send(format!("{head}Content-Length: {}\r\n\r\n", form.len()).as_bytes());
    form.chunks(pieces).for_each(|piece| connection.send(piece));
    connection
}

#[test]
fn a_form_comes_part_by_part_however_it_is_cut() {
    let folder = Folder::new("cuts");
    let client = client(&folder);
    let file = b"\r\n--\r\n--y\r\n-".repeat(3);
    let form = form(&file);
    for pieces in (1..40).chain([form.len()]) {
        let mut connection = send(&client, &form, pieces);
        let response = connection.response().expect("an answer");
        let said = format!("title=tea;file=../a.jpg image/jpeg {};rest;", file.len());
        assert_eq!((response.status, response.text()), (StatusCode::OK, said.as_str()), "{pieces} at a time");
        assert_eq!(fs::read(folder.0.join("saved")).expect("a file"), file, "{pieces} at a time");
        fs::remove_file(folder.0.join("saved")).expect("the file");
    }
    assert_eq!(client.blocks_in_use(), 0);
}

#[test]
fn a_file_of_many_megabytes_is_saved_in_bounded_memory() {
    let folder = Folder::new("large");
    let mut options = Options::default();
    options.limits.memory_bytes_max = Some(1 << 20);
    let client = app(&folder.0, options);
    let file: Vec<u8> = (0..20 << 20).map(|at: u32| (at % 251) as u8).collect();
    let response = send(&client, &form(&file), 60_000).response().expect("an answer");
    assert_eq!(response.text(), format!("title=tea;file=../a.jpg image/jpeg {};rest;", file.len()));
    assert!(fs::read(folder.0.join("saved")).expect("a file") == file);
    assert_eq!((client.stats().memory_overflows, client.blocks_in_use()), (0, 0));
}

#[test]
fn a_file_that_is_not_whole_is_removed() {
    for way in 0..4 {
        let folder = Folder::new(&format!("removed-{way}"));
        let client = client(&folder);
        let form = form(&vec![b'x'; 300_000]);
        let mut connection = client.connect();
        let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=\"x\"\r\n";
        connection.send(format!("{head}Content-Length: {}\r\n\r\n", form.len()).as_bytes());
        connection.send(&form[..200_000]);
        client.run();
        assert_eq!(folder.files(), ["saved"]);
        match way {
            0 => connection.reset(),
            1 => connection.finish(),
            2 => client.advance(Duration::from_secs(11)),
            _ => client.begin_drain(Duration::from_secs(1)),
        }
        client.advance(Duration::from_secs(3));
        assert_eq!(folder.files(), [""; 0], "way {way}");
        assert_eq!((client.open(), client.stats().panics), (0, 0));
    }
}

#[test]
fn a_file_that_is_there_is_not_written_over() {
    let folder = Folder::new("there");
    fs::write(folder.0.join("saved"), "mine").expect("a file");
    let response = send(&client(&folder), &form(b"theirs"), 1000).response().expect("an answer");
    assert_eq!(response.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(fs::read(folder.0.join("saved")).expect("a file"), b"mine");
}

#[test]
fn what_is_no_form_is_refused_and_what_goes_wrong_says_so() {
    let folder = Folder::new("refused");
    let client = client(&folder);
    let ask = |kind: &str, body: &str| {
        let request = client.request(Method::POST, "/").header("Content-Type", kind).body(body);
        let response = request.send();
        (response.status.as_u16(), response.text().to_owned())
    };
    assert_eq!(ask("application/json", "{}").0, 415);
    for boundary in
        ["", "; boundary=", "; boundary=\"a \"", "; boundary=a; boundary=a", "; boundary=\"\u{7f}\""]
    {
        let said = ask(&format!("multipart/form-data{boundary}"), "--a--");
        assert_eq!(said.0, 400, "{boundary}");
    }
    let x = "multipart/form-data; charset=utf-8; boundary=x";
    assert_eq!(ask(x, "--x--"), (200, String::new()));
    assert_eq!(ask(x, "--y--"), (400, "the form does not begin with its boundary\n".to_owned()));
    let half = "--x\r\nContent-Disposition: form-data; name=title\r\n\r\ntea";
    assert_eq!(ask(x, half), (400, "the form ends in the middle\n".to_owned()));
    let long = format!("{}\r\n--x--", half.replace("tea", &"t".repeat(70_000)));
    assert_eq!(ask(x, &long), (413, "a field of the form has too many bytes\n".to_owned()));
    let odd = [half.replace("tea", "").as_bytes(), b"\xff\r\n--x--"].concat();
    let request = client.request(Method::POST, "/").header("Content-Type", x).body(odd);
    assert_eq!(request.send().text(), "a field of the form is not UTF-8\n");
}

#[test]
fn ten_thousand_parts_take_the_memory_of_one() {
    thread_local!(static PARTS: Cell<u64> = const { Cell::new(0) });
    let count = async |req: Request, body: BodyReader| {
        let limits = MultipartLimits::default().parts_max(10_000);
        let mut form = Multipart::new(&req, body)?.limits(limits);
        let mut bytes = 0;
        while let Some(mut part) = form.next().await? {
            PARTS.set(PARTS.get() + 1);
            while let Some(chunk) = part.chunk().await? {
                bytes += chunk.len();
            }
        }
        Ok(bytes.to_string())
    };
    let mut options = Options::default();
    options.limits.memory_bytes_max = Some(400 << 10);
    let any = RouteLimits::default().unlimited_body();
    let client = App::new(move |_| Router::new().post("/", count.limits(any))).test_with(options);
    let part = format!("--x\r\nContent-Disposition: form-data; name=a\r\n\r\n{}\r\n", "y".repeat(1000));
    let form = part.repeat(10_000) + "--x--";
    let response = send(&client, form.as_bytes(), 50_000).response().expect("an answer");
    assert_eq!((response.text(), PARTS.get()), ("10000000", 10_000));
    assert_eq!((client.stats().memory_overflows, client.blocks_in_use()), (0, 0));
    let more = part.repeat(10_001) + "--x--";
    let refused = send(&client, more.as_bytes(), 50_000).response().expect("an answer");
    assert_eq!((refused.status.as_u16(), refused.text()), (413, "the form has too many parts\n"));
}

#[test]
fn a_part_may_be_left_in_the_middle_and_a_file_be_written_where_the_program_says() {
    let folder = Folder::new("behind");
    let path = folder.0.join("log");
    fs::write(&path, "begun;").expect("a file");
    let file_path = path.clone();
    let router = move |_: &_| {
        let path = file_path.clone();
        let upload = async move |req: Request, body: BodyReader| {
            let mut form = Multipart::new(&req, body)?;
            if let Some(mut part) = form.next().await? {
                part.chunk().await?;
            }
            let part = form.next().await?.ok_or(Error::bad_request("no file"))?;
            let file = fs::File::options().append(true).open(&path)?;
            let (_, bytes) = part.write_to(file).await?;
            Ok(bytes.to_string())
        };
        Router::new().post("/", upload)
    };
    let client = App::new(router).test();
    for pieces in [1, 7, 1000] {
        let mut connection = send(&client, &form(b"the file;"), pieces);
        assert_eq!(connection.response().expect("an answer").text(), "9", "in front of the last part");
        connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(connection.response().expect("the next").status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    assert_eq!(fs::read_to_string(path).expect("a file"), "begun;the file;the file;the file;");
}
