//! Each program is started once, talked to, and ended by SIGTERM, as a reader would.

mod backends;
mod browser;
mod chat;
mod chat_page;
mod chromium;
mod dns;
mod doctor;
mod events;
mod handover;
mod key_value_store;
mod member;
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
mod uploads;
mod websocket_chat;
