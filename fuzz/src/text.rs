//! What functions and builds wrote, before it is shown or stored.

use faas::{
    builder::BuildLog,
    controller::log::LiveLog,
    runtime::log_tail,
    text::{plain, tail},
};

/// The bytes are a log; the first one decides in which pieces it comes.
pub fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let shown = plain(&text);
    assert_plain(&shown);
    assert!(shown.len() <= text.len());
    assert_eq!(plain(&shown), shown, "cleaning again changes nothing");

    for most in [0, 1, 7, 64, 4096] {
        let end = tail(bytes, most);
        assert_plain(&end);
        assert!(end.len() <= most, "{} of {most} bytes", end.len());
        if text.len() == bytes.len() && bytes.len() <= most {
            assert_eq!(end, shown, "what fits is there");
        }
    }
    check_pieces(bytes);
}

fn check_pieces(bytes: &[u8]) {
    let size = 1 + usize::from(bytes.first().copied().unwrap_or_default());
    let (at_once, in_pieces) = (LiveLog::default(), LiveLog::default());
    at_once.write(bytes);
    let mut words = Vec::new();
    for piece in bytes.chunks(size) {
        in_pieces.write(piece);
        words.extend_from_slice(piece);
        log_tail::keep(&mut words, log_tail::BYTES);
        assert!(words.len() <= log_tail::BYTES);
    }
    assert_eq!(at_once.tail(), in_pieces.tail());

    let quoted = log_tail::text(&words);
    assert_eq!(quoted, log_tail::text(bytes));
    assert_plain(&quoted);
    assert!(
        quoted.len() <= log_tail::BYTES,
        "{} bytes quoted",
        quoted.len()
    );
    assert!(quoted.lines().count() <= log_tail::LINES as usize);
}

/// Nothing that would colour, move or confuse a terminal.
fn assert_plain(text: &str) {
    let odd = text
        .chars()
        .find(|c| (c.is_control() && !matches!(c, '\n' | '\t')) || is_direction(*c));
    assert_eq!(odd, None, "in {text:?}");
}

/// What makes a terminal show text in another order than it has.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
