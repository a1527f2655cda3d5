//! The demonstration: two sites on temporary directories, every step the program's own verb, run as a person would.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use reelfs_journal::Seq;
use reelfs_volume::{Identity, compare};
use rustix::fs::{Mode, OFlags};
use serde::Serialize;
use tempfile::TempDir;

use crate::error::{Error, Result};
use crate::output::Output;

/// Documents on the first morning.
const DOCUMENTS: usize = 400;
/// Size of the file that stands for a database, in bytes (8 MiB).
const DATABASE_BYTES: u64 = 8 << 20;

/// One of the three moments, as the table at the end shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// The marker's name.
    pub name: String,
    /// Its record.
    pub seq: Seq,
    /// Objects in the restored directory.
    pub objects: u64,
    /// Bytes in its files.
    pub bytes: u64,
    /// What differs from the copy that was taken at that moment.
    pub differences: Vec<String>,
}

/// The stage: a directory that everything happens in.
struct Stage {
    home: TempDir,
    program: PathBuf,
    output: Output,
    mounted: bool,
}

/// Runs the demonstration. The caller prints the table.
///
/// # Errors
/// When a step fails, with what it said.
pub fn run(output: &Output) -> Result<Vec<Moment>> {
    let program = std::env::current_exe().map_err(|error| Error::io("find this program", error))?;
    let mut stage = Stage { home: stage_directory()?, program, output: output.clone(), mounted: false };
    let result = stage.play();
    if stage.mounted {
        let _ = stage.reelfs("site-a", &["umount", "/site-a/docs"]);
    }
    result
}

