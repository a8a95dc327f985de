//! What a user of the crate is promised, through its front door.

mod accepting;
mod chance;
#[path = "../../../examples/src/cipher.rs"]
mod cipher;
mod connecting;
mod datagrams;
mod dialing;
mod ending;
mod ends;
mod fast_lane;
mod files;
mod forwarding;
mod half_close;
mod hardship;
mod in_place;
mod inherited;
mod layers;
mod memory;
mod on_workers;
mod panics;
mod send_now;
mod settings;
mod sim_addresses;
mod sim_datagrams;
mod sim_network;
mod sim_storms;
mod sim_workers;
mod simulated;
mod starting;
mod storms;
mod support;
mod timers;
mod unix;
mod waiting;
mod waking;
mod workers;
