//! Whether what a server does is what a case asks.

use zlib_rs::{Inflate, InflateFlush};

use crate::cases::{Case, Expect, Level, Opening};
use crate::exchange::{ACCEPT, Connection, End, Site};
use crate::wire::{self, Frame, Message};

/// What a case has shown.
#[derive(Debug, Default)]
pub struct Verdict {
    pub must: Option<Result<(), String>>,
    pub should: Option<Result<(), String>>,
}

impl Verdict {
    fn of(level: Level, result: Result<(), String>) -> Self {
        match level {
            Level::Must => Self { must: Some(result), should: None },
            Level::Should => Self { must: None, should: Some(result) },
        }
    }
}

const CANARY: &[u8] = b"canary";
/// Bytes of a piece behind which is looked for what the server says to it.
const LARGE: usize = 64 * 1024;

/// Runs a case.
pub fn judge(site: &Site, case: &Case) -> Verdict {
    match &case.expect {
        Expect::Opened => Verdict::of(case.level, opened(site, case).map(|_| ())),
        Expect::Refused(statuses) => refused(site, case, statuses, None),
        Expect::RefusedWith(status, field) => refused(site, case, &[*status], Some(*field)),
        Expect::Extension(is_agreed) => extension(site, case, *is_agreed),
        Expect::Served { messages, pongs } => match served(site, case, messages, pongs.as_deref()) {
            None => Verdict::default(),
            Some(result) => Verdict::of(case.level, result),
        },
        Expect::Failed(codes) => failed(site, case, codes),
        Expect::FailsFast(codes) => {
            Verdict::of(Level::Should, with(site, case, |connection| fails_with(connection, codes)))
        }
        Expect::Closed { messages, codes } => Verdict::of(
            case.level,
            with(site, case, |connection| {
                let heard = echoes(connection)?;
                if heard != *messages {
                    return Err(format!(
                        "{} messages in front of the Close, not {}",
                        heard.len(),
                        messages.len()
                    ));
                }
                closes_with(connection, codes)
            }),
        ),
    }
}

/// An opening that is made, and all that is checked of every one.
fn opened(site: &Site, case: &Case) -> Result<Connection, String> {
    let mut connection = Connection::to(site).map_err(|error| error.to_string())?;
    let request = case.opening.bytes(site);
    if case.in_one {
        connection.send(&[&request[..], &case.pieces.concat()].concat());
    } else if case.opening.is_dripped() {
        request.chunks(1).for_each(|byte| connection.send(byte));
    } else {
        connection.send(&request);
    }
    connection.read_head();
    let Some(head) = &connection.head else { return Err(format!("no answer: {:?}", connection.end)) };
    if head.status != 101 {
        return Err(format!("answered with {}", head.status));
    }
    if head.one("sec-websocket-accept") != Some(ACCEPT) {
        return Err(format!("Sec-WebSocket-Accept: {:?}", head.one("sec-websocket-accept")));
    }
    if !head.one("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")) {
        return Err(format!("Upgrade: {:?}", head.one("upgrade")));
    }
    let says_upgrade = |value: &str| value.split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    if !head.all("connection").any(says_upgrade) {
        return Err("no `Connection: upgrade`".to_owned());
    }
    // RFC 9110, section 8.6, and RFC 9112, section 6.1.
    if head.all("content-length").chain(head.all("transfer-encoding")).next().is_some() {
        return Err("a 101 has Content-Length or Transfer-Encoding".to_owned());
    }
    if !case.opening.offers() && head.all("sec-websocket-extensions").next().is_some() {
        return Err("an extension that was not offered".to_owned());
    }
    if let Some(protocol) = head.one("sec-websocket-protocol")
        && !case.opening.names(protocol)
    {
        return Err(format!("the subprotocol {protocol}, which was not offered"));
    }
    Ok(connection)
}

fn refused(
    site: &Site,
    case: &Case,
    statuses: &[u16],
    field: Option<(&'static str, &'static str)>,
) -> Verdict {
    let mut connection = match Connection::to(site) {
        Ok(connection) => connection,
        Err(error) => return Verdict::of(case.level, Err(error.to_string())),
    };
    connection.send(&case.opening.bytes(site));
    connection.read_head();
    let Some(head) = &connection.head else {
        return Verdict::of(case.level, Err(format!("no answer: {:?}", connection.end)));
    };
    if !(400..600).contains(&head.status) {
        return Verdict::of(case.level, Err(format!("answered with {}", head.status)));
    }
    let field = field.is_none_or(|(name, value)| head.one(name) == Some(value));
    let is_so = statuses.is_empty() || statuses.contains(&head.status);
    let said = if is_so && field { Ok(()) } else { Err(format!("{}, or without its field", head.status)) };
    Verdict { should: Some(said), ..Verdict::of(case.level, Ok(())) }
}

