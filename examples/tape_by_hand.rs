//! A tape made of nothing but records: written, opened, verified, read, and refused when a bit of it is flipped.
//!
//! `cargo run --example tape_by_hand`. Neither a volume nor a journal is needed: a tape is a file with records in it.

use std::borrow::Cow;
use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;

use reelfs_archive::{Depth, Label, LabelVolume, SealedTape, UpdateWriter, WriteOptions};
use reelfs_journal::{
    Attributes, Change, Digest, Epoch, FileId, FileTime, Name, NodeKind, Position, Record, Seq, Timestamp, VolumeIndex,
};
use uuid::Uuid;

/// Friday, 20 November 2026, noon.
const NOON: Timestamp = Timestamp(1_795_176_000 * Timestamp::SECOND);

/// Runs the example.
///
/// # Errors
/// Whatever goes wrong on the way.
pub fn main() -> Result<(), Box<dyn Error>> {
    let home = tempfile::tempdir()?;
    let before = Position { epoch: Epoch(1), seq: Seq::ZERO, digest: Digest::ZERO };
    let label = Label::update("example".parse()?, Uuid::from_u128(1), before, NOON, vec![LabelVolume::only()]);

    // written under any name; the sealed tape says which one belongs to it
    let unnamed = home.path().join("unnamed");
    let mut writer = UpdateWriter::new(File::create_new(&unnamed)?, label, WriteOptions::default())?;
    for (index, change) in changes()?.into_iter().enumerate() {
        let record = record(index as u64 + 1, change);
        let encoded = record.encode();
        writer.record(encoded.control(), &encoded.data().concat())?;
    }
    let sealed = writer.seal(Timestamp(NOON.0 + Timestamp::SECOND))?;
    let path = home.path().join(sealed.name.to_string());
    std::fs::rename(unnamed, &path)?;
    println!("wrote {}, {} bytes", sealed.name, sealed.bytes);

    // what is opened is believed only after every byte of it was read
    let tape = SealedTape::open(File::open(&path)?)?.verify(Depth::Records, &mut |_| {})?;
    let mut records = tape.records(Seq(1))?;
    while let Some(raw) = records.next()? {
        let record = raw.decode()?;
        println!("  {}  {:<7} {} bytes of journal data", record.seq, record.change.verb(), raw.data.len());
    }
    let after = tape.head().after().ok_or("an update tape knows where it ends")?;
    println!("verified up to seq {}, digest {}", after.seq, after.digest);

    // one bit, in the middle
    let file = File::options().read(true).write(true).open(&path)?;
    let (mut byte, middle) = ([0], sealed.bytes / 2);
    file.read_exact_at(&mut byte, middle)?;
    file.write_all_at(&[byte[0] ^ 1], middle)?;
    let outcome = SealedTape::open(File::open(&path)?).and_then(|tape| tape.verify(Depth::Bytes, &mut |_| {}));
    match outcome {
        Ok(_) => Err("a flipped bit was not noticed".into()),
        Err(error) => {
            println!("with a flipped bit: {error}");
            Ok(())
        }
    }
}

/// A file in the root directory, and what is written into it.
fn changes() -> Result<Vec<Change<'static>>, Box<dyn Error>> {
    let (root, file) = (FileId { ino: 2, generation: 0 }, FileId { ino: 12, generation: 7 });
    let mtime = FileTime { seconds: 1_795_176_000, nanos: 0 };
    let attributes = Attributes { mode: 0o644, uid: 1000, gid: 1000, mtime };
    let create = Change::Create {
        parent: root,
        name: Name::new(b"hello.txt")?,
        file,
        kind: NodeKind::File,
        attributes,
        xattrs: Vec::new(),
        parent_mtime: mtime,
    };
    let write = Change::Write { file, offset: 0, data: Cow::Borrowed(b"hello, tape\n"), size: 12, mtime };
    Ok(vec![create, write, Change::Sync { file }])
}

fn record(seq: u64, change: Change<'_>) -> Record<'_> {
    let time = Timestamp(NOON.0 + (seq as i64 - 1) * 1_000_000);
    Record { seq: Seq(seq), more: false, time, wall: time, uid: 1000, pid: 1, volume: VolumeIndex(0), change }
}
