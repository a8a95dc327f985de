//! The least a server can do with io_uring: what `floor` does, and an echo, by one system call for each batch of answers of the kernel.
//!
//! One thread and one ring of its own (`SINGLE_ISSUER`, `DEFER_TASKRUN`, and `NO_SQARRAY` where there is one), entered by a registered number. A multishot
//! accept; on each connection a multishot receive into provided buffers; what is sent in answer to a batch leaves with the enter that waits
//! for the next one, at once or not at all (`MSG_DONTWAIT`), and without an answer when all of it left. A buffer is given back behind that enter.
//!
//! Invariant: bytes of a connection leave in their order. It has one send at once in a batch; what comes behind it, or was cut short, lies in
//! `rest`, of which one piece at a time is sent in full (`MSG_WAITALL`) before anything else.
//!
//! It parses nothing, has no deadline, closes who has sent his last byte, and cuts who has more than 4 MiB waiting. Linux 6.1.
//!
//! Use: `floor-uring --port 8080 [--cpu 0] [--json] [--echo] [--close]`; `--json` as `floor`, `--echo` sends back what comes. With `--close` a
//! connection has one receive at a time, and ends behind its first answer by an order that is linked to it.
#![expect(
    unsafe_code,
    reason = "orders in a ring point to memory; nothing of the runtime that is judged is borrowed"
)]

use benches::civil::{http_date, unix_seconds};
use benches::scan::Tail;
use benches::{known_options, option, sys};
use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, cqueue, opcode, squeue};
use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// Answers sent at once, as in `floor`.
const ANSWERS: usize = 1024;
const REST_BYTES_MAX: usize = 4 << 20;

/// Provided buffers: a power of two.
const BUFFERS: u16 = 128;
const BUFFER_BYTES: usize = 4096;
/// From one to the next, so that their first lines lie in different sets of a cache.
const STRIDE: usize = BUFFER_BYTES + 3 * 64;

/// What an order is for: the upper half of its number. The lower one is a descriptor.
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const REST: u64 = 3;
const NOBODY: u64 = 4;

const AT_ONCE: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
const IN_FULL: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

fn main() -> Result<(), Box<dyn Error>> {
    let args = benches::arguments(include_str!("floor-uring.rs"));
    known_options(&args, &["--port", "--cpu"], &["--json", "--echo", "--close"])?;
    if args.iter().any(|arg| arg == "--cpu") {
        sys::pin_current_thread(&[option(&args, "--cpu", 0)?])?;
    }
    sys::raise_open_files(20_100)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, option(&args, "--port", 8080)?))?;
    sys::set_backlog(&listener, 4096)?;
    // Linux hands it on to those that are accepted.
    socket2::SockRef::from(&listener).set_tcp_nodelay(true)?;
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let (content_type, body) = match has("--json") {
        true => ("application/json", r#"{"message":"Hello, World!"}"#),
        false => ("text/plain", "Hello, World!"),
    };
    let answer = format!(
        "HTTP/1.1 200 OK\r\nServer: floor\r\nDate: {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
        http_date(unix_seconds()),
        body.len(),
    );
    // For ever: orders point there.
    let answers: &'static [u8] = answer.repeat(ANSWERS).into_bytes().leak();
    if has("--echo") && has("--close") {
        return Err("--close is behind an answer, without --echo".into());
    }
    let server = Server {
        ring: Ring::new()?,
        buffers: Buffers::new(),
        conns: Vec::new(),
        has_rest: false,
        answers: (!has("--echo")).then_some((answer.len(), answers)),
        closes: has("--close"),
    };
    server.run(&listener)?;
    Ok(())
}

/// A connection, by its descriptor.
#[derive(Default)]
struct Conn {
    is_open: bool,
    tail: Tail,
    /// What is sent at once in this batch. Its memory is a provided buffer that is given back behind the enter, or for ever.
    soon: Option<&'static [u8]>,
    /// What has to wait for it, or for `sending`.
    rest: Vec<u8>,
    /// What is sent in full. Not touched until its answer is there.
    sending: Vec<u8>,
}

