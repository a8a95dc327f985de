//! tungstenite with Python's `websockets`.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use crate::clients::{has_module, python};
use crate::support::{Program, send_request};

const PROGRAM: &str = env!("CARGO_BIN_EXE_websocket");

#[test]
fn what_is_said_comes_back() {
    if !has_module("websockets") {
        return;
    }
    let program = Program::start(PROGRAM, &["127.0.0.1:0"]);
    let script = "
import asyncio, sys
from websockets.asyncio.client import connect
async def talk(number):
    async with connect(sys.argv[1], max_size=None) as socket:
        for message in ['hello', 'x' * (number * 30000), b'\\x00\\xff', '']:
            await socket.send(message)
            assert await socket.recv() == message
        # Many under way, none read meanwhile.
        for count in range(200):
            await socket.send(str(count) * 100)
        for count in range(200):
            assert await socket.recv() == str(count) * 100
        await (await socket.ping())
    assert socket.close_code == 1000
async def main():
    await asyncio.gather(*(talk(number) for number in range(10)))
asyncio.run(main())
print('all came back')
";
    assert_eq!(python(script, &[&format!("ws://{}/", program.addr)]), "all came back\n");
    // Who speaks no WebSocket is let go.
    let mut stream = program.connect();
    send_request(&mut stream, "GET", "/", &[], "");
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0);
    let (printed, status) = program.terminate();
    assert!(status.success() && printed.contains(" 0 of them cut"), "{printed}");
}

#[test]
fn a_drain_says_that_the_server_goes() {
    if !has_module("websockets") {
        return;
    }
    let mut program = Program::start(PROGRAM, &["127.0.0.1:0"]);
    let script = "
import sys
from websockets.sync.client import connect
from websockets.exceptions import ConnectionClosedOK
with connect(sys.argv[1]) as socket:
    print('connected', flush=True)
    try:
        socket.recv(timeout=60)
    except ConnectionClosedOK as end:
        print(end.rcvd.code, end.rcvd.reason)
";
    let mut client = Command::new("python3")
        .args(["-c", script, &format!("ws://{}/", program.addr)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(client.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    program.ask_to_end();
    said.read_to_string(&mut line).unwrap();
    assert_eq!(line, "connected\n1001 the server goes\n");
    assert!(client.wait().unwrap().success());
    let (printed, status) = program.wait();
    assert!(status.success() && printed.contains(" 0 of them cut"), "{printed}");
}
