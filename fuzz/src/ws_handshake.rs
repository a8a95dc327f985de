//! An opening handshake is what a model says that splits its fields by the book, and its answer is trusted by who has asked for it.

use netpoll_http::internals::ws::{Asking, Key, Opening, Refusal, RequestLine, extension};

const NAMES: [&str; 8] = [
    "Upgrade",
    "connection",
    "Sec-WebSocket-Version",
    "sec-websocket-key",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Extensions",
    "Origin",
    "X-Other",
];

/// The first byte is what stands in front of the fields; each line behind it is one, its first byte the name. Behind the lines of the fuzzer come those
/// of a valid request that it has left out, unless the first byte says otherwise.
///
/// # Panics
/// If opening and model disagree, or a client mistrusts an answer to what it has asked.
pub fn run(data: &[u8]) {
    let Some((&choice, lines)) = data.split_first() else { return };
    let mut fields: Vec<(&str, &[u8])> = Vec::new();
    for line in lines.split(|&byte| byte == b'\n') {
        if let [name, value @ ..] = line {
            fields.push((NAMES[usize::from(name % 8)], trim(value)));
        }
    }
    if choice & 1 == 0 {
        let usual = ["websocket", "Upgrade", "13", "dGhlIHNhbXBsZSBub25jZQ=="];
        for (name, value) in NAMES.iter().zip(usual) {
            if !fields.iter().any(|(own, _)| own == name) {
                fields.push((name, value.as_bytes()));
            }
        }
    }
    let line = RequestLine {
        method: if choice & 2 == 0 { "GET" } else { "POST" },
        minor_version: u8::from(choice & 4 == 0),
        has_body: choice & 8 != 0,
    };
    let opening = Opening::read(line, fields.iter().copied());
    let expected = model(line, &fields);
    match (&opening, &expected) {
        (Ok(opening), Ok(expected)) => assert_eq!(opening.protocols(), expected),
        (Err(refusal), Err(Some(expected))) => assert_eq!(refusal, expected),
        (Err(refusal), Err(None)) => assert!(matches!(
            refusal,
            Refusal::BadProtocols | Refusal::TooManyProtocols | Refusal::BadExtensions | Refusal::BadKey
        )),
        _ => panic!("{opening:?} and not {expected:?}"),
    }
    if let Ok(opening) = opening {
        confirm(&opening, &fields);
    }
    // Whatever a server answers, it is judged.
    let asking = Asking { key: Key::new([1; 16]), protocols: &["chat"], compression: true };
    assert!(asking.judge(101, fields.iter().copied()).is_err(), "nobody finds an accept of ours");
}

/// A client that has sent these fields trusts the answer to them.
fn confirm(opening: &Opening<'_>, fields: &[(&str, &[u8])]) {
    let key = fields.iter().find(|(name, _)| *name == NAMES[3]).and_then(|(_, value)| Key::parse(value));
    let protocols = opening.protocols();
    let asking = Asking { key: key.expect("a valid key"), protocols, compression: true };
    let answer = opening.answer(protocols.last().copied(), true);
    let deflate = answer.deflate.map(|deflate| deflate.to_string());
    let mut fields = vec![
        ("Upgrade", &b"websocket"[..]),
        ("Connection", b"upgrade"),
        ("Sec-WebSocket-Accept", answer.accept.as_str().as_bytes()),
    ];
    fields.extend(answer.protocol.map(|protocol| ("Sec-WebSocket-Protocol", protocol.as_bytes())));
    fields.extend(deflate.as_ref().map(|deflate| ("Sec-WebSocket-Extensions", deflate.as_bytes())));
    let agreed = asking.judge(101, fields).expect("an answer to what was asked");
    assert_eq!((agreed.protocol, agreed.deflate), (answer.protocol, answer.deflate));
    if let Some(deflate) = deflate {
        assert!(deflate.starts_with(extension::OFFER));
    }
}

