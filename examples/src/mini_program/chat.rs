//! Rooms to talk in. `GET /chat` is a page, `GET /chat/{room}` the WebSocket that it opens.
//!
//! Whoever is logged in speaks by the name of the session; everybody else is a guest, whose name follows from a key that its page keeps.
//! A client says where it was (`?from=POSITION`) and gets what it has missed; a newcomer gets the last messages. What a room remembers is
//! bounded, and so is everything that a stranger may ask for. Who reads too slowly goes on with what the room remembers, behind a gap that it
//! is told of ([`Behind::DropOldest`]); nobody waits for it.
//!
//! Invariant: each message says where it stands, and a member gets them with consecutive numbers, but for those that a welcome or a gap says
//! are missing. Names come from sessions and digests, so nobody speaks by the name of another user.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netpoll_core::{Instant, Message as Told};
use netpoll_http::rooms::{self, Behind, Gap, Position, Presence, Refused, Resumed, Rooms};
use netpoll_http::websocket::{CloseCode, Frame, Handler, Message, Opening, Settings, WebSocket};
use netpoll_http::{Error, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::app::App;
use crate::login::{Platform, is_secure};
use crate::session::{self, Token};

/// Rooms, those that were left a while ago included. Anybody makes one by its name.
const ROOMS_MAX: usize = 1000;
/// Sockets in a room, about: each hears of each that comes.
const MEMBERS_MAX: usize = 500;
/// Characters of a room's name.
const ROOM_CHARS_MAX: usize = 32;
/// Characters of a message, as somebody types it.
const TEXT_CHARS_MAX: usize = 1000;
/// Bytes of a frame: such a text, whatever its characters are and however they are escaped. A larger one ends its socket (1009).
const FRAME_BYTES_MAX: u32 = 16 * 1024;
/// Characters of a client's mark, by which it knows its own message when it hears it.
const MARK_CHARS_MAX: usize = 40;
/// Messages that a socket may send at once, and how long it takes until it may send one more.
const BURST: u32 = 10;
const PACE: Duration = Duration::from_millis(500);
/// Refusals in a row after which nobody reads them.
const REFUSALS_MAX: u32 = 50;
/// What a newcomer gets of what was said before.
const OLD_MESSAGES: usize = 50;
/// Names in a list of those who are here; the count has all.
const NAMES_MAX: usize = 100;
/// Characters of the key of a page: enough that nobody guesses one.
const KEY_CHARS: std::ops::RangeInclusive<usize> = 16..=64;

/// The rooms of the program.
pub fn rooms() -> Rooms {
    rooms_with(rooms::Settings {
        behind: Behind::DropOldest,
        rooms_max: ROOMS_MAX,
        rooms_per_socket_max: 1,
        history_bytes: 256 * 1024,
        burst_bytes_max: 1024 * 1024,
        bytes_max: 32 * 1024 * 1024,
        // A page that is loaded again, a network that changes.
        linger: Duration::from_secs(15),
        lingering_max: 10_000,
        ..rooms::Settings::default()
    })
}

/// The same that keep more or less.
pub fn rooms_with(settings: rooms::Settings) -> Rooms {
    Rooms::new(settings).on_presence(|rooms: &Rooms, presence: &Presence| {
        let count = rooms.facts(&presence.room).map_or(0, |facts| facts.present);
        let (name, is_here) = (&*presence.who, presence.is_here);
        publish(rooms, &presence.room, |at, time| Said::Presence { at, time, name, is_here, count });
    })
}

/// Sends something to everybody in a room. False if there is no room for it.
fn publish<'s>(rooms: &Rooms, room: &str, say: impl Fn(String, u128) -> Said<'s>) -> bool {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
    rooms.publish_with(room, |at| Frame::text(say(at.to_string(), time).json())).is_some()
}

/// What members hear.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Said<'s> {
    /// First of all. Messages follow from behind `at`, and those up to `head` are old.
    Welcome {
        name: &'s str,
        is_guest: bool,
        at: String,
        head: String,
        /// Messages that are missing since the client was here.
        missing: u64,
        /// What the client has of the room is of no use: messages follow from the last ones on.
        is_anew: bool,
        here: Here,
    },
    Message {
        at: String,
        /// Milliseconds since 1970.
        time: u128,
        name: &'s str,
        text: &'s str,
        #[serde(skip_serializing_if = "Option::is_none")]
        mark: Option<&'s str>,
    },
    /// Somebody has come, or has left.
    Presence { at: String, time: u128, name: &'s str, is_here: bool, count: usize },
    /// So many messages are missing here, up to this position.
    Gap { at: String, missing: u64, here: Here },
    /// To its sender alone: this message was not sent.
    Refused {
        why: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        mark: Option<String>,
        /// Milliseconds after which the same would be sent.
        #[serde(skip_serializing_if = "Option::is_none")]
        wait: Option<u64>,
    },
}

