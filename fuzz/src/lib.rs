//! What is promised of everything that strangers send: the `check` of each module takes any bytes and fails when a promise
//! is broken. `fuzz_targets/` drives them with libFuzzer, `tests/fuzz.rs` with the kept corpus.

pub mod archive;
pub mod head;
pub mod manifest;
pub mod report;
pub mod text;

/// Fails unless this can be shown to people: no control code of any kind, and no more than `most` bytes.
fn assert_message(message: &str, most: usize) {
    let odd = message.chars().find(|c| c.is_control());
    assert_eq!(odd, None, "a control code in {message:?}");
    assert!(
        message.len() <= most,
        "{} bytes: {message:.200}",
        message.len()
    );
}
