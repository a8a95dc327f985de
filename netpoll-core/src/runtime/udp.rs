//! UDP sockets at the start of a runtime: one for each worker and address.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use super::Builder;
use crate::sys;

/// Binds every address once for each worker, behind the sockets that the worker has already. Where they are bound, in the order
/// of `bind_udp` calls.
pub fn bind_all(settings: &Builder, sockets: &mut [Vec<OwnedFd>]) -> io::Result<Vec<SocketAddr>> {
    let workers = sockets.len();
    let reuse_port = workers > 1 || settings.share_port;
    let options = &settings.udp_options;
    let mut addrs = Vec::new();
    for bind in &settings.udp {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot receive datagrams on {}: {error}", bind.addr))
        };
        if reuse_port && !settings.share_port && bind.addr.port() != 0 {
            // With SO_REUSEPORT the kernel would share the port with a stranger of the same user.
            drop(sys::bind_datagrams(bind.addr, false).map_err(named)?);
        }
        let mut addr = bind.addr;
        for worker in sockets.iter_mut() {
            let socket = sys::bind_datagrams(addr, reuse_port).map_err(named)?;
            addr = sys::local_addr(socket.as_fd())?;
            sys::set_buffers(socket.as_fd(), options.send_buffer_bytes, options.receive_buffer_bytes)
                .map_err(named)?;
            if addr.ip().is_unspecified() {
                sys::tell_local_ip(socket.as_fd(), addr.is_ipv6()).map_err(named)?;
            }
            worker.push(socket);
        }
        if settings.steer_by_cpu
            && workers > 1
            && let Some(first) = sockets[0].last()
        {
            sys::attach_reuseport_cpu_steering(first.as_fd(), workers as u32)?;
        }
        addrs.push(addr);
    }
    Ok(addrs)
}