/// The subprotocols, or the refusal; `None` if it is one of those that are found last.
fn model<'a>(line: RequestLine<'_>, fields: &[(&'a str, &'a [u8])]) -> Result<Vec<&'a str>, Option<Refusal>> {
    let values = |name: &str| -> Vec<&'a [u8]> {
        fields.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| *value).collect()
    };
    let elements = |name: &str| -> Vec<&'a [u8]> {
        let values = values(name).into_iter().flat_map(|value| value.split(|&byte| byte == b','));
        values.map(trim).filter(|element| !element.is_empty()).collect()
    };
    let lists = |name: &str, wanted: &str| {
        elements(name).iter().any(|element| element.eq_ignore_ascii_case(wanted.as_bytes()))
    };
    let refuse = |refusal| Err(Some(refusal));
    if line.method != "GET" {
        return refuse(Refusal::NotGet);
    }
    if line.minor_version == 0 {
        return refuse(Refusal::NotHttp11);
    }
    if !lists("upgrade", "websocket") {
        return refuse(Refusal::NoUpgrade);
    }
    if !lists("connection", "upgrade") {
        return refuse(Refusal::NoConnectionOption);
    }
    if line.has_body {
        return refuse(Refusal::HasBody);
    }
    if values("sec-websocket-version") != [b"13"] {
        return refuse(Refusal::BadVersion);
    }
    let keys = values("sec-websocket-key");
    match keys.len() {
        0 => return refuse(Refusal::NoKey),
        1 => {}
        _ => return refuse(Refusal::TwoKeys),
    }
    if values("origin").len() > 1 {
        return refuse(Refusal::TwoOrigins);
    }
    let protocols = elements("sec-websocket-protocol");
    let has_protocols = !values("sec-websocket-protocol").is_empty();
    let is_token = |element: &&[u8]| {
        element.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
    };
    let are_different = (1..protocols.len()).all(|at| !protocols[..at].contains(&protocols[at]));
    if has_protocols && protocols.is_empty()
        || !protocols.iter().all(is_token)
        || !are_different
        || protocols.len() > 32
    {
        return Err(None);
    }
    let extensions = elements("sec-websocket-extensions");
    if values("sec-websocket-extensions").iter().any(|_| extensions.is_empty()) {
        return refuse(Refusal::BadExtensions);
    }
    // Without a quote an extension is tokens, semicolons and equals signs, in this order.
    let has_quote = extensions.iter().any(|extension| extension.contains(&b'"'));
    let is_extension = |extension: &&[u8]| {
        let mut parts = extension.split(|&byte| byte == b';').map(trim);
        let is_name = parts.next().is_some_and(|name| !name.is_empty() && is_token(&name));
        is_name
            && parts.all(|part| {
                let sides: Vec<&[u8]> = part.split(|&byte| byte == b'=').map(trim).collect();
                sides.len() <= 2 && sides.iter().all(|side| !side.is_empty() && is_token(side))
            })
    };
    if !has_quote && !extensions.iter().all(is_extension) {
        return refuse(Refusal::BadExtensions);
    }
    let is_key = keys[0].len() == 24
        && keys[0].ends_with(b"==")
        && keys[0][..22].iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(byte))
        && b"AQgw".contains(&keys[0][21]);
    if !is_key {
        return if has_quote { Err(None) } else { refuse(Refusal::BadKey) };
    }
    if has_quote && !quotes_are_fine(fields) {
        return refuse(Refusal::BadExtensions);
    }
    Ok(protocols.into_iter().filter_map(|protocol| std::str::from_utf8(protocol).ok()).collect())
}

/// Whether every extension line with quotes is fine, by what remains of it when each quoted token has become a plain one.
fn quotes_are_fine(fields: &[(&str, &[u8])]) -> bool {
    let lines = fields.iter().filter(|(name, _)| *name == NAMES[5]).map(|(_, value)| *value);
    lines.into_iter().all(|line| plain(line).is_some_and(|plain| reads(&plain)))
}

/// The line without quotes; `None` if what is in one is no token, or it stands where no value does.
fn plain(line: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'"' {
            plain.push(byte);
            continue;
        }
        let before: &[u8] = plain.trim_ascii_end();
        if before.last() != Some(&b'=') {
            return None;
        }
        let start = plain.len();
        loop {
            let byte = match bytes.next()? {
                b'"' => break,
                b'\\' => bytes.next()?,
                byte => byte,
            };
            if !(byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)) {
                return None;
            }
            plain.push(byte);
        }
        if plain.len() == start {
            return None;
        }
        // Nothing may stand directly behind a quote that would be part of the token then.
        plain.push(b' ');
    }
    Some(plain)
}

/// Whether an opening with this line and nothing else of its name is read.
fn reads(line: &[u8]) -> bool {
    let usual = ["websocket", "Upgrade", "13", "dGhlIHNhbXBsZSBub25jZQ=="];
    let fields = NAMES.iter().zip(usual).map(|(name, value)| (*name, value.as_bytes()));
    let line = [line, b", x"].concat();
    let line_of_request = RequestLine { method: "GET", minor_version: 1, has_body: false };
    Opening::read(line_of_request, fields.chain([(NAMES[5], &line[..])])).is_ok()
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}
