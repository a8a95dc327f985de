//! Entering a ring of io_uring, and the number that saves the kernel a look for it.
//!
//! What stands in the ring was put there by whoever owns it, and answers for it; these calls point to nothing but their own arguments.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use super::epoll::KernelTimespec;
use super::kernel;

/// `IORING_REGISTER_RING_FDS` of linux/io_uring.h (Linux 5.18).
const REGISTER_RING_FDS: usize = 20;

/// `IORING_UNREGISTER_RING_FDS` of linux/io_uring.h (Linux 5.18).
const UNREGISTER_RING_FDS: usize = 21;

/// `IORING_ENTER_GETEVENTS`: what is ready is done, and waited for.
const GETEVENTS: usize = 1;
/// `IORING_ENTER_EXT_ARG`: the argument is a `struct io_uring_getevents_arg` (5.11).
const EXT_ARG: usize = 1 << 3;
/// `IORING_ENTER_REGISTERED_RING`: the descriptor is a registered number.
const REGISTERED_RING: usize = 1 << 4;

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct Registration {
    offset: u32,
    reserved: u32,
    data: u64,
}

const _: () = assert!(size_of::<Registration>() == 16);

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct WaitArgument {
    mask: u64,
    mask_size: u32,
    least_wait_micros: u32,
    time: u64,
}

const _: () = assert!(size_of::<WaitArgument>() == 24);

/// How this thread names a ring: by its descriptor, or by a number that was registered for it.
#[derive(Debug, Clone, Copy)]
pub struct RingName {
    number: usize,
    flags: usize,
}

impl RingName {
    /// Registers a ring for this thread; a kernel that does not is given the descriptor. The ring has to be open for as long as the name is
    /// used, or the kernel finds another file there, or none.
    pub fn of(ring: BorrowedFd<'_>) -> Self {
        let mut registration = Registration { offset: u32::MAX, reserved: 0, data: ring.as_raw_fd() as u64 };
        let address = (&raw mut registration).expose_provenance();
        let arguments = [kernel::descriptor(ring), REGISTER_RING_FDS, address, 1, 0, 0];
        // SAFETY: io_uring_register(2) reads and writes one `struct io_uring_rsrc_update`, which `registration` is; it lives to the end of
        // this function. (test: `a_ring_is_entered_by_its_name_and_a_wait_ends_in_time`)
        match unsafe { kernel::call(libc::SYS_io_uring_register, arguments) } {
            Ok(1) => Self { number: registration.offset as usize, flags: REGISTERED_RING },
            _ => Self { number: kernel::descriptor(ring), flags: 0 },
        }
    }

    /// Gives the name back: as long as it is registered, the thread keeps the ring, and it has only sixteen names.
    pub fn forget(self, ring: BorrowedFd<'_>) {
        if self.flags == 0 {
            return;
        }
        let registration = Registration { offset: self.number as u32, reserved: 0, data: 0 };
        let address = (&raw const registration).expose_provenance();
        let arguments = [kernel::descriptor(ring), UNREGISTER_RING_FDS, address, 1, 0, 0];
        // SAFETY: io_uring_register(2) reads one `struct io_uring_rsrc_update`, which `registration` is; it lives to the end of this
        // function. (test: `a_thread_that_has_many_rings_one_after_another_names_them_all`)
        let _ = unsafe { kernel::call(libc::SYS_io_uring_register, arguments) };
    }

    /// Hands over so many orders, does what is ready, and waits for so many answers: for this time, or for ever.
    ///
    /// # Errors
    /// The kernel's: `ETIME` when the time is over, `EINTR`; `EAGAIN`, `EBUSY` where it has no room.
    #[inline]
    pub fn enter(self, orders: u32, answers: u32, time: Option<Duration>) -> io::Result<usize> {
        let limit = time.map(KernelTimespec::new);
        let time = limit.as_ref().map_or(0, |limit| std::ptr::from_ref(limit).expose_provenance() as u64);
        let argument = WaitArgument { mask: 0, mask_size: 0, least_wait_micros: 0, time };
        let arguments = [
            self.number,
            orders as usize,
            answers as usize,
            self.flags | GETEVENTS | EXT_ARG,
            (&raw const argument).expose_provenance(),
            size_of::<WaitArgument>(),
        ];
        // SAFETY: io_uring_enter(2) reads one `struct io_uring_getevents_arg` and what it points to, a `__kernel_timespec` or nothing; both
        // live to the end of this function. What the orders point to is for the owner of the ring, who has promised it when they were
        // put there. (test: `a_ring_is_entered_by_its_name_and_a_wait_ends_in_time`)
        unsafe { kernel::call(libc::SYS_io_uring_enter, arguments) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, BorrowedFd};

    use super::*;
    use crate::sys::testing::alone;

    fn fd_of(ring: &io_uring::IoUring) -> BorrowedFd<'_> {
        // SAFETY: the ring is open for as long as it is borrowed. (test: `a_ring_is_entered_by_its_name_and_a_wait_ends_in_time`)
        unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) }
    }

    #[test]
    fn a_ring_is_entered_by_its_name_and_a_wait_ends_in_time() {
        alone!(a_ring_is_entered_by_its_name_and_a_wait_ends_in_time);
        // Where it is forbidden there is nothing to enter.
        let Ok(mut ring) = io_uring::IoUring::new(4) else { return };
        let _ = fd_of(&ring).as_fd();
        let name = RingName::of(fd_of(&ring));
        let began = std::time::Instant::now();
        let error = name.enter(0, 1, Some(Duration::from_millis(2))).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ETIME));
        assert!(began.elapsed() >= Duration::from_millis(2));
        // SAFETY: an order to do nothing points to nothing. (test: `a_ring_is_entered_by_its_name_and_a_wait_ends_in_time`)
        unsafe { ring.submission().push(&io_uring::opcode::Nop::new().build().user_data(7)) }.unwrap();
        assert_eq!(name.enter(1, 1, None).unwrap(), 1);
        assert_eq!(ring.completion().next().map(|answer| answer.user_data()), Some(7));
    }

    #[test]
    fn a_thread_that_has_many_rings_one_after_another_names_them_all() {
        for _ in 0..20 {
            let Ok(ring) = io_uring::IoUring::new(4) else { return };
            let name = RingName::of(fd_of(&ring));
            assert_eq!(name.flags, REGISTERED_RING);
            name.forget(fd_of(&ring));
        }
    }
}
