//! The two ends of a connection, as one trait: rustls has a type for each.

use std::ops::Deref;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{UnbufferedConnectionCommon, UnbufferedStatus};

use super::identity;

/// Which end of a connection it is: [`UnbufferedServerConnection`] or [`UnbufferedClientConnection`], and no other.
pub trait Side: Deref<Target = UnbufferedConnectionCommon<Self::Data>> + Sealed + 'static {
    /// What rustls keeps for this end.
    #[doc(hidden)]
    type Data;

    /// Its connections are accepted: nobody here waits for them.
    #[doc(hidden)]
    const IS_ACCEPTED: bool;

    #[doc(hidden)]
    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// The host that the client has named in what was processed just now, where the other end is told.
    #[doc(hidden)]
    fn take_named_host() -> Option<Box<str>>;
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    const IS_ACCEPTED: bool = true;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }

    fn take_named_host() -> Option<Box<str>> {
        identity::take_named_host()
    }
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    const IS_ACCEPTED: bool = false;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }

    fn take_named_host() -> Option<Box<str>> {
        None
    }
}

pub trait Sealed {}
impl Sealed for UnbufferedServerConnection {}
impl Sealed for UnbufferedClientConnection {}
