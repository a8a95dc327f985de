//! Connections that are kept, by their host and port, each of which has one request at a time.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use netpoll_core::net::{IdleMark, Stream};
use netpoll_core::task::spawn_local;
use netpoll_core::time::timeout;

/// Connections of one host that are kept while nobody uses them.
const KEPT_MAX: usize = 32;

type Failure = Box<dyn std::error::Error>;
type Requests = SendRequest<Empty<Bytes>>;

/// One connection. While it is idle no drain waits for it.
struct Connection {
    requests: Requests,
    idle: IdleMark,
}

pub struct Pool {
    idle: RefCell<HashMap<String, Vec<Connection>>>,
    connections: Cell<usize>,
    patience: Duration,
}

impl Pool {
    /// One whose requests may take so long, a connection included.
    pub fn new(patience: Duration) -> Self {
        Self { idle: RefCell::default(), connections: Cell::new(0), patience }
    }

    /// How many it has made.
    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    /// What a server answers, whole.
    pub async fn get(&self, url: &Uri) -> Result<(StatusCode, Bytes), Failure> {
        timeout(self.patience, self.get_at_last(url)).await.map_err(|_| "timed out")?
    }

    async fn get_at_last(&self, url: &Uri) -> Result<(StatusCode, Bytes), Failure> {
        let host = url.host().ok_or("no host")?;
        let place = format!("{host}:{}", url.port_u16().unwrap_or(80));
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        loop {
            let (mut connection, is_new) = match self.take(&place).await {
                Some(connection) => (connection, false),
                None => (self.connect(&place).await?, true),
            };
            let request = Request::get(path).header(HOST, &place).body(Empty::new())?;
            let response = match connection.requests.try_send_request(request).await {
                Ok(response) => response,
                // The server has closed it meanwhile, and has not seen the request.
                Err(refused) if !is_new && refused.message().is_some() => continue,
                Err(refused) => return Err(refused.into_error().into()),
            };
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            self.keep(place, connection);
            return Ok((status, body));
        }
    }

    /// One that is idle and still open.
    async fn take(&self, place: &str) -> Option<Connection> {
        loop {
            let mut connection = self.idle.borrow_mut().get_mut(place)?.pop()?;
            connection.idle.set(false);
            // Its task may not know yet that the answer before was read to its end.
            if connection.requests.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    fn keep(&self, place: String, connection: Connection) {
        let mut idle = self.idle.borrow_mut();
        let kept = idle.entry(place).or_default();
        if !connection.requests.is_closed() && kept.len() < KEPT_MAX {
            connection.idle.set(true);
            kept.push(connection);
        }
    }

    async fn connect(&self, place: &str) -> Result<Connection, Failure> {
        let stream = Stream::connect(place).await?;
        let idle = stream.idle_mark();
        let (requests, connection) = http1::handshake(stream).await?;
        self.connections.set(self.connections.get() + 1);
        // It ends when nobody has requests for it any more; who waits for an answer is told what went wrong.
        let _goes_on = spawn_local(connection);
        Ok(Connection { requests, idle })
    }
}
