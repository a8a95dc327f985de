//! One world, from its seed to its end.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use netpoll_core::sim::{Faults, Options};

use super::dice::Dice;
use super::peer::{Excuses, PAUSE_MAX, Peer};
use super::{Exploration, Report};
use crate::test::TestClient;

/// Clients of a world, at most, and requests of one.
const CLIENTS_MAX: usize = 10;
const REQUESTS_MAX: usize = 8;
/// Things that all clients do together, at most: a world that never comes to an end is one that hangs.
const ACTS_MAX: usize = 100_000;
/// Behind so many in which everybody only waits for an answer, longer steps are taken to it.
const IDLE_ACTS: usize = 200;
/// How often answers are looked for.
const STEP: Duration = Duration::from_millis(500);
/// How long a drain may take that has no connection to wait for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a connection may last behind its client.
const LINGER: Duration = Duration::from_secs(15);

/// Network and workers of a world.
struct Weather {
    options: Options,
    /// Connections are lost, or the process stands still for minutes.
    lossy: bool,
    jumps: bool,
}

fn weather(seed: u64, dice: &mut Dice) -> Weather {
    let millis = |millis: usize| Duration::from_millis(millis as u64);
    let mut options = Options::default().seed(seed).workers(1 + dice.below(3));
    let loses = dice.once_in(8);
    options = options.faults(match dice.below(4) {
        0 => Faults::none(),
        _ if loses => Faults::stormy().failed_registrations(100).failed_files(20),
        _ => Faults::stormy(),
    });
    if dice.once_in(2) {
        options = options.latency(millis(dice.below(3))..=millis(3 + dice.below(10)));
    }
    if dice.once_in(2) {
        options = options.window(1000 + dice.below(9000));
    }
    let jumps = dice.once_in(8);
    Weather { lossy: loses || jumps, options, jumps }
}

pub fn run(exploration: &Exploration<'_>, seed: u64) -> Result<Report, String> {
    let mut dice = Dice::new(seed);
    let Weather { options, lossy, jumps } = weather(seed, &mut dice);
    let client = (exploration.make)(options);
    let (handle, made_of) = client.world(|sim| (sim.handle().clone(), sim.seed()));
    if made_of != seed {
        // Without faults, and the same in every world: such an exploration would find nothing.
        return Err("the app is not made of the options of its world: `App::test_with` takes them".to_owned());
    }
    client.run();
    // Those that live as long as the app.
    let daemons = client.world(|sim| sim.tasks());
    let mut crowd = Crowd {
        peers: Vec::new(),
        coming: 1 + dice.below(CLIENTS_MAX),
        drains_at: dice.once_in(4).then(|| dice.below(50)),
        drained: false,
        jumps,
    };
    crowd.act(exploration, &client, &mut dice)?;
    let Crowd { mut peers, drained, .. } = crowd;
    let excuses = Excuses { drained, lossy };
    end(exploration, &client, &mut peers, excuses)?;
    look_at_what_is_left(&client, &peers, daemons)?;

    let mut digest = DefaultHasher::new();
    digest.write_u64(seed);
    let mut report = Report { worlds: 1, drained: drained.into(), ..Report::default() };
    for peer in &peers {
        report.clients += 1;
        report.asked += peer.asked() as u64;
        report.answered += peer.answered() as u64;
        peer.digest(&mut digest);
    }
    let stats = client.stats();
    for figure in [stats.received_bytes, stats.sent_bytes, stats.turns, stats.events] {
        digest.write_u64(figure);
    }
    report.digest = digest.finish();
    drop((peers, client));
    match handle.stats().panics {
        0 => Ok(report),
        panics => Err(format!("{panics} panics when the world ended, of destructors")),
    }
}

/// All clients of a world.
struct Crowd {
    peers: Vec<Peer>,
    /// So many are still to come.
    coming: usize,
    /// The server is told to end behind so many things that they did.
    drains_at: Option<usize>,
    drained: bool,
    jumps: bool,
}

impl Crowd {
    /// Until nobody has anything to do but to wait.
    fn act(
        &mut self,
        exploration: &Exploration<'_>,
        client: &TestClient,
        dice: &mut Dice,
    ) -> Result<(), String> {
        let mut idle_acts = 0;
        for act in 0..ACTS_MAX {
            if self.drains_at == Some(act) {
                // Nothing that the app may take its time for is cut.
                client.world(|sim| sim.begin_drain(exploration.quiet));
                self.drained = true;
                // Nobody is let in any more.
                self.coming = 0;
            }
            let busy: Vec<usize> =
                (0..self.peers.len()).filter(|peer| !self.peers[*peer].is_done()).collect();
            if self.coming > 0 && (busy.is_empty() || dice.once_in(5)) {
                self.coming -= 1;
                self.peers.push(newcomer(exploration, client, dice, self.jumps));
                continue;
            }
            if busy.is_empty() {
                return Ok(());
            }
            let who = *dice.pick(&busy);
            let peer = &mut self.peers[who];
            peer.act(client, dice).map_err(|what| named(who, peer, &what))?;
            self.go_on(client, dice);
            let all_wait = self.coming == 0 && busy.iter().all(|peer| self.peers[*peer].is_waiting());
            idle_acts = if all_wait { idle_acts + 1 } else { 0 };
            if idle_acts > IDLE_ACTS {
                client.advance(STEP);
            }
        }
        let (who, peer) =
            self.peers.iter().enumerate().find(|(_, peer)| !peer.is_done()).expect("one has more to do");
        Err(named(who, peer, &peer.tell("it never comes to an end")))
    }

