//! What a `.dockerignore` leaves out, as `docker build` reads it: Go's `filepath.Match`, `**`, and `!` (pure). A `.gitignore`
//! is another language: its patterns match at any depth, and nothing below an ignored directory comes back.

use std::iter::Peekable;

use regex::Regex;

use crate::text;

/// Most patterns of a file; each is a program of some kilobytes.
const MOST: usize = 1000;
/// How much of a line an error shows, in bytes.
const SHOWN: usize = 256;

/// The lines of a file. The last one that matches a path, or a directory that it lies in, decides.
#[derive(Debug)]
pub(super) struct Ignore(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    /// Whether the line begins with `!`: what it matches is taken all the same.
    keeps: bool,
    pattern: Regex,
}

impl Ignore {
    /// # Errors
    /// Which line is wrong, and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rules = Vec::new();
        for (line, written) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
            let rule = rule(written).map_err(|why| {
                let shown = text::quote(written, SHOWN);
                format!("line {line}, \"{shown}\": {why}")
            })?;
            rules.extend(rule);
            if rules.len() > MOST {
                return Err(format!("more than {MOST} patterns: use wider ones"));
            }
        }
        Ok(Self(rules))
    }

    /// Whether a file is left out; `path` is relative, its parts joined by `/`.
    pub fn excludes(&self, path: &str) -> bool {
        let lies_in = path.match_indices('/').map(|(end, _)| &path[..end]);
        let places: Vec<_> = lies_in.chain([path]).collect();
        let matches = |rule: &&Rule| places.iter().any(|place| rule.pattern.is_match(place));
        self.0.iter().rev().find(matches).is_some_and(|r| !r.keeps)
    }
}

/// Nothing for comments and blank lines.
fn rule(line: &str) -> Result<Option<Rule>, String> {
    if line.starts_with('#') {
        return Ok(None);
    }
    let line = line.trim();
    let (keeps, pattern) = match line.strip_prefix('!') {
        Some("") => return Err("there is nothing behind the !".into()),
        Some(pattern) => (true, pattern.trim()),
        None => (false, line),
    };
    let pattern = cleaned(pattern);
    if pattern.is_empty() {
        return Ok(None);
    }
    let pattern = Regex::new(&expression(&pattern)?).map_err(|error| last_line(&error))?;
    Ok(Some(Rule { keeps, pattern }))
}

/// The cause; the lines before it show an expression that nobody wrote.
fn last_line(error: &regex::Error) -> String {
    let words = error.to_string();
    let last = words.lines().last().unwrap_or_default();
    text::quote(last.trim_start_matches("error: "), SHOWN)
}

/// As Go's `filepath.Clean` does it, with the root for the working directory.
fn cleaned(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The pattern as a regular expression for a whole path.
fn expression(pattern: &str) -> Result<String, String> {
    let mut text = String::from("(?s)^");
    let mut rest = pattern.chars().peekable();
    let is_special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '\\');
    // Docker takes `**.log` for every name that ends so, at whatever depth.
    if let Some(end) = pattern.strip_prefix("**")
        && !end.starts_with('/')
        && !end.contains(is_special)
    {
        return Ok(format!("{text}.*{}$", regex::escape(end)));
    }
    while let Some(c) = rest.next() {
        match c {
            '*' if rest.next_if_eq(&'*').is_some() => {
                // Any number of directories; at the end, all that lies there.
                rest.next_if_eq(&'/');
                let at_end = rest.peek().is_none();
                text.push_str(if at_end { ".*" } else { "(?:.*/)?" });
            }
            '*' => text.push_str("[^/]*"),
            '?' => text.push_str("[^/]"),
            '[' => text.push_str(&class(&mut rest)?),
            '\\' => literal(&mut text, escaped(&mut rest)?),
            c => literal(&mut text, c),
        }
    }
    text.push('$');
    Ok(text)
}

/// What stands between `[` and `]`.
fn class(rest: &mut Peekable<impl Iterator<Item = char>>) -> Result<String, String> {
    let open = || "a [ has no ]".to_owned();
    let mut text = String::from("[");
    if rest.next_if_eq(&'^').is_some() {
        text.push('^');
    }
    let begin = text.len();
    loop {
        let first = match rest.next().ok_or_else(open)? {
            ']' if text.len() > begin => break,
            ']' | '-' => return Err("] and - in [] stand behind a \\".to_owned()),
            '\\' => escaped(rest)?,
            c => c,
        };
        literal(&mut text, first);
        if rest.next_if_eq(&'-').is_some() {
            let last = match rest.next().ok_or_else(open)? {
                '\\' => escaped(rest)?,
                ']' => return Err("a range in [] has no end".to_owned()),
                c => c,
            };
            text.push('-');
            literal(&mut text, last);
        }
    }
    text.push(']');
    Ok(text)
}

fn escaped(rest: &mut impl Iterator<Item = char>) -> Result<char, String> {
    rest.next()
        .ok_or_else(|| "nothing stands behind the \\".to_owned())
}

fn literal(text: &mut String, c: char) {
    text.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

#[cfg(test)]
mod tests;
