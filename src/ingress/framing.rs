//! Where a request's body ends, said twice (pure). The server below us takes a Content-Length beside a Transfer-Encoding
//! silently away, but who is before us may have gone by it, and seen another end. So heads are read here too, as they come.
//! What follows a request without waiting for its answer is not: there the server's way stands, which is to believe the
//! Transfer-Encoding and to close the connection.

const LENGTH: &[u8] = b"content-length:";
const CODING: &[u8] = b"transfer-encoding:";

/// A head that is coming.
#[derive(Debug, Default)]
pub struct Framing {
    /// How the line begins that is coming.
    line: [u8; CODING.len()],
    filled: usize,
    place: Place,
    length: bool,
    coding: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Before,
    Within,
    Behind,
}

impl Framing {
    /// Takes the next bytes of the connection.
    pub fn read(&mut self, mut bytes: &[u8]) {
        while self.place != Place::Behind && !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
            let taken = part.len().min(self.line.len() - self.filled);
            self.line[self.filled..self.filled + taken].copy_from_slice(&part[..taken]);
            self.filled += taken;
            if end.is_some() {
                self.end_line();
            }
            bytes = rest;
        }
    }

    /// Whether the head has both, so far.
    pub fn is_ambiguous(&self) -> bool {
        self.length && self.coding
    }

    fn end_line(&mut self) {
        let line = &self.line[..self.filled];
        let is = |name: &[u8]| {
            line.get(..name.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(name))
        };
        self.length |= is(LENGTH);
        self.coding |= is(CODING);
        let empty = matches!(line, b"\n" | b"\r\n");
        self.place = match (empty, self.place) {
            // Empty lines before a head are none of it.
            (true, Place::Before) => Place::Before,
            (true, _) => Place::Behind,
            (false, _) => Place::Within,
        };
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_seen_however_they_come() {
        let (length, coding) = ("Content-Length: 2\r\n", "transfer-Encoding: chunked\r\n");
        let request = "POST / HTTP/1.1\r\nHost: localhost\r\n";
        for (head, ambiguous) in [
            (format!("{request}{length}{coding}\r\n"), true),
            (format!("\r\n\n{request}{coding}X: 1\n{length}\n"), true),
            (format!("{request}{length}\r\n"), false),
            (format!("{request}{coding}\r\n{length}"), false),
            (format!("{request}X: {length}{coding}\r\n"), false),
        ] {
            for size in 1..head.len() {
                let mut framing = Framing::default();
                for piece in head.as_bytes().chunks(size) {
                    framing.read(piece);
                }
                assert_eq!(framing.is_ambiguous(), ambiguous, "{head} by {size}");
            }
        }
    }
}
