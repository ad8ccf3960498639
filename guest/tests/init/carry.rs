//! The unix socket of programs that know only TCP, and of programs that know better.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Barrier};
use std::thread;

use tempfile::TempDir;

use crate::harness::{Init, until};

/// Sends all, ends the sending half, and returns all that comes back.
fn ask(mut stream: UnixStream, question: &[u8]) -> Vec<u8> {
    let mut reading = stream.try_clone().unwrap();
    let answer = thread::spawn(move || {
        let mut answer = Vec::new();
        reading.read_to_end(&mut answer).unwrap();
        answer
    });
    stream.write_all(question).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    answer.join().unwrap()
}

/// Bytes that tell where they belong.
fn pattern(seed: usize, length: usize) -> Vec<u8> {
    let byte = |at| u8::try_from((at / 7 + at * seed) % 251).unwrap();
    (0..length).map(byte).collect()
}

#[test]
fn both_directions_and_the_end_of_one_are_carried() {
    for host in ["127.0.0.1", "0.0.0.0", "127.0.0.2"] {
        let init = Init::start(&["echo", host]);
        // The first connection that the program sees is the first that was made: nobody tried whether it listens.
        assert_eq!(ask(init.connect(), b"hello"), b"hello#1", "{host}");
        assert_eq!(ask(init.connect(), b""), b"#2");
    }
}

#[test]
fn a_program_that_listens_on_ipv6_is_found() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return eprintln!("skipped: this machine has no IPv6");
    }
    for host in ["::", "::1"] {
        let init = Init::start(&["echo", host]);
        assert_eq!(ask(init.connect(), b"hello"), b"hello#1", "{host}");
    }
}

#[test]
fn everybody_may_connect() {
    let init = Init::start(&["echo", "127.0.0.1"]);
    drop(init.connect());
    let mode = init.socket().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
    let left = std::fs::read_dir(init.directory.path()).unwrap().count();
    assert_eq!(left, 1, "only the socket is there");
}

#[test]
fn the_socket_of_an_earlier_life_is_replaced() {
    let directory = TempDir::new().unwrap();
    drop(UnixListener::bind(directory.path().join("fn.sock")).unwrap());
    let init = Init::start_in(directory, &["echo", "127.0.0.1"]);
    assert_eq!(ask(init.connect(), b"hello"), b"hello#1");
}

#[test]
fn much_is_carried_whole() {
    let init = Init::start(&["echo", "127.0.0.1"]);
    let much = pattern(3, 16 * 1024 * 1024);
    let answer = ask(init.connect(), &much);
    assert!(
        answer == [much.as_slice(), b"#1"].concat(),
        "{} bytes came",
        answer.len()
    );
}

#[test]
fn a_hundred_connections_at_once() {
    let init = Init::start(&["echo", "127.0.0.1"]);
    let all_open = Arc::new(Barrier::new(100));
    let callers: Vec<_> = (0..100)
        .map(|seed| {
            let (stream, all_open) = (init.connect(), Arc::clone(&all_open));
            thread::spawn(move || {
                let question = pattern(seed, 200_000);
                all_open.wait();
                let answer = ask(stream, &question);
                assert!(answer.starts_with(&question) && answer[question.len()] == b'#');
            })
        })
        .collect();
    for caller in callers {
        caller.join().unwrap();
    }
}

#[test]
fn more_connections_than_are_carried_at_once_wait_their_turn() {
    let init = Init::start(&["echo", "127.0.0.1"]);
    let mut first: Vec<_> = (0..512).map(|_| init.connect()).collect();
    for stream in &mut first {
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }
    let waiting = init.connect();
    waiting.set_nonblocking(true).unwrap();
    (&waiting).write_all(b"y").unwrap();
    assert_eq!(
        (&waiting).read(&mut [0]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    waiting.set_nonblocking(false).unwrap();
    first.pop();
    let mut answer = [0];
    (&waiting).read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"y");
}

#[test]
fn the_program_may_end_its_direction_first() {
    let mut init = Init::start(&["speak-first"]);
    let mut stream = init.connect();
    let mut welcome = String::new();
    stream.read_to_string(&mut welcome).unwrap();
    assert_eq!(welcome, "welcome");
    stream.write_all(&pattern(1, 300_000)).unwrap();
    drop(stream);
    assert_eq!(init.line(), "got 300000");
}

#[test]
fn a_program_that_does_not_read_holds_up_its_caller() {
    let init = Init::start(&["deaf"]);
    let mut stream = init.connect();
    stream.set_nonblocking(true).unwrap();
    let chunk = vec![0; 1024 * 1024];
    let mut taken = 0;
    // Only the kernel's buffers fill; the init would otherwise take all of it.
    let refused = (0..100_000).find_map(|_| match stream.write(&chunk) {
        Ok(count) => {
            taken += count;
            None
        }
        Err(error) => Some(error.kind()),
    });
    assert_eq!(
        refused,
        Some(ErrorKind::WouldBlock),
        "{taken} bytes were taken"
    );
}

#[test]
fn a_connection_after_the_program_stopped_listening_is_closed_at_once() {
    let mut init = Init::start(&["once"]);
    assert_eq!(ask(init.connect(), b"first"), b"first#1");
    init.line();
    let mut late = init.connect();
    assert_eq!(late.read(&mut [0]).unwrap(), 0);
}

#[test]
fn an_answer_given_just_before_the_end_arrives() {
    for bytes in [1, 100_000, 1_000_000] {
        let mut init = Init::start(&["answer-and-exit", &bytes.to_string()]);
        let mut stream = init.connect();
        stream.write_all(b"?").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.len(), bytes);
        assert_eq!(init.ended().code(), Some(0));
    }
}

#[test]
fn a_caller_who_leaves_is_forgotten() {
    let init = Init::start(&["echo", "127.0.0.1"]);
    let open = |init: &Init| {
        let descriptors = format!("/proc/{}/fd", init.child.id());
        std::fs::read_dir(descriptors).unwrap().count()
    };
    let mut stream = init.connect();
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    let with_one = open(&init);
    drop(stream);
    until("both sockets are closed", || {
        (open(&init) == with_one - 2).then_some(())
    });
}

#[test]
fn the_programs_own_socket_is_left_alone() {
    let init = Init::start(&["unix"]);
    assert_eq!(ask(init.connect(), b""), b"mine");
    let socket = init.socket().metadata().unwrap();
    assert_eq!(
        socket.permissions().mode() & 0o777,
        0o777,
        "reachable for everybody"
    );
    // The program listens on its port too by now, or soon: still, nothing replaces its socket.
    assert_eq!(ask(init.connect(), b""), b"mine");
    assert_eq!(init.socket().metadata().unwrap().ino(), socket.ino());
}

#[test]
fn a_program_may_remove_its_socket_and_goes_on() {
    let init = Init::start(&["echo", "127.0.0.1"]);
    let open = init.connect();
    std::fs::remove_file(init.socket()).unwrap();
    assert_eq!(ask(open, b"hello"), b"hello#1");
}