struct Server {
    ring: Ring,
    buffers: Buffers,
    conns: Vec<Conn>,
    /// Something was put into the `rest` of a connection in this batch.
    has_rest: bool,
    /// The length of one, and many of them; `None` for an echo.
    answers: Option<(usize, &'static [u8])>,
    /// Behind the first answer.
    closes: bool,
}

impl Server {
    fn run(mut self, listener: &TcpListener) -> io::Result<()> {
        self.buffers.register(&self.ring)?;
        let accept = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).build().user_data(ACCEPT << 32);
        self.ring.order(&accept)?;
        let (mut came, mut used, mut sent) = (Vec::new(), Vec::new(), Vec::<usize>::new());
        loop {
            // What lies behind a send of this batch is sent when that is over, of which nobody is told.
            self.ring.enter(!std::mem::take(&mut self.has_rest))?;
            came.clear();
            came.extend(self.ring.came());
            // Sends of the last batch are over; what was cut short is copied while its buffer is still there.
            for answer in came.iter().filter(|answer| answer.user_data() >> 32 == SEND) {
                if self.closes {
                    // What was linked to it did not happen.
                    self.close(index(answer))?;
                    continue;
                }
                let conn = &mut self.conns[index(answer)];
                if let Some(bytes) = conn.soon {
                    let left = usize::try_from(answer.result()).unwrap_or(0);
                    conn.rest.splice(..0, bytes[left..].iter().copied());
                }
            }
            for fd in sent.drain(..) {
                self.conns[fd].soon = None;
                self.send_rest(fd)?;
            }
            used.drain(..).for_each(|id| self.buffers.provide(id));
            for answer in &came {
                match answer.user_data() >> 32 {
                    ACCEPT => {
                        self.open(answer.result())?;
                        if !cqueue::more(answer.flags()) {
                            self.ring.order(&accept)?;
                        }
                    }
                    RECEIVE => self.received(answer, &mut used, &mut sent)?,
                    REST => {
                        let fd = index(answer);
                        let conn = &mut self.conns[fd];
                        let is_whole = answer.result() == conn.sending.len() as i32;
                        conn.sending.clear();
                        match (conn.is_open, is_whole) {
                            (false, _) => self.close(fd)?,
                            (true, true) => self.send_rest(fd)?,
                            (true, false) => self.shut(fd),
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn open(&mut self, fd: i32) -> io::Result<()> {
        let Ok(index) = usize::try_from(fd) else {
            let error = io::Error::from_raw_os_error(-fd);
            return if error.kind() == io::ErrorKind::ConnectionAborted { Ok(()) } else { Err(error) };
        };
        if self.conns.len() <= index {
            self.conns.resize_with(index + 1, Conn::default);
        }
        self.conns[index] = Conn { is_open: true, ..Conn::default() };
        self.receive(index)
    }

    fn receive(&mut self, fd: usize) -> io::Result<()> {
        let order = match self.closes {
            // A receive that is under way would keep the connection open.
            true => opcode::Recv::new(Fd(fd as i32), std::ptr::null_mut(), 0)
                .buf_group(0)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT),
            false => opcode::RecvMulti::new(Fd(fd as i32), 0).build(),
        };
        self.ring.order(&order.user_data(RECEIVE << 32 | fd as u64))
    }

    fn received(
        &mut self,
        answer: &cqueue::Entry,
        used: &mut Vec<u16>,
        sent: &mut Vec<usize>,
    ) -> io::Result<()> {
        let fd = index(answer);
        let is_over = match answer.result() {
            1.. => {
                let id = cqueue::buffer_select(answer.flags()).expect("what was received lies in a buffer");
                used.push(id);
                self.answer(fd, self.buffers.filled(id, answer.result() as usize), sent)?;
                if self.closes && self.conns[fd].soon.is_some() {
                    return Ok(());
                }
                self.conns[fd].rest.len() > REST_BYTES_MAX
            }
            error => error != -libc::ENOBUFS,
        };
        match (is_over, cqueue::more(answer.flags())) {
            (true, true) => self.shut(fd),
            // The receive was the last to know of it, but for what is being sent.
            (true, false) => return self.close(fd),
            (false, false) => return self.receive(fd),
            (false, true) => {}
        }
        Ok(())
    }

    /// What `input` asks for.
    fn answer(&mut self, fd: usize, input: &'static [u8], sent: &mut Vec<usize>) -> io::Result<()> {
        let conn = &mut self.conns[fd];
        let Some((one, answers)) = self.answers else { return self.send(fd, input, sent) };
        let mut owed = conn.tail.count_ends(input) * one;
        while owed > 0 {
            let bytes = &answers[..owed.min(answers.len())];
            owed -= bytes.len();
            self.send(fd, bytes, sent)?;
        }
        Ok(())
    }

    fn send(&mut self, fd: usize, bytes: &'static [u8], sent: &mut Vec<usize>) -> io::Result<()> {
        let conn = &mut self.conns[fd];
        if conn.soon.is_some() || !conn.rest.is_empty() || !conn.sending.is_empty() {
            conn.rest.extend_from_slice(bytes);
            self.has_rest = true;
            return Ok(());
        }
        conn.soon = Some(bytes);
        sent.push(fd);
        let order =
            opcode::Send::new(Fd(fd as i32), bytes.as_ptr(), bytes.len() as u32).flags(AT_ONCE).build();
        let order = order.user_data(SEND << 32 | fd as u64);
        if self.closes {
            conn.is_open = false;
            let order = order.flags(squeue::Flags::SKIP_SUCCESS | squeue::Flags::IO_LINK);
            return self.ring.order_both(&[order, closing(fd)]);
        }
        self.ring.order(&order.flags(squeue::Flags::SKIP_SUCCESS))
    }

    /// Nothing else of this connection is under way.
    fn send_rest(&mut self, fd: usize) -> io::Result<()> {
        let conn = &mut self.conns[fd];
        if conn.rest.is_empty() || !conn.sending.is_empty() || !conn.is_open {
            return Ok(());
        }
        std::mem::swap(&mut conn.rest, &mut conn.sending);
        let order =
            opcode::Send::new(Fd(fd as i32), conn.sending.as_ptr(), conn.sending.len() as u32).flags(IN_FULL);
        self.ring.order(&order.build().user_data(REST << 32 | fd as u64))
    }

    /// Its receive ends by that, and then it closes.
    fn shut(&mut self, fd: usize) {
        // SAFETY: takes no pointer; the descriptor is one of ours until `close`.
        unsafe { libc::shutdown(fd as i32, libc::SHUT_RDWR) };
    }

    fn close(&mut self, fd: usize) -> io::Result<()> {
        self.conns[fd].is_open = false;
        if !self.conns[fd].sending.is_empty() {
            // It fails by that, and has its memory until then.
            self.shut(fd);
            return Ok(());
        }
        // Behind what is sent at once.
        self.ring.order(&closing(fd))
    }
}

fn closing(fd: usize) -> squeue::Entry {
    let order = opcode::Close::new(Fd(fd as i32)).build().user_data(NOBODY << 32);
    order.flags(squeue::Flags::SKIP_SUCCESS)
}

fn index(answer: &cqueue::Entry) -> usize {
    (answer.user_data() & u64::from(u32::MAX)) as usize
}

/// Entered by a number that is registered for it, which spares the kernel to look its descriptor up.
struct Ring {
    ring: IoUring,
    number: libc::c_uint,
}

/// `struct io_uring_rsrc_update` of linux/io_uring.h.
#[repr(C)]
struct Registration {
    offset: u32,
    reserved: u32,
    data: u64,
}

const _: () = assert!(size_of::<Registration>() == 16);
const REGISTER_RING_FDS: libc::c_uint = 20;
const ENTER_GETEVENTS: libc::c_uint = 1;
const ENTER_REGISTERED_RING: libc::c_uint = 1 << 4;

impl Ring {
    fn new() -> io::Result<Self> {
        let common = || {
            let mut builder = IoUring::builder();
            builder.setup_cqsize(4096).setup_submit_all().setup_single_issuer().setup_defer_taskrun();
            builder
        };
        let ring = common().setup_no_sqarray().build(1024).or_else(|_| common().build(1024))?;
        let mut wanted = Registration { offset: u32::MAX, reserved: 0, data: ring.as_raw_fd() as u64 };
        // SAFETY: the kernel reads and writes one registration, which lives through the call.
        let registered = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                ring.as_raw_fd(),
                REGISTER_RING_FDS,
                &raw mut wanted,
                1_u32,
            )
        };
        if registered != 1 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { ring, number: wanted.offset })
    }

    fn order(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: what an entry points to is there for ever, or a provided buffer that is given back behind the next enter, by which what
        // is sent at once is over, or the `sending` of a connection, which is left alone until its answer is there.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.call(0)?;
        }
        Ok(())
    }

