//! Part `proxy`: the same rolling restart behind nginx and HAProxy; nobody behind them gets a 502 or 503.
//!
//! A proxy asks again by itself where it may, which a GET allows and a POST mostly does not, so both are asked at the same
//! time and counted apart. Three ways of using connections: nginx with its default (a new one each), nginx with a pool, and
//! HAProxy with one that all share.

use crate::Plan;
use crate::crowd::{Crowd, Manner, Question};
use crate::program::{Other, is_installed};
use crate::restart::{Pair, THREADS};
use crate::table::{Row, Target};
use benches::runner::{Failure, Template};
use std::net::SocketAddr;
use std::time::Duration;

const PART: &str = "proxy";
/// Of each method; half of them rest between requests.
const CLIENTS: usize = 32;
const REST_MAX: Duration = Duration::from_millis(20);
const BODY_BYTES: usize = 1000;

/// The settings that differ.
pub struct Nginx {
    pub keepalive: &'static str,
    pub connection: &'static str,
    pub upload: &'static str,
}

impl Nginx {
    pub const DEFAULT: Self = Self { keepalive: "", connection: "", upload: "" };
    pub const POOL: Self = Self {
        keepalive: "keepalive 64;",
        connection: "proxy_http_version 1.1; proxy_set_header Connection \"\";",
        ..Self::DEFAULT
    };

    pub fn start(&self, backend: SocketAddr) -> Result<Other, Failure> {
        let words = [
            ("{backend}", backend.to_string()),
            ("{keepalive}", self.keepalive.into()),
            ("{connection}", self.connection.into()),
            ("{upload}", self.upload.into()),
        ];
        Other::start(&nginx(), include_str!("nginx.conf.in"), &words, "/plaintext")
    }
}

/// How nginx is started.
pub fn nginx() -> Template {
    Template {
        name: "nginx".into(),
        command: "nginx -e stderr -p {dir} -c {conf}".into(),
        configuration: None,
    }
}

fn haproxy(backend: SocketAddr) -> Result<Other, Failure> {
    let template =
        Template { name: "haproxy".into(), command: "haproxy -db -q -f {conf}".into(), configuration: None };
    Other::start(
        &template,
        include_str!("haproxy.cfg.in"),
        &[("{backend}", backend.to_string())],
        "/plaintext",
    )
}

type Start = fn(SocketAddr) -> Result<Other, Failure>;

pub fn check(plan: &Plan) -> Result<(), Failure> {
    let cases: [(&str, &str, Start); 3] = [
        ("nginx", "nginx, a connection each", |backend| Nginx::DEFAULT.start(backend)),
        ("nginx", "nginx, a pool", |backend| Nginx::POOL.start(backend)),
        ("haproxy", "HAProxy, a shared pool", haproxy),
    ];
    for (program, name, start) in cases {
        if !is_installed(program) {
            plan.skip(PART, name, format_args!("{program} is not installed"));
            continue;
        }
        rolling(plan, name, start)?;
    }
    Ok(())
}

fn rolling(plan: &Plan, name: &str, start: Start) -> Result<(), Failure> {
    let mut pair = Pair::start(plan)?;
    let proxy = start(pair.addr)?;
    ask_meanwhile(plan, PART, name, proxy.addr, |answered| pair.roll(plan, plan.restarts(), answered))?;
    pair.finish().map(drop)
}

/// Asks through a proxy while the servers behind it follow one another, and shows what was not answered.
pub fn ask_meanwhile(
    plan: &Plan,
    part: &'static str,
    name: &str,
    proxy: SocketAddr,
    roll: impl FnOnce(&dyn Fn() -> u64) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let manners = [Manner::Kept(Duration::ZERO), Manner::Kept(REST_MAX)].repeat(CLIENTS / 2);
    let questions = [("GET", Question::get()), ("POST", Question::post(BODY_BYTES))];
    let crowds =
        questions.each_ref().map(|(_, question)| Crowd::start(proxy, question, &manners, THREADS / 2));
    let rolled = roll(&|| crowds.iter().map(Crowd::answered).min().unwrap_or(0));
    let counts = crowds.map(Crowd::finish);
    rolled?;
    for ((method, _), counts) in questions.iter().zip(counts) {
        let counts = counts?;
        let faults = counts.not_answered() + counts.reset_behind + counts.reset_between;
        let row = Row::new(part, format!("{name}: {method} without its answer"), faults, Target::AtMost(0));
        plan.show(&[row.noting(counts.in_words())]);
    }
    Ok(())
}
