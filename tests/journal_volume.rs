//! The journal volume as a volume: it grows, comes from a pool and goes back there, and is shown to whom it may be.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use reelfs_journal::disk::{FAILPOINT_VARIABLE, Label};
use support::{Disk, FileSystem, Random, Sandbox, Tree, tools, wait};

fn text(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}

fn jvol_of(sandbox: &Sandbox, group: &str) -> PathBuf {
    sandbox.state().join(format!("groups/{group}/{group}.jvol"))
}

#[test]
fn a_mounted_journal_grows_while_it_is_written_and_nothing_is_lost() {
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    sandbox.group_of_size("grown", &pvol, "16MiB");
    sandbox.base("grown", &tapes);
    let mount = sandbox.mount("grown", "mnt");
    let written = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (mount, written) = (&mount, &written);
        scope.spawn(move || {
            // more than the journal held before: it is full in between, and the writer waits until there is room
            let mut random = Random::new("grow", 0);
            for number in 0..40 {
                fs::write(mount.join(&format!("f{number}")), random.bytes(1 << 20)).unwrap();
            }
            written.store(true, Ordering::SeqCst);
        });
        let is_full =
            || sandbox.reelfs(["journal", "show", "grown", "--json"]).ok().json()["used_ratio"].as_f64() > Some(0.5);
        assert!(wait::until(std::time::Duration::from_secs(60), is_full));
        let grown = sandbox.reelfs(["journal", "grow", "grown", "--size", "48MiB", "--json"]).ok();
        let last: serde_json::Value = serde_json::from_str(grown.stdout.lines().last().unwrap()).unwrap();
        assert_eq!((&last["before_bytes"], &last["size_bytes"]), (&(16 << 20).into(), &(48 << 20).into()));
        assert!(sandbox.reelfs(["journal", "grow", "grown", "--size", "64MiB"]).ok().stdout.contains("64 MiB"));
    });
    assert!(written.into_inner());
    let jvol = jvol_of(&sandbox, "grown");
    let metadata = fs::metadata(&jvol).unwrap();
    assert_eq!((metadata.len(), metadata.mode() & 0o7777), (64 << 20, 0o600));
    assert!(metadata.blocks() * 512 >= 64 << 20, "not allocated");
    sandbox.mark("grown", "after");
    // killed: what was journaled on both sides of the growth is there
    mount.kill();
    sandbox.mount("grown", "mnt").umount();
    sandbox.export("grown", &tapes);
    let restored = sandbox.restore(&tapes, "latest", "restored");
    Tree::of(&pvol).assert_same(&Tree::of(&restored), "after growing twice under load");
    sandbox.restore(&tapes, "marker:after", "marked");
}

#[test]
fn a_full_journal_grows_unmounted_and_a_refusal_changes_nothing() {
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    let create = ["group", "create", "full", "--pvol", text(&pvol), "--size", "16MiB", "--on-full", "fail"];
    sandbox.reelfs(create).ok();
    sandbox.base("full", &tapes);
    let mount = sandbox.mount("full", "mnt");
    let mut random = Random::new("full", 0);
    while fs::write(mount.join("file"), random.bytes(1 << 20)).is_ok() {}
    mount.umount();
    let jvol = jvol_of(&sandbox, "full");
    let before = fs::read(&jvol).unwrap();
    for size in ["16MiB", "8MiB"] {
        sandbox
            .reelfs(["journal", "grow", "full", "--size", size])
            .refused(2, &["has 16 MiB already", "never shrinks", "reelfs journal grow full --size 32MiB"]);
    }
    sandbox.reelfs(["journal", "grow", "full", "--size", "4000TiB"]).refused(22, &["no room", "nothing was changed"]);
    assert!(before == fs::read(&jvol).unwrap(), "a refusal changed the journal");
    // left by one that was killed
    fs::write(jvol.with_extension("jvol.grow"), "unfinished").unwrap();
    sandbox.reelfs(["journal", "grow", "full", "--size", "32MiB"]).ok();
    assert!(!jvol.with_extension("jvol.grow").exists());
    fs::write(jvol.with_extension("jvol.grow"), "unfinished").unwrap();
    let mount = sandbox.mount("full", "mnt");
    assert!(!jvol.with_extension("jvol.grow").exists(), "an opening clears away what a killed growth left");
    fs::write(mount.join("more"), random.bytes(1 << 20)).unwrap();
    mount.umount();
    sandbox.export("full", &tapes);
    let restored = sandbox.restore(&tapes, "latest", "restored");
    Tree::of(&pvol).assert_same(&Tree::of(&restored), "after a full journal has grown");
}

