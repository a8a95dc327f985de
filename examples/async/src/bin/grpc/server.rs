//! The service, on all workers.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{self, Stream as Values, StreamExt};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use netpoll_core::bridge::{HyperExecutor, HyperTimer, SendWrapper};
use netpoll_core::net::Stream;
use netpoll_core::sync::shared::mpsc;
use netpoll_core::time::sleep;
use netpoll_core::{Backend, Runtime, task};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::deadline;
use crate::rooms::rooms_server::{Rooms, RoomsServer};
use crate::rooms::{Line, Room, Said};

/// Lines that a listener may be behind. The next one is not for it.
const BEHIND_MAX: usize = 64;
const PATIENCE: Duration = Duration::from_secs(20);

/// Who listens where, and how much has been said. Tonic wants it `Sync`, and all workers share it.
#[derive(Clone, Default)]
struct AllRooms(Arc<Mutex<HashMap<String, OfRoom>>>);

#[derive(Default)]
struct OfRoom {
    count: u64,
    listeners: Vec<mpsc::Sender<Line>>,
}

impl AllRooms {
    fn of_room<R>(&self, name: &str, call: impl FnOnce(&mut OfRoom) -> R) -> R {
        let mut rooms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        call(rooms.entry(name.to_owned()).or_default())
    }
}

type Lines = Pin<Box<dyn Values<Item = Result<Line, Status>> + Send>>;

#[tonic::async_trait]
impl Rooms for AllRooms {
    type ListenStream = Lines;
    type ShoutStream = Lines;

    async fn say(&self, request: Request<Line>) -> Result<Response<Said>, Status> {
        let line = request.into_inner();
        if line.text.is_empty() {
            return Err(Status::invalid_argument("a line has a text"));
        }
        // A sleep of the worker; it is `Send`, as all that is awaited here has to be.
        sleep(Duration::from_millis(line.after_ms.into())).await;
        let count = self.of_room(&line.room, |room| {
            room.count += 1;
            // Who is too far behind misses it; who has left is forgotten.
            room.listeners.retain(|listener| {
                let _ = listener.try_send(line.clone());
                !listener.is_closed()
            });
            room.count
        });
        Ok(Response::new(Said { count }))
    }

    async fn listen(&self, request: Request<Room>) -> Result<Response<Lines>, Status> {
        let (sender, receiver) = mpsc::channel(BEHIND_MAX);
        self.of_room(&request.into_inner().name, |room| room.listeners.push(sender));
        let lines =
            stream::unfold(
                receiver,
                |mut receiver| async move { Some((Ok(receiver.recv().await?), receiver)) },
            );
        // A drain does not wait for more to be said. What waits for one is not `Send`, and never leaves its worker.
        let stopping = SendWrapper::pin(task::stopping());
        Ok(Response::new(lines.take_until(stopping).boxed()))
    }

    async fn shout(&self, request: Request<Streaming<Line>>) -> Result<Response<Lines>, Status> {
        let shouted = request.into_inner().map(|line| {
            let line = line?;
            Ok(Line { text: line.text.to_uppercase(), ..line })
        });
        Ok(Response::new(shouted.boxed()))
    }
}

/// HTTP/2, a task of the worker for each call.
async fn connection(stream: Stream, routes: Routes) {
    let mut builder = http2::Builder::new(HyperExecutor);
    builder.timer(HyperTimer).keep_alive_interval(PATIENCE);
    let service = service_fn(move |request| deadline::keep(routes.clone(), request));
    let mut connection = pin!(builder.serve_connection(stream, service));
    let mut stopping = pin!(task::stopping());
    let mut is_stopping = false;
    let served = poll_fn(|cx| {
        if !is_stopping && stopping.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    });
    // A client that leaves in the middle has nobody to tell.
    let _ = served.await;
}

pub fn serve(addr: &str, backend: Backend) -> Result<(), Box<dyn std::error::Error>> {
    let routes = Routes::new(RoomsServer::new(AllRooms::default())).prepare();
    let running = Runtime::builder()
        .backend(backend)
        .stop_on_signals(true)
        .listen_tasks(addr, move |stream, _peer| connection(stream, routes.clone()))?
        .start()?;
    println!("grpc listens on {}", running.local_addrs()[0]);
    println!("{}", running.wait()?);
    Ok(())
}
