//! Everything that only libc can do, one tiny function each; all unsafe code of the init is here.
#![allow(unsafe_code, reason = "that is what this file is for")]
#![allow(
    clippy::cast_possible_truncation,
    reason = "address families, sizes and lengths are small constants"
)]

use std::io;
use std::mem;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::ptr;
use std::time::Duration;

/// The signals that are passed on to the program.
pub const FORWARDED: [i32; 6] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
];
pub const SIGCHLD: i32 = libc::SIGCHLD;
pub const SIGKILL: i32 = libc::SIGKILL;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Lets what this process and its children create be reached by everybody.
pub fn clear_umask() {
    // SAFETY: umask takes a plain number and cannot fail.
    unsafe { libc::umask(0) };
}

/// Makes orphans below this process its children, also where it is not pid 1.
pub fn adopt_orphans() -> io::Result<()> {
    // SAFETY: PR_SET_CHILD_SUBREAPER takes one number and touches no memory.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }).map(drop)
}

/// Hides this process from others of its user: none may trace it, read its memory or open its files. What it starts is not
/// hidden.
pub fn hide() -> io::Result<()> {
    // SAFETY: PR_SET_DUMPABLE takes one number and touches no memory.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) }).map(drop)
}

/// Has the kernel judge every system call of this process, and of all that it starts, by a filter; no privilege is gained
/// any more either.
pub fn filter(program: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    let install = |flags: libc::c_ulong| {
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        // SAFETY: the filter is valid for reads of its length, and the kernel copies it.
        let done = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
        check(done as libc::c_int).map(drop)
    };
    // SAFETY: PR_SET_NO_NEW_PRIVS takes plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    // Else some kernels slow down all that is filtered, against guesses that here could tell a program only of itself. Not
    // everything that passes for a kernel knows the flag.
    install(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW).or_else(|_| install(0))
}

/// Blocks the forwarded signals and SIGCHLD and returns a descriptor (non-blocking) on which they are read instead.
pub fn take_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before it is read; the signal numbers are valid; the descriptor
    // returned by signalfd is new and owned by nobody else.
    unsafe {
        let mut set = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in FORWARDED.into_iter().chain([SIGCHLD]) {
            libc::sigaddset(&raw mut set, signal);
        }
        check(libc::sigprocmask(
            libc::SIG_BLOCK,
            &raw const set,
            ptr::null_mut(),
        ))?;
        let fd = check(libc::signalfd(
            -1,
            &raw const set,
            libc::SFD_NONBLOCK | libc::SFD_CLOEXEC,
        ))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Makes the command start with no signal blocked; it would otherwise inherit what [`take_signals`] blocked.
pub fn unblock_signals(command: &mut Command) {
    let unblock = || {
        // SAFETY: the set is initialised by sigemptyset before it is read.
        let result = unsafe {
            let mut none = mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut())
        };
        check(result).map(drop)
    };
    // SAFETY: between fork and exec only functions are called that are safe there; nothing is allocated.
    unsafe { command.pre_exec(unblock) };
}

/// Makes the program of the command end with the thread that starts it.
pub fn end_with_parent(command: &mut Command) {
    let ask = || {
        // SAFETY: PR_SET_PDEATHSIG takes one number and touches no memory.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }).map(drop)
    };
    // SAFETY: between fork and exec only a system call is made; nothing is allocated.
    unsafe { command.pre_exec(ask) };
}

/// The children of this process, which has one thread; none where the kernel does not tell.
pub fn children() -> Vec<i32> {
    let list = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    list.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// The next pending signal, if there is one.
pub fn next_signal(signals: &OwnedFd) -> Option<i32> {
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the buffer is a signalfd_siginfo of exactly `size` bytes, for which all-zero is a valid value.
    let (read, info) = unsafe {
        let mut info: libc::signalfd_siginfo = mem::zeroed();
        let read = libc::read(signals.as_raw_fd(), (&raw mut info).cast(), size);
        (read, info)
    };
    (usize::try_from(read) == Ok(size))
        .then(|| i32::try_from(info.ssi_signo).ok())
        .flatten()
}

/// Takes one ended child off the process table: its pid and how it ended.
pub fn reap() -> Option<(i32, ExitStatus)> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for one int.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then(|| (pid, ExitStatus::from_raw(status)))
}

/// Sends a signal, with the meaning of kill(2) for negative pids; that nobody is there to get it is no error.
pub fn kill(pid: i32, signal: i32) {
    // SAFETY: kill takes plain numbers.
    unsafe { libc::kill(pid, signal) };
}

/// Makes reads from (and writes to) this open file return at once.
pub fn set_nonblocking(fd: &impl AsFd) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: F_GETFL and F_SETFL take and return plain flags of a descriptor that is open, because it is borrowed.
    unsafe {
        let flags = check(libc::fcntl(fd, libc::F_GETFL))?;
        check(libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK)).map(drop)
    }
}