#[test]
fn a_growth_killed_at_any_moment_leaves_one_whole_journal() {
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    sandbox.group_of_size("killed", &pvol, "16MiB");
    sandbox.base("killed", &tapes);
    let mut random = Random::new("killed growth", 0);
    let mut size = 16;
    for round in 0..8 {
        let mount = sandbox.mount("killed", "mnt");
        fs::write(mount.join(&format!("f{round}")), random.bytes(700_000)).unwrap();
        size += 48;
        let mut grow = sandbox.command();
        let mut grow = grow.args(["journal", "grow", "killed", "--size", &format!("{size}MiB"), "-q"]);
        let log = File::create(sandbox.path("grow.log")).unwrap();
        grow = grow.stderr(log);
        let mut grow = grow.spawn().unwrap();
        wait::pause(std::time::Duration::from_millis(random.below(160)));
        mount.kill();
        drop(grow.wait());
    }
    sandbox.mount("killed", "mnt").umount();
    let shown = sandbox.reelfs(["journal", "show", "killed", "--json"]).ok().json();
    assert_eq!(shown["size_bytes"].as_u64().unwrap(), fs::metadata(jvol_of(&sandbox, "killed")).unwrap().len());
    sandbox.export("killed", &tapes);
    let restored = sandbox.restore(&tapes, "latest", "restored");
    Tree::of(&pvol).assert_same(&Tree::of(&restored), "after growths that were killed");
    assert_eq!(fs::read_dir(&restored).unwrap().count(), 8);
}

#[test]
fn a_pool_lends_volumes_takes_them_back_and_says_when_it_has_none() {
    let sandbox = Sandbox::new();
    let (one, two, disk) = (sandbox.directory("one"), sandbox.directory("two"), sandbox.directory("disk"));
    let create = |group: &str, pvol: &Path, more: &[&str]| {
        sandbox.reelfs(["group", "create", group, "--pvol", text(pvol), "--pool", "fast"].iter().chain(more))
    };
    create("first", &one, &[]).refused(10, &["there is no pool fast", "reelfs journal pool add fast DIR"]);
    sandbox.reelfs(["journal", "pool", "add", "fast", text(&disk), "--size", "32MiB"]).ok();
    let file = disk.join("small.jvol");
    sandbox.reelfs(["journal", "pool", "add", "fast", text(&file), "--size", "16MiB"]).ok();
    let metadata = fs::metadata(&file).unwrap();
    assert_eq!((metadata.len(), metadata.mode() & 0o7777), (16 << 20, 0o600));
    assert!(metadata.blocks() * 512 >= 16 << 20, "not allocated");
    let listed = || sandbox.reelfs(["journal", "pool", "list", "--json"]).ok().json()["pools"][0].clone();
    assert_eq!((&listed()["free"], &listed()["volumes"][0]["size_bytes"]), (&2.into(), &(32 << 20).into()));

    // the smallest that will do
    create("first", &one, &["--size", "20MiB"]).ok();
    create("second", &two, &[]).ok();
    let shown = sandbox.reelfs(["group", "show", "second", "--json"]).ok().json();
    assert_eq!(shown["journal"], text(&fs::canonicalize(&file).unwrap()));
    assert_eq!(shown["journal_volumes"][0]["pool"], "fast");
    let states: Vec<_> = listed()["volumes"].as_array().unwrap().iter().map(|row| row["group"].clone()).collect();
    assert_eq!(states, ["first", "second"]);
    let three = sandbox.directory("three");
    create("third", &three, &[])
        .refused(22, &["pool fast has no free journal volume", "reelfs journal pool add fast DIR"]);
    assert!(!sandbox.state().join("groups/third").exists(), "a refusal left a group");

    // used, given back, and used again by another group as if it were new
    let mount = sandbox.mount("second", "mnt");
    fs::write(mount.join("file"), "journaled").unwrap();
    mount.umount();
    sandbox.reelfs(["group", "delete", "second", "--yes"]).ok();
    assert!(file.exists());
    assert_eq!((&listed()["free"], &listed()["volumes"][1]["state"]), (&1.into(), &"free".into()));
    create("third", &three, &["--size", "17MiB"]).refused(22, &["of 17 MiB or more"]);
    create("third", &three, &[]).ok();
    let mount = sandbox.mount("third", "mnt");
    fs::write(mount.join("file"), "another's").unwrap();
    mount.umount();
    let pointers = sandbox.reelfs(["journal", "show", "third", "--json"]).ok().json();
    assert_eq!((&pointers["journal_out"], &pointers["size_bytes"]), (&1.into(), &(16 << 20).into()));
    let text = sandbox.reelfs(["journal", "pool", "list"]).ok().stdout;
    assert!(text.contains("0 of 2 free") && text.contains("taken by third"), "{text}");
}

