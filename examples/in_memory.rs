//! The whole idea in memory, without a kernel: changes pass the one door, the journal keeps them, a replica follows.
//!
//! `cargo run --example in_memory`. What a mount would ask for, the example asks for itself.

use std::error::Error;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::sync::Arc;

use reelfs_journal::{Epoch, Jvol, NodeKind, Record, SystemClock, Tags};
use reelfs_volume::{OnFull, OpenOptions, Primary, Requester, Volume, compare};
use uuid::Uuid;

/// Runs the example.
///
/// # Errors
/// Whatever goes wrong on the way.
pub fn main() -> Result<(), Box<dyn Error>> {
    let home = tempfile::tempdir_in("/dev/shm")?;
    let (pvol, svol) = (home.path().join("pvol"), home.path().join("svol"));
    fs::create_dir(&pvol)?;
    fs::create_dir(&svol)?;

    // a journal volume of the smallest size, and the primary volume that writes it
    let (jvol, group) = (home.path().join("example.jvol"), Uuid::from_u128(1));
    Jvol::create(&jvol, Jvol::SIZE_MIN, group, &mut |_, _| {})?;
    let opened = Primary::start(OpenOptions {
        root: File::open(&pvol)?.into(),
        jvol,
        group,
        state: home.path().to_owned(),
        epoch: Epoch(1),
        session: None,
        strict: false,
        on_full: OnFull::Block,
        clock: Arc::new(SystemClock),
    })?;
    let primary = &opened.primary;
    work(primary)?;

    // read the journal and make every record true in the other directory
    let replica = Volume::replica(File::open(&svol)?.into(), primary.root_id())?;
    let pointers = primary.jvol().pointers();
    let mut reader = primary.jvol().read(pointers.out, pointers.next.previous())?;
    while let Some(record) = reader.next() {
        let (control, data) = record?;
        let record = Record::decode(control, data)?;
        println!("{:>3}  {:<8} {:>4} bytes in the journal", record.seq, record.change.verb(), data.len());
        replica.apply(&record.change)?;
    }

    let differences = compare::trees(&pvol, &svol)?;
    if let Some(difference) = differences.first() {
        return Err(format!("the replica differs: {difference}").into());
    }
    println!("the replica is identical");
    primary.close(&opened.session)?;
    Ok(())
}

/// A directory with a file in it, written, renamed, linked.
fn work(primary: &Primary) -> Result<(), Box<dyn Error>> {
    let (who, root) = (Requester::reelfs(), primary.root());
    let letters = primary.make(&who, root, OsStr::new("letters"), NodeKind::Directory, 0o755, 0)?;
    let file = primary.create(&who, letters.id.ino, OsStr::new("draft"), 0o644, 0)?;
    primary.write(&who, file.id.ino, 0, b"Dear reader,\n", false)?;
    primary.write(&who, file.id.ino, 13, b"this is in two places.\n", false)?;
    primary.release(file.id.ino);
    let (from, to) = ((letters.id.ino, OsStr::new("draft")), (letters.id.ino, OsStr::new("letter")));
    primary.rename(&who, from, to, 0)?;
    primary.link(&who, file.id.ino, root, OsStr::new("same-letter"))?;
    primary.group().mark("sent", "by the morning post", &Tags::default(), Vec::new())?;
    Ok(())
}
