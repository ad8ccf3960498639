//! What functions and builds wrote, as text that is safe to show and to store (pure).

/// No sequence that a program uses for colours is longer, in bytes.
const SEQUENCE: usize = 64;

/// The text without what would colour, move or confuse a terminal.
pub fn plain(text: &str) -> String {
    Plain::default().read(text.as_bytes())
}

/// Makes plain text of what comes in pieces, which may end within a character, or within a sequence for the terminal.
#[derive(Debug, Default)]
pub struct Plain {
    /// A character whose rest has not come yet.
    begun: Vec<u8>,
    within: Within,
}

/// What the next character belongs to.
#[derive(Clone, Copy, Debug, Default)]
enum Within {
    #[default]
    Text,
    /// ESC and at most a few signs, until a letter or digit.
    Escape,
    /// Parameters, such as those of a colour, until a letter.
    Control,
    /// A word for the terminal, such as its title, until its end is said; or that of the line, lest it hides all that follows.
    Word,
}

impl Plain {
    /// What is to be shown of the next piece.
    pub fn read(&mut self, piece: &[u8]) -> String {
        let mut bytes = std::mem::take(&mut self.begun);
        bytes.extend_from_slice(piece);
        let mut plain = String::with_capacity(bytes.len());
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            plain.extend(chunk.valid().chars().filter(|c| self.shows(*c)));
            let odd = chunk.invalid();
            if chunks.peek().is_none() && is_begun(odd) {
                self.begun = odd.to_vec();
            } else if !odd.is_empty() && self.shows(char::REPLACEMENT_CHARACTER) {
                plain.push(char::REPLACEMENT_CHARACTER);
            }
        }
        plain
    }

    /// Whether the next character is shown.
    fn shows(&mut self, c: char) -> bool {
        let (within, shown) = match (self.within, c) {
            (_, '\u{1b}') => (Within::Escape, false),
            (_, '\u{9b}') | (Within::Escape, '[') => (Within::Control, false),
            (_, '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}')
            | (Within::Escape, ']' | 'P' | 'X' | '^' | '_') => (Within::Word, false),
            (Within::Escape, ' '..='/') | (Within::Control, ' '..='?') => (self.within, false),
            (Within::Escape, '0'..='~') | (Within::Control, '@'..='~') => (Within::Text, false),
            (Within::Word, c) if !matches!(c, '\n' | '\u{7}' | '\u{9c}') => (Within::Word, false),
            (_, c) => (
                Within::Text,
                matches!(c, '\n' | '\t') || !(c.is_control() || is_direction(c)),
            ),
        };
        self.within = within;
        shown
    }
}

/// Whether these bytes may become a character with those that follow.
fn is_begun(odd: &[u8]) -> bool {
    std::str::from_utf8(odd).is_err_and(|error| error.error_len().is_none())
}

/// What makes a terminal show the characters that follow in another order.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Words of others within a message of ours: one line of plain text of at most `most` bytes.
pub fn quote(text: &str, most: usize) -> String {
    let mut quote = String::new();
    for c in text.chars() {
        if c.is_control() || is_direction(c) {
            quote.extend(c.escape_default());
        } else {
            quote.push(c);
        }
        if quote.len() > most {
            let mut end = most.saturating_sub(3);
            while !quote.is_char_boundary(end) {
                end -= 1;
            }
            quote.truncate(end);
            return quote + "...";
        }
    }
    quote
}

