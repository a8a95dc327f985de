//! Part `memory`: what peers can have a server hold, whether they are cut, and whether the memory comes back.
//!
//! In each attack many connections take what they can get and then stand still, while a polite client goes on asking. Four
//! rows: the most that was resident at any time (the kernel's `VmHWM`) against what was before and the budget of the workers
//! and a tenth; who was cut within a minute; the polite client; and what is resident when all have gone, within ten seconds.

use crate::Plan;
use crate::client::{Polite, REQUEST, ask};
use crate::hoard::{self, Hoard};
use crate::table::{Row, Target};
use benches::runner::{Failure, peak_resident_bytes, resident_bytes};
use benches::sys::{self, Limit};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PART: &str = "memory";
const WORKERS: u64 = 2;
const MIB: u64 = 1024 * 1024;
/// All have to be cut by then.
const CUT_MAX: Duration = Duration::from_secs(60);
/// Slow readers are not cut while they read, so they are only watched.
const WATCHED: Duration = Duration::from_secs(30);
/// What may stay of an attack.
const KEPT_MIB: u64 = 32;
/// How long memory may take to come back.
const BACK_MAX: Duration = Duration::from_secs(10);
/// Descriptors that are no connections of an attack, in the server or here.
const SPARE_FILES: u64 = 150;
const BODY_BYTES: usize = 1024 * 1024;
const SENT_BYTES: usize = 900 * 1024;
/// Of an address space of this size the process may use up everything and live.
const ADDRESS_SPACE_BYTES: u64 = 400_000 * 1024;

/// One attack.
struct Attack {
    name: String,
    plan: hoard::Plan,
    /// Its connections have to be cut, all of them.
    cut: bool,
    limit: Option<Limit>,
}

pub fn check(plan: &Plan) -> Result<(), Failure> {
    for attack in attacks(plan)? {
        plan.show(&run(plan, &attack)?);
    }
    Ok(())
}

fn attacks(plan: &Plan) -> Result<Vec<Attack>, Failure> {
    let descriptors = sys::raise_open_files(20_064)?;
    let half_heads = descriptors.saturating_sub(SPARE_FILES).min(19_900) as usize;
    let head = |line: &str| format!("{line} HTTP/1.1\r\nHost: ends\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
    let body = |line: &str, bytes: usize| -> Arc<[u8]> {
        [head(line).as_bytes(), &vec![b'x'; bytes]].concat().into()
    };
    let half_head: Arc<[u8]> =
        [b"GET /plaintext HTTP/1.1\r\nHost: ends\r\nX-Long: ", &[b'x'; 15_000][..]].concat().into();
    let attack = |name: &str, connections: usize, bytes: Arc<[u8]>| Attack {
        name: format!("{connections} {name}"),
        plan: hoard::Plan { connections, bytes, reads: None },
        cut: true,
        limit: None,
    };
    let uploads = if plan.quick { 300 } else { 2000 };
    let mut attacks = vec![attack("uploads that stop", uploads, body("POST /echo", SENT_BYTES))];
    if !plan.quick {
        attacks.push(attack("bodies of a GET that stop", uploads, body("GET /plaintext", SENT_BYTES)));
        attacks.push(attack("half heads", half_heads, half_head));
        let mut slow = attack("slow readers of 1 MiB", 1000, body("POST /echo", BODY_BYTES));
        slow.plan.reads = Some((3000, Duration::from_secs(10)));
        slow.cut = false;
        attacks.push(slow);
        let mut still = attack("readers that stand still", 500, body("POST /echo", BODY_BYTES));
        still.plan.reads = Some((3000, 2 * CUT_MAX));
        attacks.push(still);
    }
    let mut poor = attack("uploads, `ulimit -v 400000`", 600, body("POST /echo", SENT_BYTES));
    poor.limit = Some(Limit::AddressSpace(ADDRESS_SPACE_BYTES));
    attacks.push(poor);
    Ok(attacks)
}

fn run(plan: &Plan, attack: &Attack) -> Result<Vec<Row>, Failure> {
    let workers = WORKERS.to_string();
    let mut options = vec!["--workers", &workers];
    // Where there is little, the server has to see by itself how little.
    if let Some(option) = plan.memory_option().filter(|_| attack.limit.is_none()) {
        options.extend([option, &plan.memory_bytes]);
    }
    let mut server = plan.start(0, &options, attack.limit)?;
    for _ in 0..20 {
        ask(server.addr, REQUEST, Duration::from_secs(2))?;
    }
    let before = resident_bytes(server.pid())?;
    let polite = Polite::start(server.addr);
    let hoard = Hoard::start(server.addr, attack.plan.clone());
    let (begun, limit) = (Instant::now(), if attack.cut { CUT_MAX } else { WATCHED });
    let mut standing = hoard.standing();
    while standing.ended < attack.plan.connections
        && standing.fault.is_none()
        && begun.elapsed() < limit
        && server.lives()
    {
        std::thread::sleep(Duration::from_millis(50));
        standing = hoard.standing();
    }
    let took = begun.elapsed();
    if let Some(fault) = &standing.fault {
        return Err(format!("{}: {fault}", attack.name).into());
    }
    let peak = if server.lives() { peak_resident_bytes(server.pid())? } else { 0 };
    drop(hoard);
    let served = polite.finish();
    let back = Instant::now();
    let mut after = None;
    while server.lives() {
        let now = resident_bytes(server.pid())?;
        after = Some(now);
        if now <= before + KEPT_MIB * MIB || back.elapsed() > BACK_MAX {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }

    let row = |what: &str, count, target| Row::new(PART, format!("{}: {what}", attack.name), count, target);
    let left = (attack.plan.connections - standing.ended) as u64;
    let standing = format!("{} after {:.1} s", standing.in_words(), took.as_secs_f64());
    let mut rows = vec![
        row("polite requests not served", served.asked - served.answered, Target::AtMost(0))
            .noting(served.in_words()),
    ];
    if attack.limit.is_some() {
        let last = ask(server.addr, REQUEST, Duration::from_secs(2)).is_ok_and(|status| status == 200);
        let lives = u64::from(last && server.lives());
        rows.push(row("the process lives and answers", lives, Target::AtLeast(1)).noting(standing));
        return Ok(rows);
    }
    let Some(after) = after else {
        rows.push(row("the process lives", 0, Target::AtLeast(1)).noting(standing));
        return Ok(rows);
    };
    let budget_bytes = WORKERS * plan.memory_bytes.parse::<u64>()?;
    let most = (before + budget_bytes + budget_bytes / 10) / MIB;
    let named = match plan.memory_option() {
        Some(option) => format!("{WORKERS} workers, {option} {}", plan.memory_bytes),
        None => format!("the server has no option {}", plan.memory_name),
    };
    let unit = |row: Row| Row { unit: "MiB", ..row };
    rows.push(unit(row("most that was resident", peak / MIB, Target::AtMost(most)).noting(named)));
    let target = if attack.cut { Target::AtMost(0) } else { Target::Shown };
    rows.push(row("not cut", left, target).noting(standing));
    let kept = after.saturating_sub(before) / MIB;
    rows.push(
        unit(row("resident when all have gone, above before", kept, Target::AtMost(KEPT_MIB)))
            .noting(format!("{} MiB before", before / MIB)),
    );
    Ok(rows)
}