    /// Lets something happen of what follows.
    fn go_on(&self, client: &TestClient, dice: &mut Dice) {
        let pause = PAUSE_MAX.mul_f64(dice.below(100) as f64 / 100.0);
        match dice.below(8) {
            0 if self.jumps && dice.once_in(4) => {
                client.stand_still(Duration::from_secs(dice.below(200) as u64));
            }
            0 => client.stand_still(pause),
            1 => client.advance(pause),
            2 => client.run(),
            _ => client.turn(),
        }
    }
}

fn newcomer(exploration: &Exploration<'_>, client: &TestClient, dice: &mut Dice, jumps: bool) -> Peer {
    let mut questions = Vec::new();
    for _ in 0..1 + dice.below(REQUESTS_MAX) {
        let ask = dice.pick(&exploration.asks);
        let question = ask(dice);
        let is_last = question.is_last();
        questions.push(question);
        if is_last {
            break;
        }
    }
    Peer::new(client, dice, questions, jumps)
}

fn named(who: usize, peer: &Peer, what: &str) -> String {
    format!("client {}, {}: {what}", who + 1, peer.manners())
}

/// Lets answers come, judges them, and looks at what is left behind.
fn end(
    exploration: &Exploration<'_>,
    client: &TestClient,
    peers: &mut [Peer],
    excuses: Excuses,
) -> Result<(), String> {
    // Longer than the machinery hears out those who have gone.
    client.advance(LINGER);
    let staying = peers.iter().filter(|peer| !peer.has_gone()).count();
    if !exploration.half_close {
        is_open_for(client, staying)?;
    }
    wait_for_answers(exploration, client, peers)?;
    for peer in peers.iter_mut() {
        peer.leave();
    }
    client.advance(LINGER);
    let silent = peers.iter().filter(|peer| peer.is_silent()).count();
    is_open_for(client, silent)?;
    client.advance(exploration.quiet);
    let open = client.open();
    if open > 0 {
        return Err(format!("{open} connections are open {:?} after the last word", exploration.quiet));
    }
    // Whoever was idle has given its place to a newcomer, when descriptors had run out.
    let excuses = Excuses { lossy: excuses.lossy || client.stats().evicted > 0, ..excuses };
    for (who, peer) in peers.iter_mut().enumerate() {
        peer.judge(excuses).map_err(|what| named(who, peer, &what))?;
    }
    if !excuses.drained {
        client.begin_drain(PATIENCE);
    }
    client.advance(PATIENCE);
    Ok(())
}

/// Until all have come, or none for longer than one may take.
fn wait_for_answers(
    exploration: &Exploration<'_>,
    client: &TestClient,
    peers: &mut [Peer],
) -> Result<(), String> {
    let (mut waited, mut came) = (Duration::ZERO, 0);
    while waited < exploration.quiet {
        client.run();
        let mut all = true;
        for (who, peer) in peers.iter_mut().enumerate() {
            all &= peer.has_all().map_err(|what| named(who, peer, &what))?;
        }
        if all {
            break;
        }
        let answered = peers.iter().map(Peer::answered).sum();
        if answered > came {
            (waited, came) = (Duration::ZERO, answered);
        }
        client.advance(STEP);
        waited += STEP;
    }
    Ok(())
}

/// Behind those who have gone.
fn is_open_for(client: &TestClient, staying: usize) -> Result<(), String> {
    let open = client.open();
    if open > staying {
        return Err(format!(
            "{open} connections are open {LINGER:?} after all but {staying} clients have gone"
        ));
    }
    Ok(())
}

fn look_at_what_is_left(client: &TestClient, peers: &[Peer], daemons: usize) -> Result<(), String> {
    if !client.world(|sim| sim.is_finished()) {
        return Err(format!("a drain without connections has not ended{}", tasks_left(client)));
    }
    let blocks = client.blocks_in_use();
    if blocks > 0 {
        return Err(format!("{blocks} blocks are in use, and no connection is open"));
    }
    let tasks = client.world(|sim| sim.tasks());
    if tasks > daemons {
        return Err(format!(
            "{daemons} tasks were there at the beginning, and the drain has ended{}",
            tasks_left(client)
        ));
    }
    let stats = client.stats();
    if stats.panics > 0 {
        return Err(format!("{} panics", stats.panics));
    }
    let (begun, closed) = (stats.accepted + stats.connected, stats.closed);
    if begun != closed {
        return Err(format!("{begun} connections began, and {closed} are counted as closed"));
    }
    let answered: usize = peers.iter().map(Peer::served).sum();
    if stats.requests < answered as u64 {
        return Err(format!("{answered} answers came, and {} are counted", stats.requests));
    }
    if (stats.held_input_bytes, stats.held_output_bytes, stats.pool_blocks_in_use) != (0, 0, 0) {
        return Err(format!("memory is counted that nobody holds: {stats:?}"));
    }
    Ok(())
}

/// How many, and where they were spawned.
fn tasks_left(client: &TestClient) -> String {
    let mut places = BTreeMap::new();
    for place in client.world(|sim| sim.task_places()) {
        *places.entry(place.to_string()).or_insert(0) += 1;
    }
    let places: Vec<_> = places.iter().map(|(place, count)| format!("{count} of {place}")).collect();
    if places.is_empty() { String::new() } else { format!(": tasks are left, {}", places.join(", ")) }
}
