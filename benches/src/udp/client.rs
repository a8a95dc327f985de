//! The client: so many questions on their way, each answer checked.

use benches::runner::Failure;
use benches::sys;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

/// Nobody answers for so long: a datagram was lost, and the run is worth nothing.
const PATIENCE: Duration = Duration::from_millis(500);

/// How the questions come.
#[derive(Clone, Copy)]
pub struct Load {
    pub name: &'static str,
    /// Sockets, each with a port of its own.
    pub clients: usize,
    /// Questions that each has on their way, sent by one system call.
    pub window: usize,
}

pub struct Client {
    sockets: Vec<UdpSocket>,
    window: usize,
    /// The questions of one socket, one behind the other, and one answer.
    questions: Vec<u8>,
    answer: Vec<u8>,
}

/// `www.example.test`, address.
fn question() -> Vec<u8> {
    let mut bytes = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(b"\x03www\x07example\x04test\x00\x00\x01\x00\x01");
    bytes
}

impl Client {
    pub fn new(load: &Load, port: u16) -> Result<Self, Failure> {
        let question = question();
        let mut sockets = Vec::new();
        for _ in 0..load.clients {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.connect((Ipv4Addr::LOCALHOST, port))?;
            socket.set_nonblocking(true)?;
            if load.window > 1 {
                // One send is then so many datagrams.
                sys::set_udp_segment(&socket, question.len() as u16)?;
            }
            sockets.push(socket);
        }
        let mut answer = question.clone();
        answer[2..12].copy_from_slice(&[0x85, 0, 0, 1, 0, 1, 0, 0, 0, 0]);
        answer.extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x01\x2c\x00\x04\xc0\x00\x02\x50");
        Ok(Self { sockets, window: load.window, questions: question.repeat(load.window), answer })
    }

    /// Asks and reads for so long; how many answers came. It never sleeps, so that nobody pays for waking it.
    pub fn run(&mut self, time: Duration) -> Result<u64, Failure> {
        let question_bytes = self.questions.len() / self.window;
        let begin = Instant::now();
        let (mut answers, mut id, mut got) = (0, 0_u16, [0; 2048]);
        while begin.elapsed() < time {
            for socket in &self.sockets {
                for question in self.questions.chunks_exact_mut(question_bytes) {
                    id = id.wrapping_add(1);
                    question[..2].copy_from_slice(&id.to_be_bytes());
                }
                socket.send(&self.questions)?;
            }
            // One sender's datagrams keep their order on loopback, and so do its answers.
            let mut expected = id.wrapping_sub((self.sockets.len() * self.window) as u16);
            for socket in &self.sockets {
                for _ in 0..self.window {
                    expected = expected.wrapping_add(1);
                    let len = receive(socket, &mut got)?;
                    if got[..2] != expected.to_be_bytes() || got[2..len] != self.answer[2..] {
                        return Err("a wrong answer".into());
                    }
                    answers += 1;
                }
            }
        }
        Ok(answers)
    }
}

fn receive(socket: &UdpSocket, into: &mut [u8]) -> Result<usize, Failure> {
    let begin = Instant::now();
    loop {
        match socket.recv(into) {
            Ok(len) => return Ok(len),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if begin.elapsed() > PATIENCE {
            return Err("an answer is missing".into());
        }
        std::hint::spin_loop();
    }
}
