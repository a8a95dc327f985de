//! Rooms of the mini-program in simulated worlds: members that say something, stop reading, are cut and come back, on a network that misbehaves.
//!
//! What has to hold of each member: positions are consecutive, but for what a welcome or a gap says is missing; all members hear the same
//! at one position; nobody hears what was refused, or anything twice; who reads has all in the end. Nobody is left behind a drain.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use netpoll_core::sim::{Faults, Options};
use netpoll_http::explore::Dice;
use netpoll_http::rooms::{Position, Rooms, Settings};
use netpoll_http::{TestClient, TestConnection};
use serde_json::{Value, json};

use crate::app::{self, App, BodyLimits};
use crate::{Failed, Simulated, chat};

const ROOMS: [&str; 2] = ["tea", "coffee"];
const CLIENTS_MAX: usize = 6;
const ACTS: usize = 150;
/// Longer than it takes to send whatever waits, and shorter than silence may last.
const REST: Duration = Duration::from_secs(20);
const DRAIN: Duration = Duration::from_secs(10);

/// What happened in all worlds together.
#[derive(Default)]
struct Report {
    welcomes: u64,
    /// Of these, with something missing or all anew though the client said where it was.
    losses: u64,
    heard: u64,
    gaps: u64,
    refused: u64,
}

pub fn run(seeds: RangeInclusive<u64>) -> Result<String, Failed> {
    let (mut report, mut worlds) = (Report::default(), 0);
    for seed in seeds {
        worlds += 1;
        if let Err(what) = guarded(seed, &mut report) {
            let again = guarded(seed, &mut Report::default());
            let repeats = again.is_err_and(|again| without_chance(&again) == without_chance(&what));
            return Err(Failed { seed, repeats, what });
        }
    }
    let Report { welcomes, losses, heard, gaps, refused } = report;
    Ok(format!(
        "{worlds} worlds: {welcomes} welcomes, {losses} of them with a loss, {heard} messages heard, {gaps} gaps, {refused} messages refused"
    ))
}

/// Without epochs of rooms, which no seed decides.
fn without_chance(what: &str) -> Vec<&str> {
    what.split(|letter: char| !letter.is_alphanumeric()).filter(|word| word.len() < 13).collect()
}

fn guarded(seed: u64, report: &mut Report) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| world(seed, report))).unwrap_or_else(|_| Err("a panic".to_owned()))
}

/// Somebody with a page, and what it knows.
struct Client {
    key: String,
    room: &'static str,
    connection: Option<TestConnection>,
    came: Vec<u8>,
    is_open: bool,
    is_reading: bool,
    /// What it has said that it has had.
    from: Option<Position>,
    /// Behind what it has heard last.
    at: Option<Position>,
    is_welcome: bool,
    marks: usize,
}

