//! The programs do what their first comments say, and say it to clients that know nothing of netpoll.

mod axum_app;
mod clients;
mod databases;
mod grpc;
mod hyper_client;
#[allow(dead_code, reason = "the tests of the other examples use all of it")]
#[path = "../../../tests/it/support.rs"]
mod support;
mod tls;
mod websocket;
