//! The recipe of Node: dependencies in a layer of their own, then the code, then the shim that calls it. (pure)

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::{
    super::{BaseImages, archive::Context, archive::File},
    Append, BuildSpec, Language, Recipe, RecipeError,
};

/// Calls the handler; embedded, so that a binary alone can build.
pub const SHIM: &str = include_str!("../../../languages/node/shim.js");

/// What functions are based on unless the server or the Function says otherwise.
pub const DEFAULT_BASE: &str = "node:22-slim";

/// What calls the handler.
const COMMAND: [&str; 3] = ["node", "--max-http-header-size=131072", "/faas/shim.js"];

/// Scripts of a package that `npm` runs when it installs: they may need all of the code.
const INSTALL_SCRIPTS: [&str; 6] = [
    "preinstall",
    "install",
    "postinstall",
    "preprepare",
    "prepare",
    "postprepare",
];

/// The fields of a package.json that decide.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Package {
    main: Option<String>,
    dependencies: BTreeMap<String, Value>,
    optional_dependencies: BTreeMap<String, Value>,
    scripts: BTreeMap<String, Value>,
    workspaces: Option<Value>,
}

impl Package {
    fn read(context: &Context) -> Result<Self, RecipeError> {
        let Some(bytes) = context.file("package.json") else {
            return Ok(Self::default());
        };
        serde_json::from_slice(bytes).map_err(|error| RecipeError::Unreadable {
            file: "package.json",
            message: error.to_string(),
        })
    }

    fn all_dependencies(&self) -> impl Iterator<Item = &Value> {
        self.dependencies
            .values()
            .chain(self.optional_dependencies.values())
    }

    /// Whether an install needs more than the files that say what to install.
    fn needs_code(&self) -> bool {
        let local = |version: &Value| {
            version.as_str().is_some_and(|v| {
                ["file:", "link:", ".", "/", "~/"]
                    .iter()
                    .any(|start| v.starts_with(start))
            })
        };
        self.workspaces.is_some()
            || self.all_dependencies().any(local)
            || INSTALL_SCRIPTS
                .iter()
                .any(|script| self.scripts.contains_key(*script))
    }
}

pub(super) fn recipe(
    context: &Context,
    spec: &BuildSpec,
    bases: &BaseImages,
) -> Result<Recipe, RecipeError> {
    let package = Package::read(context)?;
    check_main(context, &package)?;
    let npm = npm(context, &package);
    let base = base(spec, bases)?;
    let append = Append {
        base: base.to_owned(),
        directory: "/function",
        command: COMMAND.to_vec(),
        place: "faas/",
    };
    let shim = File {
        executable: false,
        content: Bytes::from_static(SHIM.as_bytes()),
    };
    Ok(Recipe {
        language: Language::Node,
        dockerfile: dockerfile(context, &package, npm.as_deref(), base),
        append: npm.is_none().then_some(append),
        npm,
        place: "function/",
        files: BTreeMap::from([("shim.js".into(), shim)]),
        args: spec.args.clone(),
    })
}

fn base<'a>(spec: &'a BuildSpec, bases: &'a BaseImages) -> Result<&'a str, RecipeError> {
    let base = spec
        .base_image
        .as_deref()
        .or_else(|| bases.0.get("node").map(String::as_str))
        .unwrap_or(DEFAULT_BASE);
    // It becomes a word of a Dockerfile; anything else there would be an instruction of its own.
    if base.is_empty() || !base.bytes().all(|b| b.is_ascii_graphic() && b != b'$') {
        return Err(RecipeError::BadBaseImage(base.into()));
    }
    Ok(base)
}

/// The file that Node will load, found by its own rules.
fn check_main(context: &Context, package: &Package) -> Result<(), RecipeError> {
    let main = package.main.as_deref().unwrap_or("index.js");
    let main = main.trim_start_matches("./").trim_end_matches('/');
    let candidates = [
        main.to_owned(),
        format!("{main}.js"),
        format!("{main}.json"),
        format!("{main}/index.js"),
        "index.js".to_owned(),
    ];
    if candidates.iter().any(|path| context.contains(path)) {
        return Ok(());
    }
    Err(RecipeError::Missing {
        file: main.to_owned(),
        remedy: "add it, with `module.exports = (context, cb) => cb(result)`, or let `main` of package.json name the file that has it",
    })
}

fn npm(context: &Context, package: &Package) -> Option<Vec<&'static str>> {
    package.all_dependencies().next()?;
    let locked = context.contains("package-lock.json") || context.contains("npm-shrinkwrap.json");
    let verb = if locked { "ci" } else { "install" };
    Some(vec![verb, "--omit=dev", "--no-audit", "--no-fund"])
}

fn dockerfile(context: &Context, package: &Package, npm: Option<&[&str]>, base: &str) -> String {
    let mut lines = vec![format!("FROM {base}"), "WORKDIR /function".into()];
    let code = "COPY function/ ./".to_owned();
    if let Some(npm) = npm {
        let install = format!(
            "RUN npm {} --cache /tmp/npm && rm -rf /tmp/npm",
            npm.join(" ")
        );
        if package.needs_code() {
            lines.extend([code, install]);
        } else {
            lines.extend([copy_of_manifests(context), install, code]);
        }
    } else {
        lines.push(code);
    }
    lines.extend([
        "COPY shim.js /faas/shim.js".into(),
        format!(
            "CMD [{}]",
            COMMAND.map(|word| format!("{word:?}")).join(", ")
        ),
        String::new(),
    ]);
    lines.join("\n")
}

/// Only what decides about dependencies, so that a change of code finds their layer in the cache.
fn copy_of_manifests(context: &Context) -> String {
    let manifests = [
        "package.json",
        "package-lock.json",
        "npm-shrinkwrap.json",
        ".npmrc",
    ];
    let present: Vec<_> = manifests
        .iter()
        .filter(|name| context.contains(name))
        .map(|name| format!("function/{name}"))
        .collect();
    format!("COPY {} ./", present.join(" "))
}
