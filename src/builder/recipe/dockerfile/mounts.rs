//! Refuses mounts that Functions would share. (pure)
//!
//! What a RUN is, and where its flags end, engines read by rules of their own. So this does not ask where instructions begin:
//! flags after any word RUN are examined, in heredocs and continued lines too, and where a flag's end is not plain, all that
//! follows.

use super::{RecipeError, split::is_nothing};

/// Mounts that share nothing between builds. `cache` does: what one Function's build leaves there, another's would run.
const SAFE: [&str; 4] = ["bind", "tmpfs", "secret", "ssh"];

/// What engines take out of a flag.
const QUOTES: [char; 4] = ['"', '\'', '\\', '`'];

pub(super) fn check(text: &str) -> Result<(), RecipeError> {
    let (mut joined, mut first) = (String::new(), 0);
    let lines = text.lines().zip(1..).filter(|(line, _)| !is_nothing(line));
    // The last line may ask for one more.
    for (line, number) in lines.chain([("", 0)]) {
        if joined.is_empty() {
            first = number;
        }
        let line = line.trim_end();
        joined.push_str(line.trim_end_matches('\\'));
        if line.ends_with('\\') {
            continue;
        }
        if let Some(kind) = shared_mount(&joined) {
            let message = format!(
                "--mount=type={kind} is not allowed, because Functions would share it: remove it; layers are cached anyway"
            );
            return Err(RecipeError::Dockerfile {
                line: first,
                message,
            });
        }
        joined.clear();
    }
    Ok(())
}

/// The first type of a mount that is not known to be safe.
fn shared_mount(line: &str) -> Option<String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let mut at = 0;
    while at < words.len() {
        let is_run = words[at].to_ascii_lowercase().ends_with("run");
        at += 1;
        if is_run {
            let flags = words[at..].iter().take_while(|word| word.starts_with("--"));
            let mut end = at + flags.count();
            let is_plain = |word: &&str| word.is_ascii() && !word.contains(QUOTES);
            if !words[at..end].iter().all(is_plain) {
                end = words.len();
            }
            if let Some(kind) = unsafe_type(&words[at..end]) {
                return Some(kind);
            }
            at = end;
        }
    }
    None
}

fn unsafe_type(words: &[&str]) -> Option<String> {
    let text = words.join(" ").replace(QUOTES, "").to_ascii_lowercase();
    if !text.contains("--mount") {
        return None;
    }
    let is_end = |c: char| c == ',' || c.is_whitespace() || !c.is_ascii();
    text.split(is_end)
        .filter_map(|option| {
            let after = option.rsplit_once("=type=").map(|(_, kind)| kind);
            option.strip_prefix("type=").or(after)
        })
        .find(|kind| !SAFE.contains(kind))
        .map(str::to_owned)
}
