//! Versions of weights and adapters, kept in one folder that outlives the process: what was
//! saved is there whole after a crash at any byte, and what was not is not there at all.
//!
//! Every version has a folder of its own, named by its number of twenty digits: its files as
//! others read them too, and `checkpoint.json`, which says whose version it is and what the other
//! files hold. A folder comes with all its files in one step and goes in one step (`place.rs`),
//! so nothing else has to be kept in step with it. How many versions a name has had is written
//! beside them (`counts.rs`) before the last that tells it goes. What the archive did not make
//! it leaves alone. One process has an archive at a time.

mod counts;
mod error;
mod lock;
mod manifest;
mod tensors;

pub use error::Error;
pub use manifest::{Of, Saved, Version};

use crate::adapter::{self, CONFIG, PEFT};
use crate::place::{self, Content};
use counts::{COUNTS, Counts};
use engine::lora::Adapter;
use engine::model::Config;
use engine::weights::Tensors;
use lock::Lock;
use manifest::{MANIFEST, Summed};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Digits of a folder's name: they hold every u64, so that names sort as numbers do.
const DIGITS: usize = 20;
/// The tensors of whole weights, as the hub calls them.
const WEIGHTS: &str = "model.safetensors";
/// Their configuration.
const WEIGHTS_CONFIG: &str = "config.json";

/// Which versions are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// So many of the newest of each name, and the best beside them; 0 keeps all.
    pub keep: u32,
    /// Which metric is the better one.
    pub better: Better,
}

/// Which of two metrics is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// A reward.
    Higher,
    /// A loss.
    Lower,
}

/// Which version of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one that was saved, or served again, last.
    Latest,
    /// The one of the best metric; of several the newest.
    Best,
    /// The newest that is called so.
    Called(String),
}

/// Versions that are the latest or the best of their names, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leading {
    /// Those that were saved, or served again, last.
    pub latest: BTreeSet<u64>,
    /// Those of the best metric.
    pub best: BTreeSet<u64>,
}

/// Versions in a folder.
#[derive(Debug)]
pub struct Archive {
    folder: PathBuf,
    settings: Settings,
    held: Mutex<Held>,
    /// One changes the folder at a time; who only looks waits for nobody.
    changing: Mutex<()>,
    strange: Vec<crate::Error>,
    /// Held as long as the archive.
    _lock: Lock,
}

#[derive(Debug)]
struct Held {
    all: BTreeMap<u64, Saved>,
    /// What the versions that are there do not tell of counts.
    counts: Counts,
    /// The number that nothing has had.
    next: u64,
}

impl Archive {
    /// Opens the archive in a folder, which is made if it is not there. What a writer left
    /// who died is taken away.
    pub fn open(folder: &Path, settings: Settings) -> Result<Self, Error> {
        let unwritable = |error: io::Error| crate::Error::unwritable(folder, &error);
        fs::create_dir_all(folder).map_err(unwritable)?;
        // So that errors and listings tell the same paths, wherever the process goes.
        let folder = fs::canonicalize(folder).map_err(unwritable)?;
        let lock = Lock::take(&folder)?;
        let unreadable = |error: io::Error| crate::Error::unreadable(&folder, &error);
        let (mut all, mut strange, mut next) = (BTreeMap::new(), Vec::new(), 1);
        for entry in fs::read_dir(&folder).map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.file_name();
            if is_unfinished(&name) {
                // What stays costs room and nothing else.
                let _ = fs::remove_dir_all(folder.join(&name));
            }
            let Some(number) = number(&name) else { continue };
            next = next.max(number.saturating_add(1));
            match Saved::read(number, &folder.join(&name)) {
                Ok(saved) => {
                    next = next.max(saved.turn.saturating_add(1));
                    all.insert(number, saved);
                }
                Err(error) => strange.push(error),
            }
        }
        let counts = counts::read(&folder).unwrap_or_else(|error| {
            strange.push(error);
            Counts::default()
        });
        let (held, changing) = (Mutex::new(Held { all, counts, next }), Mutex::default());
        Ok(Self { folder, settings, held, changing, strange, _lock: lock })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Which versions it keeps.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Folders that look like a version's and are none that is whole, when it was opened.
    /// They are left alone.
    pub fn strange(&self) -> &[crate::Error] {
        &self.strange
    }

