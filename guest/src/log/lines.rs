//! Pure: a stream of bytes into lines of bounded length.

/// The longest line that is written, its end and the remark on its cut included: the engine splits longer ones.
pub const LONGEST: usize = 16 * 1024;
/// Room for the remark and the end of the line.
const REMARK: usize = 64;
const LONGEST_TEXT: usize = LONGEST - REMARK;

/// One line without its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    text: &'a [u8],
    cut: usize,
}

impl Line<'_> {
    /// The length of what the program wrote, the end of the line included.
    pub fn original_len(&self) -> usize {
        self.text.len() + self.cut + 1
    }

    /// The line as it is written: with a remark if it was cut, and with its end.
    pub fn write_to(&self, out: &mut impl Extend<u8>) {
        out.extend(self.text.iter().copied());
        if self.cut > 0 {
            out.extend(format!(" [faas-init: cut {} bytes]", self.cut).into_bytes());
        }
        out.extend([b'\n']);
    }

    /// An upper bound of what [`Self::write_to`] writes.
    pub fn written_len(&self) -> usize {
        self.text.len() + if self.cut > 0 { REMARK } else { 1 }
    }
}

/// Splits what is fed to it.
#[derive(Debug, Default)]
pub struct Lines {
    held: Vec<u8>,
    cut: usize,
}

impl Lines {
    /// Takes more of the stream and hands every line that it completes to `emit`.
    pub fn feed(&mut self, mut bytes: &[u8], mut emit: impl FnMut(Line<'_>)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.end_line(&bytes[..end], &mut emit);
            bytes = &bytes[end + 1..];
        }
        self.hold(bytes);
    }

    /// The stream is over: what is held is a line too.
    pub fn finish(&mut self, emit: impl FnMut(Line<'_>)) {
        if !self.held.is_empty() {
            self.emit_held(emit);
        }
    }

    fn end_line(&mut self, rest: &[u8], emit: &mut impl FnMut(Line<'_>)) {
        if self.held.is_empty() && rest.len() <= LONGEST_TEXT {
            emit(Line { text: rest, cut: 0 });
        } else {
            self.hold(rest);
            self.emit_held(emit);
        }
    }

    fn hold(&mut self, bytes: &[u8]) {
        let kept = bytes.len().min(LONGEST_TEXT - self.held.len());
        self.held.extend_from_slice(&bytes[..kept]);
        self.cut += bytes.len() - kept;
    }

    fn emit_held(&mut self, mut emit: impl FnMut(Line<'_>)) {
        let len = if self.cut > 0 {
            whole_characters(&self.held)
        } else {
            self.held.len()
        };
        emit(Line {
            text: &self.held[..len],
            cut: self.cut + self.held.len() - len,
        });
        self.held.clear();
        self.cut = 0;
    }
}

/// The length without a UTF-8 character at the end that may be incomplete.
fn whole_characters(text: &[u8]) -> usize {
    let is_start = |byte: &u8| byte & 0b1100_0000 != 0b1000_0000;
    let start = text
        .iter()
        .rev()
        .take(4)
        .position(is_start)
        .map_or(0, |back| back + 1);
    match text.len() - start {
        cut if text.get(cut).is_some_and(|byte| !byte.is_ascii()) => cut,
        _ => text.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the pieces and finishes; every line as text and what was cut of it.
    fn split(pieces: &[&[u8]]) -> Vec<(String, usize)> {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        let mut emit =
            |line: Line<'_>| out.push((String::from_utf8(line.text.to_vec()).unwrap(), line.cut));
        for piece in pieces {
            lines.feed(piece, &mut emit);
        }
        lines.finish(&mut emit);
        out
    }

    fn whole(lines: &[&str]) -> Vec<(String, usize)> {
        lines.iter().map(|line| ((*line).to_owned(), 0)).collect()
    }

    #[test]
    fn lines_do_not_depend_on_the_pieces() {
        let cases: [(&[&[u8]], &[&str]); 7] = [
            (&[], &[]),
            (&[b"one\ntwo\n"], &["one", "two"]),
            (&[b"on", b"e\ntw", b"o", b"\n"], &["one", "two"]),
            (&[b"one\n", b"rest"], &["one", "rest"]),
            (&[b"\n\n", b"\n"], &["", "", ""]),
            (&[b"a", b"\n", b"\n"], &["a", ""]),
            (&[b"cr\r\n"], &["cr\r"]),
        ];
        for (pieces, expected) in cases {
            assert_eq!(split(pieces), whole(expected), "{pieces:?}");
        }
    }

    #[test]
    fn long_lines_are_cut_and_the_next_line_is_whole() {
        let long = [vec![b'x'; LONGEST_TEXT + 9], b"\nnext\n".to_vec()].concat();
        let expected = vec![("x".repeat(LONGEST_TEXT), 9), ("next".into(), 0)];
        assert_eq!(split(&[&long]), expected);
        let pieces: Vec<&[u8]> = long.chunks(1000).collect();
        assert_eq!(split(&pieces), expected);
        let exact = vec![b'y'; LONGEST_TEXT];
        assert_eq!(split(&[&exact, b"\n"]), whole(&[&"y".repeat(LONGEST_TEXT)]));
    }

    #[test]
    fn characters_are_not_cut_in_two() {
        let long = "é".repeat(LONGEST_TEXT);
        let shifted = format!("x{long}");
        for text in [&long, &shifted] {
            let lines = split(&[text.as_bytes()]);
            assert_eq!(lines[0].0.len() + lines[0].1, text.len());
            assert!(text.starts_with(&lines[0].0));
        }
    }

    #[test]
    fn what_is_written_says_the_cut_and_stays_within_the_longest() {
        let mut lines = Lines::default();
        lines.feed(&vec![b'x'; 1_000_000], |_| {});
        lines.finish(|line| {
            let mut out = Vec::new();
            line.write_to(&mut out);
            let remark = format!(" [faas-init: cut {} bytes]\n", 1_000_000 - LONGEST_TEXT);
            assert!(out.ends_with(remark.as_bytes()));
            assert!(out.len() <= line.written_len() && line.written_len() <= LONGEST);
            assert_eq!(line.original_len(), 1_000_001);
        });
    }
}
