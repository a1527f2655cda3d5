//! A primary in memory: makes changes, numbers them, takes a base copy while it does, and writes tapes.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use reelfs_archive::{BaseFile, BaseWriter, Label, LabelVolume, UpdateWriter, WriteOptions};
use reelfs_journal::{
    AmendOutcome, Attributes, Change, Digest, Epoch, FileId, FileTime, GroupName, MarkerKind, Name, NodeKind, Position,
    RENAME_EXCHANGE, Record, Seq, Tags, Timestamp, VolumeIndex, Xattr,
};
use uuid::Uuid;

use super::model::Model;
use super::through::Through;

pub const EPOCH: Epoch = Epoch(1);

pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a legal name")
}

pub struct BaseRun {
    base: Uuid,
    began: Seq,
    writer: BaseWriter<File>,
    path: PathBuf,
    directories: Vec<FileId>,
    files: Vec<FileId>,
    announced: HashSet<FileId>,
}

/// A volume that is not the one being changed just now.
struct Elsewhere {
    model: Model,
    base: Option<BaseRun>,
    next_id: u64,
    in_bracket: bool,
}

pub struct World {
    pub group: GroupName,
    pub uuid: Uuid,
    pub tapes: PathBuf,
    pub model: Model,
    pub records: Vec<Record<'static>>,
    /// The state after each record that ends an operation outside a bracket.
    pub states: BTreeMap<Seq, Model>,
    /// First restorable record.
    pub first_point: Option<Seq>,
    pub base: Option<BaseRun>,
    pub through: Option<Through>,
    pub written: Vec<PathBuf>,
    exported: Position,
    /// Where the last tape begins: after this record.
    last_cut: Seq,
    next_id: u64,
    ticks: i64,
    in_bracket: bool,
    /// The volume that is being changed.
    pub volume: VolumeIndex,
    /// All volumes that the group has or had.
    pub volumes: Vec<LabelVolume>,
    elsewhere: BTreeMap<VolumeIndex, Elsewhere>,
    /// With several volumes: all that live, after each record that ends an operation while none is in a bracket.
    pub whole: BTreeMap<Seq, BTreeMap<VolumeIndex, Model>>,
}

impl World {
    pub fn new(tapes: &Path) -> World {
        let root = FileId { ino: 2, generation: 0 };
        let mut world = World {
            group: "docs".parse().expect("a name"),
            uuid: Uuid::from_u128(77),
            tapes: tapes.to_owned(),
            model: Model::new(root, World::attributes(0o755, FileTime { seconds: 7, nanos: 7 })),
            records: Vec::new(),
            states: BTreeMap::new(),
            first_point: None,
            base: None,
            through: None,
            written: Vec::new(),
            exported: Position { epoch: EPOCH, seq: Seq::ZERO, digest: Digest::ZERO },
            last_cut: Seq::ZERO,
            next_id: 100,
            ticks: 0,
            in_bracket: false,
            volume: VolumeIndex::FIRST,
            volumes: vec![LabelVolume::only()],
            elsewhere: BTreeMap::new(),
            whole: BTreeMap::new(),
        };
        world.marker(MarkerKind::AcquisitionStart, "");
        world
    }

    pub fn attributes(mode: u32, mtime: FileTime) -> Attributes {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Attributes { mode, uid, gid, mtime }
    }

    pub fn time_of(seq: Seq) -> Timestamp {
        Timestamp(1_700_000_000 * Timestamp::SECOND + i64::try_from(seq.0).expect("small") * 1000)
    }

    pub fn mtime(&mut self) -> FileTime {
        self.ticks += 1;
        FileTime { seconds: self.ticks - 3, nanos: 100 + u32::try_from(self.ticks).expect("small") }
    }

    pub fn last(&self) -> Seq {
        Seq(self.records.len() as u64)
    }

    pub fn journal(&mut self, change: Change<'_>, more: bool) -> Seq {
        let seq = self.last().next();
        let time = World::time_of(seq);
        let change = change.into_owned();
        let is_of_group = matches!(change, Change::Marker { kind, .. } if kind.is_of_group());
        let volume = if is_of_group { VolumeIndex::FIRST } else { self.volume };
        let record = Record { seq, more, time, wall: time, uid: 0, pid: 1, volume, change };
        self.records.push(record);
        let in_bracket = self.in_bracket || self.elsewhere.values().any(|other| other.in_bracket);
        if !more && !in_bracket && self.volumes.len() > 1 {
            let others = self.elsewhere.iter().map(|(volume, other)| (*volume, other.model.clone()));
            self.whole.insert(seq, others.chain([(self.volume, self.model.clone())]).collect());
        }
        if !more && !self.in_bracket {
            self.states.insert(seq, self.model.clone());
        }
        seq
    }