    /// Saves a version with those files. When this returns the disk has it; where it cannot,
    /// nothing has changed. Versions of the same name that are more than are kept go.
    pub fn save(&self, version: Version, files: &[(&str, Content<'_>)]) -> Result<Saved, Error> {
        version.check()?;
        check_names(files.iter().map(|(name, _)| *name))?;
        let _one = self.changing();
        let number = self.number()?;
        let sums = RefCell::new(Vec::new());
        let summing = files.iter().map(|(name, content)| {
            let sums = &sums;
            move |to: &mut dyn Write| {
                let mut summed = Summed::new(to);
                content(&mut summed)?;
                sums.borrow_mut().push(summed.sum(name));
                Ok(())
            }
        });
        let summing: Vec<_> = summing.collect();
        let saved = || Saved {
            id: number,
            turn: number,
            again: None,
            version: version.clone(),
            files: sums.borrow().clone(),
        };
        // By then the others are written.
        let manifest = |to: &mut dyn Write| to.write_all(&saved().manifest());
        let files = files.iter().zip(&summing).map(|((name, _), file)| (*name, file as _));
        let all: Vec<(&str, Content<'_>)> = files.chain([(MANIFEST, &manifest as _)]).collect();
        place::place(&self.path(number), &all)?;
        let saved = saved();
        self.held().all.insert(number, saved.clone());
        self.prune(&saved.version.of);
        Ok(saved)
    }

    /// Saves a version of an adapter of a model, as PEFT does, and whatever else goes with it.
    pub fn save_adapter(
        &self,
        version: Version,
        adapter: &Adapter,
        (config, base): (&Config, &str),
        more: &[(&str, Content<'_>)],
    ) -> Result<Saved, Error> {
        let [tensors, text] = &adapter::files(&self.folder, adapter, config, base)?;
        let own: [(&str, Content<'_>); 2] =
            [(PEFT, &|to| to.write_all(tensors)), (CONFIG, &|to| to.write_all(text))];
        self.save(version, &[&own, more].concat())
    }

    /// Saves a version of the weights as a folder of the hub has them, all tensors in one
    /// file, with the text of their configuration.
    pub fn save_weights(
        &self,
        version: Version,
        tensors: &Tensors,
        config: &[u8],
    ) -> Result<Saved, Error> {
        let header = tensors::header(&self.folder.join(WEIGHTS), tensors)?;
        let file = |to: &mut dyn Write| tensors::write(to, &header, tensors);
        self.save(version, &[(WEIGHTS, &file), (WEIGHTS_CONFIG, &|to| to.write_all(config))])
    }

    /// All versions, by number.
    pub fn list(&self) -> Vec<Saved> {
        self.held().all.values().cloned().collect()
    }

    /// The version of a number.
    pub fn find(&self, id: u64) -> Result<Saved, Error> {
        self.held().all.get(&id).cloned().ok_or(Error::Unknown { id })
    }

    /// A version of a name.
    pub fn pick(&self, of: &Of, which: &Which) -> Option<Saved> {
        let held = self.held();
        let own = held.all.values().filter(|saved| saved.version.of == *of);
        match which {
            Which::Latest => own.max_by_key(|saved| saved.turn).cloned(),
            Which::Best => self.best(own).cloned(),
            Which::Called(label) => {
                let called = own.filter(|saved| saved.version.label == *label);
                called.max_by_key(|saved| saved.turn).cloned()
            }
        }
    }

    /// Which of them lead their names.
    pub fn leading(&self, all: &[Saved]) -> Leading {
        let mut names: BTreeMap<&Of, Vec<&Saved>> = BTreeMap::new();
        for saved in all {
            names.entry(&saved.version.of).or_default().push(saved);
        }
        let mut leading = Leading::default();
        for own in names.into_values() {
            let latest = own.iter().max_by_key(|saved| saved.turn);
            leading.latest.extend(latest.map(|saved| saved.id));
            leading.best.extend(self.best(own.into_iter()).map(|saved| saved.id));
        }
        leading
    }

    /// How many versions a name has had, those that have gone and those that were never saved
    /// among them.
    pub fn count(&self, of: &Of) -> u64 {
        self.held().count(of, None)
    }

    /// A name has had so many versions, whether the last of them is saved or not. When this
    /// returns the disk has it.
    pub fn counted(&self, of: &Of, count: u64) -> Result<(), Error> {
        let _one = self.changing();
        self.keep_count(of, count, None)
    }

    /// Whose versions there are.
    pub fn names(&self) -> BTreeSet<Of> {
        self.held().all.values().map(|saved| saved.version.of.clone()).collect()
    }

    /// The folder of a version, as others read it too.
    pub fn path(&self, id: u64) -> PathBuf {
        self.folder.join(format!("{id:0DIGITS$}"))
    }

    /// Whether a version's files are those that were written, byte for byte.
    pub fn verify(&self, id: u64) -> Result<Saved, Error> {
        let saved = self.find(id)?;
        saved.verify(&self.path(id))?;
        Ok(saved)
    }

    /// Says of a version how good it is, or of which step; what is `None` stays as it was.
    pub fn mark(&self, id: u64, metric: Option<f64>, step: Option<u64>) -> Result<Saved, Error> {
        self.change(id, |Saved { version, .. }| {
            version.metric = metric.or(version.metric);
            version.step = step.or(version.step);
        })
    }

    /// A version is served again, and is called so: from now on it is the latest of its name.
    pub fn renew(&self, id: u64, label: &str) -> Result<Saved, Error> {
        let turn = self.number()?;
        self.change(id, |saved| {
            saved.turn = turn;
            saved.again = Some(label.to_owned());
        })
    }

    /// Takes a version away.
    pub fn delete(&self, id: u64) -> Result<Saved, Error> {
        let _one = self.changing();
        self.remove(self.find(id)?)
    }

    /// Writes what a version's manifest says otherwise, in one step.
    fn change(&self, id: u64, how: impl FnOnce(&mut Saved)) -> Result<Saved, Error> {
        let _one = self.changing();
        let mut saved = self.find(id)?;
        how(&mut saved);
        saved.version.check()?;
        place::put(&self.path(id), MANIFEST, &|to| to.write_all(&saved.manifest()))?;
        self.held().all.insert(id, saved.clone());
        Ok(saved)
    }

    fn remove(&self, saved: Saved) -> Result<Saved, Error> {
        self.keep_count(&saved.version.of, saved.version.count, Some(saved.id))?;
        place::remove(&self.path(saved.id))?;
        self.held().all.remove(&saved.id);
        Ok(saved)
    }

    /// Writes how many versions a name has had, if those that are there, but for one that
    /// goes, do not tell.
    fn keep_count(&self, of: &Of, count: u64, goes: Option<u64>) -> Result<(), Error> {
        let held = self.held();
        if count <= held.count(of, goes) {
            return Ok(());
        }
        let mut counts = held.counts.clone();
        drop(held);
        counts.insert(of.clone(), count);
        place::put(&self.folder, COUNTS, &|to| to.write_all(&counts::text(&counts)))?;
        self.held().counts = counts;
        Ok(())
    }

    /// Takes those of a name away that are more than are kept.
    fn prune(&self, of: &Of) {
        let mut own = self.list();
        own.retain(|saved| saved.version.of == *of);
        own.sort_by_key(|saved| std::cmp::Reverse(saved.turn));
        let best = self.best(own.iter()).map(|saved| saved.id);
        let keep = if self.settings.keep == 0 { own.len() } else { self.settings.keep as usize };
        for saved in own.into_iter().skip(keep).filter(|saved| Some(saved.id) != best) {
            // What cannot go now is listed, and goes with a later one.
            let _ = self.remove(saved);
        }
    }

    fn best<'a>(&self, of: impl Iterator<Item = &'a Saved>) -> Option<&'a Saved> {
        let marked = of.filter_map(|saved| Some((saved.version.metric?, saved)));
        let best = marked.max_by(|(one, saved), (other, another)| {
            let order = match self.settings.better {
                Better::Higher => one.total_cmp(other),
                Better::Lower => other.total_cmp(one),
            };
            order.then(saved.turn.cmp(&another.turn))
        });
        best.map(|(_, saved)| saved)
    }

    /// A number that nothing has had.
    fn number(&self) -> Result<u64, Error> {
        let held = &mut *self.held();
        let number = held.next;
        let full = || Error::field("id", "a number that another follows", number);
        held.next = number.checked_add(1).ok_or_else(full)?;
        Ok(number)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// How many versions a name has had, as is known without one of them.
    fn count(&self, of: &Of, without: Option<u64>) -> u64 {
        let own = self.all.values().filter(|saved| saved.version.of == *of);
        let own = own.filter(|saved| Some(saved.id) != without).map(|saved| saved.version.count);
        own.chain(self.counts.get(of).copied()).max().unwrap_or(0)
    }
}

/// Refuses files that could not lie side by side in a folder.
fn check_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let mut seen = BTreeSet::from([MANIFEST]);
    for name in names {
        let plain = Path::new(name).file_name().is_some_and(|plain| plain == name);
        if !plain || !seen.insert(name) {
            let expected = format!("names in one folder, each once and none {MANIFEST}");
            return Err(Error::field("files", expected, format!("{name:?}")));
        }
    }
    Ok(())
}

/// The number that is a folder's name.
fn number(name: &OsStr) -> Option<u64> {
    let digits = name.to_str().filter(|name| name.len() == DIGITS)?;
    let plain = digits.bytes().all(|digit| digit.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// Whether a folder is one that a version was on its way in, or out.
fn is_unfinished(name: &OsStr) -> bool {
    let inner = name.to_str().and_then(|name| name.strip_prefix('.'));
    let inner = inner.and_then(|name| name.strip_suffix(place::UNFINISHED));
    let of = inner.and_then(|name| name.split_once('.'));
    of.is_some_and(|(name, _)| number(OsStr::new(name)).is_some())
}
