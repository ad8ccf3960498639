//! What the tests run below the init: one small behaviour for each first argument.

#![allow(
    unsafe_code,
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    reason = "it behaves as badly as the tests need"
)]

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::{self, Command, Stdio};
use std::thread;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["exit", code] => process::exit(code.parse().unwrap()),
        ["abort"] => process::abort(),
        ["wait"] => wait(),
        ["signal"] => signal(),
        ["orphans", count] => orphans(count.parse().unwrap()),
        ["parent"] => drop(spawn(&["leaf"])),
        ["leaf"] => {}
        ["leave", how] => {
            leave(how);
            process::exit(3);
        }
        ["stay", how] => {
            leave(how);
            loop {
                thread::park();
            }
        }
        ["hold", how] => hold(how),
        ["echo", host] => echo(host),
        ["once"] => once(),
        ["speak-first"] => speak_first(),
        ["deaf"] => deaf(),
        ["answer-and-exit", bytes] => answer_and_exit(bytes.parse().unwrap()),
        ["unix"] => unix(),
        ["sockets"] => sockets(),
        ["print", text] => print!("{text}"),
        ["complain", text] => eprint!("{text}"),
        ["lines", count, length] => lines(count.parse().unwrap(), length.parse().unwrap()),
        ["flood-and-echo"] => {
            lines(5_000_000 / 100, 99);
            echo("127.0.0.1");
        }
        other => panic!("no such behaviour: {other:?}"),
    }
}

fn say(text: &str) {
    println!("{text}");
    io::stdout().flush().unwrap();
}

fn spawn(arguments: &[&str]) -> process::Child {
    let program = env::current_exe().unwrap();
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap()
}

fn wait() {
    say(&format!("waiting {}", process::id()));
    loop {
        thread::park();
    }
}

/// Says which signal came.
fn signal() {
    let mut got = 0;
    // SAFETY: the set is initialised by sigfillset before it is read, and both places are valid.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        say("ready");
        libc::sigwait(&raw const set, &raw mut got);
    }
    say(&format!("got {got}"));
}

/// Says of each kind of socket, and of the other way to one, whether it is there.
fn sockets() {
    let told = |result: libc::c_long| match result {
        -1 => io::Error::last_os_error().raw_os_error().unwrap(),
        _ => 0,
    };
    // SAFETY: socket and socketpair take plain numbers and a place for two descriptors, and the memory that io_uring_setup is
    // given is of the size that it writes to.
    unsafe {
        let mut kinds: Vec<_> = (0..64)
            .filter(|family| told(libc::socket(*family, libc::SOCK_DGRAM, 0).into()) == 0)
            .collect();
        kinds.retain(|family| *family != libc::AF_INET6);
        let vsock = told(libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0).into());
        let mut pair = [0; 2];
        let pair =
            told(libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, pair.as_mut_ptr()).into());
        let mut parameters = [0_u8; 120];
        let ring = told(libc::syscall(
            libc::SYS_io_uring_setup,
            1,
            parameters.as_mut_ptr(),
        ));
        say(&format!("{kinds:?} {vsock} {pair} {ring}"));
    }
}

/// Leaves orphans to the init and ends only when they are all gone, zombies included.
fn orphans(count: usize) {
    for _ in 0..count {
        spawn(&["parent"]).wait().unwrap();
    }
    let init = std::os::unix::process::parent_id();
    while children(init) != [process::id()] {
        thread::yield_now();
    }
    say("all gone");
}

fn children(parent: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    list.split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

/// Ends while a child goes on that holds the log.
#[allow(clippy::zombie_processes, reason = "somebody else has to see to it")]
fn leave(how: &str) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["hold", how])
        .stdin(Stdio::piped())
        .stdout(Stdio::inherit())
        .spawn()
        .unwrap();
    // The child says by closing its input that it is where it wants to be.
    let mut input = child.stdin.take().unwrap();
    while input.write_all(b"?").is_ok() {}
    say(&format!("left {}", child.id()));
}

fn hold(how: &str) {
    // SAFETY: setsid takes nothing; descriptor 0 is this process's own input, which nothing else uses.
    unsafe {
        if how == "away" {
            libc::setsid();
        }
        libc::close(0);
    }
    loop {
        thread::park();
    }
}

fn listen(host: &str) -> TcpListener {
    let port: u16 = env::var("PORT").unwrap().parse().unwrap();
    TcpListener::bind((host, port)).unwrap()
}

/// Sends back what comes; at the end, which connection this was.
fn echo(host: &str) {
    for (number, stream) in listen(host).incoming().enumerate() {
        let stream = stream.unwrap();
        thread::spawn(move || echo_one(stream, number + 1));
    }
}

fn echo_one(mut stream: TcpStream, number: usize) {
    let copied = io::copy(&mut stream.try_clone().unwrap(), &mut stream);
    if copied.is_ok() {
        let _ = write!(stream, "#{number}");
    }
}

/// Serves one connection and listens no more, but lives on.
fn once() {
    let (stream, _) = listen("127.0.0.1").accept().unwrap();
    echo_one(stream, 1);
    wait();
}

/// Ends its own direction first, and then says how much came.
fn speak_first() {
    let (mut stream, _) = listen("127.0.0.1").accept().unwrap();
    stream.write_all(b"welcome").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    say(&format!("got {}", all.len()));
}

fn deaf() {
    let _connection = listen("127.0.0.1").accept().unwrap();
    wait();
}

fn answer_and_exit(bytes: usize) {
    let (mut stream, _) = listen("127.0.0.1").accept().unwrap();
    let mut question = [0; 1];
    stream.read_exact(&mut question).unwrap();
    stream.write_all(&vec![b'a'; bytes]).unwrap();
}

fn unix() {
    let listener = UnixListener::bind(env::var("FAAS_SOCKET").unwrap()).unwrap();
    let _tcp = listen("127.0.0.1");
    for stream in listener.incoming() {
        stream.unwrap().write_all(b"mine").unwrap();
    }
}

fn lines(count: usize, length: usize) {
    let line = format!("{}\n", "x".repeat(length));
    let mut out = io::BufWriter::new(io::stdout().lock());
    for _ in 0..count {
        out.write_all(line.as_bytes()).unwrap();
    }
}
