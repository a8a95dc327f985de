//! What users order: a small store, and its REST endpoints.
//!
//! Orders are kept per user, so a user cannot reach, or learn of, somebody else's: there they do not
//! exist. Errors in a body name the field.
//!
//! Invariant: a user's orders are sorted by number, because numbers are given out under the lock of the
//! user's shard. So are those of changes: who has seen one has seen all of this user before it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use netpoll_http::{Error, IntoResponse, Json, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::app::App;
use crate::login::{OpenId, Platform};
use crate::session;

/// Orders of one user. More than anybody types, and a page list stays quick.
pub const USER_ORDERS_MAX: usize = 1000;
/// Orders of all users. At up to 1 KB each this is 100 MB at the very most, usually a tenth of it.
pub const ORDERS_MAX: usize = 100_000;
/// Characters of an item's name.
const ITEM_CHARS_MAX: usize = 60;
/// Characters of a note.
const NOTE_CHARS_MAX: usize = 140;
/// Pieces in one order.
const QUANTITY_MAX: u32 = 99;
/// Orders on a page, at most and by default.
const PAGE_SIZE_MAX: usize = 100;
const PAGE_SIZE: usize = 20;
/// Locks over the store; a power of two that is larger than most machines' core counts.
const SHARDS: usize = 16;

/// An order as it is stored and sent.
#[derive(Clone, Serialize)]
pub struct Order {
    id: u64,
    item: String,
    quantity: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    status: Status,
    /// Seconds since 1970.
    created: u64,
    /// The number of its last change, among all changes.
    #[serde(skip)]
    pub changed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Open,
    Cancelled,
}

/// What a user may choose about an order.
struct NewOrder {
    item: String,
    quantity: u32,
    note: Option<String>,
}

type Shard = HashMap<OpenId, Vec<Order>>;

/// All orders of all users.
pub struct Orders {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    next_id: AtomicU64,
    /// The number of the last change.
    changes: AtomicU64,
    /// Places given out. Never above [`ORDERS_MAX`] for longer than it takes to give one back.
    count: AtomicUsize,
}

impl Orders {
    pub fn new() -> Self {
        Self {
            shards: Default::default(),
            hasher: RandomState::new(),
            next_id: AtomicU64::new(1),
            changes: AtomicU64::new(0),
            count: AtomicUsize::new(0),
        }
    }

    fn shard(&self, user: &str) -> MutexGuard<'_, Shard> {
        let shard = self.hasher.hash_one(user) as usize % SHARDS;
        // Nothing panics under the lock, so a poisoned one would be sound as well.
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, user: &OpenId, new: NewOrder, created: u64) -> Result<Order, Error> {
        let mut shard = self.shard(user);
        if shard.get(user).is_some_and(|orders| orders.len() >= USER_ORDERS_MAX) {
            let message = format!("you have {USER_ORDERS_MAX} orders, which is the most that are kept");
            return Err(Error::new(StatusCode::CONFLICT, message));
        }
        if self.count.fetch_add(1, Relaxed) >= ORDERS_MAX {
            self.count.fetch_sub(1, Relaxed);
            return Err(Error::new(StatusCode::INSUFFICIENT_STORAGE, "no room for more orders"));
        }
        let NewOrder { item, quantity, note } = new;
        let id = self.next_id.fetch_add(1, Relaxed);
        let changed = self.next_change();
        let order = Order { id, item, quantity, note, status: Status::Open, created, changed };
        shard.entry(Arc::clone(user)).or_default().push(order.clone());
        Ok(order)
    }

    /// One page, newest first, and how many orders there are on all pages.
    fn page(&self, user: &str, page: usize, size: usize) -> (Vec<Order>, usize) {
        let shard = self.shard(user);
        let orders = shard.get(user).map_or(&[][..], Vec::as_slice);
        let newer = (page - 1).saturating_mul(size);
        (orders.iter().rev().skip(newer).take(size).cloned().collect(), orders.len())
    }

    fn next_change(&self) -> u64 {
        self.changes.fetch_add(1, Relaxed) + 1
    }

    /// The last change that this user may have seen, and how many orders it has.
    pub fn now(&self, user: &str) -> (u64, usize) {
        let shard = self.shard(user);
        (self.changes.load(Relaxed), shard.get(user).map_or(0, Vec::len))
    }

    /// Orders of a user that have changed behind this change, as they are now: so many of them at most, those that changed first.
    pub fn changed_since(&self, user: &str, since: u64, most: usize) -> Vec<Order> {
        let shard = self.shard(user);
        let orders = shard.get(user).map_or(&[][..], Vec::as_slice);
        let mut changed: Vec<&Order> = orders.iter().filter(|order| order.changed > since).collect();
        changed.sort_unstable_by_key(|order| order.changed);
        changed.into_iter().take(most).cloned().collect()
    }

    /// Shows or changes one order of a user.
    fn with<R>(&self, user: &str, id: u64, look: impl FnOnce(&mut Order) -> R) -> Result<R, Error> {
        let mut shard = self.shard(user);
        let order = shard.get_mut(user).and_then(|orders| {
            let at = orders.binary_search_by_key(&id, |order| order.id).ok()?;
            orders.get_mut(at)
        });
        order.map(look).ok_or_else(|| Error::not_found(format!("you have no order {id}")))
    }
}