/// A temporary directory on a file system that can hold a volume: `TMPDIR`, else memory.
fn stage_directory() -> Result<TempDir> {
    let mut reason = String::new();
    for base in [std::env::temp_dir(), PathBuf::from("/dev/shm")] {
        let attempt = tempfile::Builder::new().prefix("reelfs-demo-").tempdir_in(&base);
        let usable = attempt.and_then(|home| {
            let root = rustix::fs::open(home.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
            Identity::of(&root)?;
            Ok(home)
        });
        match usable {
            Ok(home) => return Ok(home),
            Err(error) => reason = format!("{}: {error}", base.display()),
        }
    }
    Err(Error::failed(format!("no temporary directory can hold a volume: {reason}"))
        .hint("set TMPDIR to a directory on ext4, XFS, btrfs or tmpfs"))
}

impl Stage {
    fn play(&mut self) -> Result<Vec<Moment>> {
        for directory in ["site-a/pvol", "site-a/docs", "site-a/state", "site-b/state", "tape-disk", "copies"] {
            fs::create_dir_all(self.path(directory)).map_err(|error| Error::io(format!("make {directory}"), error))?;
        }
        self.title("Site A: a directory with data in it, protected in four commands")?;
        write_documents(&self.path("site-a/pvol"))?;
        self.reelfs("site-a", &["group", "create", "docs", "--pvol", "/site-a/pvol", "--size", "96MiB"])?;
        self.reelfs("site-a", &["mount", "docs", "/site-a/docs"])?;
        self.mounted = true;
        self.reelfs("site-a", &["base", "copy", "docs", "--to", "/tape-disk"])?;

        self.title("A day's work goes through the mount; three moments get a name")?;
        self.work("morning", "80 documents edited, a database filled", morning)?;
        self.work("noon", "a report replaced by renaming, links made, an attribute set", noon)?;
        self.reelfs("site-a", &["tape", "export", "docs", "--to", "/tape-disk"])?;
        self.work("evening", "the database torn, half of the documents deleted by mistake", evening)?;
        self.reelfs("site-a", &["tape", "export", "docs", "--to", "/tape-disk"])?;
        self.reelfs("site-a", &["status", "docs"])?;
        self.reelfs("site-a", &["umount", "/site-a/docs"])?;
        self.mounted = false;

        self.title("The tapes are carried to site B, which has nothing else")?;
        copy(&self.path("tape-disk"), &self.path("site-b/tapes"))?;
        self.output.say("  (copied, as a disk in a bag would be)")?;
        self.reelfs("site-b", &["points", "--tapes", "/site-b/tapes"])?;
        ["morning", "noon", "evening"].iter().map(|name| self.restore(name)).collect()
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.home.path().join(inside.trim_start_matches('/'))
    }

    fn title(&self, text: &str) -> Result<()> {
        self.output.say(format!("\n{}", self.output.paint(crate::output::Tone::Strong, text)))
    }

    /// Lets somebody work on the mount, names the moment and puts a copy of the volume aside to compare with later.
    fn work(&self, name: &str, told: &str, work: fn(&Path) -> std::io::Result<()>) -> Result<()> {
        self.output.say(format!("  {told}"))?;
        work(&self.path("site-a/docs")).map_err(|error| Error::io(format!("work on the mount ({name})"), error))?;
        self.reelfs("site-a", &["mark", "docs", name])?;
        copy(&self.path("site-a/pvol"), &self.path("copies").join(name))
    }

    fn restore(&self, name: &str) -> Result<Moment> {
        let (point, to) = (format!("marker:{name}"), format!("/site-b/{name}"));
        self.reelfs("site-b", &["restore", "--tapes", "/site-b/tapes", "--at", &point, "--to", &to, "--yes"])?;
        let (restored, aside) = (self.path(&to), self.path("copies").join(name));
        let scan = |error| Error::io("compare the restored directory", error);
        let differences = compare::trees(&aside, &restored).map_err(scan)?;
        let (objects, bytes) = compare::totals(&restored).map_err(scan)?;
        let points = self.quiet("site-b", &["points", "--tapes", "/site-b/tapes", "--json"])?;
        let seq = points.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let seq = seq.flat_map(flatten).find(|point| point["name"] == name && point["kind"] == "marker");
        let seq = Seq(seq.and_then(|point| point["seq"].as_u64()).unwrap_or(0));
        let differences = differences.iter().map(ToString::to_string).collect();
        Ok(Moment { name: name.to_owned(), seq, objects, bytes, differences })
    }

    /// Runs a verb and shows it with what it says; paths beginning with `/` are inside the stage.
    fn reelfs(&self, site: &str, arguments: &[&str]) -> Result<()> {
        self.output
            .say(self.output.paint(crate::output::Tone::Faint, &format!("{site}$ reelfs {}", arguments.join(" "))))?;
        let said = self.quiet(site, arguments)?;
        let home = self.home.path().display().to_string();
        said.lines().try_for_each(|line| self.output.say(format!("  {}", line.replace(&home, ""))))
    }

    fn quiet(&self, site: &str, arguments: &[&str]) -> Result<String> {
        let inside = arguments.iter().map(|argument| match argument.strip_prefix('/') {
            Some(inside) => self.path(inside).into_os_string(),
            None => argument.into(),
        });
        let run = Command::new(&self.program)
            .args(inside)
            .env("REELFS_STATE_DIR", self.path(site).join("state"))
            .stdin(Stdio::null())
            .output()
            .map_err(|error| Error::io("run this program", error))?;
        if run.status.success() {
            return Ok(String::from_utf8_lossy(&run.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&run.stderr).trim().to_owned();
        Err(Error::failed(format!("`reelfs {}` failed: {said}", arguments.join(" "))))
    }
}

/// Points come as one document or as lines.
fn flatten(value: serde_json::Value) -> Vec<serde_json::Value> {
    match value.get("points").and_then(|points| points.as_array()) {
        Some(points) => points.clone(),
        None => vec![value],
    }
}

/// Copies a tree with everything, by the system's own `cp -a`.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg("--").arg(from).arg(to).status();
    match status.map_err(|error| Error::io("run cp", error))? {
        status if status.success() => Ok(()),
        status => Err(Error::failed(format!("cp -a {} {}: {status}", from.display(), to.display()))),
    }
}

fn document(number: usize) -> String {
    format!("folder-{:02}/document-{number:03}.txt", number % 20)
}

fn write_documents(root: &Path) -> Result<()> {
    let write = || -> std::io::Result<()> {
        for number in 0..DOCUMENTS {
            let path = root.join(document(number));
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(path, format!("document {number}\n").repeat(number % 97 + 1))?;
        }
        Ok(())
    };
    write().map_err(|error| Error::io("write the first documents", error))
}

fn morning(root: &Path) -> std::io::Result<()> {
    for number in (0..DOCUMENTS).step_by(5) {
        let mut file = fs::OpenOptions::new().append(true).open(root.join(document(number)))?;
        writeln!(file, "edited in the morning")?;
    }
    let mut database = fs::File::create_new(root.join("accounts.db"))?;
    let page = [0x5A; 8192];
    for offset in (0..DATABASE_BYTES).step_by(page.len() * 3) {
        database.seek(SeekFrom::Start(offset))?;
        database.write_all(&page)?;
    }
    database.sync_all()
}

fn noon(root: &Path) -> std::io::Result<()> {
    let mut report = fs::OpenOptions::new().create_new(true).write(true).mode(0o640).open(root.join("report.new"))?;
    report.write_all(&vec![b'r'; 300_000])?;
    report.sync_all()?;
    fs::write(root.join("report"), "draft")?;
    fs::rename(root.join("report.new"), root.join("report"))?;
    fs::hard_link(root.join("report"), root.join("folder-00/same-report"))?;
    symlink("report", root.join("latest"))?;
    fs::rename(root.join("folder-07"), root.join("folder-01/seven"))?;
    // file systems without user attributes are shown without them
    match rustix::fs::setxattr(root.join("report"), "user.reviewed", b"yes", rustix::fs::XattrFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOTSUP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn evening(root: &Path) -> std::io::Result<()> {
    fs::OpenOptions::new().write(true).open(root.join("accounts.db"))?.set_len(DATABASE_BYTES / 3)?;
    for number in (1..DOCUMENTS).step_by(2).filter(|number| number % 20 != 7) {
        fs::remove_file(root.join(document(number)))?;
    }
    fs::remove_dir_all(root.join("folder-02"))
}