#[test]
fn a_foreign_volume_is_refused_by_name_and_left_as_it_is() {
    let sandbox = Sandbox::new();
    let (pvol, other, disk) = (sandbox.directory("pvol"), sandbox.directory("other"), sandbox.directory("disk"));
    let create = ["group", "create", "owner", "--pvol", text(&pvol), "--journal", text(&disk), "--size", "16MiB"];
    sandbox.reelfs(create).ok();
    let theirs = disk.join("owner.jvol");
    let letter = disk.join("letter.txt");
    fs::write(&letter, vec![b'x'; 20 << 20]).unwrap();
    let add = |at: &Path| sandbox.reelfs(["journal", "pool", "add", "fast", text(at)]);
    let before = [fs::read(&theirs).unwrap(), fs::read(&letter).unwrap()];
    add(&theirs).refused(21, &["owner.jvol is the journal volume of group", "left as it is"]);
    add(&letter).refused(21, &["letter.txt is no journal volume", "left as it is"]);
    add(&pvol).refused(2, &["the PVOL"]);
    add(&sandbox.path("missing/file")).refused(10, &["is not there"]);
    add(&disk.join("small")).ok();
    add(&disk.join("small")).refused(14, &["in pool fast already"]);
    assert!(before == [fs::read(&theirs).unwrap(), fs::read(&letter).unwrap()], "a refusal changed them");
    // somebody else takes it from under the pool
    fs::copy(&theirs, disk.join("small")).unwrap();
    let create = ["group", "create", "other", "--pvol", text(&other), "--pool", "fast"];
    sandbox.reelfs(create).refused(22, &["no free journal volume", "not usable", "small: it belongs to group"]);
    assert!(fs::read(disk.join("small")).unwrap() == before[0], "a refusal changed it");
}

#[test]
fn a_volume_lost_between_group_and_pool_is_found_again() {
    let sandbox = Sandbox::new();
    let (pvol, disk) = (sandbox.directory("pvol"), sandbox.directory("disk"));
    sandbox.reelfs(["journal", "pool", "add", "fast", text(&disk), "--size", "16MiB"]).ok();
    let create = ["group", "create", "docs", "--pvol", text(&pvol), "--pool", "fast"];
    sandbox.reelfs(create).ok();
    // killed after the group was gone and before the pool knew
    fs::remove_dir_all(sandbox.state().join("groups/docs")).unwrap();
    sandbox.reelfs(create).ok();
    sandbox.mount("docs", "mnt").umount();
}