impl NewOrder {
    fn read(body: &Map<String, Value>) -> Result<Self, Error> {
        if let Some(unknown) = body.keys().find(|key| !["item", "quantity", "note"].contains(&key.as_str())) {
            return Err(invalid(unknown, "there is no such field"));
        }
        let text = |name, chars_max, value: String| match value.trim().chars().count() {
            0 => Err(invalid(name, "must not be empty")),
            count if count > chars_max => {
                Err(invalid(name, &format!("must have at most {chars_max} characters, has {count}")))
            }
            _ => Ok(value.trim().to_owned()),
        };
        let quantity = field(body, "quantity")?;
        if !(1..=QUANTITY_MAX).contains(&quantity) {
            return Err(invalid("quantity", &format!("must be from 1 to {QUANTITY_MAX}, is {quantity}")));
        }
        let note: Option<String> = field(body, "note")?;
        Ok(Self {
            item: text("item", ITEM_CHARS_MAX, field(body, "item")?)?,
            quantity,
            note: note.map(|note| text("note", NOTE_CHARS_MAX, note)).transpose()?,
        })
    }
}

/// One field of a body; an absent one is `null`.
fn field<T: DeserializeOwned>(body: &Map<String, Value>, name: &str) -> Result<T, Error> {
    let value = body.get(name).unwrap_or(&Value::Null);
    T::deserialize(value).map_err(|error| match value {
        Value::Null => invalid(name, "is missing"),
        _ => invalid(name, &error.to_string()),
    })
}

fn invalid(name: &str, why: &str) -> Error {
    Error::new(StatusCode::UNPROCESSABLE_ENTITY, format!("{name}: {why}"))
}

/// `POST /orders`
pub fn create<P: Platform>(app: &App<P>, req: &Request<'_>) -> Result<Response, Error> {
    let user = session::user(app, req)?;
    let new = NewOrder::read(&req.json()?)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(Error::internal)?;
    let order = app.orders.insert(&user, new, now.as_secs())?;
    app.bells.ring(&user);
    let location = format!("/orders/{}", order.id);
    Json(order).into_response().status(StatusCode::CREATED).header("location", location)
}

#[derive(Serialize)]
pub struct Page {
    orders: Vec<Order>,
    page: usize,
    size: usize,
    total: usize,
}

/// `GET /orders?page=1&size=20`
pub fn list<P: Platform>(app: &App<P>, req: &Request<'_>) -> Result<Json<Page>, Error> {
    let user = session::user(app, req)?;
    let page = req.query_opt("page")?.unwrap_or(1);
    let size = req.query_opt("size")?.unwrap_or(PAGE_SIZE);
    if page == 0 {
        return Err(Error::bad_request("query parameter `page`: pages are counted from 1"));
    }
    if !(1..=PAGE_SIZE_MAX).contains(&size) {
        let message = format!("query parameter `size`: must be from 1 to {PAGE_SIZE_MAX}, is {size}");
        return Err(Error::bad_request(message));
    }
    let (orders, total) = app.orders.page(&user, page, size);
    Ok(Json(Page { orders, page, size, total }))
}

/// `GET /orders/{id}`
pub fn show<P: Platform>(app: &App<P>, req: &Request<'_>) -> Result<Json<Order>, Error> {
    let user = session::user(app, req)?;
    app.orders.with(&user, req.param("id")?, |order| Json(order.clone()))
}