    /// The first is linked to the second: they are handed over together.
    fn order_both(&mut self, entries: &[squeue::Entry; 2]) -> io::Result<()> {
        // SAFETY: as in `order`.
        while unsafe { self.ring.submission().push_multiple(entries) }.is_err() {
            self.call(0)?;
        }
        Ok(())
    }

    /// Hands all orders over, and may wait for an answer.
    fn enter(&mut self, may_wait: bool) -> io::Result<()> {
        let is_idle = self.ring.completion().is_empty();
        self.call(libc::c_uint::from(is_idle && may_wait))
    }

    fn call(&mut self, answers: libc::c_uint) -> io::Result<()> {
        let orders = self.ring.submission().len() as libc::c_uint;
        let flags = ENTER_REGISTERED_RING | ENTER_GETEVENTS;
        // SAFETY: no argument is a pointer but the last, which may be null; the number is that of this ring.
        let entered = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.number,
                orders,
                answers,
                flags,
                std::ptr::null::<u8>(),
                0_usize,
            )
        };
        match entered {
            0.. => Ok(()),
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                error => Err(error),
            },
        }
    }

    fn came(&mut self) -> impl Iterator<Item = cqueue::Entry> + '_ {
        self.ring.completion()
    }
}

/// Buffers that the kernel receives into. They are there for as long as the process is.
struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    tail: u16,
}