/// Whether a write of up to 4 KiB (`PIPE_BUF`) would be taken, or refused, without waiting.
pub fn can_write(fd: &impl AsFd) -> bool {
    let mut entry = libc::pollfd {
        fd: fd.as_fd().as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one valid pollfd is passed, and its number is 1.
    unsafe { libc::poll(&raw mut entry, 1, 0) > 0 }
}

/// Begins a TCP connection without waiting for it; it is made, or has failed, once the stream is writable.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: socket takes plain numbers; the descriptor that it returns is new and owned by nobody else.
    let stream = unsafe { TcpStream::from_raw_fd(check(libc::socket(family, kind, 0))?) };
    let fd = stream.as_raw_fd();
    let result = match address {
        SocketAddr::V4(v4) => connect_to(fd, &raw_v4(v4)),
        SocketAddr::V6(v6) => connect_to(fd, &raw_v6(v6)),
    };
    match check(result) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(stream),
    }
}

fn connect_to<T>(fd: RawFd, address: &T) -> libc::c_int {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the address is valid for reads of its own size, and outlives the call.
    unsafe { libc::connect(fd, ptr::from_ref(address).cast(), size) }
}

fn raw_v4(address: SocketAddrV4) -> libc::sockaddr_in {
    let s_addr = u32::from_ne_bytes(address.ip().octets());
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr },
        sin_zero: [0; 8],
    }
}

fn raw_v6(address: SocketAddrV6) -> libc::sockaddr_in6 {
    let s6_addr = address.ip().octets();
    libc::sockaddr_in6 {
        sin6_family: libc::AF_INET6 as libc::sa_family_t,
        sin6_port: address.port().to_be(),
        sin6_flowinfo: address.flowinfo(),
        sin6_addr: libc::in6_addr { s6_addr },
        sin6_scope_id: address.scope_id(),
    }
}

/// What to wait for on a descriptor; an end of both directions and errors are always told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    pub read: bool,
    pub write: bool,
}

impl Interest {
    pub const READ: Self = Self {
        read: true,
        write: false,
    };
    pub const WRITE: Self = Self {
        read: false,
        write: true,
    };

    fn bits(self) -> u32 {
        let mut bits = 0;
        if self.read {
            bits |= libc::EPOLLIN;
        }
        if self.write {
            bits |= libc::EPOLLOUT;
        }
        bits.cast_unsigned()
    }
}

/// Something happened on the descriptor that was added with this token.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub token: u64,
    /// Both directions have ended, or the connection is broken; told again and again until the descriptor is removed.
    pub hung_up: bool,
}

/// epoll, level triggered. A descriptor that is closed leaves by itself.
pub struct Poller {
    epoll: OwnedFd,
    ready: Vec<libc::epoll_event>,
}

impl Poller {
    pub fn new() -> io::Result<Self> {
        // SAFETY: epoll_create1 takes a plain flag; the descriptor that it returns is new and owned by nobody else.
        let epoll =
            unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        Ok(Self {
            epoll,
            ready: vec![libc::epoll_event { events: 0, u64: 0 }; 64],
        })
    }

    pub fn add(&self, fd: &impl AsFd, interest: Interest, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, interest, token)
    }

    pub fn modify(&self, fd: &impl AsFd, interest: Interest, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, interest, token)
    }

    pub fn remove(&self, fd: &impl AsFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, Interest::default(), 0)
    }

    fn control(
        &self,
        operation: i32,
        fd: &impl AsFd,
        interest: Interest,
        token: u64,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: interest.bits(),
            u64: token,
        };
        let fd = fd.as_fd().as_raw_fd();
        // SAFETY: `event` is a valid epoll_event and outlives the call.
        check(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) })
            .map(drop)
    }

    /// Waits for events, at most `timeout` (rounded up to milliseconds), and returns those that are there.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Vec<Event>> {
        let timeout = timeout.map_or(-1, |time| {
            i32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
        });
        let room = i32::try_from(self.ready.len()).unwrap_or(i32::MAX);
        // SAFETY: `ready` has room for the number of events that is passed.
        let result = check(unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                self.ready.as_mut_ptr(),
                room,
                timeout,
            )
        });
        let count = match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            other => usize::try_from(other?).unwrap_or(0),
        };
        Ok(self.ready[..count].iter().map(Event::from_raw).collect())
    }
}

impl Event {
    fn from_raw(raw: &libc::epoll_event) -> Self {
        let hung_up = raw.events & (libc::EPOLLHUP | libc::EPOLLERR).cast_unsigned() != 0;
        Self {
            token: raw.u64,
            hung_up,
        }
    }
}
