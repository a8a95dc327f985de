//! Settings of rustls' own, and those that change while others use them.

use std::fs::File;
use std::io::Write;
use std::process::Command;
use std::sync::Arc;

use netpoll_core::sim::Options;
use netpoll_core::tls::rustls::pki_types::CertificateDer;
use netpoll_core::tls::rustls::pki_types::pem::PemObject;
use netpoll_core::tls::{Identity, TlsServer};

use crate::support::{Client, client_config, pem, server, server_config, taken, world};

#[test]
fn early_data_is_never_taken_whatever_the_settings_say_and_fails_nobody() {
    let mut config = server_config();
    config.max_early_data_size = 4096;
    let tls = TlsServer::from_config(config).unwrap();
    let (mut sim, listener, log) = world(Options::default(), &tls);
    let mut config = client_config();
    config.enable_early_data = true;
    let config = Arc::new(config);
    for _ in 0..2 {
        let mut client = Client::connect(&mut sim, listener, &config, "localhost");
        if let Some(mut early) = client.far.tls.early_data() {
            early.write_all(b"early").unwrap();
        }
        client.far.say(b"hello");
        client.talk(&mut sim);
        assert_eq!(
            (client.far.error.clone(), client.heard()),
            (None, b"hello".to_vec()),
            "{:?}",
            taken(&log)
        );
        client.far.end();
        client.talk(&mut sim);
    }
}

#[test]
fn what_is_offered_for_one_server_is_not_offered_by_another_with_the_same_certificates() {
    let tls = server("server").build().unwrap();
    let http = tls.clone().or_alpn(["http/1.1"]);
    let mut config = client_config();
    config.alpn_protocols = vec![b"mqtt".to_vec()];
    let config = Arc::new(config);
    let (mut sim, listener, _log) = world(Options::default(), &tls);
    let mut client = Client::connect(&mut sim, listener, &config, "localhost");
    client.talk(&mut sim);
    assert_eq!(client.far.error, None);
    let (mut sim, listener, _log) = world(Options::default(), &http);
    let mut client = Client::connect(&mut sim, listener, &config, "localhost");
    client.talk(&mut sim);
    assert!(client.far.error.is_some());
}

#[test]
fn who_reads_certificates_again_while_others_do_shows_what_is_in_the_files_now() {
    let directory = std::env::temp_dir().join(format!("netpoll-reloads-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let [certificates, key] = ["a.pem", "a-key.pem"].map(|name| directory.join(name));
    let put = |name: &str| {
        for (from, to) in [(format!("{name}.pem"), &certificates), (format!("{name}-key.pem"), &key)] {
            std::fs::copy(pem(&from), directory.join("new")).unwrap();
            std::fs::rename(directory.join("new"), to).unwrap();
        }
    };
    put("server");
    let tls = TlsServer::builder(Identity::from_pem_files(&certificates, &key).unwrap()).build().unwrap();
    // A file that takes as long as this test likes.
    assert!(Command::new("mkfifo").arg(directory.join("pipe")).status().unwrap().success());
    std::fs::rename(directory.join("pipe"), &key).unwrap();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| tls.reload());
        // Whoever opens it to write waits for who reads.
        let mut pipe = File::options().write(true).open(&key).unwrap();
        put("renewed");
        tls.reload().unwrap();
        pipe.write_all(&std::fs::read(pem("server-key.pem")).unwrap()).unwrap();
        drop(pipe);
        slow.join().unwrap().unwrap();
    });
    std::fs::remove_dir_all(&directory).unwrap();
    let (mut sim, listener, _log) = world(Options::default(), &tls);
    let mut client = Client::connect(&mut sim, listener, &Arc::new(client_config()), "localhost");
    client.talk(&mut sim);
    let renewed = CertificateDer::from_pem_file(pem("renewed.pem")).unwrap();
    assert_eq!(client.far.tls.peer_certificates().unwrap()[0], renewed);
}