    /// Makes a change true and journals it.
    pub fn change(&mut self, change: Change<'_>) -> Seq {
        self.announce(&change);
        self.model.apply(&change);
        self.journal(change, false)
    }

    /// One operation of several records.
    pub fn group_of(&mut self, changes: Vec<Change<'_>>) {
        let count = changes.len();
        for (index, change) in changes.into_iter().enumerate() {
            self.model.apply(&change);
            self.journal(change, index + 1 < count);
        }
    }

    /// A change that fails: journaled, then taken back.
    pub fn failed(&mut self, change: Change<'_>) {
        let amended = self.journal(change, true);
        self.journal(Change::Amend { amended, outcome: AmendOutcome::Void }, false);
    }

    pub fn new_id(&mut self) -> FileId {
        self.next_id += 1;
        // inode numbers come back with another generation, as ext4 has it
        FileId { ino: 100 + self.next_id % 7 * 50 + self.next_id, generation: self.next_id as u32 }
    }

    pub fn create(&mut self, parent: FileId, text: &str, kind: NodeKind) -> FileId {
        let (file, mtime, parent_mtime) = (self.new_id(), self.mtime(), self.mtime());
        let mode = if kind == NodeKind::Directory { 0o750 } else { 0o640 };
        let attributes = World::attributes(mode, mtime);
        let name = name(text);
        self.change(Change::Create { parent, name, file, kind, attributes, xattrs: Vec::new(), parent_mtime });
        file
    }

