//! The last that a simulated world did: calls at the seam for the disk, and the records of its journal.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Mutex;

use reelfs_journal::disk::{Call, Operation};
use reelfs_journal::{Change, Jvol, Record, Seq};
use uuid::Uuid;

/// Calls that are kept.
const CALLS: usize = 800;
/// Records that are shown.
const RECORDS: u64 = 120;

/// The last calls, oldest first.
#[derive(Debug, Default)]
pub struct Trace(Mutex<VecDeque<String>>);

impl Trace {
    /// Something else than a call.
    pub fn note(&self, what: String) {
        let mut lines = self.0.lock().expect("nobody panics");
        if lines.len() == CALLS {
            lines.pop_front();
        }
        lines.push_back(what);
    }

    /// A call, and what becomes of it.
    pub fn call(&self, call: &Call<'_>, verdict: &str) {
        let what = match &call.operation {
            Operation::Write { file, offset, bytes } => format!("{} {offset:?}+{}", ino(*file), bytes.len()),
            Operation::Allocate { file, offset, length, .. } => format!("{} {offset}+{length}", ino(*file)),
            Operation::SetSize { file, size } => format!("{} {size}", ino(*file)),
            Operation::SetAttributes { file } | Operation::Sync { file } | Operation::SyncAll { file } => ino(*file),
            Operation::Create { directory, name } | Operation::Remove { directory, name } => {
                format!("{}/{}", ino(*directory), String::from_utf8_lossy(name))
            }
            Operation::Link { file, directory, name } => {
                format!("{} {}/{}", ino(*file), ino(*directory), String::from_utf8_lossy(name))
            }
            Operation::Rename { from, name, to, new_name, .. } => format!(
                "{}/{} {}/{}",
                ino(*from),
                String::from_utf8_lossy(name),
                ino(*to),
                String::from_utf8_lossy(new_name)
            ),
            Operation::Store => String::new(),
        };
        let thread = std::thread::current();
        let thread = thread.name().map_or_else(String::new, |name| format!(" [{name}]"));
        self.note(format!("{} {what}{verdict}{thread}", call.label.name()));
    }

    /// All of them.
    pub fn lines(&self) -> String {
        self.0.lock().expect("nobody panics").iter().fold(String::new(), |all, line| all + "\n  " + line)
    }
}

fn ino(file: BorrowedFd<'_>) -> String {
    rustix::fs::fstat(file).map_or_else(|_| "cwd".to_owned(), |stat| stat.st_ino.to_string())
}

/// The last records of a journal that nobody has open.
pub fn journal(path: &Path, group: Uuid) -> String {
    let jvol = match Jvol::glance(path, group) {
        Ok(jvol) => jvol,
        Err(error) => return format!("the journal: {error}"),
    };
    let pointers = jvol.pointers();
    let last = pointers.next.previous();
    let from = Seq(last.0.saturating_sub(RECORDS)).max(pointers.out);
    let mut lines = format!("the journal begins at {}:", pointers.out);
    if from > last {
        return lines;
    }
    let Ok(mut reader) = jvol.read(from, last) else { return lines };
    while let Some(Ok((control, data))) = reader.next() {
        if let Ok(record) = Record::decode(control, data) {
            _ = write!(lines, "\n  {} {} {}", record.seq, record.wall.0, shown(&record.change));
        }
    }
    lines
}

fn shown(change: &Change<'_>) -> String {
    match change {
        Change::Write { file, offset, data, size, .. } => format!("write {file} {offset}+{} size {size}", data.len()),
        Change::SetSize { file, size, .. } => format!("truncate {file} {size}"),
        Change::SetAttr { file, .. } => format!("setattr {file}"),
        Change::SetXattr { file, .. } => format!("setxattr {file}"),
        Change::Create { parent, name, file, .. } => format!("create {parent}/{name} {file}"),
        Change::Entry { parent, name, file, size, .. } => format!("entry {parent}/{name} {file} size {size}"),
        Change::Marker { kind, note, epoch, .. } => format!("marker {kind:?} {epoch:?} {note}"),
        other => format!("{other:?}"),
    }
}
