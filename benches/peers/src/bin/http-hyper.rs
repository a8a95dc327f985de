//! hyper 1: see [`peers::http_hyper`].
//!
//! `--runtime current` (default) is one current-thread tokio runtime per worker; `multi` is one work-stealing
//! runtime with so many threads.

use peers::http_hyper::{current, multi};
use peers::{Options, end};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    match Options::with_choice("--runtime", &["current", "multi"]) {
        (options, "multi") => end(multi(&options)),
        (options, _) => current(&options),
    }
}
