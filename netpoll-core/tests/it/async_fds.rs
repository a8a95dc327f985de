//! Descriptors of somebody else: watched, tried, given back.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use netpoll_core::net::{AsyncFd, Interest, Ready};
use netpoll_core::sim::{Options, Sim};
use netpoll_core::task::{spawn_local, yield_now};
use netpoll_core::time::timeout;
use netpoll_core::{Runtime, Workers};

const READ: Interest = Interest::READABLE;
const WRITE: Interest = Interest::WRITABLE;

fn run<F: Future<Output = ()> + 'static>(future: F) {
    Runtime::block_on(future).unwrap();
}

/// A pipe whose ends do not block: its reader, its writer.
fn pipe() -> (File, File) {
    let (reader, writer) = io::pipe().unwrap();
    let again = |fd: BorrowedFd<'_>, writes: bool| {
        let mut options = OpenOptions::new();
        options.read(!writes).write(writes).custom_flags(libc::O_NONBLOCK);
        options.open(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap()
    };
    (again(reader.as_fd(), false), again(writer.as_fd(), true))
}

fn pair() -> (UnixStream, UnixStream) {
    let (one, other) = UnixStream::pair().unwrap();
    one.set_nonblocking(true).unwrap();
    other.set_nonblocking(true).unwrap();
    (one, other)
}

/// What the kernel has just made, and nobody else owns.
#[cfg(target_os = "linux")]
fn owned(fd: libc::c_int) -> File {
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    #[expect(unsafe_code, reason = "a number is all that the C library returns")]
    // SAFETY: the callers have it from the kernel and use it nowhere else.
    unsafe {
        std::os::fd::FromRawFd::from_raw_fd(fd)
    }
}

#[cfg(target_os = "linux")]
fn eventfd() -> File {
    #[expect(unsafe_code, reason = "eventfd(2) has no safe form")]
    // SAFETY: eventfd(2) takes no pointers.
    owned(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })
}

/// What is written to it can be read from it, as of an eventfd: a socket that is its own peer.
#[cfg(not(target_os = "linux"))]
fn eventfd() -> File {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(socket.local_addr().unwrap()).unwrap();
    socket.set_nonblocking(true).unwrap();
    File::from(std::os::fd::OwnedFd::from(socket))
}

/// A timer that passes once, so long after now.
#[cfg(target_os = "linux")]
fn timerfd(after: Duration) -> File {
    let (kind, flags) = (libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC);
    #[expect(unsafe_code, reason = "timerfd_create(2) has no safe form")]
    // SAFETY: timerfd_create(2) takes no pointers.
    let timer = owned(unsafe { libc::timerfd_create(kind, flags) });
    let value = libc::timespec { tv_sec: 0, tv_nsec: after.as_nanos() as i64 };
    let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let setting = libc::itimerspec { it_interval: never, it_value: value };
    #[expect(unsafe_code, reason = "timerfd_settime(2) has no safe form")]
    // SAFETY: the setting is read during the call; where nothing is to be written null is allowed.
    let set =
        unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const setting, std::ptr::null_mut()) };
    assert_eq!(set, 0);
    timer
}

async fn read_some(from: &AsyncFd<impl AsFd + ReadRef>) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 64];
    let len = from.async_io(READ, |inner| inner.read_ref(&mut buffer)).await?;
    Ok(buffer[..len].to_vec())
}

/// What can be read and written behind a shared reference.
trait ReadRef {
    fn read_ref(&self, into: &mut [u8]) -> io::Result<usize>;
}

impl ReadRef for File {
    fn read_ref(&self, into: &mut [u8]) -> io::Result<usize> {
        (&mut &*self).read(into)
    }
}

impl ReadRef for UnixStream {
    fn read_ref(&self, into: &mut [u8]) -> io::Result<usize> {
        (&mut &*self).read(into)
    }
}

/// Writes until nothing more fits.
fn fill(mut to: impl Write) -> usize {
    let mut filled = 0;
    loop {
        match to.write(&[7; 4096]) {
            Ok(len) => filled += len,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                return filled;
            }
        }
    }
}

/// Polls once, and says whether that was enough.
async fn is_ready<F: Future>(future: Pin<&mut F>) -> bool {
    let mut future = Some(future);
    poll_fn(|cx| Poll::Ready(future.take().expect("polled once").poll(cx).is_ready())).await
}

/// Turns enough for the kernel to report what has happened by now.
async fn turns() {
    // A slice of polls is 128 of them, and between two there is a turn.
    for _ in 0..4 * 128 {
        yield_now().await;
    }
}

#[test]
fn a_task_waits_for_a_pipe_and_reads_what_comes() {
    run(async {
        let (reader, mut writer) = pipe();
        let reader = AsyncFd::new(reader).unwrap();
        let task = spawn_local(async move { read_some(&reader).await.unwrap() });
        yield_now().await;
        assert!(!task.is_finished());
        writer.write_all(b"news").unwrap();
        assert_eq!(task.await.unwrap(), b"news");
    });
}

