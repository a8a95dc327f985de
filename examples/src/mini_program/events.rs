//! What becomes of a user's orders, as it happens: `GET /events`, server-sent events.
//!
//! Nothing is queued for who listens. An order knows the number of its last change; a listener is woken by a bell, and asks for what has changed
//! behind the number that it has sent last. So a client that is slow, or was away and says its last id, gets each order as it is
//! now and none twice, and costs the memory of a bell. Where nobody listens a change costs the look at one number.
//!
//! Invariant: a bell is in the table as long as its listener is there. A change is stored before bells ring, and a listener has its bell before
//! it looks, so it sees the change or hears of it: both hold the lock of the user's orders in between.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures_channel::mpsc::{Receiver, Sender, channel};
use netpoll_core::sync::mpsc;
use netpoll_core::time::timeout;
use netpoll_http::{Error, Event, Events, Request, StatusCode};
use serde::Serialize;

use crate::app::App;
use crate::login::{OpenId, Platform};
use crate::session::{self, Token};

/// Streams of one user. A browser has six connections to a server, and each takes one.
const USER_STREAMS_MAX: usize = 16;
/// Streams of all users: each holds a connection.
const STREAMS_MAX: usize = 10_000;
/// Orders that are copied at a time for who has missed many.
const ORDERS_AT_ONCE: usize = 16;
/// After which a client comes back that has lost its stream.
const RETRY: Duration = Duration::from_secs(2);

type Users = HashMap<OpenId, Vec<Sender<()>>>;

/// Those who are to be told that something has changed, by user.
pub struct Bells {
    users: Mutex<Users>,
    /// Places given out; never above [`STREAMS_MAX`] for longer than it takes to give one back.
    count: AtomicUsize,
    /// Which life of the program: numbers of changes begin anew with each.
    life: String,
}

/// A place, which is given back when this is dropped.
struct Place<P: Platform> {
    app: Arc<App<P>>,
    user: OpenId,
    bell: Receiver<()>,
}

impl Bells {
    pub fn new() -> Self {
        // Without chance there is one life, and a client that comes back from another one may miss what changed in between.
        let life = Token::random().map_or_else(|_| "0".repeat(32), |token| token.to_string());
        Self { users: Mutex::default(), count: AtomicUsize::new(0), life }
    }

    /// Something of this user has changed. Nobody is waited for.
    pub fn ring(&self, user: &str) {
        if self.count.load(Relaxed) == 0 {
            return;
        }
        if let Some(bells) = self.lock().get_mut(user) {
            for bell in bells {
                // One that has not been heard yet says the same; one that nobody hears any more is about to go.
                let _ = bell.try_send(());
            }
        }
    }

    fn hang(&self, user: &OpenId) -> Result<Receiver<()>, Error> {
        let mut users = self.lock();
        if users.get(user).is_some_and(|bells| bells.len() >= USER_STREAMS_MAX) {
            let message = format!("you listen {USER_STREAMS_MAX} times already");
            return Err(Error::new(StatusCode::TOO_MANY_REQUESTS, message));
        }
        if self.count.load(Relaxed) >= STREAMS_MAX {
            return Err(Error::new(StatusCode::SERVICE_UNAVAILABLE, "as many listen as may"));
        }
        self.count.fetch_add(1, Relaxed);
        // The place of its one sender is all that it holds.
        let (bell, heard) = channel(0);
        users.entry(Arc::clone(user)).or_default().push(bell);
        Ok(heard)
    }

    fn lock(&self) -> MutexGuard<'_, Users> {
        // Nothing panics under the lock, so a poisoned one would be sound as well.
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place in the changes, as clients keep it.
    fn id(&self, change: u64) -> String {
        format!("{}.{change}", self.life)
    }

    /// None for one of another life, and for what is none.
    fn change(&self, id: &str) -> Option<u64> {
        id.strip_prefix(&*self.life)?.strip_prefix('.')?.parse().ok()
    }
}

impl<P: Platform> Drop for Place<P> {
    fn drop(&mut self) {
        self.bell.close();
        let mut users = self.app.bells.lock();
        if let Some(bells) = users.get_mut(&self.user) {
            bells.retain(|bell| !bell.is_closed());
            if bells.is_empty() {
                users.remove(&self.user);
            }
        }
        self.app.bells.count.fetch_sub(1, Relaxed);
    }
}

/// `GET /events?seconds=N`: for so long, or as long as the session.
pub fn listen<P: Platform>(app: &Arc<App<P>>, req: &Request<'_>) -> Result<Events, Error> {
    let (user, left) = session::session(app, req)?;
    let time = match req.query_opt("seconds")? {
        Some(0) => return Err(Error::bad_request("query parameter `seconds`: must be at least 1")),
        Some(seconds) => Duration::from_secs(seconds).min(left),
        None => left,
    };
    let seen = req.last_event_id().and_then(|id| app.bells.change(id));
    let place = Place { app: Arc::clone(app), bell: app.bells.hang(&user)?, user };
    Ok(Events::run(async move |client| timeout(time, tell(place, seen, client)).await))
}

/// What a client is told first that has nothing yet, or nothing that is known here.
#[derive(Serialize)]
struct Anew {
    /// Orders that it may ask for.
    total: usize,
}

/// Tells a client what changes until it leaves.
async fn tell<P: Platform>(
    mut place: Place<P>,
    seen: Option<u64>,
    client: mpsc::Sender<Event>,
) -> Result<(), Box<dyn std::error::Error>> {
    let app = Arc::clone(&place.app);
    let mut seen = match seen {
        Some(seen) => seen,
        None => {
            let (now, total) = app.orders.now(&place.user);
            let anew = Event::json(&Anew { total })?.event("anew").id(app.bells.id(now)).retry(RETRY);
            client.send(anew).await?;
            now
        }
    };
    loop {
        let changed = app.orders.changed_since(&place.user, seen, ORDERS_AT_ONCE);
        if changed.is_empty() && place.bell.next().await.is_none() {
            return Ok(());
        }
        for order in changed {
            seen = order.changed;
            client.send(Event::json(&order)?.event("order").id(app.bells.id(seen))).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written_and_one_of_another_life_is_none() {
        let (bells, other) = (Bells::new(), Bells::new());
        assert_eq!(bells.change(&bells.id(17)), Some(17));
        assert_eq!(bells.change(&other.id(17)), None);
        for wrong in ["", "17", ".17", &*format!("{}.", bells.life), &*format!("{}.x", bells.life)] {
            assert_eq!(bells.change(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_user_listens_so_many_times_and_what_was_not_heard_rings_once() {
        let (bells, ann) = (Bells::new(), OpenId::from("ann"));
        let mut places: Vec<_> = (0..USER_STREAMS_MAX).map(|_| bells.hang(&ann).unwrap()).collect();
        assert_eq!(bells.hang(&ann).unwrap_err().status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(bells.hang(&OpenId::from("ben")).is_ok());
        (0..3).for_each(|_| bells.ring("ann"));
        for place in &mut places {
            assert_eq!(place.try_recv(), Ok(()));
            assert!(place.try_recv().is_err(), "it has rung once");
        }
    }
}
