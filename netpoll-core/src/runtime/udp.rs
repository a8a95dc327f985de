//! UDP sockets at the start of a runtime: one for each worker and address.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use super::Builder;
use super::listening::{Socket, first_sharing};
use crate::driver::Queue;
use crate::sys::{self, Sharing};

/// Binds every address once for each worker, behind the sockets that the worker has already. Where they are bound, in the order
/// of `bind_udp` calls.
pub fn bind_all(settings: &Builder, sockets: &mut [Vec<Socket>]) -> io::Result<Vec<SocketAddr>> {
    let workers = sockets.len();
    let options = &settings.udp_options;
    let mut addrs = Vec::new();
    for bind in &settings.udp {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot receive datagrams on {}: {error}", bind.addr))
        };
        let mut sharing = match bind.own_ports {
            true => Sharing::Alone,
            false => first_sharing(settings, workers, bind.addr.port()),
        };
        let mut first = None;
        let mut shared: Option<OwnedFd> = None;
        for worker in sockets.iter_mut() {
            if let Some(socket) = &shared {
                worker.push((socket.try_clone()?, Queue::Own));
                continue;
            }
            let wanted = first.filter(|_| !bind.own_ports).unwrap_or(bind.addr);
            let socket = sys::bind_datagrams(wanted, sharing).map_err(named)?;
            if sharing == Sharing::Begins {
                sharing = Sharing::Joins;
            }
            let addr = sys::local_addr(socket.as_fd())?.as_socket_addr().unwrap_or(wanted);
            first.get_or_insert(addr);
            sys::set_buffers(socket.as_fd(), options.send_buffer_bytes, options.receive_buffer_bytes)
                .map_err(named)?;
            if addr.ip().is_unspecified() {
                sys::tell_local_ip(socket.as_fd(), addr.is_ipv6()).map_err(named)?;
            }
            if !sys::SPREADS && !bind.own_ports {
                // One of several would get everything: who looks first has it.
                shared = Some(socket.try_clone()?);
            }
            worker.push((socket, Queue::Own));
        }
        if settings.steer_by_cpu
            && sharing != Sharing::Alone
            && let Some((first, _)) = sockets[0].last()
        {
            sys::attach_reuseport_cpu_steering(first.as_fd(), workers as u32)?;
        }
        addrs.extend(first);
    }
    Ok(addrs)
}
