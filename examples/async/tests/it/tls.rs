//! HTTPS with curl and openssl.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::clients::{Scratch, curl, has};
use crate::support::Program;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tls");

/// The program with a certificate for `localhost`, and the file of who has signed it.
fn start(scratch: &Scratch) -> (Program, String) {
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "who signs");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let ca = scratch.write("ca.pem", issuer.pem());
    let certificate = scratch.write("certificate.pem", certificate.pem());
    let key = scratch.write("key.pem", key.serialize_pem());
    (Program::start(PROGRAM, &["127.0.0.1:0", &certificate, &key]), ca)
}

#[test]
fn curl_speaks_both_versions_of_http_over_tls() {
    if !has("curl") {
        return;
    }
    let scratch = Scratch::new("tls-curl");
    let (program, ca) = start(&scratch);
    let url = format!("https://localhost:{}/", program.addr.port());
    let ask = |arguments: &[&str]| curl(&[&["--cacert", &ca, &url], arguments].concat());
    assert_eq!(ask(&[]), "TLSv1_3 HTTP/2.0\n2 200");
    assert_eq!(ask(&["--http1.1"]), "TLSv1_3 HTTP/1.1\n1.1 200");
    assert_eq!(ask(&["--http1.1", "--tls-max", "1.2"]), "TLSv1_2 HTTP/1.1\n1.1 200");
    // Who speaks no TLS costs nobody else anything.
    let mut plain = program.connect();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut alert = Vec::new();
    // A reset is as good an end.
    let _ = plain.read_to_end(&mut alert);
    assert_eq!(ask(&[]), "TLSv1_3 HTTP/2.0\n2 200");
    assert!(program.terminate().1.success());
}

#[test]
fn openssl_checks_the_chain_and_sees_the_end() {
    if !has("openssl") {
        return;
    }
    let scratch = Scratch::new("tls-openssl");
    let (program, ca) = start(&scratch);
    let to = format!("127.0.0.1:{}", program.addr.port());
    let mut openssl = Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &to,
            "-servername",
            "localhost",
            "-CAfile",
            &ca,
            "-verify_return_error",
        ])
        .args(["-ign_eof", "-brief"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    openssl.stdin.take().unwrap().write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let said = openssl.wait_with_output().unwrap();
    let (answer, about) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(
        answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("TLSv1_3 HTTP/1.0\n"),
        "{answer}{about}"
    );
    assert!(about.contains("Verification: OK") && !about.contains("unexpected eof"), "{about}");
    assert!(program.terminate().1.success());
}