/// What everybody has heard, by room and position.
#[derive(Default)]
struct Heard {
    said: BTreeMap<(&'static str, u64, u64), Value>,
    refused: BTreeSet<String>,
}

fn world(seed: u64, report: &mut Report) -> Result<(), String> {
    let mut dice = Dice::new(seed);
    let (client, rooms) = served(seed, &mut dice);
    let mut heard = Heard::default();
    let mut clients: Vec<_> = (0..2 + dice.below(CLIENTS_MAX - 1))
        .map(|nth| Client::new(format!("key-of-a-client-{nth}"), ROOMS[dice.below(4) / 3]))
        .collect();
    for _ in 0..ACTS {
        let who = dice.below(clients.len());
        clients[who].act(&client, &mut dice);
        match dice.below(3) {
            0 => client.turn(),
            1 => client.run(),
            _ => client.advance(Duration::from_millis(dice.below(600) as u64)),
        }
        for each in &mut clients {
            each.take_in(&mut heard, report)?;
        }
    }
    for each in &mut clients {
        each.read();
    }
    for _ in 0..4 {
        client.advance(REST / 4);
        for each in &mut clients {
            each.take_in(&mut heard, report)?;
        }
    }
    for each in &clients {
        each.has_all(&rooms)?;
    }
    order(&heard)?;

    client.begin_drain(DRAIN);
    for _ in 0..8 {
        client.advance(DRAIN / 4);
        for each in &mut clients {
            each.take_in(&mut heard, report)?;
        }
    }
    drop(clients);
    client.advance(DRAIN);
    let (open, members, panics) = (client.open(), rooms.stats().members, client.stats().panics);
    match (open, members, panics) {
        (0, 0, 0) => Ok(()),
        _ => Err(format!("in the end {open} connections, {members} members, and {panics} panics")),
    }
}

fn served(seed: u64, dice: &mut Dice) -> (TestClient, Rooms) {
    let mut app = App::new(Simulated);
    app.rooms = chat::rooms_with(Settings {
        queued_bytes_max: 300 + dice.below(3000),
        members_per_turn: 1 + dice.below(4),
        history_messages: dice.below(20),
        burst_bytes_max: dice.below(6000),
        history_time: Duration::from_millis(500 + dice.below(5000) as u64),
        linger: Duration::from_millis(dice.below(3000) as u64),
        lingering_max: dice.below(4),
        rooms_per_socket_max: 1,
        ..Settings::default()
    });
    let (rooms, app) = (app.rooms.clone(), Arc::new(app));
    let millis = |millis: usize| Duration::from_millis(millis as u64);
    let mut options = Options::default().seed(seed).workers(1 + dice.below(3));
    if dice.once_in(2) {
        options = options.faults(Faults::stormy());
    }
    if dice.once_in(2) {
        options = options.latency(millis(dice.below(3))..=millis(3 + dice.below(10)));
    }
    options = options.window(200 + dice.below(2000));
    // Who reads slowly is not cut for it, or nobody would miss anything.
    options.limits.write_rate_min = 0;
    let limits = BodyLimits { echo_bytes_max: 1000, upload_bytes_max: 1000 };
    let router = move |worker: &netpoll_http::Worker| app::router(&app, worker, None, limits);
    (netpoll_http::App::new(router).test_with(options), rooms)
}

/// Of each client all that was heard has the order in which it was said, and none was refused.
fn order(heard: &Heard) -> Result<(), String> {
    let mut last = BTreeMap::new();
    for ((room, epoch, number), said) in &heard.said {
        let Some(mark) = said["mark"].as_str() else { continue };
        if heard.refused.contains(mark) {
            return Err(format!("{mark} was refused, and {room} has heard it"));
        }
        let (who, nth) = mark.split_once('/').ok_or("a mark of nobody")?;
        let nth: usize = nth.parse().map_err(|_| "a mark of nobody")?;
        // A room that was made again may have a smaller epoch.
        if let Some(before) = last.insert((room, epoch, who), nth)
            && before >= nth
        {
            return Err(format!("{mark} at {number} of {room}, behind {who}/{before}"));
        }
    }
    Ok(())
}

impl Client {
    fn new(key: String, room: &'static str) -> Self {
        let (connection, from, at) = (None, None, None);
        let (is_open, is_reading, is_welcome) = (false, true, false);
        Self { key, room, connection, came: Vec::new(), is_open, is_reading, from, at, is_welcome, marks: 0 }
    }

    fn connect(&mut self, client: &TestClient, dice: &mut Dice) {
        // Now and then a page is loaded anew, and has nothing.
        self.from = self.at.filter(|_| !dice.once_in(4));
        let from = self.from.map_or(String::new(), |at| format!("&from={at}"));
        let mut connection = client.connect();
        connection.put(
            format!(
                "GET /chat/{}?key={}{from} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                self.room, self.key
            )
            .as_bytes(),
        );
        self.came.clear();
        (self.connection, self.is_open, self.is_reading, self.is_welcome) =
            (Some(connection), false, true, false);
    }

    fn act(&mut self, client: &TestClient, dice: &mut Dice) {
        let is_open = self.is_open;
        let Some(connection) = &mut self.connection else { return self.connect(client, dice) };
        match dice.below(12) {
            end @ 0..2 => {
                match end {
                    0 => connection.close(),
                    _ => connection.reset(),
                }
                (self.connection, self.is_open) = (None, false);
            }
            2 | 3 => {
                self.is_reading = !self.is_reading;
                match self.is_reading {
                    true => connection.start_reading(),
                    false => connection.stop_reading(),
                }
            }
            _ if is_open => {
                self.marks += 1;
                let text = "x".repeat(1 + dice.below(200));
                let words = json!({ "text": text, "mark": format!("{}/{}", self.key, self.marks) });
                connection.put(&frame(0x81, words.to_string().as_bytes()));
            }
            _ => {}
        }
    }

