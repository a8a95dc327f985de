//! A room on tokio and tungstenite: a task for each socket, and tokio's broadcast channel between them.
//!
//! With a read buffer of 4 KiB: of the 128 KiB that are the default each message would cost four times as much.

use futures_util::{SinkExt, StreamExt};
use peers::{Options, on_each_worker};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::broadcast::{self, Sender};
use tokio::task::LocalSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

const READ_BYTES: usize = 4096;
/// Messages that a socket may be behind.
const BEHIND_MAX: usize = 64;

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
                tokio::task::spawn_local(member(stream, room.clone()));
            }
        }))
    })
}

async fn member(stream: TcpStream, room: Sender<Message>) {
    let _ = stream.set_nodelay(true);
    let config = WebSocketConfig::default().read_buffer_size(READ_BYTES);
    let Ok(mut socket) = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await else {
        return;
    };
    let mut heard = room.subscribe();
    loop {
        tokio::select! {
            message = heard.recv() => {
                let Ok(message) = message else { return };
                if socket.send(message).await.is_err() {
                    return;
                }
            }
            said = socket.next() => match said {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                    let _ = room.send(message);
                }
                Some(Ok(_)) => {}
                _ => return,
            },
        }
    }
}
