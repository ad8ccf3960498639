//! Reads what the files of the watched directories say: every manifest, and the code that it names. It changes nothing
//! but the kept sources, and remembers nothing: that is done by [`super::source`].
//!
//! A manifest is a file `*.yaml` or `*.yml`, however deep. Dot names, editors' droppings and `node_modules` are passed
//! over, and so is what lies inside the `source.directory` of a manifest: that is code, and its YAML is the code's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    slice,
    sync::Arc,
};

use super::{
    Problem,
    memory::Memory,
    source::SourceCache,
    walk::{ENTRIES, Entry, Found, Interest, walk},
};
use crate::{
    function::{
        Function, FunctionKey,
        manifest::{self, ManifestError, Parsed},
    },
    store::Manager,
};

/// One Function, as a file defines it.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    pub key: FunctionKey,
    pub function: Function,
    pub file: PathBuf,
    /// Line at which its document begins.
    pub line: usize,
    /// Digest of its `source.directory` among the kept sources, or why there is none; `None` where it names no directory.
    pub source: Option<Result<String, String>>,
}

/// What the files say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scan {
    /// In the order in which equal names are decided: the first serves.
    pub definitions: Vec<Definition>,
    /// Files and directories of which it is not known what they say; what they said before still holds.
    pub unknown: BTreeSet<PathBuf>,
    pub problems: Vec<Problem>,
    /// Whether something could not be looked at; nobody tells when it can be.
    pub is_partial: bool,
    /// Every directory that was looked at, without links: where a change would matter.
    pub directories: BTreeSet<PathBuf>,
}

const MANIFESTS: Interest = Interest {
    directory: is_visible,
    file: is_manifest,
};

/// Reads directories, and remembers what it read while it stays the same.
pub struct Scanner {
    roots: Vec<PathBuf>,
    /// Files and directories that are looked at below a root.
    most: usize,
    sources: SourceCache,
    manifests: Memory<Arc<[Kept]>>,
}

impl Scanner {
    pub fn new(roots: Vec<PathBuf>, sources: SourceCache) -> Self {
        Self {
            roots,
            most: ENTRIES,
            sources,
            manifests: Memory::new(),
        }
    }

    /// Reads all roots. `objects` tell which source directories a manifest had that cannot be read now. Blocks.
    pub fn scan(&mut self, objects: &[Arc<Function>]) -> Scan {
        let mut scan = Scan::default();
        let mut entered = BTreeSet::new();
        self.sources.begin();
        self.manifests.begin();
        for root in self.roots.clone() {
            match fs::canonicalize(&root) {
                Ok(real) => Reader {
                    root: &real,
                    scanner: self,
                    objects,
                    scan: &mut scan,
                }
                .root(&root, &mut entered),
                Err(error) => scan.unknown(&root, format!("the directory cannot be read: {error}")),
            }
        }
        scan
    }
}

impl Scan {
    fn unknown(&mut self, path: &Path, message: String) {
        self.problems.push(Problem::new(path, message));
        self.unknown.insert(path.to_owned());
        self.is_partial = true;
    }
}

/// Reads one root.
struct Reader<'a> {
    root: &'a Path,
    scanner: &'a mut Scanner,
    objects: &'a [Arc<Function>],
    scan: &'a mut Scan,
}

