//! What both ends agree upon, and what the protocol above knows of it.

use std::sync::Arc;
use std::time::Duration;

use netpoll_core::sim::Options;
use netpoll_core::tls::rustls::pki_types::pem::PemObject;
use netpoll_core::tls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use netpoll_core::tls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use netpoll_core::tls::rustls::{AlertDescription, ClientConfig, Error, HandshakeKind, version};
use netpoll_core::tls::{Identity, TlsServer, roots_from_pem_file};

use crate::support::{Client, client_config, identity, pem, roots, server, taken, world};

fn certificate(name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(pem(&format!("{name}.pem"))).unwrap()
}

/// Whom the server has shown to be.
fn shown(client: &Client) -> CertificateDer<'static> {
    client.far.tls.peer_certificates().expect("a certificate")[0].clone()
}

#[test]
fn the_protocol_above_knows_what_was_agreed_upon() {
    let tls = server("server").alpn(["h2", "http/1.1"]).build().unwrap();
    let (mut sim, listener, log) = world(Options::default(), &tls);
    let mut config = client_config();
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    let mut client = Client::connect(&mut sim, listener, &Arc::new(config), "localhost");
    client.talk(&mut sim);
    let facts = r#"TLSv1_3 name Some("localhost") alpn Some("h2") certificates 0 resumed false"#;
    assert_eq!(taken(&log), [facts], "the server's preference");

    let older = ClientConfig::builder_with_provider(client_config().crypto_provider().clone())
        .with_protocol_versions(&[&version::TLS12])
        .unwrap()
        .with_root_certificates(roots())
        .with_no_client_auth();
    let mut client = Client::connect(&mut sim, listener, &Arc::new(older), "192.0.2.1");
    client.far.say(b"hello");
    client.talk(&mut sim);
    assert_eq!(client.heard(), b"hello");
    assert_eq!(taken(&log), ["TLSv1_2 name None alpn None certificates 0 resumed false"]);
}

#[test]
fn a_client_that_speaks_none_of_our_protocols_is_refused() {
    let tls = server("server").alpn(["h2"]).build().unwrap();
    let (mut sim, listener, log) = world(Options::default(), &tls);
    let mut config = client_config();
    config.alpn_protocols = vec![b"spdy/1".to_vec()];
    let mut client = Client::connect(&mut sim, listener, &Arc::new(config), "localhost");
    client.talk(&mut sim);
    assert_eq!(client.far.error, Some(Error::AlertReceived(AlertDescription::NoApplicationProtocol)));
    sim.advance(Duration::from_secs(5));
    let log = taken(&log);
    assert!(matches!(&log[..], [lost] if lost.starts_with("lost: its layer has failed")), "{log:?}");
}

#[test]
fn each_host_shows_its_own_certificate_and_a_stranger_the_first() {
    let tls = server("server").identity(identity("other")).build().unwrap();
    let (mut sim, listener, _) = world(Options::default(), &tls);
    let config = Arc::new(client_config());
    for (host, certificate_of) in [("localhost", "server"), ("other.test", "other"), ("a.wild.test", "other")]
    {
        let mut client = Client::connect(&mut sim, listener, &config, host);
        client.talk(&mut sim);
        assert_eq!((client.far.error.clone(), shown(&client)), (None, certificate(certificate_of)), "{host}");
    }
    let mut client = Client::connect(&mut sim, listener, &config, "stranger.test");
    client.talk(&mut sim);
    assert!(matches!(client.far.error, Some(Error::InvalidCertificate(_))), "{:?}", client.far.error);
}

#[test]
fn a_chain_longer_than_a_record_is_shown_whole() {
    let (mut sim, listener, _) = world(Options::default(), &server("large").build().unwrap());
    let mut client = Client::connect(&mut sim, listener, &Arc::new(client_config()), "localhost");
    client.far.say(b"hello");
    client.talk(&mut sim);
    assert_eq!(client.heard(), b"hello");
    assert!(shown(&client).len() > 16_384);
}

