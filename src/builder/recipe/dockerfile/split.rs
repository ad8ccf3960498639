//! Where the instructions of a Dockerfile begin and end. (pure)
//!
//! Engines do not agree on this: `<<` begins a heredoc in some of them and by rules of their own, and so with two
//! backslashes at a line's end, or carriage returns behind one. To those that know no heredoc its lines are instructions, and
//! its name is one that they refuse; but not where a backslash makes it a part of the line before. What all read alike is
//! split. From the first line on that may be read in two ways, the rest is one piece; if an instruction might begin in there
//! that decides what a build gets to see, the Dockerfile is refused.

use super::RecipeError;

/// One instruction with all its lines.
pub(super) struct Instruction<'a> {
    /// As written, heredocs and the comments before it included, with its last line's end.
    pub raw: &'a str,
    /// Its words on one line: continuations joined, comments between them dropped.
    pub text: String,
    /// Where it begins.
    pub line: usize,
}

impl Instruction<'_> {
    pub fn is(&self, name: &str) -> bool {
        self.words()
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case(name))
    }

    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.text.split_whitespace()
    }

    /// What follows the name, be it in an ONBUILD; nothing of an instruction of another name.
    pub fn words_of(&self, name: &str) -> Vec<&str> {
        let triggered = self.words().next().is_some_and(is_onbuild);
        let mut words = self.words().skip(usize::from(triggered));
        let is_it = words.next().is_some_and(|w| w.eq_ignore_ascii_case(name));
        words.filter(|_| is_it).collect()
    }
}

/// Engines fold more letters than those of ASCII.
fn is_onbuild(word: &str) -> bool {
    word.get(..3)
        .is_some_and(|begin| begin.eq_ignore_ascii_case("ONB"))
}

/// Those of which engines that know no heredoc would read the name as what it is.
const INSTRUCTIONS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// What may be read in two ways, and what to do about it.
type Doubt = &'static str;

const HEREDOC: Doubt = "it is not clear whether << begins a heredoc, and so what the lines below it are: write <<NAME as a \
                        word of its own on a line without escapes and ${}, with a name that is no instruction's, or move the \
                        command into a file";
const UNENDED: Doubt = "the heredoc has no end: write its name on a line of its own";
const ESCAPES: Doubt = "it is not clear whether \\\\ at a line's end continues it, and so what the line below it is: end the \
                        line differently";
const RETURNS: Doubt = "the line has a carriage return that is no part of its end, and it is not clear what that means: \
                        remove it";
const JOINED: Doubt = "the heredoc's last line ends in a backslash, and so it is not clear whether its name ends it: end the \
                       line differently";

/// The instructions of a Dockerfile.
pub(super) fn instructions(text: &str) -> Vec<Instruction<'_>> {
    split(text).0
}

/// Refuses a Dockerfile of which it is not clear where its stages begin, and what it fetches or copies from elsewhere.
pub(super) fn check(text: &str) -> Result<(), RecipeError> {
    match split(text).1 {
        Some((line, doubt)) => Err(RecipeError::Dockerfile {
            line,
            message: doubt.to_owned(),
        }),
        None => Ok(()),
    }
}

/// The instructions, and the line of the first doubt that matters.
fn split(text: &str) -> (Vec<Instruction<'_>>, Option<(usize, Doubt)>) {
    let (mut found, mut rest, mut line) = (Vec::new(), text, 1);
    while !rest.is_empty() {
        let whole = rest;
        let joined = logical_line(&mut rest);
        let mut below = rest;
        let end = joined.and_then(|text| match skip_heredocs(&text, &mut below) {
            Ok(()) => Ok((text, below)),
            Err(doubt) => Err((text, doubt)),
        });
        let (text, doubt) = match end {
            Ok((text, after)) => {
                rest = after;
                (text, None)
            }
            Err((text, doubt)) => {
                let matters = may_go_on(&text, doubt) || rest.lines().any(may_matter);
                rest = "";
                (text, Some((matters, doubt)))
            }
        };
        let raw = &whole[..whole.len() - rest.len()];
        let above = raw.lines().take_while(|line| is_nothing(line)).count();
        let begins = line + above;
        found.push(Instruction {
            raw,
            text,
            line: begins,
        });
        if let Some((matters, doubt)) = doubt {
            return (found, matters.then_some((begins, doubt)));
        }
        line += raw.matches('\n').count();
    }
    (found, None)
}

/// Whether an instruction may begin with this line that decides what a build gets to see. What it says, and its name, too,
/// may go on behind a backslash.
fn may_matter(line: &str) -> bool {
    let line = line.trim_end();
    let before = line.trim_end_matches('\\');
    let goes_on = before.len() < line.len();
    may_begin(line, "FROM")
        || may_begin(line, "ADD")
        || (may_begin(line, "COPY") && (line.contains('-') || goes_on))
        || (goes_on && ends_in_name(before))
}

