//! Reads what the files of the watched directories say: every manifest, and the code that it names. It changes nothing
//! but the kept sources, and remembers nothing: that is done by [`super::source`].
//!
//! A manifest is a file `*.yaml` or `*.yml`, however deep. Dot names, editors' droppings and `node_modules` are passed
//! over, and so is what lies inside the `source.directory` of a manifest: that is code, and its YAML is the code's.

mod homes;
mod kept;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    slice,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use self::{homes::Homes, kept::Kept};
use super::{
    Problem,
    memory::Memory,
    source::SourceCache,
    walk::{ENTRIES, Entry, Found, Interest, walk},
    watch::Sight,
    writers::REST,
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
    /// The roots by name, in parents without links: they may become other directories.
    pub gates: BTreeSet<PathBuf>,
}

/// Why a file may be half written: somebody has it open, or might have.
#[derive(Clone, Copy, PartialEq)]
enum Half {
    Open,
    Recent,
}

/// Age of a change that was not watched, after which its file is taken to be whole.
const SETTLED: Duration = Duration::from_secs(3);

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
    homes: Homes,
}

impl Scanner {
    pub fn new(roots: Vec<PathBuf>, sources: SourceCache) -> Self {
        Self {
            roots,
            most: ENTRIES,
            sources,
            manifests: Memory::new(),
            homes: Homes::default(),
        }
    }

    /// Reads all roots. `objects` tell what a manifest said that cannot be read now. Blocks.
    pub fn scan(&mut self, objects: &[Arc<Function>], sight: &Sight) -> Scan {
        let objects = by_file(objects);
        let mut scan = Scan::default();
        let mut entered = BTreeSet::new();
        self.sources.begin();
        self.manifests.begin();
        for root in self.roots.clone() {
            scan.gates.extend(gate(&root));
            match fs::canonicalize(&root) {
                Ok(real) => Reader {
                    root: &real,
                    scanner: self,
                    objects: &objects,
                    sight,
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
    /// By the files that they come from.
    objects: &'a HashMap<PathBuf, Vec<&'a Function>>,
    sight: &'a Sight,
    scan: &'a mut Scan,
}

impl Reader<'_> {
    /// `entered` are the directories of the roots before, which come first.
    fn root(&mut self, path: &Path, entered: &mut BTreeSet<PathBuf>) {
        let is_new = !entered.contains(self.root);
        let Found {
            mut files,
            directories,
            faults,
        } = walk(self.root, path, MANIFESTS, entered, self.scanner.most);
        self.scan.directories.extend(directories.iter().cloned());
        entered.extend(directories);
        let mut parsed = BTreeMap::new();
        let (mut code, mut seen) = (Vec::new(), BTreeSet::new());
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
            let half = self.half(
                &entry,
                || self.settled(&entry, &documents),
                || self.of_file(&entry.path).next().is_some(),
            );
            code.extend(self.code_of(&entry, &documents, half.is_some()));
            match half {
                Some(half) => self.wait_for(&entry.path, "it", half),
                None => {
                    parsed.insert(entry.path.clone(), documents);
                }
            }
            seen.insert(entry.path);
        }
        if is_new {
            // Once for each Function.
            let files = self.objects.iter();
            let files = files.flat_map(|(file, objects)| objects.iter().map(move |_| file));
            for (dir, fault) in self.scanner.homes.look(path, &seen, files) {
                self.scan.unknown(&dir, fault);
            }
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

    /// The objects that come from a file.
    fn of_file(&self, path: &Path) -> impl Iterator<Item = &Function> {
        let found = self.objects.get(path).into_iter().flatten();
        found.copied()
    }

    /// How old a manifest must be to be taken for whole: one that says less than before would delete.
    fn settled(&self, entry: &Entry, documents: &[Parsed]) -> Duration {
        let is_said = |object: &Function| {
            let key = FunctionKey::try_from(object).ok();
            documents.iter().any(|parsed| parsed.key == key)
        };
        if self.of_file(&entry.path).all(is_said) {
            SETTLED
        } else {
            REST
        }
    }

    /// Why a file may be half written. Where no writer would have been told, only a recent change can say so; where there is
    /// nothing to lose yet, that is believed.
    fn half(
        &self,
        entry: &Entry,
        settled: impl FnOnce() -> Duration,
        may_lose: impl FnOnce() -> bool,
    ) -> Option<Half> {
        if self.sight.writers.are_at(&entry.real, Instant::now()) {
            return Some(Half::Open);
        }
        let modified = entry.metadata.modified().ok()?;
        let age = SystemTime::now().duration_since(modified).ok()?;
        let is_hidden = age < REST && !self.sight.reaches(&entry.real, modified);
        (is_hidden && may_lose() && age < settled()).then_some(Half::Recent)
    }

    /// What a file says that may be half written is not known yet.
    fn wait_for(&mut self, file: &Path, what: &str, half: Half) {
        self.scan.unknown.insert(file.to_owned());
        self.scan.is_partial = true;
        if half == Half::Open {
            let message = format!(
                "{what} is being written: it counts once its writer closes it, or has left it alone for {} s",
                REST.as_secs()
            );
            self.scan.problems.push(Problem::new(file, message));
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
    fn code_of(&self, entry: &Entry, documents: &[Parsed], is_half: bool) -> Vec<Code> {
        let now = documents
            .iter()
            .filter_map(|parsed| parsed.verdict.as_ref().ok());
        let is_whole = !is_half
            && !documents.is_empty()
            && documents.iter().all(|parsed| parsed.verdict.is_ok());
        let before = self.of_file(&entry.path).filter(|_| !is_whole);
        now.chain(before)
            .filter_map(|function| Code::of(&entry.path, function))
            .collect()
    }

    fn take(&mut self, file: &Path, documents: Vec<Parsed>) {
        let is_cut = documents
            .iter()
            .any(|parsed| matches!(parsed.verdict, Err(ManifestError::Syntax { .. })));
        if documents.is_empty() && !self.scan.unknown.contains(file) {
            self.scan
                .problems
                .push(Problem::new(file, EMPTY.to_owned()));
            self.scan.unknown.insert(file.to_owned());
        }
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
        let mut source = None;
        if let Some(code) = Code::of(file, &function) {
            let (digest, found) = self.scanner.sources.keep(self.root, &code.directory);
            self.scan.directories.extend(found.directories);
            let is_it = |object| FunctionKey::try_from(object).as_ref() == Ok(&key);
            let may_lose = || self.of_file(file).any(is_it);
            let half = found
                .files
                .iter()
                .find_map(|entry| Some((entry, self.half(entry, || SETTLED, may_lose)?)));
            if let Some((entry, half)) = half {
                return self.wait_for(file, &entry.path.display().to_string(), half);
            }
            source = Some(digest);
        }
        self.scan.definitions.push(Definition {
            key,
            function,
            file: file.to_owned(),
            line,
            source,
        });
    }
}

const EMPTY: &str =
    "there is no Function in it: what it defined stays; remove the file if that is to go";

/// What comes from files, by file.
fn by_file(objects: &[Arc<Function>]) -> HashMap<PathBuf, Vec<&Function>> {
    let mut files = HashMap::<_, Vec<_>>::new();
    for object in objects {
        if let Manager::Directory { file } = Manager::of(object) {
            files.entry(file).or_default().push(&**object);
        }
    }
    files
}

/// The name by which a root is reached.
fn gate(root: &Path) -> Option<PathBuf> {
    let parent = fs::canonicalize(root.parent()?).ok()?;
    Some(parent.join(root.file_name()?))
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
