//! A WebSocket echo: tungstenite, by the traits of `futures_io`, on netpoll.
//!
//! Run it with `cargo run --release -p async-examples --bin websocket -- 127.0.0.1:8092`, and say something to it by any client
//! (`python3 -m websockets ws://127.0.0.1:8092`): it says it again. Ctrl-C closes each with the code 1001, as RFC 6455 has it of a server that goes.

use std::time::Duration;

use async_tungstenite::tungstenite::protocol::CloseFrame;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::{Error, Message};
use async_tungstenite::{WebSocketStream, accept_async};
use futures::StreamExt;
use futures::future::{Either, select};
use netpoll_core::net::Stream;
use netpoll_core::time::timeout;
use netpoll_core::{Runtime, task};

/// How long a handshake may take, and a peer that is told to go.
const PATIENCE: Duration = Duration::from_secs(5);

async fn echo(socket: &mut WebSocketStream<Stream>) -> Result<(), Error> {
    let mut stopping = task::stopping();
    loop {
        match select(socket.next(), &mut stopping).await {
            Either::Left((Some(message), _)) => {
                let message = message?;
                if message.is_text() || message.is_binary() {
                    socket.send(message).await?;
                }
            }
            Either::Left((None, _)) => return Ok(()),
            Either::Right(_) => {
                let frame = CloseFrame { code: CloseCode::Away, reason: "the server goes".into() };
                return socket.send(Message::Close(Some(frame))).await;
            }
        }
    }
}

async fn serve(stream: Stream) -> Result<(), Error> {
    let accepted = timeout(PATIENCE, accept_async(stream)).await;
    let Ok(accepted) = accepted else { return Ok(()) };
    let mut socket = accepted?;
    echo(&mut socket).await?;
    // What it says until it has closed too is not answered any more.
    let _ = timeout(PATIENCE, async { while let Some(Ok(_)) = socket.next().await {} }).await;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (backend, mut words) = examples::words()?;
    let addr = words.next().unwrap_or("127.0.0.1:8092".to_owned());
    let running = Runtime::builder()
        .backend(backend)
        .stop_on_signals(true)
        .listen_tasks(addr, |stream, _peer| async move {
            // A peer that speaks no WebSocket, or leaves in the middle, has nobody to tell.
            let _ = serve(stream).await;
        })?
        .start()?;
    println!("websocket listens on ws://{}", running.local_addrs()[0]);
    println!("{}", running.wait()?);
    Ok(())
}
