//! What users of `netpoll_core::sync` are promised: values, permits and wake-ups are not lost, whatever is dropped when, and
//! a program's code may run wherever it runs.

mod channels;
mod crossing;
mod giving_way;
mod models;
mod notify;
mod oneshots;
mod reentry;
mod semaphores;
mod support;
mod threads;
mod watching;
mod workers;
