//! Memory of one worker: keys that notice when they are stale, pooled blocks, and the two queues
//! made of blocks.
//!
//! Everything here belongs to exactly one worker and is touched by its thread only, so there is no
//! lock and no atomic, but for what comes home from elsewhere ([`Held`], [`Stash`]). Nothing here knows a socket or a waker, or makes a system call, but for one: the last
//! owner of a [`FileRange`] closes its file.

mod block;
mod datagram_queue;
mod discard;
mod file_range;
mod key;
mod pool;
mod read_buffer;
mod stash;
mod write_queue;

pub use block::Block;
pub use datagram_queue::{DatagramPath, DatagramQueue, Joining, Run};
pub use discard::{Guarded, count_panic, discard, discard_payload, guarded, take_panics};
pub use file_range::FileRange;
pub use key::{GENERATION_MAX, INDEX_MAX, Key, KeyMap, KeySlab};
pub use pool::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, Held, Pool, PoolCounts};
pub use read_buffer::ReadBuffer;
pub use stash::{Home, Stash};
pub use write_queue::{COPY_MAX, FilePart, WriteQueue};
