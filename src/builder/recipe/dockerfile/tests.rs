//! What a Dockerfile may get to see.

use super::super::{
    BuildSpec, Language, Recipe, check_trigger,
    tests::{bases, context, own},
};

/// The engine fetches what ADD names from where it runs, and so from this machine's loopback.
#[test]
fn what_add_would_fetch_is_refused_in_whatever_way_it_is_written() {
    let refused = [
        "ADD http://127.0.0.1:5555/functions /x",
        "add --chown=1:1 HTTPS://localhost/x /x",
        "ADD a b http://localhost/x /x/",
        "ADD [\"http://localhost/x\", \"/x\"]",
        "ADD [\"http\\u003a//localhost/x\", \"/x\"]",
        "ADD ${URL} /x",
        "ADD $URL /x",
        "ADD --checksum=sha256:0 git@localhost:x.git /x",
        "ADD \"git\"hub.com/a/b /x",
        "ADD 'http'\\://localhost/x /x",
        "ADD \\\n  # comment\n\n  http://localhost/x /x",
        "AD\\\nD http://localhost/x /x",
        "ONBUILD ADD http://localhost/x /x",
        "onbu\u{130}ld ADD http://localhost/x /x",
        "RUN true\nADD\thttp://localhost/x /x",
        "RUN <<EOF\nEOF\nADD http://localhost/x /x",
        "RUN <<CMD\nADD http://localhost/x /x\nCMD",
        "RUN echo $((1 << N))\nADD http://localhost/x /x",
        "RUN echo \\\\\nADD http://localhost/x /x",
        "ADD \\\\\nhttp://localhost/x /x",
        "RUN \\\u{a0}\nADD http://localhost/x /x",
    ];
    for line in refused {
        let error = own(&format!("FROM x\n{line}\n")).unwrap_err();
        let told = ["in the network of the engine", "it is not clear whether"];
        assert!(
            told.iter().any(|told| error.contains(told)),
            "{line}: {error}"
        );
    }
    let allowed = [
        "ADD a.tar.gz b/ /x/",
        "ADD --chown=node:node --chmod=644 src /x",
        "ADD [\"a file\", \"/x\"]",
        "ADD <<EOF /x\nhttp://localhost\nEOF",
        "RUN apk add --no-cache $TOOLS http://example.com/x",
        "RUN apk \\\n  add http://example.com/x",
        "COPY src/add:it /x",
        "# ADD http://localhost/x /x",
        "LABEL ADD=http://localhost/x",
        "RUN <<EOF\nADD http://localhost/x /x\nEOF",
    ];
    for line in allowed {
        let text = format!("FROM x\n{line}\n");
        assert_eq!(own(&text).as_ref(), Ok(&text));
    }
}

/// Values may double from line to line, and images are looked for by their names.
#[test]
fn no_name_of_an_image_grows_without_end() {
    let doubling = format!("ARG A=aaaaaaaaaa\n{}FROM $A\n", "ARG A=$A$A\n".repeat(64));
    let long = format!("FROM {}\n", "a".repeat(70_000));
    let copied = format!("FROM x\nCOPY --from={} / /\n", "a".repeat(70_000));
    for text in [&doubling, &long, &copied] {
        let error = images(text, &[]).unwrap_err();
        assert!(error.contains("it cannot be told which image"), "{error}");
        assert!(error.len() < 1000, "{}", error.len());
    }
}

type Pairs = &'static [(&'static str, &'static str)];

/// A Dockerfile, arguments, and the images that it stands on and copies from.
const PLAIN: [(&str, Pairs, &[&str]); 17] = [
    ("FROM node:12", &[], &["site/node:12"]),
    (
        "FROM x AS a\nFROM a\nFROM scratch\nFROM y",
        &[],
        &["x", "y"],
    ),
    ("FROM b\nFROM y AS b\nCOPY --from=B a b", &[], &["b", "y"]),
    (
        "FROM x\nCOPY --chown=1 --from=y --link a b",
        &[],
        &["x", "y"],
    ),
    ("FROM x\nCOPY --from=0 a b\nCOPY a --from=y", &[], &["x"]),
    // The classic builder takes as much of an id as says which image it is.
    ("FROM 5738\nFROM 0", &[], &["5738", "0"]),
    (
        "FROM x\nCOPY --from=57382016159057382016 a b",
        &[],
        &["x", "57382016159057382016"],
    ),
    ("FROM x\nONBUILD COPY --from=y a b", &[], &["x", "y"]),
    ("FROM x\nRUN <<EOF\nFROM y\nEOF", &[], &["x"]),
    ("ARG A=x\nFROM $A", &[], &["x"]),
    ("ARG A=x\nFROM $A", &[("A", "y")], &["y"]),
    ("ARG A\nFROM $A", &[("A", "y")], &["y"]),
    ("ARG SITE\nFROM \"${SITE}/a:1\"", &[], &["site/a:1"]),
    ("ARG SITE\nFROM $SITE/a", &[("SITE", "own")], &["own/a"]),
    (
        "ARG A=x B=\"1\"\nARG C=$A:${B:-2}\nFROM $C-z",
        &[],
        &["x:1-z"],
    ),
    ("ARG A=\nFROM ${A:-y}", &[], &["y"]),
    ("ARG A=x\nFROM $A AS b\nARG A=y\nFROM $A", &[], &["x", "x"]),
];

