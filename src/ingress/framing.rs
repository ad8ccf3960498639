//! Where the requests of a connection begin and end (pure). The server below us takes a Content-Length beside a
//! Transfer-Encoding silently away, but who is before us may have gone by it, and seen another end. So all that comes is
//! read here too: heads for what they say twice, or in a way that others read differently, bodies for their end, because the
//! next head follows it. From such a place on the server below us sees nothing.

/// What is kept of a line. A longer one that says where a body ends is as good as one that says it twice.
const MAX_LINE: usize = 256;
/// What comes first from callers that take us for a server of HTTP/2.
pub const PREFACE: &[u8] = b"PRI * HTTP/2";

/// The requests of one connection, as far as they have come.
#[derive(Debug, Default)]
pub struct Framing {
    /// The line that is coming.
    line: Vec<u8>,
    /// The byte before the one that comes.
    last: u8,
    /// What its place must not have was seen in the line, however long it is.
    is_odd: bool,
    place: Place,
    /// Heads that have begun.
    heads: u64,
    /// What the head says of its body's end.
    length: Option<u64>,
    chunked: bool,
    fault: Option<Fault>,
    http2: bool,
}

/// Where something stands that others may read differently. Nothing follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// In a head, of which there is no request then.
    Head,
    /// In what makes the pieces of a body.
    Body,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Empty lines before a head are none of it.
    #[default]
    Before,
    Head,
    /// This much is left of a body.
    Body(u64),
    /// Before the size of a chunk.
    Size,
    /// This much is left of a chunk and of the line end behind it.
    Chunk(u64),
    /// Behind the last chunk.
    Trailers,
    /// What comes is no request, and the server ends the connection.
    Lost,
}

impl Framing {
    /// Takes the next bytes of the connection. Answers from where on the server below us must not see them.
    pub fn read(&mut self, mut bytes: &[u8]) -> Option<(usize, Fault)> {
        let come = bytes.len();
        let mut at = 0;
        while !bytes.is_empty() && self.place != Place::Lost {
            at = come - bytes.len();
            bytes = match self.place {
                Place::Body(left) => self.skip(left, bytes, Place::Body, Place::Before),
                Place::Chunk(left) => self.skip(left, bytes, Place::Chunk, Place::Size),
                _ => self.read_line(bytes),
            };
        }
        Some(at).zip(self.fault)
    }

    /// What was seen that others may read differently.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// How many heads have begun.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether HTTP/2 is spoken.
    pub fn is_http2(&self) -> bool {
        self.http2 || self.place == Place::Before && self.line.starts_with(PREFACE)
    }

    /// Whether every request that has begun has come to its end.
    pub fn is_between(&self) -> bool {
        self.place == Place::Before && self.line.is_empty()
    }

    fn skip<'a>(
        &mut self,
        left: u64,
        bytes: &'a [u8],
        within: fn(u64) -> Place,
        behind: Place,
    ) -> &'a [u8] {
        let skipped = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let left = left - skipped as u64;
        self.place = if left == 0 { behind } else { within(left) };
        &bytes[skipped..]
    }

    fn read_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
        let room = (MAX_LINE + 1).saturating_sub(self.line.len());
        self.line.extend_from_slice(&part[..part.len().min(room)]);
        self.is_odd |= self.has_odd(part);
        if end.is_some() {
            let before = part.len().checked_sub(2).map_or(self.last, |at| part[at]);
            self.place = self.end_line(before == b'\r');
            self.line.clear();
            self.is_odd = false;
        }
        self.last = part.last().copied().unwrap_or(self.last);
        rest
    }

    /// In a head's first line, what is behind a `#` is for the caller alone: below us it is taken away, and others may take it for
    /// a part of the path. In what makes the pieces of a body, nothing may end the line, or the text, for others.
    fn has_odd(&self, part: &[u8]) -> bool {
        match self.place {
            Place::Before => part.contains(&b'#'),
            Place::Size | Place::Trailers => {
                let before = std::iter::once(&self.last).chain(part);
                let mut pairs = before.zip(part);
                pairs.any(|(before, byte)| {
                    let is_end = matches!(byte, b'\r' | b'\n');
                    let is_control = byte.is_ascii_control() && *byte != b'\t' && !is_end;
                    is_control || *before == b'\r' && *byte != b'\n'
                })
            }
            _ => false,
        }
    }

    /// A line feed alone ends a line for the server below us, and for others it is a part of the line.
    fn end_line(&mut self, is_whole: bool) -> Place {
        let empty = matches!(&*self.line, b"\n" | b"\r\n");
        match self.place {
            Place::Before if empty && is_whole => Place::Before,
            Place::Before if empty => self.lose(Fault::Head),
            Place::Before => match self.begin() {
                Place::Head if !is_whole => self.lose(Fault::Head),
                place => place,
            },
            Place::Head if !is_whole => self.lose(Fault::Head),
            Place::Head if empty => self.body(),
            Place::Head => self.field(),
            Place::Size | Place::Trailers if !is_whole || self.is_odd => self.lose(Fault::Body),
            Place::Size => match size(&self.line) {
                Some(0) => Place::Trailers,
                Some(size) => Place::Chunk(size),
                None => self.lose(Fault::Body),
            },
            Place::Trailers if empty => Place::Before,
            place => place,
        }
    }

    fn begin(&mut self) -> Place {
        self.heads += 1;
        (self.length, self.chunked) = (None, false);
        self.http2 = self.line.starts_with(PREFACE);
        match self.http2 {
            true => Place::Lost,
            false if self.is_odd => self.lose(Fault::Head),
            false => Place::Head,
        }
    }

    fn field(&mut self) -> Place {
        let value = |name: &[u8]| {
            let begin = self.line.get(..name.len())?;
            let value = &self.line[name.len()..];
            begin.eq_ignore_ascii_case(name).then_some(value)
        };
        if let Some(value) = value(b"content-length:") {
            match number(value) {
                Some(length) if self.line.len() <= MAX_LINE && self.length.is_none() => {
                    self.length = Some(length);
                }
                _ => return self.lose(Fault::Head),
            }
        } else if value(b"transfer-encoding:").is_some() {
            self.chunked = true;
        }
        if self.length.is_some() && self.chunked {
            return self.lose(Fault::Head);
        }
        Place::Head
    }

    fn lose(&mut self, fault: Fault) -> Place {
        self.fault = Some(fault);
        Place::Lost
    }

    /// Behind a head.
    fn body(&self) -> Place {
        match self.length {
            _ if self.chunked => Place::Size,
            None | Some(0) => Place::Before,
            Some(length) => Place::Body(length),
        }
    }
}

