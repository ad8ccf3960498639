//! Docker's own examples, and what its users rely on beside them.

use super::*;

/// Which of these paths are left out.
fn excluded<'a>(text: &str, paths: &[&'a str]) -> Vec<&'a str> {
    let ignore = Ignore::parse(text).unwrap();
    let left_out = paths.iter().filter(|path| ignore.excludes(path));
    left_out.copied().collect()
}

#[test]
fn patterns() {
    for (text, out, taken) in [
        ("# comment\n", &[][..], &["comment", "# comment"][..]),
        (
            "*/temp*",
            &["somedir/temporary.txt", "somedir/temp", "somedir/temp/x"],
            &["temp", "a/b/temp"],
        ),
        (
            "*/*/temp*",
            &["somedir/subdir/temporary.txt"],
            &["somedir/temporary.txt", "a/b/c/temp"],
        ),
        (
            "temp?",
            &["tempa", "tempb", "tempa/x"],
            &["temp", "tempab", "a/tempa"],
        ),
        (
            "**/*.go",
            &["main.go", "a/b/main.go"],
            &["main.goo", "go", "a/go"],
        ),
        ("*.md", &["README.md"], &["docs/README.md"]),
        ("/foo/bar", &["foo/bar", "foo/bar/x"], &["x/foo/bar", "foo"]),
        ("foo/bar", &["foo/bar"], &["x/foo/bar", "foo/barn"]),
        ("  ./foo//../bar/ ", &["bar", "bar/x"], &["foo", "foo/bar"]),
        (
            "node_modules",
            &["node_modules/a/b.js"],
            &["a/node_modules/b.js"],
        ),
        (
            "**/node_modules",
            &["node_modules/a", "a/b/node_modules/c"],
            &["node_modules2"],
        ),
        ("a/**", &["a/x", "a/b/c"], &["a", "b/a"]),
        ("a/**/z", &["a/z", "a/b/c/z"], &["z", "a/zz"]),
        ("**", &["a", "a/b", ".hidden"], &[]),
        ("**.log", &["x.log", "a/x.log", ".log"], &["log"]),
        ("*", &["a", "a/b", ".hidden"], &[]),
        ("[a-c]x", &["ax", "bx"], &["dx", "a-x"]),
        ("[^a]x", &["bx", "!x"], &["ax"]),
        ("[!a]x", &["ax", "!x"], &["bx"]),
        (r"\*x[\]\-&]", &["*x]", "*x-", "*x&"], &["ax]"]),
        ("a.b", &["a.b"], &["aab"]),
        ("a+(b){c}$", &["a+(b){c}$"], &["aab"]),
        (" # no comment", &["# no comment"], &[]),
        ("\n   \n.\n/\n", &[], &["a"]),
        ("..\n../a", &[], &["a"]),
        ("\u{feff}a\r\nb", &["a", "b"], &["c"]),
        ("größe?", &["größe1"], &["größe"]),
    ] {
        assert_eq!(excluded(text, out), out, "{text:?}");
        assert_eq!(excluded(text, taken), [""; 0], "{text:?}");
    }
}

#[test]
fn the_last_line_that_matches_decides() {
    let files = ["README.md", "README-secret.md", "other.md", "src/a.c"];
    for (text, out) in [
        ("*.md\n!README.md", &["README-secret.md", "other.md"][..]),
        (
            "*.md\n!README*.md\nREADME-secret.md",
            &["README-secret.md", "other.md"],
        ),
        ("*.md\nREADME-secret.md\n!README*.md", &["other.md"]),
        ("*\n!src", &["README.md", "README-secret.md", "other.md"]),
        ("src\n! src/a.c", &[]),
        ("!src/a.c\nsrc", &["src/a.c"]),
    ] {
        assert_eq!(excluded(text, &files), out, "{text:?}");
    }
}

#[test]
fn what_docker_refuses_is_refused_with_its_line() {
    for (text, why) in [
        ("a\n!", "line 2, \"!\": there is nothing"),
        ("[a", "line 1, \"[a\": a [ has no ]"),
        ("[]a]", "behind a \\"),
        ("[a-]", "has no end"),
        ("[c-a]", "line 1, \"[c-a]\": invalid character class range"),
        (&"a\n".repeat(1001), "more than 1000 patterns"),
        ("a\\", "nothing stands behind"),
    ] {
        let error = Ignore::parse(text).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
}
