//! What functions and builds wrote, as text that is safe to show and to store (pure).

/// The text without what would colour, move or confuse a terminal.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' && rest.next_if_eq(&'[').is_some() {
            // A control sequence ends with its first letter or sign from '@' on.
            rest.by_ref().find(|end| ('@'..='~').contains(end));
        } else if matches!(c, '\n' | '\t') || !(c.is_control() || is_direction(c)) {
            plain.push(c);
        }
    }
    plain
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
/// that is not looked at.
pub fn tail(written: &[u8], most: usize) -> String {
    let from = written.len().saturating_sub(2 * most);
    let mut text = plain(&String::from_utf8_lossy(&written[from..]));
    let mut cut = text.len().saturating_sub(most);
    while !text.is_char_boundary(cut) {
        cut += 1;
    }
    text.drain(..cut);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_do_not_reach_the_terminal() {
        for (text, shown) in [
            ("plain\n\ttext", "plain\n\ttext"),
            ("\u{1b}[91mred\u{1b}[0m!", "red!"),
            ("a\u{1b}[2Jb\u{1b}c\u{7}", "abc"),
            ("cut\u{1b}[12", "cut"),
            ("a\u{202e}b\u{2066}c", "abc"),
        ] {
            assert_eq!(plain(text), shown);
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
        ] {
            assert_eq!(tail(written.as_bytes(), 8), end, "{written:?}");
        }
        assert_eq!(tail(&[0b1000_0000; 99], 8), "\u{fffd}\u{fffd}");
    }
}