impl Reader<'_> {
    /// `entered` are the directories of the roots before, which come first.
    fn root(&mut self, path: &Path, entered: &mut BTreeSet<PathBuf>) {
        let Found {
            mut files,
            directories,
            faults,
        } = walk(self.root, path, MANIFESTS, entered, self.scanner.most);
        self.scan.directories.extend(directories.iter().cloned());
        entered.extend(directories);
        let mut parsed = BTreeMap::new();
        let mut code = Vec::new();
        // Outer manifests say which inner files are code.
        files.sort_by_key(|entry| entry.path.components().count());
        for entry in files {
            // A link may lead to where nothing was entered.
            self.scan
                .directories
                .extend(entry.real.parent().map(Path::to_owned));
            if code.iter().any(|code| lies_in(&entry.path, code)) {
                continue;
            }
            let documents = self.read(&entry);
            code.extend(self.code_of(&entry, &documents));
            parsed.insert(entry.path.clone(), documents);
        }
        for (at, fault) in faults {
            // What is wrong with all of the root is more than wrong with code.
            if at == path || !code.iter().any(|code| lies_in(&at, code)) {
                self.scan.unknown(&at, fault);
            }
        }
        for (path, documents) in parsed {
            self.take(&path, documents);
        }
    }

    fn read(&mut self, entry: &Entry) -> Vec<Parsed> {
        let parse = || {
            let text = read_bounded(&entry.real)?;
            Ok::<_, io::Error>(manifest::parse(&text).into_iter().map(Kept::from).collect())
        };
        let documents =
            self.scanner
                .manifests
                .recall(&entry.path, slice::from_ref(entry), |_| true, parse);
        match documents {
            Ok(documents) => documents.iter().map(Parsed::from).collect(),
            Err(error) => {
                self.scan
                    .unknown(&entry.path, format!("the file cannot be read: {error}"));
                Vec::new()
            }
        }
    }

    /// The source directories of a manifest; also those that it had before it became unreadable.
    fn code_of(&self, entry: &Entry, documents: &[Parsed]) -> Vec<Code> {
        let now = documents
            .iter()
            .filter_map(|parsed| parsed.verdict.as_ref().ok());
        let is_whole =
            !documents.is_empty() && documents.iter().all(|parsed| parsed.verdict.is_ok());
        let manager = Manager::Directory {
            file: entry.path.clone(),
        };
        let before = self.objects.iter().map(AsRef::as_ref);
        let before = before.filter(|object| !is_whole && Manager::of(object) == manager);
        now.chain(before)
            .filter_map(|function| Code::of(&entry.path, function))
            .collect()
    }

    fn take(&mut self, file: &Path, documents: Vec<Parsed>) {
        let is_cut = documents
            .iter()
            .any(|parsed| matches!(parsed.verdict, Err(ManifestError::Syntax { .. })));
        for Parsed { line, key, verdict } in documents {
            match (verdict, key) {
                // A file that is only half there changes nothing.
                (Ok(_), _) if is_cut => {}
                (Ok(function), Some(key)) => self.define(file, line, key, function),
                (Ok(_), None) => {}
                (Err(error), _) => {
                    self.scan
                        .problems
                        .push(Problem::of_manifest(file, line, &error));
                    self.scan.unknown.insert(file.to_owned());
                }
            }
        }
    }

    fn define(&mut self, file: &Path, line: usize, key: FunctionKey, function: Function) {
        let source = Code::of(file, &function).map(|code| {
            let (digest, directories) = self.scanner.sources.keep(self.root, &code.directory);
            self.scan.directories.extend(directories);
            digest
        });
        self.scan.definitions.push(Definition {
            key,
            function,
            file: file.to_owned(),
            line,
            source,
        });
    }
}

/// One object of a file as it is remembered, in JSON: that is a quarter of what a [`Function`] takes.
struct Kept {
    line: usize,
    key: Option<FunctionKey>,
    verdict: Result<Box<str>, ManifestError>,
}

impl From<Parsed> for Kept {
    fn from(parsed: Parsed) -> Self {
        let json =
            |function| serde_json::to_string(&function).expect("a Function can be written as JSON");
        Self {
            line: parsed.line,
            key: parsed.key,
            verdict: parsed.verdict.map(|function| json(function).into()),
        }
    }
}

impl From<&Kept> for Parsed {
    fn from(kept: &Kept) -> Self {
        let function = |json| serde_json::from_str(json).expect("what was written can be read");
        Self {
            line: kept.line,
            key: kept.key.clone(),
            verdict: kept.verdict.as_deref().map(function).map_err(Clone::clone),
        }
    }
}

/// A source directory and the directory of the manifest that names it.
struct Code {
    directory: PathBuf,
    beside: PathBuf,
}

impl Code {
    fn of(file: &Path, function: &Function) -> Option<Self> {
        let directory = function.spec.source.directory.as_ref()?;
        let beside = file.parent()?.to_owned();
        // Components drop `.`, so that equal places are equal paths.
        let directory = beside.join(directory).components().collect();
        Some(Self { directory, beside })
    }
}

/// Whether a file is code; a manifest beside the one that names the directory (`directory: .`) is none.
fn lies_in(file: &Path, code: &Code) -> bool {
    file.starts_with(&code.directory) && file.parent() != Some(&code.beside)
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    // One byte more than may be there, so that the parser sees that it is too much.
    File::open(path)?
        .take(manifest::MAX_SIZE as u64 + 1)
        .read_to_end(&mut text)?;
    Ok(text)
}

fn is_visible(name: &str) -> bool {
    !name.starts_with('.') && name != "node_modules"
}

/// Whether a file of this name is read as a manifest.
pub fn is_manifest(name: &str) -> bool {
    let ends = Path::new(name)
        .extension()
        .is_some_and(|end| end == "yaml" || end == "yml");
    ends && !name.starts_with(['.', '#', '~'])
}

#[cfg(test)]
mod tests;