#[test]
fn a_group_that_was_killed_while_it_was_made_or_deleted_leaves_no_journal() {
    if !tools::has_failpoints() {
        return;
    }
    let sandbox = Sandbox::new();
    let (pvol, disk) = (sandbox.directory("pvol"), sandbox.directory("disk"));
    let create = ["group", "create", "docs", "--pvol", text(&pvol), "--journal", text(&disk), "--size", "16MiB"];
    let delete = ["group", "delete", "docs", "--yes"];
    let killed = |arguments: &[&str], label: Label, when: &str| {
        let mut command = sandbox.command();
        command.args(arguments).env(FAILPOINT_VARIABLE, format!("{}:{when}", label.name()));
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert_eq!(status.signal(), Some(9), "{} {when}: {status}", label.name());
    };
    let left = || fs::read_dir(&disk).unwrap().count();
    let places = [(Label::JvolFill, "before"), (Label::JvolNameSync, "before"), (Label::StateWrite, "after:2")];
    for (label, when) in places {
        killed(&create, label, when);
        assert_eq!(left(), 1);
        sandbox.reelfs(create).ok();
        sandbox.reelfs(delete).ok();
        killed(&create, label, when);
        // there is nothing that could be shown, and it goes all the same
        sandbox.reelfs(["group", "show", "docs"]).refused(10, &["docs"]);
        assert!(sandbox.reelfs(delete).ok().stdout.contains("what was left"));
        assert_eq!(left(), 0);
    }
    sandbox.reelfs(create).ok();
    killed(&delete, Label::JvolRemove, "before");
    assert_eq!(left(), 1);
    sandbox.reelfs(delete).ok();
    assert_eq!(left(), 0);
    sandbox.reelfs(delete).refused(10, &["docs"]);
    // one that is not to be seen is not forgotten
    sandbox.reelfs(create).ok();
    killed(&delete, Label::JvolRemove, "before");
    fs::rename(&disk, sandbox.path("unmounted")).unwrap();
    let unseen = || {
        let refusal = sandbox.reelfs(["group", "delete", "docs"]);
        refusal.refused(10, &["its disk mounted", "reelfs group delete docs --yes"]);
    };
    unseen();
    fs::create_dir(&disk).unwrap();
    unseen();
    fs::remove_dir(&disk).unwrap();
    fs::rename(sandbox.path("unmounted"), &disk).unwrap();
    sandbox.reelfs(delete).ok();
    assert_eq!(left(), 0);
    // a journal of somebody else stays where it is
    fs::write(disk.join("docs.jvol"), "of somebody else").unwrap();
    sandbox.reelfs(create).refused(14, &["docs.jvol"]);
    assert_eq!(fs::read(disk.join("docs.jvol")).unwrap(), b"of somebody else");
    // and so does one that cannot be read; nothing of the attempt is left that would keep the next one from elsewhere
    let torn = [b"REELJVOL".as_slice(), &[7; 5_000]].concat();
    fs::write(disk.join("docs.jvol"), &torn).unwrap();
    sandbox.reelfs(create).refused(14, &["docs.jvol"]);
    assert_eq!(fs::read(disk.join("docs.jvol")).unwrap(), torn);
    assert!(!sandbox.state().join("groups/docs").exists(), "something was left");
    let elsewhere = sandbox.directory("elsewhere");
    sandbox.reelfs(["group", "create", "docs", "--pvol", text(&pvol), "--journal", text(&elsewhere)]).ok();
}

#[test]
fn a_group_that_cannot_be_read_keeps_its_volume() {
    let sandbox = Sandbox::new();
    let (pvol, other, disk) = (sandbox.directory("pvol"), sandbox.directory("other"), sandbox.directory("disk"));
    sandbox.reelfs(["journal", "pool", "add", "fast", text(&disk), "--size", "16MiB"]).ok();
    sandbox.reelfs(["group", "create", "docs", "--pvol", text(&pvol), "--pool", "fast"]).ok();
    let mount = sandbox.mount("docs", "mnt");
    fs::write(mount.path().join("kept"), "in the journal alone").unwrap();
    mount.umount();
    let file = sandbox.state().join("groups/docs/group.json");
    let whole = fs::read_to_string(&file).unwrap();
    // as a later program writes it
    fs::write(&file, whole.replacen("\"schema\": 2", "\"schema\": 99", 1)).unwrap();
    let create = ["group", "create", "other", "--pvol", text(&other), "--pool", "fast"];
    sandbox.reelfs(create).refused(22, &["no free journal volume"]);
    fs::write(&file, whole).unwrap();
    let log = sandbox.reelfs(["log", "docs"]).ok();
    assert!(log.stdout.contains("kept"), "{log}");
}

