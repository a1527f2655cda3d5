//! Tapes of a group of two volumes on a machine that has nothing else: `restore`, `points`, `log` and `tape` say which volume.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::borrow::Cow;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use reelfs_archive::{BaseWriter, Label, LabelVolume, UpdateWriter, WriteOptions};
use reelfs_journal::{
    Attributes, Change, Digest, Epoch, FileId, FileTime, MarkerKind, Name, NodeKind, Position, Record, Seq, Tags,
    Timestamp, VolumeIndex,
};
use support::{Outcome, Sandbox};
use uuid::Uuid;

const GROUP: Uuid = Uuid::from_u128(5);
const EPOCH: Epoch = Epoch(1);
const ROOT: FileId = FileId { ino: 2, generation: 0 };
const FILE: FileId = FileId { ino: 3, generation: 0 };

fn time(seq: u64) -> Timestamp {
    Timestamp(1_700_000_000_000_000_000 + i64::try_from(seq).unwrap() * 1_000_000_000)
}

fn mtime(seq: u64) -> FileTime {
    FileTime::from(time(seq))
}

fn attributes(mode: u32, seq: u64) -> Attributes {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Attributes { mode, uid, gid, mtime: mtime(seq) }
}

/// The history of a group, written down record by record.
struct Story {
    tapes: PathBuf,
    volumes: Vec<LabelVolume>,
    records: Vec<Record<'static>>,
}

impl Story {
    fn next(&self) -> u64 {
        self.records.len() as u64 + 1
    }

    fn tell(&mut self, volume: u16, change: Change<'static>) -> Seq {
        let (seq, volume) = (Seq(self.next()), VolumeIndex(volume));
        let (time, more) = (time(seq.0), false);
        self.records.push(Record { seq, more, time, wall: time, uid: 0, pid: 1, volume, change });
        seq
    }

    fn mark(&mut self, volume: u16, kind: MarkerKind, name: &str) -> Seq {
        let (name, note, since) = (name.to_owned(), String::new(), time(self.next()));
        self.tell(volume, Change::Marker { kind, epoch: EPOCH, name, note, tags: Tags::default(), since })
    }

    fn create(&mut self, volume: u16, name: &str) {
        let (name, attributes) = (Name::new(name.as_bytes()).unwrap(), attributes(0o640, self.next()));
        let (kind, xattrs, parent_mtime) = (NodeKind::File, Vec::new(), mtime(self.next()));
        self.tell(volume, Change::Create { parent: ROOT, name, file: FILE, kind, attributes, xattrs, parent_mtime });
    }

    fn write(&mut self, volume: u16, text: &'static str) -> Seq {
        let (data, size) = (Cow::Borrowed(text.as_bytes()), text.len() as u64);
        let mtime = mtime(self.next());
        self.tell(volume, Change::Write { file: FILE, offset: 0, data, size, mtime })
    }

    /// A base copy of a volume that has nothing but its root.
    fn base(&mut self, volume: u16) -> Seq {
        let base = Uuid::from_u128(100 + u128::from(volume));
        let began = self.tell(volume, Change::BaseBegin { base, root: ROOT });
        let (group, own) = ("docs".parse().unwrap(), self.volumes[usize::from(volume)].clone());
        let label = Label::base(group, GROUP, EPOCH, base, began, time(began.0), own);
        let part = self.tapes.join("part");
        let mut writer = BaseWriter::new(File::create(&part).unwrap(), label, WriteOptions::default()).unwrap();
        let name = Name::new(b"root").unwrap();
        let (kind, attributes, xattrs) = (NodeKind::Directory, attributes(0o750, 1), Vec::new());
        writer
            .entry(&Change::Entry { parent: FileId::NONE, name, file: ROOT, kind, attributes, xattrs, size: 0 })
            .unwrap();
        let sealed = writer.seal(time(began.0)).unwrap();
        fs::rename(part, self.tapes.join(sealed.name.to_string())).unwrap();
        self.tell(volume, Change::BaseEnd { base, began, digest: sealed.root.0 })
    }

