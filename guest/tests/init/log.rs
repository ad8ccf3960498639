//! What the program says: passed on whole while it is little, capped and counted when it is much.

use std::io::{Read, Write};

use crate::harness::{Init, Output, run};

/// Lines and bytes that the init says it dropped.
fn dropped(output: &Output) -> (usize, usize) {
    let reports = output.stderr.lines().map(|line| {
        let text = line.strip_prefix("faas-init: dropped ").unwrap();
        let (lines, rest) = text.split_once(" lines (").unwrap();
        let bytes = rest.strip_suffix(" bytes) of log").unwrap();
        (
            lines.parse::<usize>().unwrap(),
            bytes.parse::<usize>().unwrap(),
        )
    });
    reports.fold((0, 0), |sum, report| (sum.0 + report.0, sum.1 + report.1))
}

#[test]
fn both_streams_are_passed_on() {
    let output = run(&["print", "one\n\ntwo\n"]);
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("one\n\ntwo\n", "")
    );
    let output = run(&["complain", "three\n"]);
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("", "three\n")
    );
}

#[test]
fn a_last_line_without_an_end_gets_one() {
    assert_eq!(run(&["print", "one\nrest"]).stdout, "one\nrest\n");
}

#[test]
fn what_was_written_just_before_the_end_arrives() {
    let output = run(&["lines", "600", "99"]);
    assert_eq!(output.stdout, format!("{}\n", "x".repeat(99)).repeat(600));
    assert_eq!(output.stderr, "");
}

#[test]
fn floods_are_capped_and_what_is_dropped_is_counted() {
    for (lines, length) in [
        (1_000_000, 0),
        (100_000, 10),
        (20_000, 999),
        (1_000, 15_000),
    ] {
        let output = run(&["lines", &lines.to_string(), &length.to_string()]);
        let passed = output.stdout.lines().count();
        let (dropped_lines, dropped_bytes) = dropped(&output);
        let case = format!("{lines} lines of {length}: {passed} passed, {dropped_lines} dropped");
        assert!(passed > 60 && dropped_lines > 0, "{case}");
        assert_eq!(passed + dropped_lines, lines, "{case}");
        assert_eq!(
            output.stdout.len() + dropped_bytes,
            lines * (length + 1),
            "{case}"
        );
        assert_eq!(output.code, Some(0));
    }
}

#[test]
fn an_endless_line_is_cut_and_says_so() {
    let output = run(&["print", &format!("{}\nnext\n", "x".repeat(100_000))]);
    let lines: Vec<_> = output.stdout.lines().collect();
    assert_eq!(lines.len(), 2);
    let text = lines[0].trim_start_matches('x');
    let cut = 100_000 - (lines[0].len() - text.len());
    assert_eq!(text, format!(" [faas-init: cut {cut} bytes]"));
    assert!(lines[0].len() < 16 * 1024);
    assert_eq!(lines[1], "next");
}

#[test]
fn a_reader_that_takes_nothing_holds_up_neither_calls_nor_the_end() {
    let mut init = Init::start(&["flood-and-echo"]);
    let mut stream = init.connect();
    stream.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
    init.signal(libc::SIGTERM);
    assert_eq!(init.ended().code(), Some(143));
}
