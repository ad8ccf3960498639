//! Pure: the end of a log, as error messages and readers want it.

use crate::text::tail;

/// Lines quoted at most.
pub const LINES: u32 = 20;
/// Bytes quoted at most.
pub const BYTES: usize = 4096;

/// Drops all but the last `limit` bytes.
pub fn keep(log: &mut Vec<u8>, limit: usize) {
    let excess = log.len().saturating_sub(limit);
    log.drain(..excess);
}

/// The last [`LINES`] lines of at most [`BYTES`] bytes as text; what is no text is replaced.
#[must_use]
pub fn text(log: &[u8]) -> String {
    let log = &log[log.len().saturating_sub(BYTES)..];
    let text = tail(log, BYTES);
    let lines: Vec<&str> = text.trim().lines().collect();
    let first = lines.len().saturating_sub(LINES as usize);
    match lines[first..].join("\n") {
        empty if empty.is_empty() => "(none)".to_owned(),
        lines => lines,
    }
}

/// The last `count` lines, of which the very last need not be whole.
pub fn lines(log: &[u8], count: u32) -> &[u8] {
    let body = log.strip_suffix(b"\n").unwrap_or(log);
    let Some(before) = count.checked_sub(1) else {
        return &[];
    };
    let breaks = body
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n');
    let start = breaks.map(|(at, _)| at + 1).nth(before as usize);
    &log[start.unwrap_or(0)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_whatever_the_bytes_are() {
        for (log, expected) in [
            (&b""[..], "(none)"),
            (b" \n\n", "(none)"),
            (b"one\r\ntwo\n", "one\ntwo"),
            (b"\xff\xfe\n", "\u{fffd}\u{fffd}"),
            (b"\x1b[2Jred\x1b[0m", "red"),
        ] {
            assert_eq!(text(log), expected);
        }
        let many: String = (0..100).map(|n| format!("{n}\n")).collect();
        assert!(text(many.as_bytes()).starts_with("80\n"));
        for byte in [b'x', 0xff] {
            assert!(text(&[byte; 10_000]).len() <= BYTES);
        }
    }

    #[test]
    fn lines_are_counted_from_the_end() {
        for (log, count, expected) in [
            (&b""[..], 3, &b""[..]),
            (b"a\nb\nc\n", 0, b""),
            (b"a\nb\nc\n", 1, b"c\n"),
            (b"a\nb\nc\n", 2, b"b\nc\n"),
            (b"a\nb\nc", 2, b"b\nc"),
            (b"a\nb\n", 9, b"a\nb\n"),
            (b"a\n\n", 1, b"\n"),
        ] {
            assert_eq!(lines(log, count), expected, "{log:?} {count}");
        }
    }

    #[test]
    fn only_the_excess_is_dropped() {
        let mut log = b"abcdef".to_vec();
        keep(&mut log, 8);
        assert_eq!(log, b"abcdef");
        keep(&mut log, 2);
        assert_eq!(log, b"ef");
    }
}
