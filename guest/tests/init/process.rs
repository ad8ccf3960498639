//! Starting, signals, orphans and the end.

use std::process::Command;

use crate::harness::{INIT, Init, PROGRAM, kill, run, runs, until};

#[test]
fn the_exit_code_is_the_programs() {
    for code in [0, 1, 42, 255] {
        assert_eq!(run(&["exit", &code.to_string()]).code, Some(code));
    }
    assert_eq!(run(&["abort"]).code, Some(128 + libc::SIGABRT));
}

#[test]
fn a_program_that_cannot_be_started_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text");
    std::fs::write(&text, "no program").unwrap();
    for (program, code) in [("no-such-program", 127), (text.to_str().unwrap(), 126)] {
        let output = Command::new(INIT).arg(program).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(
            error.starts_with(&format!("faas-init: cannot start `{program}`: ")),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1);
    }
}

#[test]
fn a_program_is_found_by_path() {
    let path = std::path::Path::new(PROGRAM);
    let status = Command::new(INIT)
        .args([path.file_name().unwrap(), "exit".as_ref(), "9".as_ref()])
        .env("PATH", path.parent().unwrap())
        .status();
    assert_eq!(status.unwrap().code(), Some(9));
}

#[test]
fn wrong_orders_are_refused() {
    let cases: [(&[&str], &str, &str); 2] = [
        (&[], "80", "no program was given"),
        (&[PROGRAM, "exit", "0"], "x", "PORT is `x`"),
    ];
    for (arguments, port, message) in cases {
        let output = Command::new(INIT)
            .args(arguments)
            .env("PORT", port)
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(125));
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn signals_are_passed_on() {
    let signals = [
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGUSR2,
    ];
    for signal in signals {
        let mut init = Init::start(&["signal"]);
        assert_eq!(init.line(), "ready");
        init.signal(signal);
        assert_eq!(init.line(), format!("got {signal}"));
        assert_eq!(init.ended().code(), Some(0));
    }
}

#[test]
fn a_program_killed_by_a_signal_ends_with_128_and_its_number() {
    for signal in [libc::SIGTERM, libc::SIGUSR1] {
        let mut init = Init::start(&["wait"]);
        init.line();
        init.signal(signal);
        assert_eq!(init.ended().code(), Some(128 + signal));
    }
    let mut init = Init::start(&["wait"]);
    let pid = init.line().replace("waiting ", "").parse().unwrap();
    kill(pid, libc::SIGKILL);
    assert_eq!(init.ended().code(), Some(137));
}

#[test]
fn orphans_are_reaped() {
    let output = run(&["orphans", "20"]);
    assert_eq!(output.stdout, "all gone\n", "{}", output.stderr);
    assert_eq!(output.code, Some(0));
}

#[test]
fn what_the_program_leaves_behind_ends_with_it() {
    let mut init = Init::start(&["leave", "near"]);
    let pid = init.line().replace("left ", "").parse().unwrap();
    assert_eq!(init.ended().code(), Some(3));
    until("the child is gone", || (!runs(pid)).then_some(()));
}

#[test]
fn a_child_that_holds_the_log_does_not_hold_up_the_end() {
    let mut init = Init::start(&["leave", "away"]);
    let pid = init.line().replace("left ", "").parse().unwrap();
    assert_eq!(init.ended().code(), Some(3));
    assert!(runs(pid));
    kill(pid, libc::SIGKILL);
}

#[test]
fn a_child_of_faas_leaves_nothing_that_ran_away() {
    let mut init = Init::start_child(&["leave", "away"]);
    let pid = init.line().replace("left ", "").parse().unwrap();
    assert_eq!(init.ended().code(), Some(3));
    assert!(!runs(pid), "the init waits for it");
}

#[test]
fn a_child_of_faas_ends_with_its_lifeline() {
    let mut init = Init::start_child(&["stay", "away"]);
    let pid = init.line().replace("left ", "").parse().unwrap();
    drop(init.child.stdin.take());
    assert_eq!(init.ended().code(), Some(137));
    assert!(
        !runs(pid),
        "and all that it started, whatever group that is in"
    );
}

#[test]
fn the_program_ends_with_an_init_that_was_killed() {
    let mut init = Init::start_child(&["wait"]);
    let pid = init.line().replace("waiting ", "").parse().unwrap();
    init.signal(libc::SIGKILL);
    init.ended();
    until("the program is gone", || (!runs(pid)).then_some(()));
}

#[test]
fn a_program_has_sockets_of_files_and_ip_and_no_others() {
    let output = run(&["sockets"]);
    let [unix, ip, netlink] = [libc::AF_UNIX, libc::AF_INET, libc::AF_NETLINK];
    let (refused, absent) = (libc::EAFNOSUPPORT, libc::ENOSYS);
    let expected = format!("[{unix}, {ip}, {netlink}] {refused} 0 {absent}\n");
    assert_eq!(output.stdout, expected, "{}", output.stderr);
}