/// The end of what was written: at most `most` bytes of plain text, from a character's beginning. What is longer than twice
/// that is not shown.
pub fn tail(written: &[u8], most: usize) -> String {
    let from = written.len().saturating_sub(2 * most);
    let (before, end) = written.split_at(from);
    let mut plain = Plain::default();
    // The end may begin within a sequence.
    plain.read(&before[from.saturating_sub(SEQUENCE)..]);
    let mut text = plain.read(end);
    // No more comes that would make it a character.
    if !plain.begun.is_empty() && plain.shows(char::REPLACEMENT_CHARACTER) {
        text.push(char::REPLACEMENT_CHARACTER);
    }
    let mut cut = text.len().saturating_sub(most);
    while !text.is_char_boundary(cut) {
        cut += 1;
    }
    text.drain(..cut);
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_sequences_do_not_reach_the_terminal() {
        for (text, shown) in [
            ("plain\n\ttext", "plain\n\ttext"),
            ("\u{1b}[91mred\u{1b}[0m!", "red!"),
            ("a\u{1b}[2Jb\u{1b}c\u{7}", "ab"),
            ("cut\u{1b}[12", "cut"),
            ("cut\u{1b}[12\nwhole", "cut\nwhole"),
            ("cut\u{1b}[12ä\u{1b}[1\u{1b}[0mb", "cutäb"),
            ("\u{1b}(Bnormal\u{1b}[m, \u{1b}=keys", "normal, keys"),
            ("\u{9b}91mred\u{9b}0m", "red"),
            ("\u{1b}[38;2;255;0;0mred\u{1b}[0K", "red"),
            (
                "\u{1b}]0;title\u{7}a\u{1b}]8;;http://x\u{1b}\\link\u{9d}0;x\u{9c}!",
                "alink!",
            ),
            ("\u{1b}]0;endless\nnext", "\nnext"),
            ("a\u{202e}b\u{2066}c", "abc"),
        ] {
            assert_eq!(plain(text), shown);
        }
    }

    #[test]
    fn a_sequence_may_come_in_pieces() {
        let mut plain = Plain::default();
        let pieces = [
            "\u{1b}",
            "[9",
            "1mr",
            "ed",
            "\u{1b}[",
            "0m\u{1b}",
            "]0;ti",
            "tle\u{1b}",
            "\\!",
        ];
        let shown = pieces.map(|piece| plain.read(piece.as_bytes()));
        assert_eq!(shown, ["", "", "r", "ed", "", "", "", "", "!"]);
        let crab = "🦀\n".as_bytes().chunks(1);
        let shown: Vec<_> = crab.map(|byte| plain.read(byte)).collect();
        assert_eq!(shown, ["", "", "", "🦀", "\n"]);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            text in "([a-zä🦀\\[\\]0-9;(\\\\\n\u{1b}\u{7}\u{9b}\u{9c}\u{202e}]|\u{1b}\\[[0-9;]{0,3}m){0,40}",
            size in 1_usize..5,
        ) {
            let mut pieces = Plain::default();
            let shown: String = text.as_bytes().chunks(size).map(|piece| pieces.read(piece)).collect();
            prop_assert_eq!(&shown, &plain(&text));
            prop_assert!(!shown.contains(|c: char| (c.is_control() && c != '\n') || is_direction(c)));
            prop_assert_eq!(plain(&shown), shown, "said twice");
        }
    }

    #[test]
    fn a_quote_is_one_short_line() {
        for (text, quoted) in [
            ("ä word", "ä word"),
            (&"x".repeat(40), &"x".repeat(40)),
            ("a\u{1b}[0m\n\u{202e}b", "a\\u{1b}[0m\\n\\u{202e}b"),
            (&"x".repeat(50), &("x".repeat(37) + "...")),
        ] {
            assert_eq!(quote(text, 40), quoted);
        }
    }

    #[test]
    fn a_tail_is_plain_and_begins_with_a_whole_character() {
        let coloured = "\u{1b}[1m*".repeat(9);
        for (written, end) in [
            ("", ""),
            ("short", "short"),
            ("0123456789", "23456789"),
            ("ääääää", "ääää"),
            ("€€€€€€€€", "€€"),
            ("🦀🦀🦀🦀abc", "🦀abc"),
            ("\u{1b}[91mred\u{1b}[0m", "red"),
            (coloured.as_str(), "****"),
            ("\u{1b}[91m\u{1b}[91m\u{1b}[91m\u{1b}[91mred", "red"),
        ] {
            assert_eq!(tail(written.as_bytes(), 8), end, "{written:?}");
        }
        assert_eq!(tail(&[0b1000_0000; 99], 8), "\u{fffd}\u{fffd}");
    }
}