    pub fn write_change(&mut self, file: FileId, offset: u64, data: &[u8]) -> Change<'static> {
        let present = self.model.objects[&file].data.len() as u64;
        let size = present.max(offset + data.len() as u64);
        Change::Write { file, offset, data: Cow::Owned(data.to_vec()), size, mtime: self.mtime() }
    }

    pub fn write(&mut self, file: FileId, offset: u64, data: &[u8]) {
        let change = self.write_change(file, offset, data);
        self.change(change);
    }

    /// Asked for all of `data`, got `length` of it.
    pub fn short_write(&mut self, file: FileId, offset: u64, data: &[u8], length: usize) {
        let mut asked = self.write_change(file, offset, data);
        let Change::Write { file, mtime, .. } = asked else { unreachable!("a write") };
        let present = self.model.objects[&file].data.len() as u64;
        let size = present.max(offset + length as u64);
        let real = Change::Write { file, offset, data: Cow::Owned(data[..length].to_vec()), size, mtime };
        self.model.apply(&real);
        if let Change::Write { size, .. } = &mut asked {
            *size = present.max(offset + data.len() as u64);
        }
        let amended = self.journal(asked, true);
        self.journal(Change::Amend { amended, outcome: AmendOutcome::Short { length: length as u64, size } }, false);
    }

    pub fn set_size(&mut self, file: FileId, size: u64) {
        let mtime = self.mtime();
        self.change(Change::SetSize { file, size, mtime });
    }

    pub fn unlink(&mut self, parent: FileId, name: Name, file: FileId) {
        let parent_mtime = self.mtime();
        self.change(Change::Unlink { parent, name, file, parent_mtime });
    }

    pub fn rename(&mut self, from: (FileId, Name), to: (FileId, Name), exchange: bool) {
        let file = self.model.objects[&from.0].names[&from.1];
        let replaced = self.model.objects[&to.0].names.get(&to.1).copied().unwrap_or(FileId::NONE);
        let parent_mtime = self.mtime();
        let flags = if exchange { RENAME_EXCHANGE } else { 0 };
        self.change(Change::Rename {
            file,
            parent: from.0,
            name: from.1,
            new_parent: to.0,
            new_name: to.1,
            replaced,
            flags,
            parent_mtime,
        });
    }

    pub fn marker(&mut self, kind: MarkerKind, text: &str) -> Seq {
        let since = World::time_of(self.last().next());
        let (name, note) = (text.to_owned(), String::new());
        let marker = Change::Marker { kind, epoch: EPOCH, name, note, tags: Tags::default(), since };
        self.journal(marker, false)
    }

    /// Something happens behind the mount: `edit` changes the model, and what changed is journaled in a bracket.
    pub fn behind(&mut self, edit: impl FnOnce(&mut World)) {
        let before = self.model.clone();
        let records = self.records.clone();
        let (states, whole) = (self.states.clone(), self.whole.clone());
        edit(self);
        (self.records, self.states, self.whole) = (records, states, whole);
        self.in_bracket = true;
        self.marker(MarkerKind::AdoptBegin, "");
        let after = self.model.clone();
        let mut directories = after.directories();
        directories.push(after.root);
        for directory in directories {
            let names = &after.objects[&directory].names;
            if before.objects.get(&directory).is_some_and(|object| object.names == *names) {
                continue;
            }
            self.journal(Change::ListBegin { directory }, false);
            for (name, file) in names {
                let entry = entry_of(&after, directory, name, *file);
                self.journal(entry, false);
            }
            self.journal(Change::ListEnd { directory }, false);
        }
        let mut seen = HashSet::from([after.root]);
        let mut objects = vec![after.root];
        objects.extend(after.places().into_iter().map(|(_, _, file)| file).filter(|file| seen.insert(*file)));
        for file in objects {
            let object = &after.objects[&file];
            let mtime = object.attributes.mtime;
            if before.objects.get(&file).is_some_and(|old| old.xattrs != object.xattrs) {
                let place = after.places().into_iter().find(|(_, _, child)| *child == file);
                let (parent, name, _) = place.unwrap_or((FileId::NONE, name("root"), file));
                self.journal(entry_of(&after, parent, &name, file), false);
            }
            if object.kind == NodeKind::File && before.objects.get(&file).is_none_or(|old| old.data != object.data) {
                let size = object.data.len() as u64;
                self.journal(Change::SetSize { file, size: 0, mtime }, false);
                self.journal(Change::SetSize { file, size, mtime }, false);
                self.journal(
                    Change::Write { file, offset: 0, data: Cow::Owned(object.data.clone()), size, mtime },
                    false,
                );
            }
            self.journal(Change::SetAttr { file, attributes: object.attributes }, false);
        }
        self.in_bracket = false;
        self.marker(MarkerKind::AdoptEnd, "");
    }

    // --- the base copy ---

    pub fn begin_base(&mut self) {
        let base = Uuid::from_u128(u128::from(self.last().0) + 1000);
        let root = self.model.root;
        let began = self.journal(Change::BaseBegin { base, root }, false);
        let label =
            Label::base(self.group.clone(), self.uuid, EPOCH, base, began, World::time_of(began), self.own_label());
        let path = self.tapes.join(format!("base-{began}.part"));
        let out = File::create(&path).expect("a file");
        let mut writer = BaseWriter::new(out, label, WriteOptions::default()).expect("a base tape");
        let entry = entry_of(&self.model, FileId::NONE, &name("root"), root);
        writer.entry(&entry).expect("the root");
        let (directories, announced) = (vec![root], HashSet::from([root]));
        self.base = Some(BaseRun { base, began, writer, path, directories, files: Vec::new(), announced });
    }

    /// A name change announces what it touches first, so that nothing slips through between two listings.
    fn announce(&mut self, change: &Change<'_>) {
        if let Some(run) = &mut self.through {
            run.note_moved(change);
        }
        let Some(run) = &mut self.base else { return };
        let objects = match change {
            Change::Link { file, .. } => vec![*file],
            Change::Rename { file, replaced, .. } => vec![*file, *replaced],
            _ => return,
        };
        for file in objects.into_iter().filter(|file| *file != FileId::NONE) {
            let places = self.model.places();
            for (parent, name, _) in places.iter().filter(|(_, _, child)| *child == file) {
                run.tell(&self.model, *parent, name, file);
            }
        }
    }

    /// Lists one directory or reads one file; false when there is nothing left to do.
    pub fn base_step(&mut self) -> bool {
        let Some(run) = &mut self.base else { return false };
        if let Some(directory) = run.directories.pop() {
            let names = self.model.objects[&directory].names.clone();
            for (name, file) in &names {
                run.tell(&self.model, directory, name, *file);
            }
            return true;
        }
        let Some(file) = run.files.pop() else { return false };
        let named = self.model.places().iter().any(|(_, _, child)| *child == file);
        let path = if named { self.model.path(file) } else { vec![name("gone")] };
        let object = &self.model.objects[&file];
        let (data, xattrs) = (object.data.clone(), object.xattr_list());
        let size = data.len() as u64;
        let extents = [(0, size)];
        let base_file = BaseFile {
            file,
            path: &path,
            kind: &object.kind,
            attributes: &object.attributes,
            xattrs: &xattrs,
            size,
            extents: if size == 0 { &[] } else { &extents },
            hard_link: None,
        };
        let mut source = |buffer: &mut [u8], offset: u64| {
            let rest = &data[usize::try_from(offset).expect("small").min(data.len())..];
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            Ok(length)
        };
        run.writer.file(&base_file, &mut source).expect("written");
        true
    }

    pub fn end_base(&mut self) {
        while self.base_step() {}
        let run = self.base.take().expect("a base copy under way");
        let sealed = run.writer.seal(World::time_of(run.began)).expect("sealed");
        let path = self.tapes.join(sealed.name.to_string());
        std::fs::rename(&run.path, &path).expect("renamed");
        self.written.push(path);
        let end = Change::BaseEnd { base: run.base, began: run.began, digest: sealed.root.0 };
        let ended = self.journal(end, false);
        self.first_point.get_or_insert(ended);
    }

    /// Writes what is not on a tape yet.
    pub fn export(&mut self) -> PathBuf {
        let from = self.exported.seq.next();
        let label =
            Label::update(self.group.clone(), self.uuid, self.exported, World::time_of(from), self.volumes.clone());
        let part = self.tapes.join("update.part");
        let out = File::create(&part).expect("a file");
        let mut writer = UpdateWriter::new(out, label, WriteOptions::default()).expect("an update tape");
        for record in self.records.iter().filter(|record| record.seq >= from) {
            let encoded = record.encode();
            writer.record(encoded.control(), &encoded.data().concat()).expect("written");
        }
        self.last_cut = self.exported.seq;
        self.exported = writer.position();
        let sealed = writer.seal(Timestamp(World::time_of(self.last()).0 + 500)).expect("sealed");
        let path = self.tapes.join(sealed.name.to_string());
        std::fs::rename(&part, &path).expect("renamed");
        self.written.push(path.clone());
        path
    }
}

