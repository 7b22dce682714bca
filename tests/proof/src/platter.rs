//! The content of the medium, and what a power cut makes of changes that are still in flight.
//!
//! A change is safe once its file, or the directory, was synced after it. Chance decides which of
//! the other changes a cut keeps: pages whole or by the sector, in any order, lengths, and names. A
//! sector in flight may also turn to garbage.
//!
//! A sync that fails leaves any part of its changes on the medium. The rest is in the cache alone,
//! and counts there as written back: as on Linux, no later sync brings it out unless it is changed
//! again (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020). The same goes
//! for names, each of which may be in a block of its own.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::chance::Chance;
use crate::content::{Content, PAGE, Page, SECTOR};

/// A file, whatever its name.
pub type FileId = u64;

/// An event on the disk.
#[derive(Clone)]
pub enum Event {
    /// A page as the cache holds it, and the length that the file then has.
    Write { file: FileId, page: usize, content: Arc<Page>, len: u64 },
    /// The file was cut or extended.
    Length { file: FileId, len: u64 },
    /// The file is safe.
    Sync { file: FileId },
    /// A sync failed, and this much of the file is on the medium.
    SyncFailed { file: FileId, left: Content },
    /// A name.
    Name(NameChange),
    /// The names are safe.
    SyncNames,
    /// A sync failed, and these are the names on the medium.
    SyncNamesFailed { left: BTreeMap<String, FileId> },
}

/// A change to the directory.
#[derive(Clone)]
pub enum NameChange {
    /// A name leads to this file: a new one, or an old one from another name.
    Put { name: String, file: FileId, from: Option<String> },
    /// A name leads nowhere.
    Remove { name: String },
}

/// Names, and what is in the files.
#[derive(Clone, Default)]
pub struct Image(pub BTreeMap<String, Content>);

/// The medium at one moment, and the changes that wait to be written to it.
#[derive(Clone, Default)]
pub struct Platter {
    files: HashMap<FileId, Content>,
    names: BTreeMap<String, FileId>,
    waiting: HashMap<FileId, Vec<Waiting>>,
    names_waiting: Vec<NameChange>,
}

#[derive(Clone)]
enum Waiting {
    Page { page: usize, content: Arc<Page>, len: u64 },
    Length(u64),
}

/// The share of the changes in flight that a cut keeps.
enum Luck {
    None,
    All,
    Some,
}

impl Luck {
    fn draw(chance: &mut Chance) -> Self {
        match chance.below(4) {
            0 => Self::None,
            1 => Self::All,
            _ => Self::Some,
        }
    }

    fn keeps(&self, chance: &mut Chance) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Some => chance.one_in(2),
        }
    }
}

impl Platter {
    /// A medium with these files, which get the numbers from 0 on in the order of their names.
    pub fn new(image: &Image) -> Self {
        let mut platter = Self::default();
        for (file, (name, content)) in (0..).zip(&image.0) {
            platter.files.insert(file, content.clone());
            platter.names.insert(name.clone(), file);
        }
        platter
    }