#[test]
fn the_journal_is_hidden_unless_it_is_shown() {
    if !tools::holds(tools::root(), "root, to be somebody else") {
        return;
    }
    let sandbox = Sandbox::new();
    fs::set_permissions(sandbox.root(), fs::Permissions::from_mode(0o755)).unwrap();
    let (pvol, other, disk) = (sandbox.directory("pvol"), sandbox.directory("other"), sandbox.directory("disk"));
    let create = |group: &str, pvol: &Path, more: &[&str]| {
        let words = ["group", "create", group, "--pvol", text(pvol), "--size", "16MiB"];
        sandbox.reelfs(words.iter().chain(more))
    };
    create("hidden", &pvol, &["--journal", text(&disk)]).ok();
    let refusal = create("shown", &other, &["--journal-visible"]);
    refusal.refused(2, &["nobody else may enter", "--journal DIR"]);
    let shown = create("shown", &other, &["--journal", text(&disk), "--journal-visible"]).ok();
    assert!(shown.stderr.contains("every user can read in the journal"), "{shown}");
    let as_nobody = |script: &str, group: &str| {
        let script = script.replace("FILE", text(&disk.join(format!("{group}.jvol"))));
        let words = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c", &script];
        Command::new("setpriv").args(words).stderr(std::process::Stdio::null()).status().unwrap().success()
    };
    let check = || {
        assert!(!as_nobody("head -c 8 FILE", "hidden"));
        assert!(as_nobody("test \"$(head -c 8 FILE)\" = REELJVOL", "shown"));
        assert!(!as_nobody(": >> FILE", "shown") && !as_nobody(": >> FILE", "hidden"));
    };
    check();
    let mount = sandbox.mount("shown", "mnt");
    sandbox.reelfs(["journal", "grow", "shown", "--size", "20MiB"]).ok();
    sandbox.reelfs(["journal", "grow", "hidden", "--size", "20MiB"]).ok();
    check();
    mount.umount();
    let table = sandbox.reelfs(["group", "show", "shown", "--json"]).ok().json();
    assert_eq!(table["journal_volumes"][0]["visible"], true);
}

#[test]
fn a_disk_without_room_for_both_refuses_to_grow() {
    if !tools::holds(tools::root(), "root, for a small disk") {
        return;
    }
    let sandbox = Sandbox::new();
    let pvol = sandbox.directory("pvol");
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, 96);
    let create = ["group", "create", "tight", "--pvol", text(&pvol), "--journal", text(disk.path()), "--size", "32MiB"];
    sandbox.reelfs(create).ok();
    let mount = sandbox.mount("tight", "mnt");
    fs::write(mount.join("before"), "kept").unwrap();
    sandbox.reelfs(["journal", "grow", "tight", "--size", "80MiB"]).refused(22, &["no room for a journal of 80 MiB"]);
    sandbox.reelfs(["journal", "grow", "tight", "--size", "40MiB"]).ok();
    fs::write(mount.join("after"), "kept").unwrap();
    mount.umount();
    assert_eq!(fs::metadata(disk.path().join("tight.jvol")).unwrap().len(), 40 << 20);
}

