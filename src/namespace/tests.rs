use reelfs_journal::{Attributes, Change, FileId, FileTime, MarkerKind, Name, NodeKind, RENAME_EXCHANGE};

use super::{Namespace, NamespaceError};

const ROOT: FileId = id(1);

const fn id(ino: u64) -> FileId {
    FileId { ino, generation: 0 }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a legal name")
}

fn entry(parent: FileId, text: &str, file: FileId, kind: NodeKind) -> Change<'static> {
    let attributes = Attributes { mode: 0o700, uid: 0, gid: 0, mtime: FileTime::default() };
    Change::Entry { parent, name: name(text), file, kind, attributes, xattrs: Vec::new(), size: 0 }
}

fn rename(file: FileId, from: (FileId, &str), to: (FileId, &str), replaced: FileId, flags: u32) -> Change<'static> {
    Change::Rename {
        file,
        parent: from.0,
        name: name(from.1),
        new_parent: to.0,
        new_name: name(to.1),
        replaced,
        flags,
        parent_mtime: FileTime { seconds: 9, nanos: 9 },
    }
}

fn unlink(parent: FileId, text: &str, file: FileId) -> Change<'static> {
    Change::Unlink { parent, name: name(text), file, parent_mtime: FileTime::default() }
}

fn marker(kind: MarkerKind) -> Change<'static> {
    let (name, note) = (String::new(), String::new());
    let (epoch, since) = (reelfs_journal::Epoch(1), reelfs_journal::Timestamp(0));
    Change::Marker { kind, epoch, name, note, tags: reelfs_journal::Tags::default(), since }
}

/// `/a/x` and `/b`, exact.
fn small() -> Namespace {
    let mut names = Namespace::new(ROOT);
    for change in [
        entry(FileId::NONE, "?", ROOT, NodeKind::Directory),
        entry(ROOT, "a", id(2), NodeKind::Directory),
        entry(ROOT, "b", id(3), NodeKind::Directory),
        entry(id(2), "x", id(4), NodeKind::File),
    ] {
        names.apply(&change);
    }
    names.settle();
    names
}

fn paths(names: &Namespace) -> Vec<String> {
    let places = names.walk().expect("a tree");
    let path = |place: &super::Place<'_>| names.path_in(place.parent, place.name).expect("a path");
    let mut paths: Vec<String> =
        places.iter().map(|place| String::from_utf8_lossy(&path(place)).into_owned()).collect();
    paths.sort();
    paths
}

#[test]
fn follows_names_through_renames() {
    let mut names = small();
    names.apply(&rename(id(2), (ROOT, "a"), (id(3), "a"), FileId::NONE, 0));
    assert_eq!(paths(&names), ["b", "b/a", "b/a/x"]);
    assert_eq!(names.path(id(4)).expect("a path"), b"b/a/x");
    assert_eq!(names.resolve(b"/b/./a/x"), Some(id(4)));
    assert_eq!(names.resolve(b"a/x"), None);
    let mtime = names.node(ROOT).expect("the root").attributes.mtime;
    assert_eq!(mtime, FileTime { seconds: 9, nanos: 9 });
}

#[test]
fn exchanges_and_replaces() {
    let mut names = small();
    names.apply(&rename(id(4), (id(2), "x"), (ROOT, "b"), id(3), RENAME_EXCHANGE));
    assert_eq!(names.lookup(id(2), &name("x")), Some(id(3)));
    assert_eq!(names.lookup(ROOT, &name("b")), Some(id(4)));
    let mut names = small();
    names.apply(&entry(ROOT, "y", id(5), NodeKind::File));
    names.apply(&rename(id(4), (id(2), "x"), (ROOT, "y"), id(5), 0));
    assert_eq!(names.node(id(5)), None, "replaced and gone");
    assert_eq!(paths(&names), ["a", "b", "y"]);
    // two names of one file: the kernel does nothing
    let link = Change::Link { file: id(4), parent: ROOT, name: name("z"), parent_mtime: FileTime::default() };
    names.apply(&link);
    names.apply(&rename(id(4), (ROOT, "z"), (ROOT, "y"), id(4), 0));
    assert_eq!(paths(&names), ["a", "b", "y", "z"]);
}

#[test]
fn forgets_what_lost_its_last_name_only_when_it_is_exact() {
    let mut names = small();
    names.apply(&unlink(id(2), "x", id(4)));
    assert_eq!(names.node(id(4)), None);
    let mut fuzzy = Namespace::new(ROOT);
    fuzzy.apply(&entry(FileId::NONE, "?", ROOT, NodeKind::Directory));
    fuzzy.apply(&entry(ROOT, "x", id(4), NodeKind::File));
    fuzzy.apply(&unlink(ROOT, "x", id(4)));
    // the listing that saw it under its other name is still to come
    let link = Change::Link { file: id(4), parent: ROOT, name: name("y"), parent_mtime: FileTime::default() };
    fuzzy.apply(&link);
    fuzzy.settle();
    assert_eq!(paths(&fuzzy), ["y"]);
}

#[test]
fn what_vanishes_from_one_listing_may_turn_up_in_another() {
    let mut names = small();
    for change in [
        marker(MarkerKind::AdoptBegin),
        Change::ListBegin { directory: id(2) },
        Change::ListEnd { directory: id(2) },
        Change::ListBegin { directory: id(3) },
        entry(id(3), "x", id(4), NodeKind::File),
        Change::ListEnd { directory: id(3) },
        marker(MarkerKind::AdoptEnd),
    ] {
        names.apply(&change);
    }
    assert_eq!(paths(&names), ["a", "b", "b/x"]);
    assert!(names.node(id(4)).is_some());
}

#[test]
fn a_directory_has_one_name() {
    let mut names = small();
    names.apply(&marker(MarkerKind::AdoptBegin));
    names.apply(&entry(id(3), "moved", id(2), NodeKind::Directory));
    names.apply(&marker(MarkerKind::AdoptEnd));
    assert_eq!(paths(&names), ["b", "b/moved", "b/moved/x"]);
}

#[test]
fn what_is_no_tree_is_refused() {
    let mut names = small();
    let link = Change::Link { file: id(9), parent: ROOT, name: name("y"), parent_mtime: FileTime::default() };
    names.apply(&link);
    let undescribed = NamespaceError::Undescribed { parent: ROOT, name: name("y"), file: id(9) };
    assert_eq!(names.walk(), Err(undescribed));
    assert_eq!(Namespace::new(id(7)).walk(), Err(NamespaceError::NoRoot(id(7))));
    let mut names = small();
    let link = Change::Link { file: id(2), parent: id(3), name: name("y"), parent_mtime: FileTime::default() };
    names.apply(&link);
    assert_eq!(names.walk(), Err(NamespaceError::TwoNames(id(2))));
}