    /// Lets an event happen.
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Write { file, page, content, len } => {
                let content = Arc::clone(content);
                let waiting = Waiting::Page { page: *page, content, len: *len };
                self.waiting.entry(*file).or_default().push(waiting);
            }
            Event::Length { file, len } => {
                self.waiting.entry(*file).or_default().push(Waiting::Length(*len));
            }
            Event::Sync { file } => {
                let content = self.files.entry(*file).or_default();
                for change in self.waiting.remove(file).unwrap_or_default() {
                    change.apply(content);
                }
            }
            Event::SyncFailed { file, left } => {
                self.waiting.remove(file);
                self.files.insert(*file, left.clone());
            }
            Event::Name(change) => self.names_waiting.push(change.clone()),
            Event::SyncNames => {
                for change in std::mem::take(&mut self.names_waiting) {
                    change.apply(&mut self.names);
                }
            }
            Event::SyncNamesFailed { left } => {
                self.names.clone_from(left);
                self.names_waiting.clear();
            }
        }
    }

    /// The content of a file on the medium.
    pub fn file(&self, file: FileId) -> Content {
        self.files.get(&file).cloned().unwrap_or_default()
    }

    /// A file as the medium has it, with the changes that wait to be written to it.
    pub fn view(&self, file: FileId) -> Content {
        let mut content = self.file(file);
        for change in self.waiting.get(&file).into_iter().flatten() {
            change.apply(&mut content);
        }
        content
    }

    /// The names as the medium has them, with the changes that wait to be written.
    pub fn names_view(&self) -> BTreeMap<String, FileId> {
        let mut names = self.names.clone();
        self.names_waiting.iter().for_each(|change| change.apply(&mut names));
        names
    }

    /// The names on the medium.
    pub fn names(&self) -> &BTreeMap<String, FileId> {
        &self.names
    }

    /// The content of a file that a failed sync leaves on the medium.
    pub fn half_synced(&self, file: FileId, chance: &mut Chance) -> Content {
        let luck = Luck::draw(chance);
        self.written_back(file, &luck, false, chance)
    }

    /// The names that a failed sync leaves on the medium.
    pub fn half_synced_names(&self, chance: &mut Chance) -> BTreeMap<String, FileId> {
        let luck = Luck::draw(chance);
        self.names_written_back(&luck, chance)
    }

    /// The image that a power cut leaves, and a number that tells it from other images of this
    /// moment.
    pub fn cut(&self, chance: &mut Chance) -> (Image, u64) {
        let names = Luck::draw(chance);
        let garbage = chance.one_in(4);
        let mut contents: HashMap<FileId, Content> = HashMap::new();
        let named = self.names_written_back(&names, chance);
        let mut image = Image::default();
        let mut hasher = DefaultHasher::new();
        for (name, file) in named {
            let content = contents
                .entry(file)
                .or_insert_with(|| self.written_back(file, &Luck::draw(chance), garbage, chance));
            (&name, file, content.len()).hash(&mut hasher);
            for waiting in self.waiting.get(&file).into_iter().flatten() {
                if let Waiting::Page { page, .. } = waiting {
                    content.page(*page).map(|page| &page[..]).hash(&mut hasher);
                }
            }
            image.0.insert(name, content.clone());
        }
        (image, hasher.finish())
    }

    fn written_back(
        &self,
        file: FileId,
        luck: &Luck,
        garbage: bool,
        chance: &mut Chance,
    ) -> Content {
        let mut content = self.file(file);
        for change in self.waiting.get(&file).into_iter().flatten() {
            if !luck.keeps(chance) {
                continue;
            }
            match change {
                Waiting::Page { page, content: written, len } if !matches!(luck, Luck::All) => {
                    let mut torn = content.page(*page).map_or([0; PAGE], |page| **page);
                    tear(&mut torn, written, garbage, chance);
                    content.put(*page, Some(Arc::new(torn)));
                    content.set_len(content.len().max(*len));
                }
                whole => whole.apply(&mut content),
            }
        }
        content
    }

    /// The names after some of the waiting changes are written, in order or out of it.
    fn names_written_back(&self, luck: &Luck, chance: &mut Chance) -> BTreeMap<String, FileId> {
        let in_order = chance.one_in(2);
        let mut names = self.names.clone();
        for change in &self.names_waiting {
            if luck.keeps(chance) {
                change.apply(&mut names);
            } else if in_order {
                break;
            }
        }
        names
    }
}

impl Waiting {
    fn apply(&self, content: &mut Content) {
        match self {
            Self::Page { page, content: written, len } => {
                content.put(*page, Some(Arc::clone(written)));
                content.set_len(content.len().max(*len));
            }
            Self::Length(len) => content.set_len(*len),
        }
    }
}

impl NameChange {
    /// Makes the change.
    pub fn apply(&self, names: &mut BTreeMap<String, FileId>) {
        match self {
            Self::Put { name, file, from } => {
                if let Some(from) = from
                    && names.get(from) == Some(file)
                {
                    names.remove(from);
                }
                names.insert(name.clone(), *file);
            }
            Self::Remove { name } => drop(names.remove(name)),
        }
    }
}

/// Writes some sectors of a page over the old one.
fn tear(page: &mut Page, written: &Page, garbage: bool, chance: &mut Chance) {
    let whole = chance.one_in(2);
    for start in (0..PAGE).step_by(SECTOR) {
        let sector = start..start + SECTOR;
        if whole || chance.one_in(2) {
            page[sector.clone()].copy_from_slice(&written[sector]);
        } else if garbage && chance.one_in(2) {
            page[sector].fill_with(|| chance.draw().to_le_bytes()[0]);
        }
    }
}