impl Buffers {
    fn new() -> Self {
        let allocate = |bytes| {
            let layout = Layout::from_size_align(bytes, 4096).expect("a page is a power of two");
            // SAFETY: the size is not zero.
            NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
        };
        let entries = allocate(usize::from(BUFFERS) * size_of::<BufRingEntry>()).cast();
        Self { entries, memory: allocate(usize::from(BUFFERS) * STRIDE), tail: 0 }
    }

    fn register(&mut self, ring: &Ring) -> io::Result<()> {
        let address = self.entries.as_ptr().expose_provenance() as u64;
        // SAFETY: the entries are aligned to a page, and never freed.
        unsafe { ring.ring.submitter().register_buf_ring_with_flags(address, BUFFERS, 0, 0) }?;
        (0..BUFFERS).for_each(|id| self.provide(id));
        Ok(())
    }

    fn start(&self, id: u16) -> *mut u8 {
        assert!(id < BUFFERS, "the kernel names a buffer that there is");
        self.memory.as_ptr().wrapping_add(usize::from(id) * STRIDE)
    }

    /// Gives one to the kernel.
    fn provide(&mut self, id: u16) {
        let address = self.start(id).expose_provenance() as u64;
        let entry = self.entries.as_ptr().wrapping_add(usize::from(self.tail % BUFFERS));
        // SAFETY: the remainder is below the number of entries, whose memory is never freed; the kernel only reads it.
        let entry = unsafe { entry.as_mut() }.expect("it is not null");
        entry.set_addr(address);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the first entry has the tail in it, which is what the function returns the place of.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: it is two aligned bytes that the kernel only reads, and that nobody else writes.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// What the kernel has put into one. Nobody looks at it any more when it is provided again.
    fn filled(&self, id: u16, len: usize) -> &'static [u8] {
        let start = self.start(id);
        // SAFETY: the memory is never freed, and the kernel, which has written so much of it, leaves it alone until it is provided again.
        unsafe { std::slice::from_raw_parts(start, len.min(BUFFER_BYTES)) }
    }
}