const UNCLEAR: [&str; 23] = [
    "FROM $A",
    "FROM ${A:-y}",
    "FROM ${TARGETARCH}/x",
    "ARG A\nFROM $A",
    "ARG A='x'\nFROM $A",
    "ARG A=x\\y\nFROM $A",
    "ARG A=\"x y\"\nFROM $A",
    "ARG A=x\nFROM ${A#x}y",
    "ARG A=x\nFROM ${A:+y}",
    "ARG A=\nFROM ${A:-$B}",
    "ARG A=x\nFROM ${A:-${B}}$",
    "FROM x\\y",
    "FROM x?y",
    "FROM x%2fy",
    "FROM ../containers",
    "FROM x/../../containers",
    "FROM x\nCOPY --from=/ a b",
    "FROM x\nCOPY --from=a//b a b",
    "FROM x\nARG A=y\nCOPY --from=$A a b",
    "FROM x\nCOPY --from=\"y\" a b",
    "FROM x\nCOPY --chown=\"a b\" --from=y a b",
    "FROM x\nCOPY --fr\\om=y a b",
    "FROM x\nCOPY --chown=\u{e0} --from=y a b",
];

fn images(text: &str, arguments: &[(&str, &str)]) -> Result<Vec<String>, String> {
    let arguments = arguments.iter();
    let spec = BuildSpec {
        args: arguments.map(|(a, b)| ((*a).into(), (*b).into())).collect(),
        ..BuildSpec::default()
    };
    let context = context(&[("Dockerfile", text)]);
    let recipe = Recipe::new(Language::Dockerfile, &context, &spec, &bases()).unwrap();
    let site = [("SITE".to_owned(), "site".to_owned())];
    recipe.images(&site).map_err(|error| error.to_string())
}

#[test]
fn the_images_of_a_build_are_told_before_it() {
    for (text, arguments, expected) in PLAIN {
        let expected = expected.iter().map(|image| (*image).to_owned()).collect();
        assert_eq!(images(text, arguments), Ok(expected), "{text}");
    }
    for text in UNCLEAR {
        let error = images(text, &[]).unwrap_err();
        assert!(error.contains("it cannot be told which image"), "{error}");
    }
}

#[test]
fn what_an_image_orders_is_judged_like_a_dockerfile() {
    for trigger in ["COPY . /app", "RUN make", "ADD . /app", "COPY --from=0 a b"] {
        assert_eq!(check_trigger(trigger), Ok(()), "{trigger}");
    }
    for (trigger, expected) in [
        ("ADD http://localhost/x /x", "in the network of the engine"),
        ("RUN --mount=type=cache,target=/c make", "type=cache"),
        ("RUN --mount=from=y,target=/c make", "of stages only"),
        ("COPY --from=y a b", "copies from the image y"),
        ("COPY --from=$Y a b", "cannot be told"),
        ("# escape=`\nAD`\nD http://localhost/x /x", "several lines"),
    ] {
        let error = check_trigger(trigger).unwrap_err().to_string();
        assert!(error.contains(expected), "{trigger}: {error}");
    }
}

#[test]
fn mounts_are_of_stages() {
    let mount = |mount: &str| {
        own(&format!(
            "FROM y AS Stage\nFROM x\nRUN --mount={mount} make\n"
        ))
    };
    for of_stage in [
        "from=stage,target=/y",
        "type=bind,target=/y,from=Stage",
        "target=/y",
    ] {
        assert!(mount(of_stage).is_ok(), "{of_stage}");
    }
    for of_image in [
        "from=y,target=/y",
        "target=/y,\"FROM=y\"",
        "type=bind,fr\\om=y",
    ] {
        let error = mount(of_image).unwrap_err();
        assert!(
            error.contains("line 3: mounts are of stages only: write FROM y AS"),
            "{error}"
        );
    }
}
