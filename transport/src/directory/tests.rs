use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;

use super::*;

type Outcome<T> = Result<Published<T>, ShelfError<io::Error>>;

fn shelf() -> (tempfile::TempDir, DirectoryShelf) {
    let directory = tempfile::tempdir().expect("a directory");
    let shelf = DirectoryShelf::open(directory.path()).expect("a shelf");
    (directory, shelf)
}

fn publish(shelf: &DirectoryShelf, name: &str, text: &[u8]) -> Outcome<()> {
    let write = |mut file: &File| file.write_all(text).map(|()| (name.to_owned(), ()));
    shelf.publish("part", write, |mut file, ()| {
        let mut same = Vec::new();
        file.read_to_end(&mut same)?;
        assert_eq!(same, text);
        assert!(file.write_all(b"x").is_err(), "what is read back cannot be changed");
        Ok(())
    })
}

fn names(directory: &tempfile::TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory.path()).expect("a directory");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

#[test]
fn what_is_published_is_whole_and_private_and_listed() {
    let (directory, shelf) = shelf();
    let published = publish(&shelf, "b.tape", b"content").expect("published");
    publish(&shelf, "a.tape", b"").expect("published");
    assert_eq!((published.bytes, &published.path), (7, &directory.path().join("b.tape")));
    assert_eq!(fs::read(&published.path).expect("a file"), b"content");
    assert_eq!(fs::metadata(&published.path).expect("a file").mode() & 0o7777, 0o600);
    fs::write(directory.path().join(".other.part"), b"x").expect("a file");
    fs::create_dir(directory.path().join("directory")).expect("a directory");
    let item = |name: &str, bytes| ShelfItem { name: name.to_owned(), bytes };
    assert_eq!(shelf.list().expect("a list"), [item("a.tape", 0), item("b.tape", 7)]);
    assert_eq!(shelf.list().expect("the same list again").len(), 2);
}

#[test]
fn a_name_that_is_taken_is_not_replaced() {
    let (directory, shelf) = shelf();
    publish(&shelf, "tape", b"first").expect("published");
    assert!(matches!(publish(&shelf, "tape", b"second"), Err(ShelfError::Exists { .. })));
    assert_eq!(fs::read(directory.path().join("tape")).expect("a file"), b"first");
    assert_eq!(names(&directory), ["tape"]);
}

#[test]
fn what_cannot_be_written_or_read_back_leaves_nothing() {
    let (directory, shelf) = shelf();
    let full = || io::Error::from_raw_os_error(28);
    let written: Outcome<()> = shelf.publish("part", |_| Err(full()), |_, ()| Ok(()));
    let Err(ShelfError::Content { error, .. }) = written else { panic!("published") };
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    let read_back: Outcome<()> = shelf.publish("part", |_| Ok(("tape".into(), ())), |_, ()| Err(full()));
    assert!(matches!(read_back, Err(ShelfError::Content { .. })));
    assert!(names(&directory).is_empty());
}

#[test]
fn what_an_interrupted_export_left_is_removed_but_not_what_is_being_written() {
    let (directory, shelf) = shelf();
    fs::write(directory.path().join(".part.part"), b"half").expect("a file");
    publish(&shelf, "tape", b"whole").expect("published");
    assert_eq!(names(&directory), ["tape"]);

    let other = DirectoryShelf::open(directory.path()).expect("a shelf");
    let outer: Outcome<()> = shelf.publish(
        "part",
        |_| {
            assert!(matches!(publish(&other, "second", b"x"), Err(ShelfError::InUse { .. })));
            Ok(("first".into(), ()))
        },
        |_, ()| Ok(()),
    );
    outer.expect("published");
    assert_eq!(names(&directory), ["first", "tape"]);
}

#[test]
fn a_directory_that_went_away_is_not_found() {
    let (directory, shelf) = shelf();
    fs::remove_dir(directory.path()).expect("removed");
    let Err(ShelfError::Io { source, .. }) = publish(&shelf, "tape", b"x") else { panic!("published") };
    assert_eq!(source.kind(), io::ErrorKind::NotFound);
    assert!(DirectoryShelf::open(directory.path()).is_err());
}

#[test]
fn the_fallbacks_for_poor_file_systems_do_not_replace_either() {
    let (directory, shelf) = shelf();
    shelf.reserve("tape").expect("reserved");
    shelf.reserve("tape").expect("left by a writer that was killed");
    std::fs::write(shelf.path.join("tape"), "a tape").expect("room");
    assert_eq!(shelf.reserve("tape"), Err(Errno::EXIST));
    assert_eq!(names(&directory), ["tape"]);
}
