//! What is told of requests to those who watch, through the front door.

mod completed;
mod ids;
