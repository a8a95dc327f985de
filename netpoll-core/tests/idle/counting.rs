//! An allocator that counts bytes, in pieces as the C library cuts them, and passes everything on to the system's.

#![expect(unsafe_code, reason = "a global allocator is an unsafe trait; this one only counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

/// In use.
pub static BYTES: AtomicUsize = AtomicUsize::new(0);

/// What a piece of so many bytes takes: with a word in front, in steps of two.
fn piece(bytes: usize) -> usize {
    (bytes + 8).next_multiple_of(16).max(32)
}

// SAFETY: every call is passed on to `System`, which keeps the trait's rules; counting touches no other memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(piece(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout` is the one that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(piece(layout.size()), Ordering::Relaxed);
        // SAFETY: `pointer` came from `System` with this layout, because all of ours do.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        BYTES.fetch_add(piece(bytes), Ordering::Relaxed);
        BYTES.fetch_sub(piece(layout.size()), Ordering::Relaxed);
        // SAFETY: as for `dealloc`; the caller's promise about `bytes` is the one that `System` asks for.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
