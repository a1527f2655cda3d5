//! What the tests of this crate share: trees to put on tapes, and the tapes.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use reelfs_archive::{
    BaseFile, BaseWriter, Depth, Label, LabelVolume, Sealed, SealedTape, TapeKind, UpdateWriter, WriteOptions,
};
use reelfs_journal::{
    Attributes, Change, Digest, Epoch, FileId, FileTime, GroupName, Name, NodeKind, Position, Record, Seq, Timestamp,
    VolumeIndex, Xattr,
};
use rustix::fs::SeekFrom;
use uuid::Uuid;

pub const GROUP: Uuid = Uuid::from_u128(0x6e30);
pub const TIME: Timestamp = Timestamp(1_795_181_872_123_456_789);
pub const OPTIONS: WriteOptions = WriteOptions { threads: 2, level: 3 };

pub fn group() -> GroupName {
    "docs".parse().expect("a group name")
}

/// Whether these programs are here; under `.ci/run` they must be.
pub fn have(programs: &[&str]) -> bool {
    let there = |program: &&str| Command::new(program).arg("--version").output().is_ok();
    let missing: Vec<_> = programs.iter().filter(|program| !there(program)).collect();
    if !missing.is_empty() {
        assert!(std::env::var_os("REELFS_CI").is_none(), "{missing:?} missing");
        println!("not run: {missing:?} missing");
    }
    missing.is_empty()
}

/// Runs a shell command, with `$1`, `$2`... as given.
pub fn shell(script: &str, arguments: &[&Path]) -> Output {
    let output = Command::new("bash").args(["-c", script, "bash"]).args(arguments).output();
    output.expect("bash runs")
}

/// The same; it must succeed without a word on standard error.
pub fn quiet_shell(script: &str, arguments: &[&Path]) -> String {
    let output = shell(script, arguments);
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && complaints.is_empty(), "{script}: {:?}: {complaints}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// One name of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub path: Vec<Name>,
    pub kind: NodeKind,
    pub attributes: Attributes,
    pub xattrs: Vec<Xattr>,
    pub size: u64,
    pub extents: Vec<(u64, u64)>,
    pub file: FileId,
}

pub fn node_kind(path: &Path, metadata: &fs::Metadata) -> NodeKind {
    let kind = metadata.file_type();
    let rdev = metadata.rdev();
    let device = u64::from(rustix::fs::major(rdev)) << 32 | u64::from(rustix::fs::minor(rdev));
    if kind.is_dir() {
        NodeKind::Directory
    } else if kind.is_symlink() {
        NodeKind::Symlink(fs::read_link(path).expect("a link").as_os_str().as_bytes().to_vec())
    } else if kind.is_fifo() {
        NodeKind::Fifo
    } else if kind.is_socket() {
        NodeKind::Socket
    } else if kind.is_char_device() {
        NodeKind::CharDevice(device)
    } else if kind.is_block_device() {
        NodeKind::BlockDevice(device)
    } else {
        NodeKind::File
    }
}

pub fn xattrs(path: &Path) -> Vec<Xattr> {
    let mut names = vec![0; 65_536];
    let length = rustix::fs::llistxattr(path, &mut names).expect("attributes are listed");
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 65_536];
        let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value).expect("an attribute");
        value.truncate(length);
        found.push(Xattr { name: name.to_vec(), value });
    }
    found.sort_by(|left, right| left.name.cmp(&right.name));
    found
}

fn extents(path: &Path, size: u64) -> Vec<(u64, u64)> {
    let file = File::open(path).expect("a file");
    let (mut at, mut found) = (0, Vec::new());
    while let Ok(data) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
        let hole = rustix::fs::seek(&file, SeekFrom::Hole(data)).unwrap_or(size);
        found.push((data, hole - data));
        at = hole;
    }
    found
}

