//! Two sites and a bag: A writes tapes of its journal, B reads each as it comes in and stays A's twin.
//!
//! `cargo run --example two_sites`. Both start empty, so that no base tape is needed. B takes a tape only if it begins
//! where B stands: the position, a number and a digest of everything before it, is all that the two compare.

use std::error::Error;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reelfs_archive::{Depth, Label, LabelVolume, SealedTape, UpdateWriter, WriteOptions};
use reelfs_journal::{Digest, Epoch, Jvol, Position, Record, Seq, SystemClock};
use reelfs_volume::{OnFull, OpenOptions, Primary, Requester, Volume, compare};
use uuid::Uuid;

const GROUP: Uuid = Uuid::from_u128(2);
const BEGINNING: Position = Position { epoch: Epoch(1), seq: Seq::ZERO, digest: Digest::ZERO };

/// Runs the example.
///
/// # Errors
/// Whatever goes wrong on the way.
pub fn main() -> Result<(), Box<dyn Error>> {
    let home = tempfile::tempdir_in("/dev/shm")?;
    let [pvol, svol, bag] = ["pvol", "svol", "bag"].map(|name| home.path().join(name));
    for directory in [&pvol, &svol, &bag] {
        fs::create_dir(directory)?;
    }
    let jvol = home.path().join("a.jvol");
    Jvol::create(&jvol, Jvol::SIZE_MIN, GROUP, &mut |_, _| {})?;
    let opened = Primary::start(OpenOptions {
        root: File::open(&pvol)?.into(),
        jvol,
        group: GROUP,
        state: home.path().to_owned(),
        epoch: Epoch(1),
        session: None,
        strict: false,
        on_full: OnFull::Block,
        clock: Arc::new(SystemClock),
    })?;
    let site_a = &opened.primary;
    let site_b = Volume::replica(File::open(&svol)?.into(), site_a.root_id())?;

    let (mut a, mut b) = (BEGINNING, BEGINNING);
    for day in ["monday", "tuesday", "wednesday"] {
        let file = site_a.create(&Requester::reelfs(), site_a.root(), OsStr::new(day), 0o644, 0)?;
        site_a.write(&Requester::reelfs(), file.id.ino, 0, format!("{day}'s work\n").as_bytes(), false)?;
        site_a.release(file.id.ino);
        let (tape, position) = write_tape(site_a, a, &bag)?;
        a = position;
        b = read_tape(&tape, b, &site_b)?;
        println!("{day:<10} A at {}/{:.16}  B at {}/{:.16}", a.seq, a.digest.to_string(), b.seq, b.digest.to_string());
        if a != b {
            return Err("the sites have diverged".into());
        }
        // what the only reader has is not needed in the journal any more
        site_a.jvol().free(b.seq.next(), b.digest)?;
    }
    if let Some(difference) = compare::trees(&pvol, &svol)?.first() {
        return Err(format!("the sites differ: {difference}").into());
    }
    println!("A and B are identical; the bag holds {} tapes", fs::read_dir(&bag)?.count());
    opened.primary.close(&opened.session)?;
    Ok(())
}

/// Everything after `before` goes onto a tape; it gets the name that its label and end ask for.
fn write_tape(site: &Primary, before: Position, bag: &Path) -> Result<(PathBuf, Position), Box<dyn Error>> {
    let (seal, first) = (site.group().seal()?, before.seq.next());
    let mut reader = site.jvol().read(first, seal.last)?;
    let first_time = Record::peek(reader.next().ok_or("nothing is new")??.0).1;
    let label = Label::update("example".parse()?, GROUP, before, first_time, vec![LabelVolume::only()]);
    let part = bag.join(".part");
    let mut writer = UpdateWriter::new(File::create(&part)?, label, WriteOptions::default())?;
    let mut reader = site.jvol().read(first, seal.last)?;
    while let Some(record) = reader.next() {
        let (control, data) = record?;
        writer.record(control, data)?;
    }
    let position = writer.position();
    let sealed = writer.seal(seal.time)?;
    sealed.out.sync_all()?;
    let path = bag.join(sealed.name.to_string());
    fs::rename(part, &path)?;
    Ok((path, position))
}

/// Reads every byte of a tape, and only then makes its records true. An `Amend` would say what a record really did; where
/// no disk is full and nobody was killed there is none.
fn read_tape(path: &Path, stands: Position, site: &Volume) -> Result<Position, Box<dyn Error>> {
    let tape = SealedTape::open(File::open(path)?)?.verify(Depth::Records, &mut |_| {})?;
    if tape.head().label.before != Some(stands) {
        return Err(format!("{} does not go on where B stands", path.display()).into());
    }
    let mut records = tape.records(stands.seq.next())?;
    while let Some(raw) = records.next()? {
        let record: Record<'_> = raw.decode()?;
        site.apply(&record.change)?;
    }
    tape.head().after().ok_or_else(|| "an update tape knows where it ends".into())
}
