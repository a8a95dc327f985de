//! The engine of one process: what one publishes the others get at once.

use std::sync::{Arc, Mutex};

use netpoll_core::Local;
use netpoll_core::task::spawn_daemon;

use super::super::room::lock;
use super::{Engine, Line, Order};

/// Joins [`Rooms`](crate::rooms::Rooms) of several servers in one process, or of several [simulated](netpoll_core::sim) ones. A clone is the same hub. It is always connected, and loses nothing.
#[derive(Clone, Debug, Default)]
pub struct Hub(Arc<Mutex<Vec<Line>>>);

impl Engine for Hub {
    fn start(&self, line: Line, _local: &mut Local<'_>) {
        let hub = self.clone();
        {
            let mut lines = lock(&hub.0);
            lines.retain(|line| !line.is_over());
            lines.push(line.clone());
        }
        line.connected();
        let carry = async move {
            while let Some(order) = line.next().await {
                let Order::Publish { payload, .. } = order else { continue };
                // Who publishes knows its own, and nobody what it has not subscribed to.
                let lines = lock(&hub.0).clone();
                lines.iter().for_each(|line| line.received(&payload));
            }
        };
        spawn_daemon(carry).detach();
    }
}