/// `POST /orders/{id}/cancel`
pub fn cancel<P: Platform>(app: &App<P>, req: &Request<'_>) -> Result<Json<Order>, Error> {
    let user = session::user(app, req)?;
    let cancelled = app.orders.with(&user, req.param("id")?, |order| match order.status {
        Status::Cancelled => {
            Err(Error::new(StatusCode::CONFLICT, format!("order {} is cancelled already", order.id)))
        }
        Status::Open => {
            (order.status, order.changed) = (Status::Cancelled, app.orders.next_change());
            Ok(order.clone())
        }
    })??;
    app.bells.ring(&user);
    Ok(Json(cancelled))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tea() -> NewOrder {
        NewOrder { item: "tea".to_owned(), quantity: 1, note: None }
    }

    fn read(body: &str) -> Result<NewOrder, String> {
        NewOrder::read(&serde_json::from_str(body).unwrap()).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn what_is_wrong_with_an_order_is_said_with_the_field_in_it() {
        let said = |body| read(body).err().unwrap();
        assert_eq!(said(r#"{"quantity":1}"#), "item: is missing");
        assert_eq!(said(r#"{"item":" ","quantity":1}"#), "item: must not be empty");
        assert_eq!(said(r#"{"item":"tea"}"#), "quantity: is missing");
        assert_eq!(said(r#"{"item":"tea","quantity":0}"#), "quantity: must be from 1 to 99, is 0");
        assert!(said(r#"{"item":"tea","quantity":"2"}"#).starts_with("quantity: invalid type: string"));
        assert!(said(r#"{"item":"tea","quantity":-1}"#).starts_with("quantity: invalid value"));
        assert_eq!(said(r#"{"item":"tea","quantity":1,"size":2}"#), "size: there is no such field");
        let long = format!(r#"{{"item":"tea","quantity":1,"note":"{}"}}"#, "é".repeat(141));
        assert_eq!(said(&long), "note: must have at most 140 characters, has 141");
    }

    #[test]
    fn a_note_may_be_left_out_and_texts_are_trimmed() {
        let order = read(r#"{"item":" tea ","quantity":2,"note":null}"#).unwrap();
        assert_eq!((order.item.as_str(), order.note), ("tea", None));
    }

    #[test]
    fn a_page_has_the_newest_orders_first() {
        let (orders, ann) = (Orders::new(), OpenId::from("ann"));
        for _ in 0..5 {
            orders.insert(&ann, tea(), 0).unwrap();
        }
        let ids = |page, size| {
            let (page, total) = orders.page("ann", page, size);
            (page.iter().map(|order| order.id).collect::<Vec<_>>(), total)
        };
        assert_eq!(ids(1, 2), (vec![5, 4], 5));
        assert_eq!(ids(3, 2), (vec![1], 5));
        assert_eq!(ids(4, 2), (vec![], 5));
        assert_eq!(ids(usize::MAX, 100), (vec![], 5));
    }

    #[test]
    fn what_has_changed_comes_in_the_order_of_the_changes_as_it_is_now_and_so_many_at_a_time() {
        let (orders, ann) = (Orders::new(), OpenId::from("ann"));
        for _ in 0..4 {
            orders.insert(&ann, tea(), 0).unwrap();
        }
        orders.insert(&OpenId::from("ben"), tea(), 0).unwrap();
        let (seen, count) = orders.now("ann");
        assert_eq!((seen, count), (5, 4));
        let ids = |since, most| -> Vec<u64> {
            orders.changed_since("ann", since, most).iter().map(|order| order.id).collect()
        };
        assert_eq!(ids(seen, 10), [0; 0]);
        orders.with("ann", 2, |order| order.changed = orders.next_change()).unwrap();
        assert_eq!(ids(seen, 10), [2]);
        assert_eq!(ids(0, 10), [1, 3, 4, 2]);
        assert_eq!(ids(1, 2), [3, 4]);
    }

    #[test]
    fn an_order_of_somebody_else_does_not_exist() {
        let (orders, ann) = (Orders::new(), OpenId::from("ann"));
        let id = orders.insert(&ann, tea(), 0).unwrap().id;
        assert!(orders.with("ann", id, |_| ()).is_ok());
        assert_eq!(orders.with("ben", id, |_| ()).unwrap_err().status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn a_user_keeps_so_many_orders_and_all_users_so_many() {
        let orders = Orders::new();
        let mut refused = Vec::new();
        for user in 0..=ORDERS_MAX / USER_ORDERS_MAX {
            let user = OpenId::from(user.to_string());
            refused.extend((0..=USER_ORDERS_MAX).filter_map(|_| orders.insert(&user, tea(), 0).err()));
        }
        let count = |status| refused.iter().filter(|error| error.status() == status).count();
        assert_eq!(count(StatusCode::CONFLICT), ORDERS_MAX / USER_ORDERS_MAX);
        assert_eq!(count(StatusCode::INSUFFICIENT_STORAGE), USER_ORDERS_MAX + 1);
        assert_eq!(orders.count.load(Relaxed), ORDERS_MAX);
    }
}
