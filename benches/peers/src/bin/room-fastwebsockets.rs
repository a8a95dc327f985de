//! A room on tokio and fastwebsockets: two tasks for each socket, one of which reads, and tokio's broadcast channel between them.

use std::convert::Infallible;
use std::sync::Arc;

use fastwebsockets::{FragmentCollectorRead, Frame, OpCode, Payload, WebSocketError, upgrade};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use peers::{Options, on_each_worker};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::broadcast::{self, Sender};
use tokio::task::LocalSet;

/// Messages that a socket may be behind.
const BEHIND_MAX: usize = 64;

type Room = Sender<(bool, Arc<[u8]>)>;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let options = Options::from_args();
    on_each_worker(&options, |listener| {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(LocalSet::new().run_until(async {
            let listener = TcpListener::from_std(listener)?;
            let (room, _) = broadcast::channel(BEHIND_MAX);
            loop {
                let (stream, _) = listener.accept().await?;
                tokio::task::spawn_local(serve(stream, room.clone()));
            }
        }))
    })
}

async fn serve(stream: TcpStream, room: Room) {
    let _ = stream.set_nodelay(true);
    let answer = service_fn(move |request| open(request, room.clone()));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).with_upgrades().await;
}

async fn open(mut request: Request<Incoming>, room: Room) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (answer, opening) = upgrade::upgrade(&mut request)?;
    tokio::task::spawn_local(async move { member(opening, room).await });
    Ok(answer)
}

async fn member(opening: upgrade::UpgradeFut, room: Room) -> Result<(), WebSocketError> {
    let socket = opening.await?;
    let (read, mut write) = socket.split(tokio::io::split);
    let mut heard = room.subscribe();
    tokio::task::spawn_local(async move {
        while let Ok((is_text, payload)) = heard.recv().await {
            let payload = Payload::Borrowed(&payload);
            let frame = if is_text { Frame::text(payload) } else { Frame::binary(payload) };
            if write.write_frame(frame).await.is_err() {
                return;
            }
        }
    });
    let mut read = FragmentCollectorRead::new(read);
    loop {
        // Answers to pings are left out: nobody sends one.
        let frame = read.read_frame(&mut |_| async { Ok::<(), Infallible>(()) }).await?;
        match frame.opcode {
            OpCode::Text | OpCode::Binary => {
                let _ = room.send((frame.opcode == OpCode::Text, Arc::from(&frame.payload[..])));
            }
            OpCode::Close => return Ok(()),
            _ => {}
        }
    }
}
