//! Recipes: the Dockerfiles that they write, and what they refuse.

use super::{super::archive::Limits, *};

type Files<'a> = &'a [(&'a str, &'a str)];

pub(super) fn context(files: Files) -> Context {
    let files = files
        .iter()
        .map(|(path, text)| (*path, 0o644, Bytes::copy_from_slice(text.as_bytes())));
    Context::from_files(files, &Limits::default()).unwrap()
}

pub(super) fn bases() -> BaseImages {
    let pairs = [("node", "site/node:22"), ("node:12", "site/node:12")];
    BaseImages(pairs.map(|(a, b)| (a.to_owned(), b.to_owned())).into())
}

fn recipe(language: &str, files: &[(&str, &str)]) -> Result<Recipe, RecipeError> {
    let spec = BuildSpec::default();
    Recipe::new(language.parse()?, &context(files), &spec, &bases())
}

pub(super) fn own(text: &str) -> Result<String, String> {
    recipe("dockerfile", &[("Dockerfile", text)])
        .map(|recipe| recipe.dockerfile)
        .map_err(|error| error.to_string())
}

const INDEX: (&str, &str) = ("index.js", "module.exports = (context, cb) => cb(1)");

#[test]
fn without_dependencies_npm_never_runs() {
    for package in [
        None,
        Some("{}"),
        Some(r#"{"dependencies": {}, "devDependencies": {"x": "1"}}"#),
    ] {
        let mut files = vec![INDEX];
        files.extend(package.map(|text| ("package.json", text)));
        let recipe = recipe("node", &files).unwrap();
        assert_eq!(recipe.npm, None);
        assert_eq!(
            recipe.dockerfile,
            "FROM site/node:22\nWORKDIR /function\nCOPY function/ ./\nCOPY shim.js /faas/shim.js\nCMD [\"node\", \"--max-http-header-size=131072\", \"/faas/shim.js\"]\n"
        );
    }
}

#[test]
fn dependencies_come_before_the_code_unless_they_need_it() {
    let manifest = r#"{"dependencies": {"ms": "2"}}"#;
    let cases: [(Files, [&str; 2]); 6] = [
        (
            &[("package.json", manifest)],
            [
                "COPY function/package.json ./",
                "RUN npm install --omit=dev",
            ],
        ),
        (
            &[
                ("package.json", manifest),
                ("package-lock.json", "{}"),
                (".npmrc", ""),
            ],
            [
                "COPY function/package.json function/package-lock.json function/.npmrc ./",
                "RUN npm ci --omit=dev",
            ],
        ),
        (
            &[
                ("package.json", r#"{"optionalDependencies": {"ms": "2"}}"#),
                ("npm-shrinkwrap.json", "{}"),
            ],
            [
                "COPY function/package.json function/npm-shrinkwrap.json ./",
                "RUN npm ci --omit=dev",
            ],
        ),
        (
            &[("package.json", r#"{"dependencies": {"lib": "file:./lib"}}"#)],
            ["COPY function/ ./", "RUN npm install"],
        ),
        (
            &[(
                "package.json",
                r#"{"dependencies": {"ms": "2"}, "scripts": {"prepare": "make"}}"#,
            )],
            ["COPY function/ ./", "RUN npm install"],
        ),
        (
            &[(
                "package.json",
                r#"{"dependencies": {"ms": "2"}, "workspaces": ["a"]}"#,
            )],
            ["COPY function/ ./", "RUN npm install"],
        ),
    ];
    for (files, expected) in cases {
        let files = [&[INDEX], files].concat();
        let recipe = recipe("node", &files).unwrap();
        let lines: Vec<_> = recipe.dockerfile.lines().skip(2).take(2).collect();
        assert!(
            lines[0] == expected[0] && lines[1].starts_with(expected[1]),
            "{lines:?} is not {expected:?}"
        );
    }
}

#[test]
fn what_is_missing_is_said_before_any_engine_is_asked() {
    let cases: [(&str, Files, &str); 7] = [
        ("node", &[("main.js", "")], "index.js is missing: add it"),
        (
            "node",
            &[("package.json", r#"{"main": "src/app.js"}"#)],
            "src/app.js is missing",
        ),
        (
            "node",
            &[INDEX, ("package.json", "{")],
            "package.json cannot be read: EOF",
        ),
        (
            "node",
            &[INDEX, ("package.json", r#"{"dependencies": []}"#)],
            "package.json cannot be read: invalid type",
        ),
        ("dockerfile", &[INDEX], "Dockerfile is missing: add it"),
        ("cobol", &[INDEX], "language \"cobol\" is not known"),
        (
            "dockerfile",
            &[("Dockerfile", "{\"syntax\": \"x/y\"}")],
            "this is JSON",
        ),
    ];
    for (language, files, expected) in cases {
        let error = recipe(language, files).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    }
    for main in ["app.js", "./app.js", "app", "lib/", "lib"] {
        let package = format!(r#"{{"main": "{main}"}}"#);
        let files = [
            ("app.js", ""),
            ("lib/index.js", ""),
            ("package.json", package.as_str()),
        ];
        assert!(recipe("node", &files).is_ok(), "{main}");
    }
}

#[test]
fn base_images_and_arguments_are_words() {
    let build = |base: Option<&str>, arg: &str| {
        let spec = BuildSpec {
            base_image: base.map(str::to_owned),
            args: vec![(arg.into(), "v".into())],
        };
        Recipe::new(Language::Node, &context(&[INDEX]), &spec, &bases())
    };
    let own = build(Some("own/node@sha256:ab"), "A_1").unwrap();
    assert!(own.dockerfile.starts_with("FROM own/node@sha256:ab\n"));
    for base in ["a\nRUN evil", "a b", "", "$X"] {
        assert_eq!(
            build(Some(base), "A"),
            Err(RecipeError::BadBaseImage(base.into()))
        );
    }
    for name in ["BUILDKIT_SYNTAX", "1A", "A B", "", "A=B"] {
        assert_eq!(
            build(None, name),
            Err(RecipeError::BadArgument(name.into()))
        );
    }
    for name in ["HTTP_PROXY", "https_proxy", "No_Proxy", "ALL_PROXY"] {
        let refused = Err(RecipeError::SitesArgument(name.into()));
        assert_eq!(build(None, name), refused);
    }
}

#[test]
fn node_has_a_base_without_anyone_naming_one() {
    let recipe = Recipe::new(
        Language::Node,
        &context(&[INDEX]),
        &BuildSpec::default(),
        &BaseImages::default(),
    );
    let first = format!("FROM {}", node::DEFAULT_BASE);
    assert_eq!(recipe.unwrap().dockerfile.lines().next(), Some(&*first));
}

#[test]
fn stages_start_from_the_sites_copies() {
    let cases = [
        ("FROM node:12", "FROM site/node:12\n"),
        ("from node:12 as a\nRUN x", "from site/node:12 as a\nRUN x"),
        (
            "FROM --platform=linux/amd64 node:12 AS a",
            "FROM site/node:12 AS a\n",
        ),
        ("FROM --platform=$BUILDPLATFORM x AS a\n", "FROM x AS a\n"),
        ("FROM \\\n  node:12\nRUN x", "FROM site/node:12\nRUN x"),
        ("FROM node:14\n", "FROM node:14\n"),
        ("ARG B=node:12\nFROM $B\n", "ARG B=node:12\nFROM $B\n"),
        (
            "FROM node:14 AS node\nFROM node\n",
            "FROM node:14 AS node\nFROM node\n",
        ),
        (
            "# FROM node:12\nFROM scratch\n",
            "# FROM node:12\nFROM scratch\n",
        ),
        (
            "FROM x\nRUN echo \\\n  FROM node:12\n",
            "FROM x\nRUN echo \\\n  FROM node:12\n",
        ),
        (
            "FROM x\nRUN <<EOF\nFROM node:12\nEOF\nFROM node:12",
            "FROM x\nRUN <<EOF\nFROM node:12\nEOF\nFROM site/node:12\n",
        ),
        (
            "# escape=\\\nFROM x\nRUN a `\nFROM node:12\n",
            "# escape=\\\nFROM x\nRUN a `\nFROM site/node:12\n",
        ),
        ("FROM", "FROM"),
    ];
    for (before, after) in cases {
        assert_eq!(own(before).as_deref(), Ok(after), "{before}");
    }
}

/// A stage that follows a line with `<<` is found, or the Dockerfile is refused: no engine reads it otherwise.
#[test]
fn where_a_stage_begins_is_clear_or_refused() {
    let clear = [
        "RUN echo a<<EOF",
        "RUN echo $((1<<N))",
        "RUN echo \"<<EOF\"",
        "RUN [\"cat\", \"<<EOF\"]",
        "LABEL a=<<EOF",
        "CMD cat <<EOF",
        "ENV A <<EOF",
        "RUN <<EOF\nFROM y\nEOF",
        "run 3<<'EOF' cat\nFROM y\n EOF\nEOF ;\nEOF",
        "COPY <<\"EOF\" <<-END_2 /x\nEND_2\nEOF\n\tFROM y\n\tEND_2",
        "ONBUILD RUN <<EOF\nFROM y\nEOF",
        "RUN cat \\\n# FROM y\n\n  <<EOF\nx \\\ny\nEOF",
        "RUN x --a='b c' >\"$HOME/d\" <<EOF\n# <<END\nRUN <<END\nEOF\r",
        "RUN echo \\",
        "RUN echo \\ \t\n  y",
        "RUN echo a\\b",
    ];
    for run in clear {
        let text = format!("FROM x\n{run}\nFROM node:12\n");
        let expected = if run.ends_with('\\') {
            text.clone()
        } else {
            text.replace("node:12", "site/node:12")
        };
        assert_eq!(own(&text), Ok(expected), "{run}");
    }
    let unclear = [
        ("RUN cat << EOF\nEOF", "<<"),
        ("RUN echo $((1 << N))", "<<"),
        ("RUN echo $((1 <<N))\nN))", "<<"),
        ("RUN cat \\<<EOF\nEOF", "<<"),
        ("RUN cat <<E\"O\"F\nEOF", "<<"),
        ("RUN cat <<\"CMD x\"\nCMD x", "<<"),
        ("RUN cat ${X:-<<EOF}\nEOF", "<<"),
        ("RUN cat <<<EOF\nEOF", "<<"),
        ("RUN a<< <<EOF\nEOF", "<<"),
        ("RUN it's <<EOF\nEOF", "<<"),
        ("RUN cat <<EOF|sh\nEOF|sh", "<<"),
        ("RUN cat <<CMD\nEXPOSE 1\nCMD", "<<"),
        ("RUN cat <<-'Label'\nEXPOSE 1\nLabel", "<<"),
        ("ONBUILD COPY <<EOF; /x\nEOF;", "<<"),
        ("RUN <<EOF\n", "no end"),
        ("RUN <<EOF\n EOF\nEOF .\neof", "no end"),
        ("RUN <<EOF\n\tEOF", "no end"),
        ("RUN <<A <<B\nB\nA", "no end"),
        ("RUN <<EOF\nx \\ \t\r\nEOF", "last line"),
        ("RUN <<EOF\nx \\\n\n # y\nEOF", "last line"),
        ("RUN cat <<A <<-B\nx\nA\nx \\\r\r\n\tB", "last line"),
        ("RUN echo \\\\", "line's end"),
        ("RUN echo \\\\\\ \t", "line's end"),
    ];
    for (run, expected) in unclear {
        let text = format!("FROM x\n\n# y\n{run}\n");
        assert_eq!(own(&text).as_ref(), Ok(&text), "no stage follows");
        let error = own(&format!("{text} from node:12\n")).unwrap_err();
        assert!(error.starts_with("Dockerfile line 4: "), "{run}: {error}");
        assert!(error.contains(expected), "{run}: {error}");
    }
}

/// Engines join lines before they look for a name, and so what matters may be cut by a line's end.
#[test]
fn behind_a_doubt_nothing_that_matters_is_hidden_by_continued_lines() {
    let doubts = [
        "RUN echo $((1 << N))",
        "RUN echo \\\\",
        "RUN <<EOF\nx \\\nEOF",
    ];
    let hidden = [
        "AD\\\nD http://localhost/ /x",
        "a\\ \t\nD\\\r\nd http://localhost/ /x",
        "COPY \\\n  --from=y / /",
        "CO\\\n# x\nPY --from=y / /",
        "FR\\\n\nOM y",
        "ONBUILD AD\\\nD http://localhost/ /x",
        "ONBU\\\nILD COPY \\\n--from=y / /",
    ];
    for doubt in doubts {
        for lines in hidden {
            let error = own(&format!("FROM x\n{doubt}\n{lines}\n")).unwrap_err();
            assert!(error.starts_with("Dockerfile line 2: "), "{lines}: {error}");
        }
        for lines in ["RUN \\\n  x", "COPY a b", "LABEL a=b \\\n  c=d"] {
            let text = format!("FROM x\n{doubt}\n{lines}\n");
            assert_eq!(own(&text).as_ref(), Ok(&text), "nothing matters");
        }
    }
    let within = "FROM x\nRUN <<EOF\nAD\\\nD http://localhost/ \\\nEOF\n";
    assert!(own(within).unwrap_err().contains("last line"));
}

#[test]
fn a_carriage_return_is_a_part_of_a_lines_end_or_refused() {
    assert_eq!(
        own("FROM x\r\nRUN a \\ \r\n  b\r\nFROM node:12\r\n").as_deref(),
        Ok("FROM x\r\nRUN a \\ \r\n  b\r\nFROM site/node:12\n")
    );
    for lines in [
        "RUN true \\\r\r\nADD http://localhost/ /x",
        "RUN true \\\r\r\r\nx",
        "RUN true \\ \r\t\r\nCOPY --from=y / /",
        "ADD \\\r\r\nhttp://localhost/ /x",
        "COPY \\\r\r\n--from=y / /",
        "FROM \\\r\r\ny",
        "RUN a\rFROM y",
    ] {
        let error = own(&format!("FROM x\n{lines}\n")).unwrap_err();
        assert!(error.starts_with("Dockerfile line 2: "), "{lines}: {error}");
        assert!(error.contains("carriage return"), "{lines}: {error}");
    }
}

#[test]
fn no_way_of_reading_hides_a_shared_cache() {
    let cache = "RUN --mount=type=cache,target=/c make";
    let before = [
        "RUN echo a<<EOF",
        "RUN echo $((1<<EOF))",
        "RUN <<EOF",
        "RUN <<EOF\nEOF",
        "COPY <<\"CMD x\" /x",
        "RUN echo \\\\",
        "RUN echo \\",
        "RUN echo\\\n  ",
        "RUN echo \\\u{a0}",
        "RUN echo `",
    ];
    for line in before {
        for after in ["", "\nEOF\n", "\nCMD x\n"] {
            let text = format!("FROM x\n{line}\n{cache}{after}");
            let error = own(&text).unwrap_err();
            assert!(error.contains("type=cache"), "{text}: {error}");
        }
    }
    let refused = [
        "RUN\\\n  --mount=type=cache,target=/c make",
        "RU\\\nN \\\n# x\n\n --mount=type=cache,target=/c make",
        "RUN\u{b}--mount=type=cache,target=/c make",
        "ONBU\u{130}LD RUN --mount=type=cache,target=/c make",
        "RUN --mo\\unt=type=cache,target=/c make",
        "RUN --\"mount\"=type=cache,target=/c make",
        "RUN --mount=\"type=bind,target=/a b\" --mount=type=cache,target=/c make",
        "RUN --mount=type=bind,target=/a\\ b --mount=type=cache,target=/c make",
        "RUN --mount=type=bind,target=/\u{e0}--mount=type=cache,target=/c make",
        "RUN --mount=type=bind,x=\\\\\nRUN --mount=type=cache,target=/c make",
        "RUN --mount=target=/c,TYPE=cache make",
    ];
    for line in refused {
        let error = own(&format!("FROM x\n{line}\n")).unwrap_err();
        assert!(error.contains("type=cache"), "{line}: {error}");
    }
    let allowed = [
        "RUN --mount=type=secret,id=\"a\" find . --type=f",
        "RUN npm run --prefix=\"a b\" build --type=x",
        "RUN npm run --if-present build",
        "# RUN --mount=type=cache,target=/c make",
        "RUN docker build --mount=type=x",
    ];
    for line in allowed {
        let text = format!("FROM x\n{line}\n");
        assert_eq!(own(&text).as_ref(), Ok(&text));
    }
}

#[test]
fn foreign_front_ends_and_shared_caches_are_refused_by_line() {
    let refused = [
        ("# syntax=evil/frontend\nFROM x", "line 1: the front end"),
        (
            "# hello\n#syntax = docker.io/docker/dockerfile-upstream:1\nFROM x",
            "line 2: the front end",
        ),
        ("//  syntax=evil/frontend\nFROM x", "the front end"),
        ("# escape=`\nFROM x", "line 1: no other escape character"),
        (
            "# hello\n# syntax=docker/dockerfile:1\n#Escape = `\nFROM x",
            "line 3: no other escape character",
        ),
        ("#!/x\n# SYNTAX=evil/frontend\nFROM x", "the front end"),
        (
            "FROM x\nRUN --mount=type=cache,target=/c make",
            "line 2: --mount=type=cache",
        ),
        (
            "FROM x\nRUN --network=none --mount=target=/c,type=CACHE make",
            "type=cache",
        ),
        (
            "FROM x\nRUN --mount=\"type=cache\",target=/c make",
            "type=cache",
        ),
        (
            "FROM x\nRUN --mount=ty\\\npe=cache,target=/c make",
            "type=cache",
        ),
        (
            "ARG T=cache\nFROM x\nRUN --mount=type=$T,target=/c make",
            "line 3: --mount=type=$t",
        ),
        (
            "FROM x\nONBUILD RUN --mount=type=cache,target=/c make",
            "type=cache",
        ),
    ];
    for (text, expected) in refused {
        let error = own(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
    let allowed = [
        ("# syntax=docker/dockerfile:1.4\nFROM x\n", "#\nFROM x\n"),
        (
            "FROM x\nRUN echo --mount=type=cache\n",
            "FROM x\nRUN echo --mount=type=cache\n",
        ),
        (
            "FROM x\n# syntax=evil/late\n",
            "FROM x\n# syntax=evil/late\n",
        ),
    ];
    for (before, after) in allowed {
        assert_eq!(own(before).as_deref(), Ok(after), "{before}");
    }
}

#[test]
fn the_sites_environment_reaches_every_stage_and_no_digest() {
    let files = [(
        "Dockerfile",
        "ARG A\nFROM node:12 AS a\nRUN x\nFROM scratch",
    )];
    let recipe = recipe("dockerfile", &files).unwrap();
    let environment = BuildEnvironment {
        ca: Some(Bytes::from_static(b"pem")),
        variables: vec![
            ("MIRROR".into(), "m".into()),
            ("http_proxy".into(), "p".into()),
        ],
        label: Some("mine=yes".into()),
    };
    let lines = "LABEL mine=yes\nCOPY .faas-build-ca.pem /.faas-build-ca.pem\nARG NODE_EXTRA_CA_CERTS=/.faas-build-ca.pem\nARG SSL_CERT_FILE=/.faas-build-ca.pem\nARG MIRROR\n";
    assert_eq!(
        recipe.dockerfile(&environment),
        format!("ARG A\nFROM site/node:12 AS a\n{lines}RUN x\nFROM scratch\n{lines}")
    );
    let own = |line| recipe.own_line(&environment, line);
    let told = [1, 2, 5, 8, 9, 12].map(own);
    assert_eq!(told, [1, 2, 2, 3, 4, 4], "lines as the user counts them");
    let context = context(&files);
    let built = recipe.build_context(&context, &environment);
    let built = Context::from_tar(&built, &Limits::default()).unwrap();
    assert_eq!(built.file(".faas-build-ca.pem"), Some(&b"pem"[..]));
    assert_eq!(
        recipe.dockerfile(&BuildEnvironment::default()),
        recipe.dockerfile
    );
}

#[test]
fn an_image_is_named_by_all_that_decides() {
    let base = |args: &[(&str, &str)], base: &str, code: &str| {
        let spec = BuildSpec {
            base_image: Some(base.into()),
            args: args
                .iter()
                .map(|(a, b)| ((*a).into(), (*b).into()))
                .collect(),
        };
        let context = context(&[("index.js", code)]);
        let recipe = Recipe::new(Language::Node, &context, &spec, &bases()).unwrap();
        recipe.image_name("0123456789abcdef", &context)
    };
    let name = base(&[], "n", "code");
    assert!(name.starts_with("faas.local/0123456789abcdef:") && name.len() == 28 + 64);
    assert_eq!(name, base(&[], "n", "code"));
    let others = [
        base(&[], "n", "code2"),
        base(&[], "n2", "code"),
        base(&[("A", "B")], "n", "code"),
        base(&[("AB", "")], "n", "code"),
    ];
    let distinct: std::collections::BTreeSet<_> = others.iter().chain([&name]).collect();
    assert_eq!(distinct.len(), 5);
}

#[test]
fn what_npm_installs_is_not_mixed_with_what_was_installed_elsewhere() {
    let files = [
        INDEX,
        ("node_modules/ms/index.js", "old"),
        ("package.json", r#"{"dependencies": {"ms": "2"}}"#),
    ];
    let tar = |files: &[(&str, &str)]| {
        let recipe = recipe("node", files).unwrap();
        let tar = recipe.build_context(&context(files), &BuildEnvironment::default());
        Context::from_tar(&tar, &Limits::default()).unwrap()
    };
    assert!(!tar(&files).contains("function/node_modules/ms/index.js"));
    assert!(tar(&files[..2]).contains("function/node_modules/ms/index.js"));
}