    /// All of it onto one tape.
    fn export(&self) {
        let before = Position { epoch: EPOCH, seq: Seq(0), digest: Digest::ZERO };
        let label = Label::update("docs".parse().unwrap(), GROUP, before, time(1), self.volumes.clone());
        let part = self.tapes.join("part");
        let mut writer = UpdateWriter::new(File::create(&part).unwrap(), label, WriteOptions::default()).unwrap();
        for record in &self.records {
            let encoded = record.encode();
            writer.record(encoded.control(), &encoded.data().concat()).unwrap();
        }
        let sealed = writer.seal(time(self.next())).unwrap();
        fs::rename(part, self.tapes.join(sealed.name.to_string())).unwrap();
    }
}

/// `data` with a file from the beginning; `web` joins at `joined`, and has a base from `based` on.
struct Moments {
    joined: Seq,
    based: Seq,
    last: Seq,
}

fn story(tapes: PathBuf) -> Moments {
    let volume = |index, name: &str| LabelVolume::new(VolumeIndex(index), name.parse().unwrap());
    let mut story = Story { tapes, volumes: vec![volume(0, "data"), volume(1, "web")], records: Vec::new() };
    story.mark(0, MarkerKind::AcquisitionStart, "");
    story.base(0);
    story.create(0, "a");
    story.write(0, "one");
    let joined = story.mark(1, MarkerKind::AcquisitionStart, "");
    story.write(0, "two");
    let based = story.base(1);
    story.create(1, "b");
    story.write(1, "three");
    let last = story.mark(0, MarkerKind::Named, "both");
    story.export();
    Moments { joined, based, last }
}

fn told() -> (Sandbox, PathBuf, Moments) {
    let sandbox = Sandbox::new();
    let tapes = sandbox.directory("tapes");
    let moments = story(tapes.clone());
    (sandbox, tapes, moments)
}

fn path(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}

fn restore(sandbox: &Sandbox, tapes: &Path, rest: &[&str]) -> Outcome {
    let to = sandbox.path("to");
    let fixed = ["restore", "--tapes", path(tapes), "--to", path(&to), "--yes"];
    sandbox.reelfs(fixed.into_iter().chain(rest.iter().copied()))
}

#[test]
fn restore_puts_several_volumes_beside_each_other_and_one_alone_where_it_is_told() {
    let (sandbox, tapes, moments) = told();
    let to = sandbox.path("to");
    let planned = restore(&sandbox, &tapes, &["--dry-run", "--json"]).ok().json();
    let volumes = planned["volumes"].as_array().expect("volumes");
    assert_eq!((&volumes[0]["volume"], &volumes[1]["volume"]), (&"data".into(), &"web".into()));
    assert_eq!(volumes[1]["to"], path(&to.join("web")));
    assert_eq!((planned["tapes"].as_array().map(Vec::len), &planned["at"]["seq"]), (Some(3), &moments.last.0.into()));
    let text = restore(&sandbox, &tapes, &["--dry-run"]).ok().stdout;
    assert!(text.contains("2 volumes to directories of their own: data, web"), "{text}");
    assert!(!to.exists());
    restore(&sandbox, &tapes, &[]).ok();
    assert_eq!(fs::read_to_string(to.join("data/a")).unwrap(), "two");
    assert_eq!(fs::read_to_string(to.join("web/b")).unwrap(), "three");
    assert_eq!(fs::read_dir(&to).unwrap().count(), 2);
    fs::remove_dir_all(&to).unwrap();
    restore(&sandbox, &tapes, &["--group", "docs/web"]).ok();
    assert_eq!(fs::read_to_string(to.join("b")).unwrap(), "three");
    fs::remove_dir_all(&to).unwrap();
    restore(&sandbox, &tapes, &["--path", "web/b"]).ok();
    assert!(to.join("web/b").exists() && !to.join("data").exists());
    fs::remove_dir_all(&to).unwrap();
    restore(&sandbox, &tapes, &["--group", "docs/mail"]).refused(10, &["no volume mail", "docs/data, docs/web"]);
    restore(&sandbox, &tapes, &["--group", "docs/"]).refused(2, &["not the name of a volume"]);
}

