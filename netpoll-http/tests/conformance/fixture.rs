//! The service that the cases are written for; the routes are listed in `cases`.

use std::future::poll_fn;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Poll, Waker};

use netpoll_core::sim::Options;
use netpoll_http::{
    BodyReader, Error, Files, Handler, Limits, Method, Reply, Request, RouteLimits, Router, StatusCode,
    Worker,
};

use crate::answer::{self, Answer};
use crate::cases::{self, CANARY_BODY};
use crate::transport::{App, TestClient, TestConnection};

/// The routes of the table. What is done with bodies is done with them as a whole, or while they arrive, as the suite says.
pub fn router() -> Router {
    let router = Router::new()
        .get("/", |_: &Request| "hello")
        .get("/canary", |_: &Request| CANARY_BODY)
        .get("/header", echo_header)
        .post("/header", echo_header)
        .get("/host", |req: &Request| req.host().unwrap_or("none").to_owned())
        .get("/path/{*rest}", |req: &Request| req.path().to_owned())
        .get("/files/{*rest}", files());
    if !crate::READS_BODIES {
        let echo =
            |req: &Request, reply: Reply| reply.bytes(StatusCode::OK, "application/octet-stream", req.body());
        let trailers = |req: &Request| req.trailers().flat_map(trailer).collect::<Vec<u8>>();
        return with_bodies(router.post("/trailers", trailers), || echo);
    }
    let trailers = async |_: Request, mut body: BodyReader| {
        while body.chunk().await?.is_some() {}
        Ok(body.trailers().flat_map(trailer).collect::<Vec<u8>>())
    };
    with_bodies(router.post("/trailers", trailers), || gather)
}

fn with_bodies<M, H: Handler<M>>(router: Router, echo: impl Fn() -> H) -> Router {
    let at_most = |bytes| RouteLimits::default().body_bytes_max(bytes);
    router
        .post("/small", echo().limits(at_most(16)))
        .route("/echo", [Method::POST, Method::PUT, Method::PATCH], echo())
        // Without it they would see an empty body.
        .route("/echo", [Method::GET, Method::DELETE, Method::OPTIONS], echo().limits(at_most(1 << 20)))
}

fn trailer((name, value): (&str, &[u8])) -> Vec<u8> {
    [name.as_bytes(), b"=", value, b";"].concat()
}

async fn gather(_: Request<'static>, mut body: BodyReader) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

/// The files of the table, put down once for all tests.
fn files() -> Files {
    static FILES: LazyLock<Files> = LazyLock::new(|| {
        let tree = Path::new(env!("CARGO_TARGET_TMPDIR")).join(env!("CARGO_CRATE_NAME"));
        let root = tree.join("root");
        // Left behind by the last run.
        let _ = std::fs::remove_dir_all(&tree);
        for (name, content) in cases::FILES {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, content).expect("a file");
        }
        std::fs::write(tree.join("secret"), "the secret").expect("a file");
        symlink("../secret", root.join("link_out")).expect("a link");
        symlink(tree.join("secret"), root.join("link_absolute")).expect("a link");
        symlink("..", root.join("link_up")).expect("a link");
        Files::new(root).expect("a directory")
    });
    FILES.clone()
}

fn echo_header(req: &Request<'_>) -> Option<Vec<u8>> {
    req.header("x-echo").map(<[u8]>::to_vec)
}

/// The routes of the table in memory.
pub fn client() -> TestClient {
    client_with(|_| router())
}

/// The same on a network that misbehaves as told.
pub fn client_on(options: Options) -> TestClient {
    App::new(|_: &Worker| router()).test_with(options)
}

/// A service in memory, with the default limits.
pub fn client_with(factory: impl Fn(&Worker) -> Router + Send + Sync + 'static) -> TestClient {
    App::new(factory).test()
}

/// The routes of the table in memory, with other limits.
pub fn client_limited(change: impl FnOnce(&mut Limits)) -> TestClient {
    let mut limits = Limits::default();
    change(&mut limits);
    App::new(|_: &Worker| router()).limits(limits).test()
}

/// Something that a handler waits for until a test lets it go.
#[derive(Clone, Default)]
pub struct Gate(Arc<Mutex<Door>>);

#[derive(Default)]
struct Door {
    is_open: bool,
    waiting: Vec<Waker>,
}

impl Gate {
    /// Lets everybody through, now and later.
    pub fn open(&self) {
        let mut door = self.0.lock().expect("nobody panics with the door in hand");
        door.is_open = true;
        door.waiting.drain(..).for_each(Waker::wake);
    }

    /// Lets nobody through any more.
    pub fn close(&self) {
        self.0.lock().expect("nobody panics with the door in hand").is_open = false;
    }

    /// Waits until the gate is open.
    pub async fn pass(&self) {
        poll_fn(|context| {
            let mut door = self.0.lock().expect("nobody panics with the door in hand");
            if door.is_open {
                return Poll::Ready(());
            }
            door.waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// The routes of the table, and `GET /gated` which answers `through` when the gate is open.
pub fn gated(gate: &Gate) -> TestClient {
    gated_limited(gate, |_| ())
}

/// The same with other limits.
pub fn gated_limited(gate: &Gate, change: impl FnOnce(&mut Limits)) -> TestClient {
    let gate = gate.clone();
    let mut limits = Limits::default();
    change(&mut limits);
    let app = App::new(move |_: &Worker| {
        let gate = gate.clone();
        router().get("/gated", async move |_: Request| {
            gate.pass().await;
            "through"
        })
    });
    app.limits(limits).test()
}

/// `GET target` with a Host.
pub fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

/// All answers that came, none of them to HEAD.
pub fn answers(connection: &mut TestConnection) -> Vec<Answer> {
    let bytes = connection.received();
    match answer::read(&bytes, &[], connection.is_closed()) {
        Ok(answers) => answers,
        Err(error) => panic!("{error}: {}", bytes.escape_ascii()),
    }
}

/// Their statuses.
pub fn statuses(connection: &mut TestConnection) -> Vec<u16> {
    answers(connection).iter().map(|answer| answer.status).collect()
}

/// Their bodies, as text.
pub fn bodies(connection: &mut TestConnection) -> Vec<String> {
    let text = |answer: Answer| String::from_utf8(answer.body).expect("a text");
    answers(connection).into_iter().map(text).collect()
}
