//! Each program is started once, talked to, and ended by SIGTERM, as a reader would.

mod backends;
mod browser;
mod chromium;
mod dns;
mod doctor;
mod handover;
mod key_value_store;
mod mini_program;
mod operators;
mod pages;
mod refusals;
mod service;
mod settings;
mod small;
mod sockets;
mod support;
#[cfg(feature = "tls")]
mod tls;
mod websocket_chat;