impl Said<'_> {
    fn json(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers are JSON")
    }
}

/// Who is in a room.
#[derive(Serialize)]
struct Here {
    count: usize,
    names: Vec<Arc<str>>,
}

impl Here {
    fn of(rooms: &Rooms, room: &str) -> Self {
        let mut names = rooms.present(room);
        let count = names.len();
        names.sort_unstable();
        names.truncate(NAMES_MAX);
        Self { count, names }
    }
}

/// `GET /chat/{room}?from=POSITION&key=KEY`
pub fn join<P: Platform>(app: &App<P>, req: &Request<'_>) -> Result<Response, Error> {
    let opening = Opening::of(req)?;
    if opening.origin().is_some_and(|origin| !is_own(req, origin)) {
        return Err(Error::new(StatusCode::FORBIDDEN, "origin: this room is for pages of its own host"));
    }
    let room: String = req.param("room")?;
    let is_plain = room.chars().all(|letter| letter.is_alphanumeric() || letter == '-' || letter == '_');
    if !(1..=ROOM_CHARS_MAX).contains(&room.chars().count()) || !is_plain {
        let message =
            format!("room: a name has 1 to {ROOM_CHARS_MAX} letters, digits, hyphens and underscores");
        return Err(Error::bad_request(message));
    }
    let key = match req.query_opt::<String>("key")? {
        Some(key) if KEY_CHARS.contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) => key,
        Some(_) => return Err(Error::bad_request("query parameter `key`: has 16 to 64 characters of ASCII")),
        None => Token::random()?.to_string(),
    };
    let user = session::user(app, req).ok();
    let is_guest = user.is_none();
    let name = user.unwrap_or_else(|| guest(&key).into());
    let member = Member {
        rooms: app.rooms.clone(),
        // One page may go from room to room, and is in one at a time.
        device: format!("{room} {key}"),
        room,
        name,
        is_guest,
        from: req.query_opt("from")?,
        pace: Pace::default(),
    };
    let settings = Settings {
        message_bytes_max: FRAME_BYTES_MAX,
        retry_within: Duration::from_secs(5),
        ..Settings::default()
    };
    opening.settings(settings).accept(member)
}

/// The name of whoever has this key: nobody who reads it knows the key.
fn guest(key: &str) -> String {
    let digest = Sha256::digest(key);
    let digits: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("guest-{digits}")
}

/// A page of somebody else would speak in the name of its visitor, as cookies come along. Behind a proxy that ends TLS a page of `https` asks
/// a server that is not.
fn is_own(req: &Request<'_>, origin: &[u8]) -> bool {
    let host = req.host().unwrap_or_default().as_bytes();
    let schemes: &[&[u8]] = if is_secure(req) { &[b"https://"] } else { &[b"https://", b"http://"] };
    let mut named = schemes.iter().filter_map(|scheme| origin.strip_prefix(*scheme));
    named.any(|named| named.eq_ignore_ascii_case(host))
}

/// One socket in one room.
struct Member {
    rooms: Rooms,
    room: String,
    name: Arc<str>,
    device: String,
    is_guest: bool,
    from: Option<Position>,
    pace: Pace,
}

/// What a client says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Words {
    text: String,
    mark: Option<String>,
}