/// Bytes from behind a chunk's size line to before the next one; 0 for the last. Nothing but an extension may follow the
/// digits, whose quotations are closed.
fn size(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"\r\n")?;
    let is_quoting = line
        .iter()
        .fold(false, |quoting, byte| quoting ^ (*byte == b'"'));
    if is_quoting {
        return None;
    }
    let digits = line.split(|byte| *byte == b';').next()?;
    match digits_of(std::str::from_utf8(digits).ok()?, 16)? {
        0 => Some(0),
        size => size.checked_add(2)?.try_into().ok(),
    }
}

fn number(text: &[u8]) -> Option<u64> {
    let number = digits_of(std::str::from_utf8(text).ok()?.trim(), 10)?;
    number.try_into().ok()
}

/// Without a sign, and not so large that it is negative to somebody.
fn digits_of(text: &str, radix: u32) -> Option<i64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_plain
        .then(|| i64::from_str_radix(text, radix).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: &str = "Content-Length: 2\r\n";
    const CODING: &str = "transfer-Encoding: chunked\r\n";
    const REQUEST: &str = "POST / HTTP/1.1\r\nHost: localhost\r\n";

    /// Reads the text in pieces of every size, and tells the verdict on which all agree.
    fn read(text: &str) -> (Option<Fault>, bool, bool) {
        let by = |size| {
            let mut framing = Framing::default();
            for piece in text.as_bytes().chunks(size) {
                framing.read(piece);
            }
            (framing.fault(), framing.is_http2(), framing.is_between())
        };
        let whole = by(text.len());
        for size in 1..text.len() {
            assert_eq!(by(size), whole, "{text} by {size}");
        }
        whole
    }

    #[test]
    fn what_is_said_twice_is_seen_in_every_request() {
        let blanks = " ".repeat(MAX_LINE);
        let long = "x".repeat(MAX_LINE);
        for (head, ambiguous) in [
            (format!("{REQUEST}{LENGTH}{CODING}\r\n"), true),
            (format!("\r\n\n{REQUEST}{CODING}X: 1\n{LENGTH}\n"), true),
            (format!("{REQUEST}{LENGTH}{LENGTH}\r\n"), true),
            (format!("{REQUEST}X: 1\n\r\n"), true),
            (format!("{REQUEST}\n"), true),
            ("GET / HTTP/1.1\n".to_owned(), true),
            ("\n".to_owned(), true),
            (format!("\n{REQUEST}\r\n"), true),
            (format!("\r\n{REQUEST}\r\n"), false),
            ("GET /x#y HTTP/1.1\r\n".to_owned(), true),
            (format!("GET /x?{long}#y HTTP/1.1\r\n"), true),
            (
                format!("GET /x?{long} HTTP/1.1\r\nX: #{long}#\r\n\r\n"),
                false,
            ),
            (format!("{REQUEST}{LENGTH}\r\nab"), false),
            (format!("{REQUEST}{CODING}\r\n0\r\n{LENGTH}\r\n"), false),
            (format!("{REQUEST}X: {LENGTH}{CODING}\r\n0\r\n\r\n"), false),
            (format!("{REQUEST}Content-Length:{blanks}2\r\n\r\n"), true),
            (format!("{REQUEST}Content-Length: {}\r\n", u64::MAX), true),
            (
                format!("{REQUEST}Content-Length: {}\r\n", 1_u64 << 63),
                true,
            ),
            (
                format!(
                    "{REQUEST}Content-Length: {}2\r\n\r\nab",
                    "0".repeat(MAX_LINE)
                ),
                true,
            ),
        ] {
            for before in [
                String::new(),
                format!("{REQUEST}\r\n"),
                format!("{REQUEST}{LENGTH}\r\n\n\n"),
                format!(
                    "{REQUEST}{CODING}\r\n3;x=y\r\n0\r\n\r\nA\r\n0123456789\r\n0\r\nX: 1\r\n\r\n"
                ),
                format!("{REQUEST}\r\n{REQUEST}{LENGTH}\r\nxx"),
            ] {
                let (seen, http2, between) = read(&format!("{before}{head}"));
                assert_eq!(seen, ambiguous.then_some(Fault::Head), "{before}{head}");
                assert_eq!((http2, between), (false, !ambiguous), "{before}{head}");
            }
        }
    }

    #[test]
    fn what_makes_the_pieces_of_a_body_is_read_in_one_way_alone() {
        let chunks = format!("{REQUEST}{CODING}\r\n");
        let trailers = format!("{chunks}2\r\nab\r\n0\r\n");
        let long = "x".repeat(MAX_LINE);
        let [plain, zero, end] = ["", "\0", "\r"].map(|end| format!("X: {long}{end}y\r\n"));
        for (before, line, is_good) in [
            (&chunks, "5\r\n", true),
            (&chunks, "0005\r\n", true),
            (&chunks, "aF;x=\"y z\"\r\n", true),
            (&chunks, "5 \r\n", false),
            (&chunks, " 5\r\n", false),
            (&chunks, "5 ;x\r\n", false),
            (&chunks, "+5\r\n", false),
            (&chunks, "5\n", false),
            (&chunks, "0x5\r\n", false),
            (&chunks, "\r\n", false),
            (&chunks, "ffffffffffffffff\r\n", false),
            (&chunks, "8000000000000000\r\n", false),
            (&chunks, "5;x=\0\r\n", false),
            (&chunks, "5;x=\"y\r\n", false),
            (&chunks, "5;x\r\r\n", false),
            (&trailers, "X: 1\r\n", true),
            (&trailers, "X: 3\"\r\n", true),
            (&trailers, "\r\n", true),
            (&trailers, "X: 1\n", false),
            (&trailers, "\n", false),
            (&trailers, "X: \0\r\n", false),
            (&trailers, &plain, true),
            (&trailers, &zero, false),
            (&trailers, &end, false),
        ] {
            let mut framing = Framing::default();
            let bad = framing.read(format!("{before}{line}").as_bytes());
            let expected = (!is_good).then_some((before.len(), Fault::Body));
            assert_eq!(bad, expected, "{line:?}");
            let mut framing = Framing::default();
            framing.read(before.as_bytes());
            let pieces = line.as_bytes().chunks(1);
            let bad: Vec<_> = pieces.filter_map(|piece| framing.read(piece)).collect();
            let expected = vec![(0, Fault::Body); usize::from(!is_good)];
            assert_eq!(bad, expected, "{line:?}, byte by byte");
            if !is_good {
                let next = framing.read(REQUEST.as_bytes());
                assert_eq!(next, Some((0, Fault::Body)), "{line:?}, and behind it");
            }
        }
    }

    #[test]
    fn the_end_of_a_request_is_seen() {
        for (text, between) in [
            (String::from("\r\n"), true),
            (format!("{REQUEST}\r\n"), true),
            (REQUEST.to_owned(), false),
            (format!("{REQUEST}{LENGTH}\r\na"), false),
            (format!("{REQUEST}{CODING}\r\n"), false),
            (format!("{REQUEST}{CODING}\r\n2\r\nab\r\n"), false),
            (format!("{REQUEST}{CODING}\r\n2\r\nab\r\n0\r\n"), false),
        ] {
            assert_eq!(read(&text), (None, false, between), "{text}");
        }
    }

    #[test]
    fn http_2_is_heard_at_its_first_words() {
        for before in [String::new(), format!("{REQUEST}\r\n")] {
            for words in ["PRI * HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
                assert_eq!(read(&format!("{before}{words}")), (None, true, false));
            }
        }
    }
}
