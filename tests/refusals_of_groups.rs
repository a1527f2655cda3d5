//! Refusals around a group: directories in one another, disks that are full or gone. Each: the sentence, the exit code,
//! nothing changed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::Write;
use std::path::Path;

use support::{Disk, FileSystem, History, Mount, Outcome, Random, Sandbox, Tree, tools};

fn text(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}

/// Names of a directory, in order.
fn listing(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn directories_in_one_another_are_refused() {
    let sandbox = Sandbox::new();
    let pvol = sandbox.directory("outer/pvol");
    let inside = sandbox.directory("outer/pvol/inside");
    let create =
        |arguments: &[&str]| sandbox.reelfs([&["group", "create", "nested", "--size", "16MiB"], arguments].concat());
    create(&["--pvol", text(&pvol), "--journal", text(&inside)]).refused(2, &["inside"]);
    create(&["--pvol", text(sandbox.root())]).refused(2, &["inside"]);
    let state = pvol.join("state");
    let mut command = support::program::command(&state);
    Outcome::of(command.args(["group", "create", "nested", "--pvol"]).arg(&pvol)).refused(2, &["inside"]);
    assert_eq!(listing(&pvol), ["inside"], "a refused group left something");
    sandbox.group("nested", &pvol);
    for point in [&inside, &sandbox.path("outer")] {
        let refusal = Mount::try_new(&sandbox, "nested", point, &[]).err().expect("nested directories");
        assert!(refusal.contains("lies"), "{refusal}");
        sandbox.reelfs(["mount", "nested", text(point)]).refused(2, &["the PVOL"]);
    }
    sandbox.reelfs(["base", "copy", "nested", "--to", text(&inside)]).refused(2, &["inside"]);
    sandbox.reelfs(["tape", "export", "nested", "--to", text(&inside)]).refused(2, &["inside"]);
    let mount = sandbox.mount("nested", "mnt");
    sandbox.reelfs(["base", "copy", "nested", "--to", text(&mount.join("inside"))]).refused(2, &["inside"]);
    sandbox.reelfs(["tape", "export", "nested", "--to", text(&mount.join("inside"))]).refused(2, &["inside"]);
    mount.umount();
    let point = sandbox.directory("point");
    let protect = ["protect", text(&pvol), text(&point), "--tapes", text(&inside)];
    sandbox.reelfs(protect).refused(2, &["inside"]);
    assert_eq!(listing(&inside), Vec::<String>::new());
}

#[test]
fn a_group_is_mounted_once() {
    let sandbox = Sandbox::new();
    let pvol = sandbox.directory("pvol");
    sandbox.group("once", &pvol);
    let mount = sandbox.mount("once", "mnt");
    sandbox.reelfs(["mount", "once", text(&sandbox.directory("second"))]).refused(11, &["once"]);
    sandbox.reelfs(["group", "delete", "once", "--yes"]).refused(11, &[]);
    fs::write(mount.join("still"), b"works").unwrap();
    mount.umount();
    sandbox.reelfs(["group", "create", "once", "--pvol", text(&pvol)]).refused(14, &["once"]);
}

#[test]
fn a_volume_that_is_gone_is_said() {
    let history = History::new();
    fs::rename(&history.pvol, history.sandbox.path("moved")).unwrap();
    let sandbox = &history.sandbox;
    sandbox.reelfs(["mount", "docs", text(&sandbox.path("mnt"))]).refused(10, &["pvol"]);
    sandbox.reelfs(["mount", "other", text(&sandbox.path("mnt"))]).refused(10, &["other"]);
    fs::rename(sandbox.path("moved"), &history.pvol).unwrap();
    sandbox.mount("docs", "mnt").umount();
}

#[test]
fn a_full_journal_disk_leaves_nothing_behind() {
    if !tools::root() || !tools::present(&["mkfs.ext4"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, 32);
    let (pvol, journal) = (sandbox.directory("pvol"), disk.directory("journal"));
    let create = ["group", "create", "full", "--pvol", text(&pvol), "--journal", text(&journal), "--size", "64MiB"];
    sandbox.reelfs(create).refused(22, &["room"]);
    assert_eq!(listing(&journal), Vec::<String>::new());
    sandbox.reelfs(["group", "show", "full"]).refused(10, &[]);
    sandbox.reelfs([&create[..8], &["16MiB"]].concat()).ok();
}

#[test]
fn a_full_tape_disk_costs_nothing_but_a_sentence() {
    if !tools::root() || !tools::present(&["mkfs.ext4"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, 24);
    let (pvol, tapes) = (sandbox.directory("pvol"), disk.directory("tapes"));
    sandbox.group("full", &pvol);
    sandbox.base("full", &tapes);
    let mount = sandbox.mount("full", "mnt");
    fs::write(mount.join("large"), Random::new("tape", 0).bytes(8 << 20)).unwrap();
    let filler = disk.fill(3_000);
    let before = listing(&tapes);
    sandbox.reelfs(["tape", "export", "full", "--to", text(&tapes)]).refused(22, &["space"]);
    sandbox.reelfs(["base", "copy", "full", "--to", text(&tapes)]).refused(22, &["space"]);
    assert_eq!(listing(&tapes), before, "half a tape was left");
    fs::write(mount.join("more"), b"the mount goes on").unwrap();
    fs::remove_file(filler).unwrap();
    sandbox.export("full", &tapes);
    mount.umount();
    let restored = sandbox.restore(&tapes, "latest", "restored");
    Tree::of(&pvol).assert_same(&Tree::of(&restored), "after the disk had room again");
}

#[test]
fn a_tape_disk_may_be_unplugged() {
    if !tools::root() || !tools::present(&["mkfs.ext4", "xfs_io"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, 200);
    let (pvol, tapes) = (sandbox.directory("pvol"), disk.directory("tapes"));
    sandbox.group_of_size("unplugged", &pvol, "256MiB");
    sandbox.base("unplugged", &tapes);
    tools::run("sync", &["-f", text(&tapes)]);
    let mount = sandbox.mount("unplugged", "mnt");
    let mut file = fs::File::create(mount.join("large")).unwrap();
    let mut random = Random::new("unplugged", 0);
    for _ in 0..80 {
        file.write_all(&random.bytes(1 << 20)).unwrap();
    }
    drop(file);
    let mut export = sandbox.command();
    export.args(["tape", "export", "unplugged", "--to"]).arg(&tapes);
    let outcome = std::thread::scope(|scope| {
        let export = scope.spawn(move || Outcome::of(&mut export));
        // as soon as the tape is growing, its disk answers nothing but EIO
        let grows = || fs::read_dir(&tapes).is_ok_and(|entries| entries.count() > 1);
        support::wait::until(std::time::Duration::from_secs(20), grows);
        tools::run("xfs_io", &["-x", "-c", "shutdown", text(disk.path())]);
        export.join().unwrap()
    });
    assert_ne!(outcome.code, 0, "{outcome}");
    assert!(outcome.stderr.contains("error: "), "{outcome}");
    fs::write(mount.join("more"), b"the mount goes on").unwrap();
    disk.umount();
    sandbox.reelfs(["tape", "export", "unplugged", "--to", text(&tapes)]).refused(10, &[]);
    disk.mount();
    sandbox.export("unplugged", &tapes);
    mount.umount();
    let restored = sandbox.restore(&tapes, "latest", "restored");
    Tree::of(&pvol).assert_same(&Tree::of(&restored), "after the disk came back");
}

#[test]
fn a_full_volume_answers_enospc_and_the_twin_stays_exact() {
    if !tools::root() || !tools::present(&["mkfs.ext4"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let disk = Disk::new(&sandbox, "disk", FileSystem::Ext4, 24);
    let (pvol, tapes) = (disk.directory("pvol"), sandbox.directory("tapes"));
    sandbox.group_of_size("enospc", &pvol, "256MiB");
    sandbox.base("enospc", &tapes);
    let mount = sandbox.mount("enospc", "mnt");
    let mut random = Random::new("enospc", 0);
    for round in 0..4 {
        let path = mount.join(&format!("fills{round}"));
        let mut file = fs::File::create(&path).unwrap();
        let error = loop {
            match file.write_all(&random.bytes(300_001)) {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::NOSPC.raw_os_error()), "{error}");
        for number in 0..200 {
            let result = fs::write(mount.join(&format!("small{round}.{number}")), random.bytes(9_000));
            let expected = rustix::io::Errno::NOSPC.raw_os_error();
            assert!(
                result.is_ok() || result.as_ref().is_err_and(|error| error.raw_os_error() == Some(expected)),
                "{result:?}"
            );
        }
        drop(file);
        sandbox.mark("enospc", &format!("full{round}"));
        let full = Tree::of(&pvol);
        sandbox.export("enospc", &tapes);
        let restored = sandbox.restore(&tapes, &format!("marker:full{round}"), "restored");
        full.assert_same(&Tree::of(&restored), "a full volume");
        fs::remove_dir_all(restored).unwrap();
        fs::remove_file(path).unwrap();
    }
    mount.umount();
}

#[test]
fn writers_are_parked_when_the_journal_is_full_and_go_on_after_an_export() {
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    sandbox.group_of_size("parked", &pvol, "16MiB");
    sandbox.base("parked", &tapes);
    let mount = sandbox.mount("parked", "mnt");
    let path = mount.join("large");
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let result = fs::write(&path, Random::new("parked", 0).bytes(40 << 20));
            is_done.store(true, std::sync::atomic::Ordering::Relaxed);
            result
        });
        let is_parked = || {
            let status = sandbox.reelfs(["status", "parked"]).ok();
            status.stdout.contains("parked") && status.stdout.contains("full")
        };
        let seconds = std::time::Duration::from_secs;
        assert!(support::wait::until(seconds(20), is_parked), "status does not say that writers are parked");
        assert!(!is_done.load(std::sync::atomic::Ordering::Relaxed), "40 MiB went into a journal of 16 MiB");
        // reads, stat, status and markers go on
        assert!(fs::metadata(&path).is_ok());
        assert_eq!(listing(mount.path()), ["large"]);
        sandbox.mark("parked", "while-full");
        while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
            sandbox.export("parked", &tapes);
        }
        writer.join().unwrap().unwrap();
    });
    sandbox.export("parked", &tapes);
    mount.umount();
    let restored = sandbox.restore(&tapes, "latest", "restored");
    Tree::of(&pvol).assert_same(&Tree::of(&restored), "after parking");
}