fn extension(site: &Site, case: &Case, is_agreed: bool) -> Verdict {
    let connection = match opened(site, case) {
        Ok(connection) => connection,
        // Whoever refuses what is wrong has declined it.
        Err(why) if why == "answered with 400" && !is_agreed => return Verdict::of(case.level, Ok(())),
        Err(why) => return Verdict::of(case.level, Err(why)),
    };
    let agreed = agreement(&connection);
    // Whoever declines everything is asked nothing.
    if is_agreed && agreed.is_none() {
        return Verdict::default();
    }
    let result = match (&agreed, is_agreed) {
        (Some(agreed), false) => Err(format!("agreed on {agreed:?}")),
        _ => Ok(()),
    };
    Verdict::of(case.level, result)
}

fn agreement(connection: &Connection) -> Option<String> {
    connection.head.as_ref()?.one("sec-websocket-extensions").map(str::to_owned)
}

/// The connection of a case with its pieces sent.
fn with(
    site: &Site,
    case: &Case,
    look: impl FnOnce(&mut Connection) -> Result<(), String>,
) -> Result<(), String> {
    let mut connection = opened(site, case)?;
    send_pieces(&mut connection, case);
    look(&mut connection)
}

fn send_pieces(connection: &mut Connection, case: &Case) {
    if case.in_one {
        return;
    }
    for piece in &case.pieces {
        connection.send(piece);
        // Who does not hear that it is over meanwhile is cut.
        if piece.len() > LARGE && connection.is_over() {
            return;
        }
    }
}

/// `None` where it is about compression and the server has not agreed.
fn served(
    site: &Site,
    case: &Case,
    messages: &[Message],
    pongs: Option<&[Vec<u8>]>,
) -> Option<Result<(), String>> {
    let mut connection = match opened(site, case) {
        Ok(connection) => connection,
        Err(why) => return Some(Err(why)),
    };
    if case.opening.offers() && agreement(&connection).is_none() {
        return None;
    }
    send_pieces(&mut connection, case);
    Some(are_served(&mut connection, messages, pongs))
}

fn are_served(
    connection: &mut Connection,
    messages: &[Message],
    pongs: Option<&[Vec<u8>]>,
) -> Result<(), String> {
    // Pings may be answered before the messages in front of them.
    connection.read_until(|frames| {
        let is_over = frames.iter().any(|frame| frame.opcode == wire::CLOSE);
        is_over || wire::messages(frames).is_ok_and(|heard| heard.len() >= messages.len())
    });
    // And only the last of several (section 5.5.3), and the canary is one.
    if let Some(last) = pongs.and_then(<[_]>::last) {
        connection.read_until(|frames| {
            frames.iter().any(|frame| frame.opcode == wire::PONG && frame.payload == *last)
        });
    }
    connection.send(&wire::frame(wire::PING, CANARY));
    connection.read_until(|frames| frames.iter().any(is_canary));
    if let Some(wrong) = &connection.wrong {
        return Err(wrong.clone());
    }
    let heard = plain(wire::messages(&connection.frames)?)?;
    if connection.end != End::Kept {
        let said = connection.frames.iter().find(|frame| frame.opcode == wire::CLOSE).map(Frame::code);
        return Err(format!("{} echoes, then {:?}, Close {said:?}", heard.len(), connection.end));
    }
    if heard.len() != messages.len() {
        return Err(format!("{} echoes of {} messages", heard.len(), messages.len()));
    }
    if let Some(at) = heard.iter().zip(messages).position(|(heard, sent)| heard != sent) {
        return Err(format!("echo {at} is not what was sent"));
    }
    let Some(pongs) = pongs else { return Ok(()) };
    let is_pong = |frame: &&Frame| frame.opcode == wire::PONG && !is_canary(frame);
    let heard: Vec<&[u8]> =
        connection.frames.iter().filter(is_pong).map(|frame| &frame.payload[..]).collect();
    let mut rest = pongs.iter();
    let is_last_heard = heard.last().copied() == pongs.last().map(Vec::as_slice);
    if is_last_heard && heard.iter().all(|heard| rest.any(|sent| sent == heard)) {
        Ok(())
    } else {
        Err(format!("pongs {heard:?}"))
    }
}

