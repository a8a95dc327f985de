//! Opening handshakes, from both sides.

use super::*;

const KEY_LINE: (&str, &str) = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");

type Field = (&'static str, &'static str);

/// The request of the RFC, with these fields behind its own.
fn with(fields: &[Field]) -> Vec<Field> {
    let own = [
        ("Host", "server.example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        KEY_LINE,
        ("Sec-WebSocket-Version", "13"),
    ];
    own.into_iter().chain(fields.iter().copied()).collect()
}

/// The same with this field instead of all of its name, or without them.
fn instead(name: &str, fields: &[Field]) -> Vec<Field> {
    with(&[]).into_iter().filter(|(own, _)| *own != name).chain(fields.iter().copied()).collect()
}

const GET: RequestLine<'static> = RequestLine { method: "GET", minor_version: 1, has_body: false };

fn read(line: RequestLine<'_>, fields: &[Field]) -> Result<Opening<'static>, Refusal> {
    Opening::read(line, fields.iter().map(|(name, value)| (*name, value.as_bytes())))
}

fn refusal(fields: &[Field]) -> Refusal {
    read(GET, fields).expect_err("a refusal")
}

#[test]
fn the_example_of_the_rfc_is_answered() {
    let fields = with(&[("Origin", "http://example.com"), ("Sec-WebSocket-Protocol", "chat, superchat")]);
    let opening = read(GET, &fields).expect("an opening");
    assert_eq!(opening.origin(), Some(&b"http://example.com"[..]));
    assert_eq!(opening.protocols(), ["chat", "superchat"]);
    let answer = opening.answer(opening.choose(&["chat"]), true);
    assert_eq!(answer.accept.as_str(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!((answer.protocol, answer.deflate), (Some("chat"), None));
}

#[test]
fn a_websocket_is_opened_by_a_get_of_http11_without_a_body() {
    let refused = |line| read(line, &with(&[])).map(|_| ());
    assert_eq!(refused(GET), Ok(()));
    for method in ["POST", "HEAD", "PUT", "OPTIONS", "get"] {
        assert_eq!(refused(RequestLine { method, ..GET }), Err(Refusal::NotGet), "{method}");
    }
    assert_eq!(refused(RequestLine { minor_version: 0, ..GET }), Err(Refusal::NotHttp11));
    assert_eq!(refused(RequestLine { has_body: true, ..GET }), Err(Refusal::HasBody));
}

#[test]
fn upgrade_and_connection_are_lists_in_any_case_and_over_several_lines() {
    for fields in [
        instead("Upgrade", &[("upgrade", "WebSocket")]),
        instead("Upgrade", &[("Upgrade", "h2c, websocket")]),
        instead("Upgrade", &[("Upgrade", "h2c"), ("UPGRADE", "websocket")]),
        instead("Connection", &[("connection", "keep-alive,\tUPGRADE")]),
        instead("Connection", &[("Connection", "keep-alive"), ("Connection", "upgrade")]),
        instead("Connection", &[("Connection", ", upgrade ,")]),
    ] {
        assert!(read(GET, &fields).is_ok(), "{fields:?}");
    }
    for value in ["websocket2", "not-websocket", "web socket", "websocket/13", "", "h2c"] {
        let fields = instead("Upgrade", &[("Upgrade", value)]);
        assert_eq!(refusal(&fields), Refusal::NoUpgrade, "{value}");
    }
    for value in ["not-upgrade", "upgraded", "keep-alive", "", "upgrade keep-alive"] {
        let fields = instead("Connection", &[("Connection", value)]);
        assert_eq!(refusal(&fields), Refusal::NoConnectionOption, "{value}");
    }
    assert_eq!(refusal(&instead("Upgrade", &[])), Refusal::NoUpgrade);
    assert_eq!(refusal(&instead("Connection", &[])), Refusal::NoConnectionOption);
}

#[test]
fn the_version_is_13_and_said_once() {
    for version in ["13.0", "+13", "013", "7", "8", "0", "", "13, 8", "13,13", "1 3", "13;", "256", "-13"] {
        let fields = instead("Sec-WebSocket-Version", &[("Sec-WebSocket-Version", version)]);
        assert_eq!(refusal(&fields), Refusal::BadVersion, "{version}");
    }
    assert_eq!(refusal(&instead("Sec-WebSocket-Version", &[])), Refusal::BadVersion);
    assert_eq!(refusal(&with(&[("sec-websocket-version", "13")])), Refusal::BadVersion);
    assert_eq!(
        refusal(&with(&[("sec-websocket-version", "8"), ("sec-websocket-version", "13")])),
        Refusal::BadVersion
    );
}

#[test]
fn who_has_to_come_otherwise_hears_how() {
    for refusal in [Refusal::NotHttp11, Refusal::NoUpgrade, Refusal::NoConnectionOption, Refusal::BadVersion]
    {
        assert_eq!(refusal.status(), 426);
        assert_eq!(refusal.fields(), [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]);
    }
    assert_eq!((Refusal::NotGet.status(), Refusal::NotGet.fields()), (405, &[("Allow", "GET")][..]));
    for refusal in Refusal::ALL {
        assert!(
            matches!(refusal.status(), 400 | 405 | 426) && refusal.reason().ends_with('.'),
            "{refusal:?}"
        );
    }
}

#[test]
fn the_key_is_said_once_and_is_one() {
    assert_eq!(refusal(&instead("Sec-WebSocket-Key", &[])), Refusal::NoKey);
    assert_eq!(refusal(&with(&[KEY_LINE])), Refusal::TwoKeys);
    for key in
        ["", "short", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZTE=", "dGhlIHNhbXBsZSBub25jZQ==, x"]
    {
        let fields = instead("Sec-WebSocket-Key", &[("Sec-WebSocket-Key", key)]);
        assert_eq!(refusal(&fields), Refusal::BadKey, "{key}");
    }
}

#[test]
fn a_client_of_another_version_hears_that_first() {
    let fields = [("Upgrade", "websocket"), ("Connection", "upgrade"), ("Sec-WebSocket-Version", "7")];
    assert_eq!(refusal(&fields), Refusal::BadVersion);
    assert_eq!(refusal(&[("Host", "a")]), Refusal::NoUpgrade);
}

#[test]
fn an_origin_is_shown_as_it_was_sent() {
    assert_eq!(read(GET, &with(&[])).expect("an opening").origin(), None);
    assert_eq!(read(GET, &with(&[("origin", "null")])).expect("an opening").origin(), Some(&b"null"[..]));
    assert_eq!(refusal(&with(&[("Origin", "a"), ("Origin", "a")])), Refusal::TwoOrigins);
}

#[test]
fn subprotocols_are_tokens_once_each_over_all_lines() {
    let fields = with(&[("Sec-WebSocket-Protocol", "a,,b "), ("sec-websocket-protocol", "A, c.d")]);
    let opening = read(GET, &fields).expect("an opening");
    assert_eq!(opening.protocols(), ["a", "b", "A", "c.d"]);
    assert_eq!(opening.choose(&["c.d", "b"]), Some("b"), "the client's order");
    assert_eq!(opening.choose(&["x"]), None);
    for lists in [
        &["a, a"][..],
        &["a", "b, a"],
        &["a, a", "b"],
        &["a b"],
        &["a/b"],
        &["ä"],
        &["\"a\""],
        &[""],
        &[",", " ,"],
    ] {
        let lines: Vec<Field> = lists.iter().map(|list| ("Sec-WebSocket-Protocol", *list)).collect();
        assert_eq!(refusal(&with(&lines)), Refusal::BadProtocols, "{lists:?}");
    }
}

#[test]
fn subprotocols_have_a_number_that_is_enough() {
    let many = |count: usize| (0..count).map(|at| format!("p{at}")).collect::<Vec<_>>().join(",");
    let (most, more) = (many(32), many(33));
    let own = with(&[]);
    let read = |list: &str| {
        let fields = own.iter().map(|(name, value)| (*name, value.as_bytes()));
        let list = ("Sec-WebSocket-Protocol", list.as_bytes());
        Opening::read(GET, fields.chain([list])).map(|opening| opening.protocols().len())
    };
    assert_eq!(read(&most), Ok(32));
    assert_eq!(read(&more), Err(Refusal::TooManyProtocols));
}

#[test]
#[should_panic(expected = "nobody has offered")]
fn a_subprotocol_that_nobody_has_offered_is_not_answered() {
    read(GET, &with(&[])).expect("an opening").answer(Some("chat"), false);
}

/// The answer to these lines of offers; empty if there is none.
fn agreed(lines: &[&'static str]) -> Result<String, Refusal> {
    let lines: Vec<Field> = lines.iter().map(|line| ("Sec-WebSocket-Extensions", *line)).collect();
    let opening = read(GET, &with(&lines))?;
    assert_eq!(opening.answer(None, false).deflate, None, "who wants none has none");
    Ok(opening.answer(None, true).deflate.map(|deflate| deflate.to_string()).unwrap_or_default())
}

const USUAL: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

#[test]
fn compression_is_agreed_on_without_context() {
    for offer in [
        "permessage-deflate",
        "PerMessage-Deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; client_max_window_bits=10",
        "permessage-deflate;server_no_context_takeover;client_no_context_takeover",
        "permessage-deflate ; client_max_window_bits = \"9\"",
        "permessage-deflate; client_max_window_bits=\"1\\0\"",
    ] {
        assert_eq!(agreed(&[offer]).as_deref(), Ok(USUAL), "{offer}");
    }
    let bits = format!("{USUAL}; server_max_window_bits=10");
    assert_eq!(agreed(&["permessage-deflate; server_max_window_bits=10"]), Ok(bits));
    assert_eq!(agreed(&[]).as_deref(), Ok(""));
}

#[test]
fn an_offer_with_a_wrong_parameter_is_declined_and_the_next_one_looked_at() {
    for offer in [
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=010",
        "permessage-deflate; server_max_window_bits=08",
        "permessage-deflate; server_max_window_bits=1",
        "permessage-deflate; server_max_window_bits=100",
        "permessage-deflate; client_max_window_bits=0",
        "permessage-deflate; client_max_window_bits=x",
        "permessage-deflate; client_max_window_bits=15x",
        "permessage-deflate; client_max_window_bits; client_max_window_bits",
        "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover=true",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; unknown",
        "permessage-deflate; unknown=1",
        "permessage-deflate; unknown; client_max_window_bits",
        "x-webkit-deflate-frame",
        "mux; max-channels=4; flow-control",
        "permessage-deflate2",
    ] {
        assert_eq!(agreed(&[offer]).as_deref(), Ok(""), "{offer}");
        assert_eq!(agreed(&[offer, "permessage-deflate"]).as_deref(), Ok(USUAL), "{offer}");
    }
    let two = ["permessage-deflate; server_max_window_bits=16, permessage-deflate; server_max_window_bits=9"];
    assert!(agreed(&two).is_ok_and(|answer| answer.ends_with("server_max_window_bits=9")));
    let two = ["permessage-deflate; server_max_window_bits=9, permessage-deflate"];
    assert!(
        agreed(&two).is_ok_and(|answer| answer.ends_with("server_max_window_bits=9")),
        "the first that can be"
    );
}

#[test]
fn extensions_that_are_not_of_the_grammar_are_refused() {
    for line in [
        "",
        ",",
        "permessage-deflate;",
        "permessage-deflate; ;",
        "permessage-deflate; a=",
        "permessage-deflate; =a",
        "permessage-deflate; a=\"\"",
        "permessage-deflate; a=\"b",
        "permessage-deflate; a=\"b c\"",
        "permessage-deflate; a=\"b\\",
        "permessage-deflate; a=\"b\"c",
        "permessage-deflate a",
        "perm/essage",
        "permessage-deflate; a=b c",
        "; a",
        "\"permessage-deflate\"",
    ] {
        assert_eq!(agreed(&[line]), Err(Refusal::BadExtensions), "{line}");
        if !line.trim_matches(',').is_empty() {
            assert_eq!(agreed(&["permessage-deflate", line]), Err(Refusal::BadExtensions), "{line}");
        }
    }
    assert_eq!(
        agreed(&["", "permessage-deflate"]).as_deref(),
        Ok(USUAL),
        "an empty line beside one that is not"
    );
}

/// What a client that asks for all makes of an answer with these fields behind a status of 101.
fn judged(fields: &[Field]) -> Result<(Option<&'static str>, Option<Option<u8>>), Mistrust> {
    let asking = Asking { key: Key::new(*b"the sample nonce"), protocols: &["chat", "a"], compression: true };
    let fields = fields.iter().map(|(name, value)| (*name, value.as_bytes()));
    let agreed = asking.judge(101, fields)?;
    Ok((agreed.protocol, agreed.deflate.map(|deflate| deflate.server_window_bits)))
}

/// The answer of the RFC, with these fields behind its own and without any own one of this name.
fn answer(without: &str, fields: &[Field]) -> Vec<Field> {
    let own = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ];
    own.into_iter().filter(|(name, _)| *name != without).chain(fields.iter().copied()).collect()
}

#[test]
fn a_client_takes_what_it_has_asked_for() {
    assert_eq!(judged(&answer("", &[])), Ok((None, None)));
    assert_eq!(judged(&answer("", &[("Sec-WebSocket-Protocol", "chat")])), Ok((Some("chat"), None)));
    assert_eq!(judged(&answer("", &[("Sec-WebSocket-Extensions", USUAL)])), Ok((None, Some(None))));
    let bits = "permessage-deflate; server_no_context_takeover; server_max_window_bits=9";
    assert_eq!(judged(&answer("", &[("sec-websocket-extensions", bits)])), Ok((None, Some(Some(9)))));
}

#[test]
fn a_client_mistrusts_any_other_answer() {
    let asking = Asking { key: Key::new([7; 16]), protocols: &[], compression: false };
    assert_eq!(asking.judge(200, []), Err(Mistrust::NotSwitching));
    assert_eq!(judged(&answer("Upgrade", &[])), Err(Mistrust::NotUpgraded));
    assert_eq!(judged(&answer("Upgrade", &[("Upgrade", "h2c")])), Err(Mistrust::NotUpgraded));
    assert_eq!(judged(&answer("Connection", &[("Connection", "close")])), Err(Mistrust::NoConnectionOption));
    assert_eq!(judged(&answer("Sec-WebSocket-Accept", &[])), Err(Mistrust::BadAccept));
    let accept = ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(judged(&answer("", &[accept])), Err(Mistrust::BadAccept), "twice");
    let other = ("Sec-WebSocket-Accept", "S3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(judged(&answer("Sec-WebSocket-Accept", &[other])), Err(Mistrust::BadAccept));
    for protocols in [&["b"][..], &["chat, a"], &["Chat"], &[""], &["chat", "a"]] {
        let lines: Vec<Field> = protocols.iter().map(|name| ("Sec-WebSocket-Protocol", *name)).collect();
        assert_eq!(judged(&answer("", &lines)), Err(Mistrust::BadProtocol), "{protocols:?}");
    }
    for extensions in [
        &["permessage-deflate"][..],
        &["permessage-deflate; server_no_context_takeover; client_max_window_bits=15"],
        &["permessage-deflate; server_no_context_takeover; server_max_window_bits=16"],
        &["permessage-deflate; server_no_context_takeover; x"],
        &["permessage-deflate; server_no_context_takeover; ="],
        &["mux"],
        &[USUAL, USUAL],
        &["permessage-deflate; server_no_context_takeover, mux"],
    ] {
        let lines: Vec<Field> = extensions.iter().map(|line| ("Sec-WebSocket-Extensions", *line)).collect();
        assert_eq!(judged(&answer("", &lines)), Err(Mistrust::BadExtension), "{extensions:?}");
    }
    let fields = answer("", &[("Sec-WebSocket-Extensions", USUAL)]);
    let without = Asking { key: Key::new(*b"the sample nonce"), protocols: &[], compression: false };
    let judged = without.judge(101, fields.iter().map(|(name, value)| (*name, value.as_bytes())));
    assert_eq!(judged, Err(Mistrust::BadExtension), "which was not offered");
}