    fn read(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.start_reading();
            self.is_reading = true;
        }
    }

    fn take_in(&mut self, heard: &mut Heard, report: &mut Report) -> Result<(), String> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        connection.drain_received(&mut self.came);
        if !self.is_open
            && let Some(end) = self.came.windows(4).position(|bytes| bytes == b"\r\n\r\n")
        {
            if !self.came.starts_with(b"HTTP/1.1 101 ") && !self.came.starts_with(b"HTTP/1.1 503 ") {
                return Err(format!("{}: {}", self.key, self.came.escape_ascii()));
            }
            self.is_open = self.came.starts_with(b"HTTP/1.1 101 ");
            self.came.drain(..end + 4);
        }
        while self.is_open
            && let Some((first, payload, length)) = read_frame(&self.came)
        {
            match first {
                0x81 => {
                    let said = serde_json::from_slice(&payload).map_err(|error| error.to_string())?;
                    self.hear(said, heard, report).map_err(|what| format!("{}: {what}", self.key))?;
                }
                0x88 | 0x89 => {
                    if let Some(connection) = &mut self.connection {
                        connection.put(&frame(if first == 0x88 { 0x88 } else { 0x8a }, &payload));
                    }
                }
                _ => return Err(format!("{}: a frame that begins with {first:x}", self.key)),
            }
            self.came.drain(..length);
        }
        if self.connection.as_ref().is_some_and(TestConnection::is_closed) {
            (self.connection, self.is_open) = (None, false);
        }
        Ok(())
    }

    fn hear(&mut self, said: Value, heard: &mut Heard, report: &mut Report) -> Result<(), String> {
        let kind = said["type"].as_str().unwrap_or_default();
        if kind == "refused" {
            report.refused += 1;
            heard.refused.extend(said["mark"].as_str().map(str::to_owned));
            return Ok(());
        }
        let at: Position = said["at"].as_str().unwrap_or_default().parse().map_err(|_| format!("{said}"))?;
        let missing = said["missing"].as_u64().unwrap_or(0);
        if kind == "welcome" {
            report.welcomes += 1;
            let is_anew = said["is_anew"] == json!(true);
            report.losses += u64::from(self.from.is_some() && (is_anew || missing > 0));
            let goes_on = |from: Position| from.epoch == at.epoch && from.sequence + missing == at.sequence;
            if std::mem::replace(&mut self.is_welcome, true) || !is_anew && !self.from.is_some_and(goes_on) {
                return Err(format!("{said} to who was at {:?}", self.from));
            }
            self.at = Some(at);
            return Ok(());
        }
        let step = if kind == "gap" { missing } else { 1 };
        let before =
            self.at.filter(|_| self.is_welcome).ok_or_else(|| format!("{said} in front of a welcome"))?;
        if (before.epoch, before.sequence + step) != (at.epoch, at.sequence) || step == 0 {
            return Err(format!("{said} behind {before}"));
        }
        self.at = Some(at);
        if kind == "gap" {
            report.gaps += 1;
            return Ok(());
        }
        report.heard += 1;
        let known = heard.said.entry((self.room, at.epoch, at.sequence)).or_insert_with(|| said.clone());
        if *known == said { Ok(()) } else { Err(format!("{said} where others heard {known}")) }
    }

    /// Who is there and reads has heard what there is.
    fn has_all(&self, rooms: &Rooms) -> Result<(), String> {
        let Some(at) = self.at.filter(|_| self.is_open && self.is_welcome) else { return Ok(()) };
        match rooms.facts(self.room).map(|facts| facts.at) {
            Some(head) if head == at => Ok(()),
            Some(head) => Err(format!("{}: has heard all up to {at} of {head}", self.key)),
            None => Err(format!("{}: its room is gone", self.key)),
        }
    }
}

/// A frame of a client, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match u16::try_from(payload.len()).unwrap_or(u16::MAX) {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length => {
            bytes.push(0x80 | 126);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// The first frame of a server, if all of it is there, with its length. None is longer than 64 KiB here.
fn read_frame(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let [first, length, rest @ ..] = bytes else { return None };
    let (start, length) = match *length {
        126 => (4, usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?]))),
        length => (2, usize::from(length)),
    };
    let payload = bytes.get(start..start + length)?;
    Some((*first, payload.to_vec(), start + length))
}
