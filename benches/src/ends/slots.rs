//! Part `slots`: whoever came first does not keep every place.
//!
//! As many clients as a limit allows ask once and fall silent, or ask again now and then, and connect anew when they were
//! closed; a second later, when they can be told from clients that are about to ask, others come, one after the other, each
//! on a connection of its own. Limits: `--connections-max 100`, and descriptors.

use crate::Plan;
use crate::client::{REQUEST, Served, answer, ask, connect};
use crate::table::{Row, Target};
use benches::runner::Failure;
use benches::sys::Limit;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PART: &str = "slots";
const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: ends\r\nConnection: close\r\n\r\n";
const POLITE: usize = 150;
const HEALTH_CHECKS: usize = 20;
/// A newcomer waits for so long; then it was not served.
const PATIENCE: Duration = Duration::from_secs(3);
/// Who wants to hold a place waits for so long for it, and gives up.
const HOLD: Duration = Duration::from_millis(250);
/// After so many who were not served the others are not either, and nobody waits for it.
const MISSES_MAX: u64 = 5;
const PAUSE: Duration = Duration::from_millis(20);
/// After so long a client that holds a place has fallen silent.
const SILENCE: Duration = Duration::from_secs(1);
/// How often each of the clients that hold a place asks again.
const AGAIN: Duration = Duration::from_secs(2);
const DESCRIPTORS: u64 = 200;

/// Clients that hold a place, and whether they ask again.
struct Holders {
    count: usize,
    ask_again: bool,
}

pub fn check(plan: &Plan) -> Result<(), Failure> {
    let places = ["--workers", "1", "--connections-max", "100"];
    let descriptors = Some(Limit::OpenFiles(DESCRIPTORS));
    let silent = |count| Holders { count, ask_again: false };
    let again = |count| Holders { count, ask_again: true };
    for (what, options, limit, holders) in [
        ("100 places, 100 silent", &places[..], None, silent(100)),
        ("100 places, 100 that ask again", &places[..], None, again(100)),
        ("200 descriptors, 210 silent", &places[..2], descriptors, silent(210)),
        ("200 descriptors, 210 that ask again", &places[..2], descriptors, again(210)),
    ] {
        let mut server = plan.start(0, options, limit)?;
        let (others, health) = contest(server.addr, &holders);
        let lives = if server.lives() { "" } else { "; the process has ended" };
        let row = |who: &str, served: &Served, target: usize| {
            let row =
                Row::new(PART, format!("{what}: {who}"), served.answered, Target::AtLeast(target as u64));
            row.noting(format!("{}{lives}", served.in_words()))
        };
        plan.show(&[
            row("others that are served", &others, POLITE),
            row("health checks that get through", &health, HEALTH_CHECKS),
        ]);
    }
    Ok(())
}

/// Holders take their places, then the others come: how many of these were served.
fn contest(to: SocketAddr, holders: &Holders) -> (Served, Served) {
    let mut held: Vec<Option<TcpStream>> = (0..holders.count).map(|nth| hold(nth, to)).collect();
    std::thread::sleep(SILENCE);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        if holders.ask_again {
            scope.spawn(|| {
                let pause = AGAIN / holders.count as u32;
                for nth in (0..held.len()).cycle() {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let still = held[nth].take().filter(|stream| question(stream).is_ok());
                    held[nth] = still.or_else(|| hold(nth, to));
                    std::thread::sleep(pause);
                }
            });
        }
        let (mut others, mut health) = (Served::default(), Served::default());
        for nth in 0..POLITE {
            let ask_one = |request: &[u8], served: &mut Served| {
                let asked = Instant::now();
                let result = match served.asked - served.answered < MISSES_MAX {
                    true => ask(to, request, PATIENCE),
                    false => Err(std::io::ErrorKind::TimedOut.into()),
                };
                served.add(result, asked.elapsed());
            };
            ask_one(REQUEST, &mut others);
            if nth % (POLITE / HEALTH_CHECKS) == 0 && health.asked < HEALTH_CHECKS as u64 {
                ask_one(HEALTH, &mut health);
            }
            std::thread::sleep(PAUSE);
        }
        is_over.store(true, Ordering::Relaxed);
        (others, health)
    })
}

/// Takes a place, if there is one: a connection with one request behind it.
fn hold(nth: usize, to: SocketAddr) -> Option<TcpStream> {
    let stream = connect(nth, to, HOLD).ok()?;
    question(&stream).ok()?;
    Some(stream)
}

fn question(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.write_all(REQUEST)?;
    answer(&mut stream, PATIENCE).map(drop)
}