/// Everything beneath a directory, the directory first, directories listed one by one.
pub fn objects(root: &Path) -> Vec<Object> {
    let mut queue = std::collections::VecDeque::from([(Vec::new(), root.to_owned())]);
    let mut found = Vec::new();
    while let Some((path, place)) = queue.pop_front() {
        let metadata = fs::symlink_metadata(&place).expect("an object");
        let kind = node_kind(&place, &metadata);
        if kind == NodeKind::Directory {
            let mut names: Vec<_> =
                fs::read_dir(&place).expect("a directory").map(|entry| entry.expect("an entry").file_name()).collect();
            names.sort();
            for name in names {
                let mut path: Vec<Name> = path.clone();
                path.push(Name::try_from(name.as_os_str()).expect("a name"));
                queue.push_back((path, place.join(&name)));
            }
        }
        let is_file = kind == NodeKind::File;
        found.push(Object {
            path,
            attributes: Attributes {
                mode: metadata.mode() & 0o7777,
                uid: metadata.uid(),
                gid: metadata.gid(),
                mtime: FileTime {
                    seconds: metadata.mtime(),
                    nanos: u32::try_from(metadata.mtime_nsec()).expect("nanoseconds"),
                },
            },
            xattrs: xattrs(&place),
            size: if is_file { metadata.len() } else { 0 },
            extents: if is_file { extents(&place, metadata.len()) } else { Vec::new() },
            file: FileId { ino: metadata.ino(), generation: 0 },
            kind,
        });
    }
    found
}

pub fn place(root: &Path, path: &[Name]) -> PathBuf {
    path.iter().fold(root.to_owned(), |place, name| place.join(name.as_os_str()))
}

/// What must be equal in two trees: everything but inode numbers, of which only the pattern counts.
pub fn inventory(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut first_names: HashMap<FileId, PathBuf> = HashMap::new();
    let mut found = BTreeMap::new();
    for object in objects(root) {
        let at = place(root, &object.path);
        let relative = at.strip_prefix(root).expect("beneath").to_owned();
        let same = first_names.entry(object.file).or_insert_with(|| relative.clone()).clone();
        let bytes = if object.kind == NodeKind::File {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(File::open(&at).expect("a file")).expect("bytes");
            hasher.finalize().to_string()
        } else {
            String::new()
        };
        let Object { kind, attributes, xattrs, size, .. } = object;
        let attributes =
            if matches!(kind, NodeKind::Symlink(_)) { Attributes { mode: 0, ..attributes } } else { attributes };
        found.insert(relative, format!("{kind:?} {attributes:?} {xattrs:?} {size} {bytes} first name {same:?}"));
    }
    found
}

pub fn assert_same_tree(left: &Path, right: &Path, is_left_out: impl Fn(&str) -> bool) {
    let (left, mut right) = (inventory(left), inventory(right));
    for (path, wanted) in &left {
        match right.remove(path) {
            Some(found) => assert_eq!(wanted, &found, "{path:?}"),
            None => assert!(is_left_out(wanted), "{path:?} is missing"),
        }
    }
    assert!(right.is_empty(), "too much: {right:?}");
}

/// The `Entry` of an object, as the walk of a base copy gives it.
pub fn entry(object: &Object, parent: FileId) -> Change<'static> {
    let name = object.path.last().cloned().unwrap_or_else(|| Name::new(b"?").expect("a name"));
    Change::Entry {
        parent,
        name,
        file: object.file,
        kind: object.kind.clone(),
        attributes: object.attributes,
        xattrs: object.xattrs.clone(),
        size: object.size,
    }
}