impl World {
    /// The same history but for its last record, exported elsewhere: in one piece, or cut where this one was cut last. Forked,
    /// the last record that it has is another one.
    pub fn export_twin(&self, tapes: &Path, forks: bool, cuts: bool) {
        let mut twin = World::new(tapes);
        let mut records = self.records[..self.records.len() - 1].to_vec();
        if forks {
            records.pop();
        }
        twin.model = self.model.clone();
        if cuts {
            let rest = records.split_off(usize::try_from(self.last_cut.0).expect("small"));
            twin.records = records;
            twin.export();
            twin.records.extend(rest);
        } else {
            twin.records = records;
        }
        if forks {
            twin.marker(MarkerKind::Named, "another story");
        }
        twin.export();
    }
}

/// Several volumes: one is changed at a time, the others wait.
impl World {
    fn own_label(&self) -> LabelVolume {
        self.volumes.iter().find(|volume| volume.index == self.volume).expect("a volume").clone()
    }

    /// A new volume joins the group and is the one that is changed from now on. Its inode numbers are those of the first.
    pub fn join(&mut self, text: &str) -> VolumeIndex {
        let volume = VolumeIndex(u16::try_from(self.volumes.len()).expect("few"));
        self.volumes.push(LabelVolume::new(volume, text.parse().expect("a name")));
        let root = FileId { ino: 2, generation: 0 };
        let model = Model::new(root, World::attributes(0o711, FileTime { seconds: 8, nanos: 8 }));
        self.elsewhere.insert(volume, Elsewhere { model, base: None, next_id: 100, in_bracket: false });
        self.switch(volume);
        self.marker(MarkerKind::AcquisitionStart, "");
        volume
    }

    /// From now on this volume is the one that is changed.
    pub fn switch(&mut self, volume: VolumeIndex) {
        if volume == self.volume {
            return;
        }
        let mut other = self.elsewhere.remove(&volume).expect("a volume");
        std::mem::swap(&mut self.model, &mut other.model);
        std::mem::swap(&mut self.base, &mut other.base);
        std::mem::swap(&mut self.next_id, &mut other.next_id);
        std::mem::swap(&mut self.in_bracket, &mut other.in_bracket);
        self.elsewhere.insert(std::mem::replace(&mut self.volume, volume), other);
    }

    /// The volume that is changed leaves the group; another one takes its place here.
    pub fn leave(&mut self, to: VolumeIndex) {
        let left = self.volume;
        let marker = self.marker(MarkerKind::VolumeLeft, "");
        self.switch(to);
        self.elsewhere.remove(&left);
        self.whole.get_mut(&marker).expect("a state").remove(&left);
    }

    /// Opens or closes a bracket of the volume that is changed.
    pub fn bracket(&mut self, kind: MarkerKind) -> Seq {
        self.in_bracket = kind.begins_bracket();
        self.marker(kind, "")
    }
}

impl BaseRun {
    fn tell(&mut self, model: &Model, parent: FileId, name: &Name, file: FileId) {
        self.writer.entry(&entry_of(model, parent, name, file)).expect("an entry");
        if self.announced.insert(file) {
            match model.objects[&file].kind {
                NodeKind::Directory => self.directories.insert(0, file),
                NodeKind::File => self.files.push(file),
                _ => {}
            }
        }
    }
}

pub fn entry_of(model: &Model, parent: FileId, name: &Name, file: FileId) -> Change<'static> {
    let object = &model.objects[&file];
    let xattrs: Vec<Xattr> = object.xattr_list();
    Change::Entry {
        parent,
        name: name.clone(),
        file,
        kind: object.kind.clone(),
        attributes: object.attributes,
        xattrs,
        size: object.data.len() as u64,
    }
}
