//! What is left of a replica's names when a bracket ends.

use std::fs::{self, File};

use reelfs_journal::{Attributes, FileTime};

use super::*;

const ROOT: FileId = FileId { ino: 1, generation: 0 };
/// Directories that go. In which order objects are looked at is chance.
const GONE: u64 = 16;

fn id(ino: u64) -> FileId {
    FileId { ino, generation: 0 }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn create(parent: FileId, text: &str, file: FileId, kind: NodeKind) -> Change<'static> {
    let mode = if kind == NodeKind::Directory { 0o755 } else { 0o644 };
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let attributes = Attributes { mode, uid, gid, mtime: FileTime::default() };
    let (xattrs, parent_mtime) = (Vec::new(), FileTime::default());
    Change::Create { parent, name: name(text), file, kind, attributes, xattrs, parent_mtime }
}

fn entry(created: Change<'static>) -> Change<'static> {
    let Change::Create { parent, name, file, kind, attributes, xattrs, .. } = created else { unreachable!() };
    Change::Entry { parent, name, file, kind, attributes, xattrs, size: 0 }
}

fn write(file: FileId) -> Change<'static> {
    Change::Write { file, offset: 0, data: b"bytes".into(), size: 5, mtime: FileTime::default() }
}

#[test]
fn a_file_outlives_a_directory_that_went_with_a_name_of_it() {
    let place = tempfile::tempdir().unwrap();
    let volume = Volume::replica(File::open(place.path()).unwrap().into(), ROOT).unwrap();
    for number in 0..GONE {
        let (directory, file) = (id(100 + number), id(200 + number));
        let stays = name(&format!("stays{number}"));
        volume.apply(&create(ROOT, &format!("gone{number}"), directory, NodeKind::Directory)).unwrap();
        volume.apply(&create(directory, "file", file, NodeKind::File)).unwrap();
        volume.apply(&create(directory, "goes too", id(300 + number), NodeKind::File)).unwrap();
        volume.apply(&Change::Link { file, parent: ROOT, name: stays, parent_mtime: FileTime::default() }).unwrap();
    }
    let mut bracket = volume.bracket(name(".scratch")).unwrap();
    bracket.change(&Change::ListBegin { directory: ROOT }).unwrap();
    for number in 0..GONE {
        let stays = create(ROOT, &format!("stays{number}"), id(200 + number), NodeKind::File);
        bracket.change(&entry(stays)).unwrap();
    }
    bracket.change(&Change::ListEnd { directory: ROOT }).unwrap();
    bracket.end().unwrap();
    for number in 0..GONE {
        let file = id(200 + number);
        assert_eq!(volume.nodes.get(file).unwrap().state.lock().links.len(), 1, "the name that it has");
        assert!(!volume.knows(id(300 + number)), "it went with its directory");
        volume.apply(&write(file)).unwrap();
        assert_eq!(fs::read(place.path().join(format!("stays{number}"))).unwrap(), b"bytes");
    }
}