/// Puts a tree on a base tape.
pub fn write_base<W: std::io::Write>(root: &Path, out: W) -> Sealed<W> {
    let label = Label::base(group(), GROUP, Epoch(1), Uuid::from_u128(7), Seq(5), TIME, LabelVolume::only());
    let mut writer = BaseWriter::new(out, label, OPTIONS).expect("a writer");
    let mut first_names: HashMap<FileId, Vec<Name>> = HashMap::new();
    for object in objects(root) {
        writer.entry(&entry(&object, FileId::NONE)).expect("an entry");
        let hard_link = first_names.get(&object.file).cloned();
        first_names.entry(object.file).or_insert_with(|| object.path.clone());
        let Object { path, kind, attributes, xattrs, size, extents, file } = &object;
        let (size, file) = (*size, *file);
        let hard_link = hard_link.as_deref();
        let item = BaseFile { file, path, kind, attributes, xattrs, size, extents, hard_link };
        if *kind == NodeKind::File {
            let source = File::open(place(root, path)).expect("a file");
            writer.file(&item, &mut |buffer, at| source.read_at(buffer, at)).expect("a file");
        } else {
            writer.file(&item, &mut |_, _| panic!("no file")).expect("an object");
        }
    }
    writer.seal(Timestamp(TIME.0 + 1)).expect("a tape")
}

/// A write of `length` bytes that differ from record to record.
pub fn write_record(seq: u64, length: usize) -> Record<'static> {
    let noise = |at: usize| (seq.wrapping_mul(0x9e37_79b9) as usize).wrapping_add(at * at / 7) as u8;
    let data: Vec<u8> = (0..length).map(noise).collect();
    let time = Timestamp(TIME.0 + i64::try_from(seq).expect("small"));
    Record {
        seq: Seq(seq),
        more: false,
        time,
        wall: time,
        uid: 0,
        pid: 1,
        volume: VolumeIndex(0),
        change: Change::Write {
            file: FileId { ino: 12, generation: 1 },
            offset: 4096 * seq,
            data: data.into(),
            size: 1 << 30,
            mtime: FileTime::from(time),
        },
    }
}

pub fn record_bytes(record: &Record<'_>) -> ([u8; 64], Vec<u8>) {
    let encoded = record.encode();
    (*encoded.control(), encoded.data().concat())
}

pub fn before(seq: u64, digest: Digest) -> Position {
    Position { epoch: Epoch(1), seq: Seq(seq), digest }
}

/// Puts records on an update tape that goes on after `before`.
pub fn write_update<W: std::io::Write>(records: &[Record<'_>], before: Position, out: W) -> Sealed<W> {
    let label = Label::update(group(), GROUP, before, records[0].time, vec![LabelVolume::only()]);
    let mut writer = UpdateWriter::new(out, label, OPTIONS).expect("a writer");
    for record in records {
        let (control, data) = record_bytes(record);
        writer.record(&control, &data).expect("a record");
    }
    writer.seal(Timestamp(TIME.0 + 1_000_000_000)).expect("a tape")
}

/// A file with these bytes.
pub fn file_with(directory: &Path, bytes: &[u8]) -> File {
    let path = directory.join("tape");
    fs::write(&path, bytes).expect("a file");
    File::open(path).expect("a file")
}

/// Cuts a tape at every block, and changes every byte of it: each time it must be refused.
pub fn every_damage_is_noticed(directory: &Path, tape: &[u8], kind: TapeKind) {
    let path = directory.join("tape");
    fs::write(&path, tape).expect("a file");
    let file = File::options().write(true).open(&path).expect("a file");
    let is_noticed = || {
        let opened = SealedTape::open(File::open(&path).expect("a file"));
        opened.and_then(|tape| tape.verify(Depth::Bytes, &mut |_| {})).is_err()
    };
    assert!(!is_noticed(), "a good {kind} tape is refused");
    for at in 0..tape.len() {
        for changed in [tape[at] ^ 1, tape[at] ^ 0x80, 0] {
            file.write_all_at(&[changed], at as u64).expect("written");
            assert!(changed == tape[at] || is_noticed(), "byte {at} of {} as {changed}", tape.len());
        }
        file.write_all_at(&tape[at..=at], at as u64).expect("written");
    }
    assert!(!is_noticed(), "a good {kind} tape is refused");
    file.set_len(tape.len() as u64 + 1).expect("a length");
    assert!(is_noticed(), "one byte longer");
    for length in (0..tape.len()).step_by(512).rev() {
        file.set_len(length as u64).expect("a length");
        assert!(is_noticed(), "cut at {length}");
    }
}
