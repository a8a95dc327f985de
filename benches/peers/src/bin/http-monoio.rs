//! HTTP/1 on monoio: see [`peers::http_monoio`].
//!
//! `--driver epoll` (default) is monoio's "legacy" driver; `uring` is io_uring.

use peers::Options;
use peers::http_monoio::on;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let (options, driver) = Options::with_choice("--driver", &["epoll", "uring"]);
    on(&options, driver == "uring")
}