/// Whether the line may end within the name of such an instruction.
fn ends_in_name(line: &str) -> bool {
    let mut words = line.split_whitespace().peekable();
    let triggered = words.next_if(|word| is_onbuild(word)).is_some();
    match (words.next(), words.next()) {
        (None, _) => triggered,
        (Some(word), None) => ["FROM", "ADD", "COPY", "ONBUILD"].iter().any(|name| {
            let begin = name.get(..word.len());
            begin.is_some_and(|begin| begin.eq_ignore_ascii_case(word))
        }),
        (Some(_), Some(_)) => false,
    }
}

/// Whether this one may decide that: all of it is doubtful, or the lines below may belong to it and say what it fetches or
/// copies from elsewhere.
fn may_go_on(text: &str, doubt: Doubt) -> bool {
    doubt == RETURNS || may_begin(text, "ADD") || (doubt == ESCAPES && may_begin(text, "COPY"))
}

fn may_begin(line: &str, name: &str) -> bool {
    let mut words = line.split_whitespace().peekable();
    words.next_if(|word| is_onbuild(word));
    let word = words.next().unwrap_or_default();
    let is_it = word
        .get(..name.len())
        .is_some_and(|begin| begin.eq_ignore_ascii_case(name));
    is_it && !word[name.len()..].starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn next_line<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let end = rest.find('\n').map_or(rest.len(), |at| at + 1);
    let (line, after) = rest.split_at(end);
    *rest = after;
    (!line.is_empty()).then_some(line)
}

/// Comments and blank lines, which count for nothing before an instruction and within one.
pub(super) fn is_nothing(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

/// Takes lines up to the end of an instruction and joins them.
fn logical_line(rest: &mut &str) -> Result<String, (String, Doubt)> {
    let mut joined = String::new();
    while let Some(line) = next_line(rest) {
        if is_nothing(line) {
            continue;
        }
        let line = line.strip_suffix('\n').unwrap_or(line);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.contains('\r') {
            return Err((joined + line, RETURNS));
        }
        let line = line.trim_end_matches([' ', '\t']);
        match line.strip_suffix('\\') {
            Some(before) if before.ends_with('\\') => return Err((joined + line, ESCAPES)),
            Some(before) => joined.push_str(before),
            None => return Ok(joined + line),
        }
    }
    Ok(joined)
}

/// Takes the lines of an instruction's heredocs.
fn skip_heredocs(text: &str, rest: &mut &str) -> Result<(), Doubt> {
    for heredoc in heredocs(text).ok_or(HEREDOC)? {
        let is_end = |line: &str| {
            let line = line.trim_end_matches(['\r', '\n']);
            let indented = if heredoc.is_indented { "\t" } else { "" };
            line.trim_start_matches(indented) == heredoc.name
        };
        let mut goes_on = false;
        loop {
            let line = next_line(rest).ok_or(UNENDED)?;
            if is_end(line) {
                break;
            }
            if !is_nothing(line) {
                goes_on = line.trim_end().ends_with('\\');
            }
        }
        if goes_on {
            return Err(JOINED);
        }
    }
    Ok(())
}

struct Heredoc<'a> {
    name: &'a str,
    /// `<<-`: tabs before its end do not count.
    is_indented: bool,
}

/// The heredocs of an instruction, or nothing when that is not clear.
fn heredocs(text: &str) -> Option<Vec<Heredoc<'_>>> {
    let first = text
        .split_whitespace()
        .find(|word| !word.eq_ignore_ascii_case("ONBUILD"))
        .unwrap_or_default();
    let takes_them = ["RUN", "COPY", "ADD"]
        .iter()
        .any(|name| first.eq_ignore_ascii_case(name));
    if !takes_them || !text.contains("<<") {
        return Some(Vec::new());
    }
    let words = shell_words(text)?;
    // Some engines join these to the word that follows.
    if words.iter().any(|word| word.ends_with("<<")) {
        return None;
    }
    let begins = |word: &str| {
        word.trim_start_matches(|c: char| c.is_ascii_digit())
            .starts_with("<<")
    };
    words
        .into_iter()
        .filter(|word| begins(word))
        .map(heredoc)
        .collect()
}

fn heredoc(word: &str) -> Option<Heredoc<'_>> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = rest.strip_prefix("<<")?;
    let name = rest.strip_prefix('-').unwrap_or(rest);
    let unquoted = ['"', '\'']
        .iter()
        .find_map(|quote| name.strip_prefix(*quote)?.strip_suffix(*quote));
    let is_plain = |name: &&str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !INSTRUCTIONS
                .iter()
                .any(|instruction| name.eq_ignore_ascii_case(instruction))
    };
    Some(unquoted.unwrap_or(name))
        .filter(is_plain)
        .map(|name| Heredoc {
            name,
            is_indented: rest.starts_with('-'),
        })
}

/// The words of a line, with their quotes; nothing where escapes or `${}` make that a long story.
fn shell_words(text: &str) -> Option<Vec<&str>> {
    if text.contains('\\') || text.contains("${") {
        return None;
    }
    let mut quote = None;
    let ends = |c: char| {
        match quote {
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ => {}
        }
        quote.is_none() && c.is_whitespace()
    };
    let words = text.split(ends).filter(|word| !word.is_empty()).collect();
    quote.is_none().then_some(words)
}