#[test]
fn the_group_table_says_number_attribute_status_and_volumes() {
    let sandbox = Sandbox::new();
    let (one, two, tapes) = (sandbox.directory("one"), sandbox.directory("two"), sandbox.directory("tapes"));
    sandbox.group_of_size("first", &one, "16MiB");
    sandbox.group_of_size("second", &two, "16MiB");
    let table = |group: &str| sandbox.reelfs(["group", "show", group, "--json"]).ok().json();
    assert_eq!((&table("first")["number"], &table("second")["number"]), (&1.into(), &2.into()));
    assert_eq!((&table("first")["status"], &table("first")["attribute"]), (&"SMPL".into(), &"MASTER".into()));
    assert!(table("first")["data_volumes"][0]["base_seq"].is_null());
    sandbox.base("first", &tapes);
    let shown = table("first");
    let volume = &shown["data_volumes"][0];
    assert_eq!((&volume["index"], &volume["name"], &volume["status"]), (&0.into(), &"data".into(), &"PAIR".into()));
    assert_eq!((&volume["path"], &volume["base_seq"]), (&shown["pvol"], &shown["base"]["seq"]));
    assert_eq!(shown["journal_volumes"][0]["size_bytes"], 16 << 20);
    let text = sandbox.reelfs(["group", "show", "first"]).ok().stdout;
    assert!(text.contains("number    1, attribute MASTER") && text.contains("status    PAIR"), "{text}");
    assert!(text.contains("volume 0  data  PAIR  base whole at seq") && text.contains("jvol 0    16 MiB"), "{text}");
    let status = sandbox.reelfs(["status", "second", "--json"]).ok().json()["groups"][0].clone();
    assert_eq!((&status["number"], &status["journal_volumes"][0]["index"]), (&2.into(), &0.into()));
    let text = sandbox.reelfs(["status", "second"]).ok().stdout;
    assert!(text.contains("number 2, MASTER, 1 data volume, 1 journal volume"), "{text}");
    let pointers = sandbox.reelfs(["journal", "show", "first", "--json"]).ok().json()["consumers"][0].clone();
    assert_eq!(pointers["read_scheduled"], pointers["already_read"]);
    assert!(pointers["already_restored"].is_null() && pointers["restore_scheduled"].is_null());
    let text = sandbox.reelfs(["journal", "show", "first"]).ok().stdout;
    assert!(text.contains("read scheduled seq") && text.contains("already restored unknown"), "{text}");
    // the number of a deleted group is not given to a group beside a later one
    sandbox.reelfs(["group", "delete", "first"]).ok();
    sandbox.group_of_size("third", &one, "16MiB");
    assert_eq!(table("third")["number"], 3);
}

#[test]
fn an_export_that_runs_is_told_as_read_scheduled() {
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    sandbox.group_of_size("read", &pvol, "64MiB");
    sandbox.base("read", &tapes);
    let mount = sandbox.mount("read", "mnt");
    let file = File::create(mount.join("file")).unwrap();
    let mut random = Random::new("read", 0);
    let noise = random.bytes(1 << 20);
    let mut seen = false;
    for _ in 0..20 {
        for piece in 0..24_u64 {
            file.write_all_at(&noise, piece << 20).unwrap();
        }
        let mut export = sandbox.command();
        let mut export = export.args(["tape", "export", "read", "--to", text(&tapes), "-q"]).spawn().unwrap();
        while export.try_wait().unwrap().is_none() {
            let shown = sandbox.reelfs(["journal", "show", "read", "--json"]).ok().json()["consumers"][0].clone();
            seen |= shown["read_scheduled"].as_u64() > shown["already_read"].as_u64();
        }
        if seen {
            break;
        }
    }
    assert!(seen, "twenty exports, and none was seen");
    drop(file);
    mount.umount();
}

#[test]
fn a_group_of_two_volumes_has_a_row_for_each_and_lends_room_in_neither() {
    let sandbox = Sandbox::new();
    let (one, two, tapes) = (sandbox.directory("one"), sandbox.directory("two"), sandbox.directory("tapes"));
    sandbox.group_of_size("pair", &one, "16MiB");
    sandbox.base("pair", &tapes);
    sandbox.reelfs(["pair", "create", "pair/logs", "--pvol", two.to_str().unwrap()]).ok();
    let shown = sandbox.reelfs(["group", "show", "pair", "--json"]).ok().json();
    let rows = shown["data_volumes"].as_array().unwrap();
    let rows: Vec<_> = rows.iter().map(|row| (&row["index"], &row["name"], &row["status"])).collect();
    assert_eq!(rows, [(&0.into(), &"data".into(), &"PAIR".into()), (&1.into(), &"logs".into(), &"SMPL".into())]);
    let text = sandbox.reelfs(["status", "pair"]).ok().stdout;
    assert!(text.contains("number 1, MASTER, 2 data volumes, 1 journal volume"), "{text}");
    for pvol in [&one, &two] {
        let inside = pvol.join("spare.jvol");
        let refused = sandbox.reelfs(["journal", "pool", "add", "fast", inside.to_str().unwrap(), "--size", "16MiB"]);
        refused.refused(2, &["the journal volume", "the PVOL"]);
        assert!(!inside.exists());
    }
}
