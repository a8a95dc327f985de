//! mini-program, replaced by another process while clients are there.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::{Answer, PATIENCE, Program, send_request};

const PROGRAM: &str = env!("CARGO_BIN_EXE_mini-program");

/// An empty directory, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("netpoll-{test}-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn kept(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn ask(stream: &mut TcpStream) -> u16 {
    send_request(stream, "GET", "/json", &[], "");
    Answer::read(stream).status
}

#[test]
fn the_next_one_takes_over_with_the_address_of_operators_and_the_manager_hears_of_it() {
    let folder = Folder::new("mini-handover");
    let (path, notify) = (folder.0.join("next.sock"), folder.0.join("notify.sock"));
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut line = [0; 128];
        let length = manager.recv(&mut line).expect("it says something");
        String::from_utf8(line[..length].to_vec()).unwrap()
    };
    let start = |workers: &str, notify: Option<&PathBuf>| {
        let mut command = Command::new(PROGRAM);
        notify.map(|notify| command.env("NOTIFY_SOCKET", notify));
        command.args(["--addr=127.0.0.1:0", "--admin=127.0.0.1:0", workers, "--handover"]).arg(&path);
        Program::spawn(&mut command)
    };
    let mut old = start("--workers=1", Some(&notify));
    let operators = old.line();
    assert_eq!(told(), "READY=1");
    let mut client = kept(old.addr);
    assert_eq!(ask(&mut client), 200);

    // Its environment names no manager, as that of a command of `ExecReload=`.
    let mut new = start("--workers=2", None);
    assert_eq!((new.addr, new.line()), (old.addr, operators));
    assert!(told().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    let mut said = [told(), told()];
    said.sort();
    assert_eq!(said, [format!("MAINPID={}\nREADY=1", new.pid()), "READY=1".to_owned()]);
    // Whoever is connected goes on with it.
    let (printed, status) = old.wait();
    assert!(status.success(), "{printed}");
    if !new.printed.contains("backend uring") {
        assert!(printed.contains("; its listeners were handed over, and a connection\n"), "{printed}");
        assert_eq!(ask(&mut client), 200);
    }
    drop(client);
    assert_eq!(new.get("/json").status, 200);
    assert!(new.printed.contains("(2 workers,"), "{}", new.printed);
    let (_, status) = new.terminate();
    assert!(status.success());
    assert_eq!(told(), "STOPPING=1");
    assert!(!path.exists());
}

#[test]
fn a_socket_unit_may_have_what_it_listens_on() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let start = |addr: SocketAddr| {
        let mut command = Command::new("sh");
        command.args(["-c", r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&0"#, "sh", PROGRAM, "--addr"]);
        command.arg(addr.to_string()).stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())));
        command
    };
    let mut early = kept(addr);
    write!(early, "GET /json HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut child = start(addr).stdout(Stdio::null()).spawn().unwrap();
    let mut answer = String::new();
    early.read_to_string(&mut answer).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let output = start("127.0.0.1:0".parse().unwrap()).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(
        errors.contains(&format!("a socket at {addr} was handed in, and nobody listens there")),
        "{errors}"
    );
}