#[test]
fn a_session_is_resumed_by_its_ticket_also_when_the_certificate_was_renewed() {
    let tls = server("server").build().unwrap();
    let (mut sim, listener, log) = world(Options::default(), &tls);
    let config = Arc::new(client_config());
    for (is_renewed, kind) in
        [(false, HandshakeKind::Full), (false, HandshakeKind::Resumed), (true, HandshakeKind::Resumed)]
    {
        if is_renewed {
            tls.replace(vec![identity("renewed")]).unwrap();
        }
        let mut client = Client::connect(&mut sim, listener, &config, "localhost");
        client.far.say(b"hello");
        client.talk(&mut sim);
        assert_eq!((client.far.kind(), client.heard()), (Some(kind), b"hello".to_vec()));
        client.far.end();
        client.talk(&mut sim);
        let resumed = format!("resumed {}", kind == HandshakeKind::Resumed);
        assert!(taken(&log)[0].ends_with(&resumed));
    }
    // Whoever comes without one is shown the new certificate.
    let mut client = Client::connect(&mut sim, listener, &Arc::new(client_config()), "localhost");
    client.talk(&mut sim);
    assert_eq!(shown(&client), certificate("renewed"));
}

#[test]
fn a_certificate_that_is_replaced_in_the_middle_of_a_handshake_does_not_fail_it() {
    let tls = server("server").build().unwrap();
    let (mut sim, listener, _) = world(Options::default(), &tls);
    let config = Arc::new(client_config());
    let mut first = Client::connect(&mut sim, listener, &config, "localhost");
    let mut second = Client::connect(&mut sim, listener, &config, "localhost");
    let hello = first.far.wire();
    sim.send(first.peer, &hello);
    sim.settle();
    tls.replace(vec![identity("renewed")]).unwrap();
    for client in [&mut first, &mut second] {
        client.far.say(b"hello");
        client.talk(&mut sim);
        assert_eq!((client.heard(), shown(client)), (b"hello".to_vec(), certificate("server")));
    }
    assert!(tls.replace(Vec::new()).is_err());
}

#[test]
fn a_client_shows_who_it_is_where_it_is_asked() {
    let run = |tls: &TlsServer, shows: bool| {
        let (mut sim, listener, log) = world(Options::default(), tls);
        let mut config = client_config();
        if shows {
            let key = PrivateKeyDer::from_pem_file(pem("client-key.pem")).unwrap();
            let key = CertifiedKey::from_der(vec![certificate("client")], key, config.crypto_provider());
            config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(key.unwrap()));
        }
        let mut client = Client::connect(&mut sim, listener, &Arc::new(config), "localhost");
        client.talk(&mut sim);
        sim.advance(Duration::from_secs(5));
        (client.far.error.clone(), taken(&log).remove(0))
    };
    let asks = server("server").ask_for_client_certificates(roots()).build().unwrap();
    let requires = server("server").require_client_certificates(roots()).build().unwrap();
    for (tls, shows, count) in [(&asks, false, 0), (&asks, true, 1), (&requires, true, 1)] {
        let (error, facts) = run(tls, shows);
        assert_eq!(error, None);
        assert!(facts.contains(&format!("certificates {count} ")), "{facts}");
    }
    let (error, lost) = run(&requires, false);
    assert_eq!(error, Some(Error::AlertReceived(AlertDescription::CertificateRequired)));
    assert!(lost.starts_with("lost: its layer has failed"), "{lost}");

    let strangers = roots_from_pem_file(pem("stranger.pem")).unwrap();
    let wants_strangers = server("server").ask_for_client_certificates(strangers).build().unwrap();
    let (error, _) = run(&wants_strangers, true);
    assert!(matches!(error, Some(Error::AlertReceived(_))), "{error:?}");
}

#[test]
fn a_file_that_is_no_good_is_named() {
    let of = |certificates: &str, key: &str| {
        Identity::from_pem_files(pem(certificates), pem(key)).expect_err("no good").to_string()
    };
    let starts = |text: &str, file: &str| text.starts_with(&pem(file).display().to_string());
    assert!(starts(&of("nowhere.pem", "server-key.pem"), "nowhere.pem"));
    assert!(starts(&of("server.pem", "nowhere.pem"), "nowhere.pem"));
    assert!(of("server-key.pem", "server-key.pem").contains("server-key.pem: no certificate in PEM"));
    assert!(of("server.pem", "server.pem").contains("server.pem: no private key in PEM"));
    let mixed = of("server.pem", "other-key.pem");
    assert!(starts(&mixed, "server.pem") && mixed.contains("other-key.pem"), "{mixed}");
    let error = roots_from_pem_file(pem("server-key.pem")).expect_err("no good").to_string();
    assert!(starts(&error, "server-key.pem"), "{error}");
}
