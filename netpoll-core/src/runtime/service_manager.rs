//! What a service manager is told: that this program serves, that it stops, that it lives. The protocol of sd_notify(3).
//!
//! Datagrams of a line each, to the socket that `NOTIFY_SOCKET` names. Invariant: nobody waits for the manager: the socket does not block, and
//! what does not get through is said again at the next look, or was not worth it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::handover::ManagerName;
use crate::sys;

/// A service manager that wants to be told how a service is: systemd, or who speaks its protocol (`sd_notify(3)`). For
/// [`Builder::service_manager`](crate::Builder::service_manager); [`Builder::sd_notify`](crate::Builder::sd_notify) finds it in the environment.
#[derive(Debug)]
pub struct ServiceManager {
    socket: UnixDatagram,
    to: SocketAddr,
    address: OsString,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that listens at a path, or at an abstract name, which an `@` stands in front of.
    ///
    /// # Errors
    /// `InvalidInput` if it is neither, or too long; no socket to be had.
    pub fn at(address: impl AsRef<OsStr>) -> io::Result<Self> {
        let address = address.as_ref();
        let to = match address.as_bytes() {
            [b'@', name @ ..] if !name.is_empty() => sys::abstract_address(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => {
                let message = format!("{address:?} is neither a path nor an abstract name");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, to, address: address.to_owned(), watchdog: None })
    }

    /// The one that these variables name, if they do: `NOTIFY_SOCKET`, and `WATCHDOG_USEC` unless `WATCHDOG_PID` is of another process.
    ///
    /// # Errors
    /// Those of [`at`](Self::at); a variable that makes no sense (`InvalidInput`). They name the variable.
    pub fn of_variables(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> io::Result<Option<Self>> {
        let (mut address, mut every, mut process) = (None, None, None);
        for (name, value) in variables {
            match name.as_bytes() {
                b"NOTIFY_SOCKET" if !value.is_empty() => address = Some(value),
                b"WATCHDOG_USEC" => every = Some(number("WATCHDOG_USEC", &value)?),
                b"WATCHDOG_PID" => process = Some(number("WATCHDOG_PID", &value)?),
                _ => {}
            }
        }
        let Some(address) = address else { return Ok(None) };
        let named = |error: io::Error| io::Error::new(error.kind(), format!("NOTIFY_SOCKET: {error}"));
        let mut manager = Self::at(address).map_err(named)?;
        if process.is_none_or(|process| process == u64::from(std::process::id())) {
            manager.watchdog = every.map(Duration::from_micros);
        }
        Ok(Some(manager))
    }

    /// The one that the environment names, if it does.
    ///
    /// # Errors
    /// Those of [`of_variables`](Self::of_variables).
    pub fn of_environment() -> io::Result<Option<Self>> {
        Self::of_variables(std::env::vars_os())
    }

    /// It wants to hear twice in this time that the process lives. Default never.
    ///
    /// # Panics
    /// If the time is zero.
    #[must_use]
    pub fn watchdog(mut self, every: Duration) -> Self {
        assert!(!every.is_zero(), "the time of a watchdog is above zero");
        self.watchdog = Some(every);
        self
    }

    /// What [`watchdog`](Self::watchdog) was told, or `WATCHDOG_USEC` says.
    #[must_use]
    pub fn watchdog_every(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &[u8] {
        self.address.as_bytes()
    }

    /// Another way to it.
    pub(super) fn again(&self) -> io::Result<Self> {
        Ok(Self { watchdog: self.watchdog, ..Self::at(&self.address)? })
    }

    /// Tells it something: lines such as `STATUS=47 of 100 tables are read`. One system call, which does not wait.
    ///
    /// # Errors
    /// `WouldBlock` if it has not read what it was told before; `NotFound` and `ConnectionRefused` if it is not there.
    pub fn tell(&self, state: &str) -> io::Result<()> {
        self.socket.send_to_addr(state.as_bytes(), &self.to).map(drop)
    }
}

/// The value of a variable that is a number above zero.
fn number(name: &str, value: &OsStr) -> io::Result<u64> {
    let number = value.to_str().and_then(|value| value.parse().ok()).filter(|number| *number > 0);
    number.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{name}: {value:?} is no number above zero"))
    })
}

/// Where to find the manager.
#[derive(Debug, Default)]
pub(super) enum Manager {
    #[default]
    None,
    InEnvironment,
    This(ServiceManager),
}

impl Manager {
    /// The manager, if there is one: that of the process before, if this one was told none. The watchdog of a process that has followed another
    /// is that other one's.
    ///
    /// # Errors
    /// The environment names one that makes no sense.
    pub fn find(self, before: Option<&ManagerName>) -> io::Result<Option<ServiceManager>> {
        match self {
            Self::None => Ok(None),
            Self::InEnvironment => {
                let mut found = ServiceManager::of_environment()?;
                if let Some(before) = before {
                    let manager = match found {
                        Some(manager) => manager,
                        None => ServiceManager::at(OsStr::from_bytes(&before.address))?,
                    };
                    let every = before.watchdog_usec.map(Duration::from_micros);
                    found = Some(ServiceManager { watchdog: manager.watchdog.or(every), ..manager });
                }
                Ok(found)
            }
            Self::This(manager) => Ok(Some(manager)),
        }
    }
}