#[test]
fn a_stretch_in_which_a_volume_has_no_base_names_it_and_the_others() {
    let (sandbox, tapes, moments) = told();
    let inside = format!("seq:{}", moments.joined.0 + 1);
    let error = restore(&sandbox, &tapes, &["--at", &inside]);
    let nearest = [format!("seq:{}", moments.joined.0 - 1), format!("seq:{}", moments.based)];
    error.refused(13, &["no base copy of volume web", &nearest[0], &nearest[1], "docs/data"]);
    assert!(!sandbox.path("to").exists());
    restore(&sandbox, &tapes, &["--at", &inside, "--group", "docs/data"]).ok();
    assert_eq!(fs::read_to_string(sandbox.path("to").join("a")).unwrap(), "two");
    let points = |rest: &[&str]| {
        let fixed = ["points", "--tapes", path(&tapes), "--json"];
        sandbox.reelfs(fixed.into_iter().chain(rest.iter().copied())).ok().json_lines()
    };
    let kinds = |lines: &[serde_json::Value]| {
        let kind = |line: &serde_json::Value| line["kind"].as_str().unwrap().to_owned();
        lines.iter().map(kind).collect::<Vec<_>>()
    };
    let whole = points(&[]);
    assert_eq!(kinds(&whole), ["window", "base", "unreachable", "base", "marker"]);
    let shut = &whole[2];
    assert_eq!((&shut["seq"], &shut["to_seq"]), (&moments.joined.0.into(), &moments.based.0.into()));
    assert_eq!((&shut["volume"], &shut["reachable"]), (&"web".into(), &false.into()));
    assert_eq!((&whole[1]["volume"], &whole[3]["volume"]), (&"data".into(), &"web".into()));
    let data = points(&["docs/data"]);
    assert_eq!(kinds(&data), ["window", "base", "marker"]);
    assert_eq!(data[0]["to_seq"], moments.last.0);
    let web = points(&["docs/web"]);
    assert_eq!(
        (kinds(&web), &web[0]["seq"]),
        (vec!["window".into(), "base".into(), "marker".into()], &moments.based.0.into())
    );
    let text = sandbox.reelfs(["points", "--tapes", path(&tapes)]).ok().stdout;
    assert!(text.lines().any(|line| line.contains("unreachable") && line.contains("web  no base copy")), "{text}");
}

#[test]
fn the_log_and_the_tapes_name_their_volumes() {
    let (sandbox, tapes, moments) = told();
    let since = format!("seq:{}", moments.joined.0 + 1);
    let log = |rest: &[&str]| {
        let fixed = ["log", "--tapes", path(&tapes), "--since", &since, "--json"];
        let lines = sandbox.reelfs(fixed.into_iter().chain(rest.iter().copied())).ok().json_lines();
        let line =
            |line: &serde_json::Value| format!("{} {}", line["op"].as_str().unwrap(), line["path"].as_str().unwrap());
        lines.iter().map(line).filter(|line| line.starts_with("write")).collect::<Vec<_>>()
    };
    assert_eq!(log(&[]), ["write data/a", "write web/b"]);
    assert_eq!(log(&["docs/web"]), ["write b"]);
    assert_eq!(log(&["--path", "data/*"]), ["write data/a"]);
    let listed = sandbox.reelfs(["tape", "list", path(&tapes)]).ok().stdout;
    let of = |kind: &str, volumes: &str| listed.lines().any(|line| line.contains(kind) && line.contains(volumes));
    assert!(of(".base.", "  of data") && of(".base.", "  of web") && of(".upd.", "  of data, web"), "{listed}");
    let rows = sandbox.reelfs(["tape", "list", path(&tapes), "--json"]).ok().json();
    let both = serde_json::json!([{ "index": 0, "name": "data" }, { "index": 1, "name": "web" }]);
    assert!(rows["tapes"].as_array().unwrap().iter().any(|row| row["volumes"] == both), "{rows}");
    let all = sandbox.tapes(&tapes);
    let update = all.iter().find(|tape| path(tape).contains(".upd.")).expect("an update tape");
    let shown = sandbox.reelfs(["tape", "show", path(update)]).ok().stdout;
    assert!(shown.contains("volumes   data, web"), "{shown}");
    let verified = sandbox.reelfs(["tape", "verify", path(&tapes)]).ok().stdout;
    assert_eq!(verified.lines().filter(|line| line.contains("  of ")).count(), 3, "{verified}");
}