#[test]
#[cfg(target_os = "linux")]
fn eventfds_timerfds_and_sockets_wake_who_waits_for_them() {
    run(async {
        let bell = AsyncFd::new(eventfd()).unwrap();
        bell.get_ref().write_all(&3_u64.to_ne_bytes()).unwrap();
        assert_eq!(read_some(&bell).await.unwrap(), 3_u64.to_ne_bytes());

        let timer = AsyncFd::with_interest(timerfd(Duration::from_millis(5)), READ).unwrap();
        assert_eq!(read_some(&timer).await.unwrap(), 1_u64.to_ne_bytes());

        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = AsyncFd::new(socket).unwrap();
        let addr = socket.get_ref().local_addr().unwrap();
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"hello", addr).unwrap();
        let mut buffer = [0; 8];
        let len = socket.async_io(READ, |socket| socket.recv(&mut buffer)).await.unwrap();
        assert_eq!(&buffer[..len], b"hello");
    });
}

#[test]
fn what_is_always_ready_cannot_be_watched_and_says_why() {
    run(async {
        for path in ["Cargo.toml", "src", "/dev/null"] {
            let error = AsyncFd::new(File::open(path).unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{path}");
            assert!(error.to_string().contains("always ready"), "{error}");
        }
    });
}

#[test]
fn in_a_simulation_nothing_is_watched() {
    let mut sim = Sim::new(Options::default());
    let error = sim.block_on(async { AsyncFd::new(eventfd()).unwrap_err() });
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn one_descriptor_is_watched_once_and_its_copies_beside_it() {
    run(async {
        let (reader, mut writer) = pipe();
        let reader = Arc::new(reader);
        let first = AsyncFd::new(Arc::clone(&reader)).unwrap();
        let error = AsyncFd::new(Arc::clone(&reader)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        let copy = AsyncFd::new(reader.try_clone().unwrap()).unwrap();
        writer.write_all(b"x").unwrap();
        let _ = first.readable().await.unwrap();
        let _ = copy.readable().await.unwrap();
        drop(first);
        assert_eq!(read_some(&copy).await.unwrap(), b"x");
        writer.write_all(b"y").unwrap();
        assert_eq!(read_some(&copy).await.unwrap(), b"y", "it goes on without the other");
        // And the first one can be watched again.
        AsyncFd::new(reader).unwrap();
    });
}

#[test]
fn what_is_given_back_is_watched_no_more() {
    run(async {
        let (reader, mut writer) = pipe();
        writer.write_all(b"kept").unwrap();
        let watched = AsyncFd::new(reader).unwrap();
        let _ = watched.readable().await.unwrap();
        let reader = watched.into_inner();
        let again = AsyncFd::new(reader).expect("it is not watched any more");
        assert_eq!(read_some(&again).await.unwrap(), b"kept");
    });
}

/// Looks whether it is still watched when it is dropped.
struct Checks(Option<File>, Rc<Cell<bool>>);

impl AsFd for Checks {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_ref().unwrap().as_fd()
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        self.1.set(AsyncFd::new(self.0.take().unwrap()).is_ok());
    }
}

#[test]
fn a_descriptor_is_forgotten_before_it_is_closed() {
    run(async {
        let was_free = Rc::new(Cell::new(false));
        drop(AsyncFd::new(Checks(Some(eventfd()), Rc::clone(&was_free))).unwrap());
        assert!(was_free.get());
    });
}

#[test]
fn the_reader_and_the_writer_of_one_descriptor_are_woken_each_for_itself() {
    run(async {
        let (ours, mut theirs) = pair();
        let filled = fill(&ours);
        let ours = Rc::new(AsyncFd::new(ours).unwrap());
        let waits = |interest: Interest| {
            let ours = Rc::clone(&ours);
            spawn_local(async move {
                loop {
                    let mut guard = ours.ready(interest).await.unwrap();
                    // The first report is of before it was filled.
                    let tried = guard.try_io(|ours| match interest == READ {
                        true => ours.get_ref().read_ref(&mut [0; 16]),
                        false => (&mut ours.get_ref()).write(&[1; 16]),
                    });
                    if let Ok(done) = tried {
                        return done.unwrap();
                    }
                }
            })
        };
        let (reader, writer) = (waits(READ), waits(WRITE));
        turns().await;
        assert!(!reader.is_finished() && !writer.is_finished());
        theirs.write_all(b"four").unwrap();
        assert_eq!(reader.await.unwrap(), 4);
        turns().await;
        assert!(!writer.is_finished(), "there is no room yet");
        let mut all = vec![0; filled];
        theirs.read_exact(&mut all).unwrap();
        assert_eq!(writer.await.unwrap(), 16);
    });
}

#[test]
fn a_peer_that_is_gone_wakes_the_reader_and_the_writer() {
    run(async {
        let (ours, theirs) = pair();
        fill(&ours);
        let ours = Rc::new(AsyncFd::new(ours).unwrap());
        let (reading, writing) = (Rc::clone(&ours), Rc::clone(&ours));
        let reader = spawn_local(async move { read_some(&reading).await });
        let writer = spawn_local(async move {
            writing.async_io(WRITE, |mut inner| inner.write(b"x")).await.unwrap_err().kind()
        });
        turns().await;
        assert!(!reader.is_finished() && !writer.is_finished());
        drop(theirs);
        assert_eq!(writer.await.unwrap(), ErrorKind::BrokenPipe);
        // What it had not read is an error to us, or the end.
        let _ = reader.await.unwrap();
        let guard = ours.ready(READ | WRITE).await.unwrap();
        assert!(guard.ready().is_read_closed() && guard.ready().is_write_closed());
    });
}

#[test]
fn a_pipe_without_a_reader_is_writable_and_fails_and_says_so_to_who_waits_to_read() {
    run(async {
        let (reader, writer) = pipe();
        fill(&writer);
        let writer = Rc::new(AsyncFd::new(writer).unwrap());
        let other = Rc::clone(&writer);
        // Nobody reads from there; an error ends that wait all the same.
        let waits = spawn_local(async move { other.readable().await.unwrap().ready().is_error() });
        let fails = async { writer.async_io(WRITE, |mut writer| writer.write(b"x")).await };
        let mut fails = pin!(fails);
        assert!(!is_ready(fails.as_mut()).await);
        turns().await;
        assert!(!waits.is_finished());
        drop(reader);
        assert_eq!(fails.await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert!(waits.await.unwrap());
    });
}

#[test]
fn what_is_closed_stays_so_when_it_is_cleared() {
    run(async {
        let (reader, writer) = pipe();
        let reader = AsyncFd::new(reader).unwrap();
        drop(writer);
        let mut guard = reader.readable().await.unwrap();
        assert!(guard.ready().is_read_closed());
        guard.clear_ready();
        assert_eq!(reader.readable().await.unwrap().ready().and(Ready::READ_CLOSED), Ready::READ_CLOSED);
        assert_eq!(read_some(&reader).await.unwrap(), b"");
    });
}

#[test]
fn a_try_that_finds_nothing_is_believed_even_at_what_is_closed() {
    run(async {
        // A datagram socket that hears no more is reported as closed, and has nothing, not even an end.
        let (socket, _other) = std::os::unix::net::UnixDatagram::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.shutdown(std::net::Shutdown::Read).unwrap();
        let socket = AsyncFd::new(socket).unwrap();
        assert!(socket.readable().await.unwrap().ready().is_read_closed());
        let tries = Cell::new(0);
        let mut reads = pin!(socket.async_io(READ, |socket| {
            tries.set(tries.get() + 1);
            socket.recv(&mut [0; 16])
        }));
        assert!(!is_ready(reads.as_mut()).await);
        assert_eq!(tries.get(), 1, "it waits for news");
    });
}

#[test]
fn several_tasks_that_wait_for_one_descriptor_are_all_woken() {
    run(async {
        let bell = Rc::new(AsyncFd::new(eventfd()).unwrap());
        let tasks: Vec<_> = (0..5)
            .map(|_| {
                let bell = Rc::clone(&bell);
                spawn_local(async move { bell.readable().await.unwrap().ready().is_readable() })
            })
            .collect();
        yield_now().await;
        bell.get_ref().write_all(&1_u64.to_ne_bytes()).unwrap();
        for task in tasks {
            assert!(task.await.unwrap());
        }
    });
}

#[test]
fn a_try_without_a_report_is_not_made() {
    run(async {
        let (reader, mut writer) = pipe();
        let reader = AsyncFd::new(reader).unwrap();
        let tries = Cell::new(0);
        let attempt = || {
            reader.try_io(READ, |inner| {
                tries.set(tries.get() + 1);
                inner.read_ref(&mut [0; 16])
            })
        };
        assert_eq!(attempt().unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(tries.get(), 0);
        writer.write_all(b"abc").unwrap();
        let _ = reader.readable().await.unwrap();
        assert_eq!((attempt().unwrap(), tries.get()), (3, 1));
        assert_eq!(attempt().unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(tries.get(), 2, "it could not know");
        assert_eq!(attempt().unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(tries.get(), 2, "and now it does");
    });
}

#[test]
fn a_guard_from_before_the_last_report_clears_nothing() {
    run(async {
        let (reader, mut writer) = pipe();
        let reader = AsyncFd::new(reader).unwrap();
        writer.write_all(b"a").unwrap();
        let mut guard = reader.readable().await.unwrap();
        assert_eq!(read_some(&reader).await.unwrap(), b"a");
        writer.write_all(b"b").unwrap();
        turns().await;
        guard.clear_ready();
        let waited = timeout(Duration::from_secs(5), read_some(&reader)).await;
        assert_eq!(waited.expect("the news was not cleared").unwrap(), b"b");
    });
}

#[test]
fn a_wait_that_is_given_up_loses_nothing_and_leaves_nothing_behind() {
    run(async {
        let (reader, mut writer) = pipe();
        let reader = AsyncFd::new(reader).unwrap();
        for round in 0..200_u8 {
            for _ in 0..10 {
                let mut given_up = Box::pin(read_some(&reader));
                assert!(!is_ready(given_up.as_mut()).await);
            }
            writer.write_all(&[round]).unwrap();
            if round % 2 == 0 {
                // Given up when it was woken and has not been polled.
                let mut given_up = Box::pin(reader.readable());
                let _ = is_ready(given_up.as_mut()).await;
                yield_now().await;
                drop(given_up);
            }
            assert_eq!(read_some(&reader).await.unwrap(), [round]);
        }
    });
}

#[test]
fn everything_that_a_thread_writes_in_pieces_arrives() {
    run(async {
        const BYTES: usize = 3_000_000;
        let (reader, writer) = io::pipe().unwrap();
        let reader = File::from(OwnedFd::from(reader));
        let nonblocking = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(format!("/proc/self/fd/{}", reader.as_raw_fd()))
            .unwrap();
        drop(reader);
        let thread = std::thread::spawn(move || {
            let mut writer = writer;
            let mut sent = 0;
            for piece in (1..).map(|number: usize| number * 7919 % 9000 + 1) {
                let piece = piece.min(BYTES - sent);
                if piece == 0 {
                    return;
                }
                let bytes: Vec<u8> = (sent..sent + piece).map(|byte| byte as u8).collect();
                writer.write_all(&bytes).unwrap();
                sent += piece;
            }
        });
        let reader = AsyncFd::with_interest(nonblocking, READ).unwrap();
        let mut came = 0_usize;
        loop {
            let bytes = read_some(&reader).await.unwrap();
            if bytes.is_empty() {
                break;
            }
            for byte in bytes {
                assert_eq!(byte, came as u8);
                came += 1;
            }
        }
        assert_eq!(came, BYTES);
        thread.join().unwrap();
    });
}

#[test]
fn one_that_outlives_its_worker_hears_nothing_and_does_no_harm() {
    thread_local! {
        static KEPT: RefCell<Option<AsyncFd<File>>> = const { RefCell::new(None) };
    }
    run(async {
        let bell = AsyncFd::new(eventfd()).unwrap();
        KEPT.with(|kept| *kept.borrow_mut() = Some(bell));
    });
    let kept = KEPT.with(|kept| kept.borrow_mut().take()).unwrap();
    kept.get_ref().write_all(&1_u64.to_ne_bytes()).unwrap();
    assert_eq!(kept.try_io(READ, |_| Ok(())).unwrap_err().kind(), ErrorKind::WouldBlock);
    // It is watched by nobody, so another worker may.
    let bell = kept.into_inner();
    run(async move {
        assert_eq!(read_some(&AsyncFd::new(bell).unwrap()).await.unwrap(), 1_u64.to_ne_bytes());
    });
}

/// Something that is watched, on each worker.
type Kept = RefCell<Option<AsyncFd<File>>>;

#[test]
fn a_drain_does_not_wait_for_descriptors_that_are_watched() {
    let runtime = Runtime::builder()
        .workers(Workers::Count(2))
        .state(|_worker| Kept::default())
        .on_start(|worker, _commands| {
            *worker.state::<Kept>().borrow_mut() = Some(AsyncFd::new(eventfd())?);
            Ok(())
        })
        .start()
        .unwrap();
    let report = runtime.stop(Duration::from_secs(60)).unwrap();
    assert!(report.took < Duration::from_secs(30), "{report}");
}

#[test]
fn a_loop_over_a_descriptor_that_is_always_ready_lets_others_have_their_turn() {
    run(async {
        let fd = AsyncFd::new(eventfd()).unwrap();
        let is_over = Rc::new(Cell::new(false));
        let over = Rc::clone(&is_over);
        // Once it is known to be ready, no wait for that has to wait.
        drop(fd.writable().await.unwrap());
        let other = spawn_local(async move { over.set(true) });
        let mut waits = 0;
        while !is_over.get() && waits < 10_000 {
            drop(fd.writable().await.unwrap());
            waits += 1;
        }
        assert!(waits <= 128, "others came behind {waits} waits");
        other.await.unwrap();
    });
}
