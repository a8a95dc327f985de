//! UDP sockets at the start of a runtime: one for each worker and address, or those that were open before.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use super::Builder;
use super::backend::Choice;
use super::handover::Inherited;
use super::listening::{Socket, deal, first_sharing};
use crate::conn::{SocketKind, SocketName};
use crate::driver::Queue;
use crate::sys::{self, Sharing};

/// Binds every address once for each worker, behind the sockets that the worker has already. Where they are bound, in the order
/// of `bind_udp` calls.
pub fn bind_all(
    settings: &Builder,
    backend: Choice,
    sockets: &mut [Vec<Socket>],
) -> io::Result<Vec<SocketAddr>> {
    let workers = sockets.len();
    let mut addrs = Vec::new();
    for (nth, bind) in settings.udp.iter().enumerate() {
        let of = settings.listeners.len() + nth;
        let named =
            |error: io::Error| sys::missing(format!("cannot receive datagrams on {}", bind.addr), error);
        let mut sharing = match bind.own_ports {
            true => Sharing::Alone,
            false => first_sharing(settings, workers, bind.addr.port()),
        };
        let asked = bind.addr.to_string();
        // Answers to what such a socket has asked come to who has asked.
        let is_handed_on = !bind.own_ports || bind.addr.port() > 0;
        let taken =
            if is_handed_on { settings.family.claim(SocketKind::Datagrams, &asked) } else { Vec::new() };
        if let Some(Inherited { socket, .. }) = taken.first() {
            addrs.push(sys::check_datagrams(socket.as_fd()).map_err(named)?);
            for Inherited { socket, .. } in &taken {
                set_up(settings, socket, addrs[addrs.len() - 1]).map_err(named)?;
            }
            deal(settings, sockets, of, taken)?;
            continue;
        }
        // Where nothing spreads them, one socket of several would get everything: who looks first has it.
        let count = if sys::SPREADS || bind.own_ports { workers } else { 1 };
        let (mut first, mut group) = (None, Vec::with_capacity(count));
        for _ in 0..count {
            let wanted = first.filter(|_| !bind.own_ports).unwrap_or(bind.addr);
            let socket = backend.bind(|| sys::bind_datagrams(wanted, sharing)).map_err(named)?;
            if sharing == Sharing::Begins {
                sharing = Sharing::Joins;
            }
            let addr = sys::local_addr(socket.as_fd())?.as_socket_addr().unwrap_or(wanted);
            first.get_or_insert(addr);
            set_up(settings, &socket, addr).map_err(named)?;
            group.push(socket);
        }
        if is_handed_on {
            let bound = first.unwrap_or(bind.addr).to_string();
            let name = SocketName { kind: SocketKind::Datagrams, asked, bound, is_foreign: false };
            let group = group.into_iter();
            let group = group.map(|socket| Inherited { name: name.clone(), socket, number: None }).collect();
            deal(settings, sockets, of, group)?;
        } else {
            for (worker, fd) in sockets.iter_mut().zip(group) {
                worker.push(Socket { fd, queue: Queue::Own, of, number: None });
            }
        }
        if settings.steer_by_cpu
            && sharing != Sharing::Alone
            && let Some(Socket { fd, .. }) = sockets[0].last()
        {
            sys::attach_reuseport_cpu_steering(fd.as_fd(), workers as u32)?;
        }
        addrs.extend(first);
    }
    Ok(addrs)
}

/// What is set on each of them.
fn set_up(settings: &Builder, socket: &OwnedFd, addr: SocketAddr) -> io::Result<()> {
    let options = &settings.udp_options;
    sys::set_buffers(socket.as_fd(), options.send_buffer_bytes, options.receive_buffer_bytes)?;
    if addr.ip().is_unspecified() {
        sys::tell_local_ip(socket.as_fd(), addr.is_ipv6())?;
    }
    Ok(())
}
