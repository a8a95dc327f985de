//! What the suite speaks through: the server's own test client, and sockets. `../layered` has another one.

pub use std::net::TcpStream;

pub use netpoll_http::{App, Running, Server, TestClient, TestConnection};
