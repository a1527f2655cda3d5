//! The journal for life: many times its size goes through it, and it stays as it is.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::{Random, Sandbox, Tree, tools, wait};

/// Bytes of one write.
const PIECE: u64 = 256 << 10;
/// Bytes of the file that is written over and over.
const LENGTH: u64 = 48 << 20;

#[test]
fn many_times_its_size_goes_through_a_journal_that_stays_as_it_is() {
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    sandbox.group_of_size("cyclic", &pvol, "64MiB");
    sandbox.base("cyclic", &tapes);
    let jvol = sandbox.state().join("groups/cyclic/cyclic.jvol");
    let before = fs::metadata(&jvol).unwrap();
    let mount = sandbox.mount("cyclic", "mnt");
    let pieces = tools::rounds(1 << 30, 10 << 30) as u64 / PIECE;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (mount, is_over) = (&mount, &is_over);
        scope.spawn(move || {
            write(mount.path(), pieces);
            is_over.store(true, Ordering::SeqCst);
        });
        while !is_over.load(Ordering::SeqCst) {
            sandbox.export("cyclic", &tapes);
            // what a restore needs no more would go to another disk by now
            wait::pause(Duration::from_millis(50));
        }
    });
    let shown = sandbox.reelfs(["journal", "show", "cyclic", "--json"]).ok().json();
    assert!(shown["journal_in"].as_u64().unwrap() > pieces, "{shown}");
    assert!(shown["used_ratio"].as_f64().unwrap() < 1.0, "{shown}");
    let after = fs::metadata(&jvol).unwrap();
    assert_eq!((before.len(), before.blocks()), (after.len(), after.blocks()));
    mount.umount();
    sandbox.export("cyclic", &tapes);
    let restored = sandbox.restore(&tapes, "latest", "restored");
    Tree::of(&pvol).assert_same(&Tree::of(&restored), "after many laps");
}

/// Pieces all over a file, and names that come and go. What is written compresses well: the journal does not mind, the disk does.
fn write(root: &Path, pieces: u64) {
    let mut random = Random::new("cyclic", 0);
    let file = File::create(root.join("large")).unwrap();
    for number in 0..pieces {
        let mut piece = random.bytes(64);
        piece.resize(usize::try_from(PIECE).unwrap(), u8::try_from(number % 251).unwrap());
        file.write_all_at(&piece, random.below(LENGTH / PIECE) * PIECE).unwrap();
        let name = root.join(format!("name{}", number % 40));
        if number % 3 == 0 {
            drop(fs::remove_file(&name));
        } else {
            fs::write(&name, &piece[..1 + usize::try_from(random.below(9_000)).unwrap()]).unwrap();
        }
    }
}

#[test]
fn journal_show_says_where_it_begins_and_when_it_is_full() {
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    sandbox.group_of_size("shown", &pvol, "16MiB");
    sandbox.base("shown", &tapes);
    let mount = sandbox.mount("shown", "mnt");
    fs::write(mount.join("first"), vec![1; 1 << 20]).unwrap();
    wait::pause(Duration::from_millis(1_100));
    fs::write(mount.join("second"), vec![2; 1 << 20]).unwrap();
    let shown = sandbox.reelfs(["journal", "show", "shown", "--json"]).ok().json();
    let number = |field: &str| shown[field].as_u64().unwrap();
    assert!(number("journal_out") < number("journal_in") && number("durable") < number("journal_in"), "{shown}");
    assert_eq!(shown["consumers"][0]["already_read"].as_u64().unwrap() + 1, number("journal_out"));
    assert!(shown["consumers"][0]["waiting_bytes"].as_u64().unwrap() > 2 << 20, "{shown}");
    // 2 MiB in a second and a bit, of 16 MiB
    assert!((1..60).contains(&number("full_in_seconds")), "{shown}");
    let text = sandbox.reelfs(["journal", "show", "shown"]).ok().stdout;
    assert!(text.contains("journal-out") && text.contains("full in"), "{text}");
    mount.umount();
    sandbox.export("shown", &tapes);
    let after = sandbox.reelfs(["journal", "show", "shown", "--json"]).ok().json();
    // all but the marker of that opening's own end
    assert_eq!(after["consumers"][0]["waiting_records"], 1, "{after}");
}
