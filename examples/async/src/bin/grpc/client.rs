//! The client: generated code over a connection that hyper drives in a task beside it.

use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::stream;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use netpoll_core::bridge::{HyperExecutor, HyperTimer};
use netpoll_core::net::Stream;
use netpoll_core::task::spawn_local;
use netpoll_core::time::timeout;
use tonic::Status;
use tonic::body::Body;

use crate::rooms::rooms_client::RoomsClient;
use crate::rooms::{Line, Room};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// How long a call may take whose deadline nobody has named.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What generated code sends its requests by.
struct Channel(http2::SendRequest<Body>);

impl tower_service::Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = LocalBoxFuture<'static, Result<Response<Incoming>, hyper::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

async fn connect(addr: &str) -> Result<RoomsClient<Channel>, Box<dyn std::error::Error>> {
    let mut builder = http2::Builder::new(HyperExecutor);
    builder.timer(HyperTimer);
    let (requests, connection) = builder.handshake(Stream::connect(addr).await?).await?;
    // It ends with the channel, and calls are told if it ends before.
    let _goes_on = spawn_local(connection);
    Ok(RoomsClient::with_origin(Channel(requests), format!("http://{addr}").parse::<Uri>()?))
}

/// Tells the server how long we wait, and waits no longer.
async fn call<T, R>(
    message: T,
    time: Option<Duration>,
    call: impl AsyncFnOnce(tonic::Request<T>) -> Result<R, Status>,
) -> Result<R, Status> {
    let mut request = tonic::Request::new(message);
    if let Some(time) = time {
        request.set_timeout(time);
    }
    let late = |_| Err(Status::deadline_exceeded("no answer in time"));
    timeout(time.unwrap_or(PATIENCE), call(request)).await.unwrap_or_else(late)
}

pub async fn say(addr: String, line: Line, time: Option<Duration>) -> Outcome {
    let mut client = connect(&addr).await?;
    let said = call(line, time, async |request| client.say(request).await).await?;
    println!("{}", said.into_inner().count);
    Ok(())
}

pub async fn listen(addr: String, room: String, time: Option<Duration>) -> Outcome {
    let mut client = connect(&addr).await?;
    let mut request = tonic::Request::new(Room { name: room });
    if let Some(time) = time {
        request.set_timeout(time);
    }
    let mut lines = client.listen(request).await?.into_inner();
    println!("listening");
    while let Some(line) = lines.message().await? {
        println!("{}", line.text);
    }
    Ok(())
}

pub async fn shout(addr: String, words: Vec<String>, time: Option<Duration>) -> Outcome {
    let mut client = connect(&addr).await?;
    let lines = words.into_iter().map(|text| Line { text, ..Line::default() });
    let mut lines =
        call(stream::iter(lines), time, async |request| client.shout(request).await).await?.into_inner();
    while let Some(line) = lines.message().await? {
        println!("{}", line.text);
    }
    Ok(())
}