fn is_canary(frame: &Frame) -> bool {
    frame.opcode == wire::PONG && frame.payload == CANARY
}

/// With the compressed ones inflated. Each may refer to those before it, unless the server has agreed that none does; then nothing does.
fn plain(messages: Vec<Message>) -> Result<Vec<Message>, String> {
    let mut state = Inflate::new(false, 15);
    let mut inflated = |message: Message| {
        if !message.is_compressed {
            return Ok(message);
        }
        let mut out = vec![0; 4 << 20];
        let whole = [&message.payload[..], &[0, 0, 0xff, 0xff]].concat();
        let before = state.total_out();
        state.decompress(&whole, &mut out, InflateFlush::SyncFlush).map_err(|error| format!("{error:?}"))?;
        out.truncate(usize::try_from(state.total_out() - before).map_err(|error| error.to_string())?);
        Ok(Message { is_text: message.is_text, payload: out, is_compressed: false })
    };
    messages.into_iter().map(&mut inflated).collect()
}

fn echoes(connection: &mut Connection) -> Result<Vec<Message>, String> {
    connection.read_to_end();
    match &connection.wrong {
        Some(wrong) => Err(wrong.clone()),
        None => plain(wire::messages(&connection.frames)?),
    }
}

/// It is not served, and the connection ends; and what is said first.
fn failed(site: &Site, case: &Case, codes: &[u16]) -> Verdict {
    let mut is_judged = true;
    let must = (|| {
        let mut connection = opened(site, case)?;
        if case.opening.offers() && agreement(&connection).is_none() {
            is_judged = false;
            return Ok(());
        }
        send_pieces(&mut connection, case);
        connection.send(&wire::frame(wire::TEXT, CANARY));
        connection.send(&wire::frame(wire::PING, CANARY));
        let heard = echoes(&mut connection)?;
        if heard.len() > case.echoes_before {
            return Err("it was served, or what came behind it".to_owned());
        }
        if connection.frames.iter().any(is_canary) {
            return Err("a ping behind it was answered".to_owned());
        }
        match connection.end {
            End::Closed | End::Reset => Ok(()),
            end => Err(format!("the connection goes on: {end:?}")),
        }
    })();
    if !is_judged {
        return Verdict::default();
    }
    // Without anything behind it, which could destroy what the server has to say.
    let should = with(site, case, |connection| fails_with(connection, codes));
    Verdict { must: (case.level == Level::Must).then_some(must), should: Some(should) }
}

fn fails_with(connection: &mut Connection, codes: &[u16]) -> Result<(), String> {
    echoes(connection)?;
    closes_with(connection, &codes.iter().map(|code| Some(*code)).collect::<Vec<_>>())
}

/// The last frame is a Close with one of these codes, and the server ends the connection.
fn closes_with(connection: &Connection, codes: &[Option<u16>]) -> Result<(), String> {
    let said = connection.frames.iter().filter(|frame| frame.opcode == wire::CLOSE).count();
    let Some(last) = connection.frames.last().filter(|frame| frame.opcode == wire::CLOSE && said == 1) else {
        return Err(format!("{said} Close frames, {:?}", connection.end));
    };
    if !codes.contains(&last.code()) {
        return Err(format!("Close with {:?}", last.code()));
    }
    if last.payload.len() > 2 && std::str::from_utf8(&last.payload[2..]).is_err() {
        return Err("a reason that is no UTF-8".to_owned());
    }
    if connection.end != End::Closed {
        return Err(format!("behind the Close: {:?}", connection.end));
    }
    Ok(())
}

impl Opening {
    fn bytes(&self, site: &Site) -> Vec<u8> {
        match self {
            Self::Good | Self::Dripped => site.opening("").into_bytes(),
            Self::Offering(offer) => {
                site.opening(&format!("Sec-WebSocket-Extensions: {offer}\r\n")).into_bytes()
            }
            Self::With(lines) => site.opening(lines).into_bytes(),
            Self::Raw(text) => {
                text.replace("{path}", &site.path).replace("{host}", &site.to.to_string()).into_bytes()
            }
        }
    }

    fn is_dripped(&self) -> bool {
        matches!(self, Self::Dripped)
    }

    fn offers(&self) -> bool {
        match self {
            Self::Offering(_) => true,
            Self::With(lines) => lines.contains("Extensions"),
            _ => false,
        }
    }

    fn names(&self, protocol: &str) -> bool {
        let lines = match self {
            Self::With(lines) => lines,
            _ => "",
        };
        lines.contains(protocol)
    }
}
