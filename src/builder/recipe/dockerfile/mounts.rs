//! Refuses mounts that Functions would share, and those of images. (pure)
//!
//! What a RUN is, and where its flags end, engines read by rules of their own. So this does not ask where instructions begin:
//! flags after any word RUN are examined, in heredocs and continued lines too, and where a flag's end is not plain, all that
//! follows.

use super::{RecipeError, split::is_nothing};

/// Mounts that share nothing between builds. `cache` does: what one Function's build leaves there, another's would run.
const SAFE: [&str; 4] = ["bind", "tmpfs", "secret", "ssh"];

/// What engines take out of a flag.
const QUOTES: [char; 4] = ['"', '\'', '\\', '`'];

/// `stages` are those that a mount may be of.
pub(super) fn check(text: &str, stages: &[String]) -> Result<(), RecipeError> {
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
        if let Some(message) = refused_mount(&joined, stages) {
            return Err(RecipeError::Dockerfile {
                line: first,
                message,
            });
        }
        joined.clear();
    }
    Ok(())
}

/// What is wrong with the first mount that is not known to be safe.
fn refused_mount(line: &str, stages: &[String]) -> Option<String> {
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
            if let Some(message) = refused_flag(&words[at..end], stages) {
                return Some(message);
            }
            at = end;
        }
    }
    None
}

fn refused_flag(words: &[&str], stages: &[String]) -> Option<String> {
    let text = words.join(" ").replace(QUOTES, "").to_ascii_lowercase();
    if !text.contains("--mount") {
        return None;
    }
    let is_stage = |name: &str| stages.iter().any(|stage| stage.eq_ignore_ascii_case(name));
    if let Some(kind) = values(&text, "type").find(|kind| !SAFE.contains(kind)) {
        return Some(format!(
            "--mount=type={kind} is not allowed, because Functions would share it: remove it; layers are cached anyway"
        ));
    }
    let image = values(&text, "from").find(|name| !is_stage(name))?;
    Some(format!(
        "mounts are of stages only: write FROM {image} AS a-name, and from=a-name"
    ))
}

/// What options of this name say.
fn values<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let is_end = |c: char| c == ',' || c.is_whitespace() || !c.is_ascii();
    let (first, later) = (format!("{name}="), format!("={name}="));
    text.split(is_end).filter_map(move |option| {
        let after = option.rsplit_once(&later).map(|(_, value)| value);
        option.strip_prefix(&first).or(after)
    })
}