impl Member {
    fn enter(&self, socket: &mut WebSocket<'_, '_>) -> Result<Said<'_>, Refused> {
        let (rooms, room) = (&self.rooms, &*self.room);
        let back = rooms.session_from(socket, &self.name, &self.device, |_room| self.from)?;
        let known = back.into_iter().find(|back| *back.room == *room).map(|back| back.resumed);
        let resumed = match (self.from, known) {
            (Some(from), None) => Some(rooms.resume(socket, room, from)?),
            (Some(_), known) => known,
            // It has nothing of the room, whatever its session was sent.
            (None, _) => None,
        };
        let (at, missing, is_anew) = match (resumed, self.from) {
            (Some(Resumed::All { .. }), Some(from)) => (from, 0, false),
            (Some(Resumed::Gap(gap)), _) => (gap.until, gap.messages(), false),
            _ => (rooms.join_with_last(socket, room, OLD_MESSAGES)?, 0, true),
        };
        let head = rooms.facts(room).map_or(at, |facts| facts.at);
        Ok(Said::Welcome {
            name: &self.name,
            is_guest: self.is_guest,
            at: at.to_string(),
            head: head.to_string(),
            missing,
            is_anew,
            here: Here::of(rooms, room),
        })
    }

    /// Says it to the room, or to its sender why not.
    fn say(&mut self, now: Instant, text: &str) -> Result<(), Said<'static>> {
        let Words { text, mark } = serde_json::from_str(text).map_err(|error| {
            let why = format!("not {{\"text\":\"…\",\"mark\":\"…\"}}: {error}");
            Said::Refused { why, mark: None, wait: None }
        })?;
        if mark.as_ref().is_some_and(|mark| mark.chars().count() > MARK_CHARS_MAX) {
            let why = format!("mark: must have at most {MARK_CHARS_MAX} characters");
            return Err(Said::Refused { why, mark: None, wait: None });
        }
        let text = text.trim();
        let refused = |why: String, wait| Err(Said::Refused { why, mark: mark.clone(), wait });
        match text.chars().count() {
            0 => return refused("text: must not be empty".to_owned(), None),
            1..=TEXT_CHARS_MAX => {}
            count => {
                let why = format!("text: must have at most {TEXT_CHARS_MAX} characters, has {count}");
                return refused(why, None);
            }
        }
        if let Some(wait) = self.pace.wait(now) {
            let why = format!("too fast: {BURST} messages at once, and then one each {PACE:?}");
            return refused(why, Some(wait.as_nanos().div_ceil(1_000_000) as u64));
        }
        let name = &*self.name;
        let is_said = publish(&self.rooms, &self.room, |at, time| Said::Message {
            at,
            time,
            name,
            text,
            mark: mark.as_deref(),
        });
        if is_said { Ok(()) } else { refused("there is no room for it now".to_owned(), None) }
    }
}

impl Handler for Member {
    fn opened(&mut self, socket: &mut WebSocket<'_, '_>) {
        if self.rooms.members(&self.room) >= MEMBERS_MAX {
            return socket.close(CloseCode::TRY_AGAIN, "the room is full");
        }
        match self.enter(socket) {
            Ok(welcome) => socket.text(&welcome.json()),
            Err(refused) => socket.close(CloseCode::TRY_AGAIN, &refused.to_string()),
        }
    }

    fn message(&mut self, socket: &mut WebSocket<'_, '_>, message: Message<'_>) {
        let Message::Text(text) = message else {
            return socket.close(CloseCode::UNSUPPORTED, "words only");
        };
        match self.say(socket.conn().now(), text) {
            Ok(()) => self.pace.refusals = 0,
            Err(refused) => {
                self.pace.refusals += 1;
                if self.pace.refusals > REFUSALS_MAX {
                    return socket.close(CloseCode::POLICY, "too many messages that were refused");
                }
                socket.text(&refused.json());
            }
        }
    }

    fn told(&mut self, socket: &mut WebSocket<'_, '_>, value: Told) {
        if let Ok(gap) = value.downcast::<Gap>() {
            let (at, missing) = (gap.until.to_string(), gap.messages());
            socket.text(&Said::Gap { at, missing, here: Here::of(&self.rooms, &self.room) }.json());
        }
    }
}

/// How fast a socket speaks.
#[derive(Default)]
struct Pace {
    /// When it may send [`BURST`] messages again.
    rested_at: Option<Instant>,
    /// In a row.
    refusals: u32,
}

impl Pace {
    /// None if it may speak, which is counted; otherwise for how long it may not.
    fn wait(&mut self, now: Instant) -> Option<Duration> {
        let rested_at = self.rested_at.map_or(now, |at| at.max(now)) + PACE;
        let wait = rested_at.duration_since(now).saturating_sub(PACE * BURST);
        if wait.is_zero() {
            self.rested_at = Some(rested_at);
            return None;
        }
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_may_say_so_much_at_once_and_then_one_thing_at_a_time() {
        let (mut pace, start) = (Pace::default(), Instant::from_nanos(1_000_000_000));
        for _ in 0..BURST {
            assert_eq!(pace.wait(start), None);
        }
        assert_eq!(pace.wait(start), Some(PACE));
        assert_eq!(pace.wait(start + PACE / 2), Some(PACE / 2), "who is refused does not wait for longer");
        assert_eq!(pace.wait(start + PACE), None);
        assert_eq!(pace.wait(start + PACE), Some(PACE));
    }

    #[test]
    fn the_name_of_a_guest_follows_from_its_key_and_does_not_tell_it() {
        assert_eq!(guest("0123456789abcdef"), guest("0123456789abcdef"));
        assert_ne!(guest("0123456789abcdef"), guest("0123456789abcdeg"));
        assert_eq!(guest("").len(), "guest-".len() + 8);
    }
}
