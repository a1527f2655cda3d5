//! Two volumes of one group whose disk stops under load: what followed on the one is never there without what it followed on the
//! other, each is a twin of what the tapes say, and the epoch stays.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::io::Result;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::mount::is_mounted;
use support::{Disk, FileSystem, Mount, Random, Sandbox, Tree, tools, wait};

/// What lies on the disk that stops: everything, or one of the two volumes.
#[derive(Clone, Copy, PartialEq)]
enum OnIt {
    All,
    Orders,
    Sent,
}

/// A group `shop`: an order goes into the volume `db` and is synced, and only then what was sent into `logs`.
struct Shop {
    sandbox: Sandbox,
    disk: Disk,
    pvols: [PathBuf; 2],
    tapes: PathBuf,
    random: Random,
    /// Orders and what was sent, as far as that was acknowledged.
    synced: [u64; 2],
    round: u64,
}

impl Shop {
    fn new(file_system: FileSystem, on_it: OnIt) -> Shop {
        let sandbox = Sandbox::new();
        let disk = Disk::new(&sandbox, "disk", file_system, if file_system == FileSystem::Xfs { 400 } else { 200 });
        let place = |name, is_on_it| if is_on_it { disk.directory(name) } else { sandbox.directory(name) };
        let pvols = [place("db", on_it != OnIt::Sent), place("logs", on_it != OnIt::Orders)];
        let (journal, tapes) = (place("journal", on_it == OnIt::All), sandbox.directory("tapes"));
        let how = ["--size", "64MiB", "--on-full", "block", "--export-at", "never"];
        sandbox.reelfs(["group", "create", "shop", "--journal", text(&journal)].into_iter().chain(how)).ok();
        for (volume, pvol) in ["shop/db", "shop/logs"].iter().zip(&pvols) {
            sandbox.reelfs(["pair", "create", volume, "--pvol", text(pvol)]).ok();
        }
        let random = Random::new("shop", on_it as u64);
        Shop { sandbox, disk, pvols, tapes, random, synced: [0; 2], round: 0 }
    }

    /// Both, by one process.
    fn mount(&self) -> (Mount, PathBuf) {
        let first = self.sandbox.mount("shop/db", "mnt-db");
        let second = self.sandbox.path("mnt-logs");
        if !is_mounted(&second) {
            self.sandbox.directory("mnt-logs");
        }
        self.sandbox.reelfs(["mount", "shop/logs", text(&second)]).ok();
        (first, second)
    }

    fn trade(&mut self, db: &Path, logs: &Path, is_cut: &AtomicBool) -> Result<()> {
        let open = |path: PathBuf| File::options().create(true).truncate(false).write(true).open(path);
        let (orders, sent) = (open(db.join("orders"))?, open(logs.join("sent"))?);
        loop {
            self.round += 1;
            orders.write_all_at(&self.round.to_le_bytes(), 0)?;
            orders.sync_data()?;
            // what a sync says while the disk is being stopped is not believed (tests/disk_stops.rs)
            let is_believed = |is_cut: &AtomicBool| !is_cut.load(Ordering::SeqCst);
            if !is_believed(is_cut) {
                return Ok(());
            }
            self.synced[0] = self.round;
            sent.write_all_at(&self.round.to_le_bytes(), 0)?;
            if self.random.below(2) == 0 {
                sent.sync_data()?;
                self.synced[1] = if is_believed(is_cut) { self.round } else { self.synced[1] };
            }
            if self.random.below(4) == 0 {
                let order = File::create(db.join(format!("order-{}", self.round)))?;
                order.write_all_at(b"ordered", 0)?;
                order.sync_all()?;
                if !is_believed(is_cut) {
                    return Ok(());
                }
                fs::write(logs.join(format!("sent-{}", self.round)), "sent")?;
            }
        }
    }

    fn work_until_cut(&mut self, (first, second): (Mount, PathBuf)) {
        let (is_cut, pause) = (AtomicBool::new(false), Duration::from_millis(50 + self.random.below(300)));
        let (db, disk) = (first.path().to_owned(), self.disk.path().to_owned());
        std::thread::scope(|scope| {
            let (is_cut_too, trading) = (&is_cut, &mut *self);
            scope.spawn(move || drop(trading.trade(&db, &second, is_cut_too)));
            wait::pause(pause);
            is_cut.store(true, Ordering::SeqCst);
            tools::run("xfs_io", &["-x", "-c", "shutdown", text(&disk)]);
            wait::pause(Duration::from_millis(20));
            first.kill();
        });
        self.disk.umount();
        self.disk.mount();
    }

    fn check(&self, [db, logs]: [&Path; 2], when: &str) {
        let (ordered, sent) = (number(&db.join("orders")), number(&logs.join("sent")));
        assert!(sent <= ordered, "{when}: ordered {ordered}, sent {sent}");
        assert!(ordered >= self.synced[0] && sent >= self.synced[1], "{when}: {ordered}, {sent} of {:?}", self.synced);
        for entry in fs::read_dir(logs).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if let Some(round) = name.strip_prefix("sent-") {
                let order = fs::read(db.join(format!("order-{round}"))).unwrap_or_default();
                assert_eq!(order, b"ordered", "{when}: {name} without its order");
            }
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}

fn number(path: &Path) -> u64 {
    fs::read(path).map_or(0, |bytes| bytes.try_into().map_or(0, u64::from_le_bytes))
}

fn cut(file_system: FileSystem, on_it: OnIt, rounds: usize) {
    if !tools::root() || !tools::present(&["mkfs.ext4", "mkfs.xfs", "xfs_io"]) {
        return;
    }
    let mut shop = Shop::new(file_system, on_it);
    let mut mounts = shop.mount();
    shop.sandbox.base("shop", &shop.tapes);
    for round in 0..rounds {
        let when = format!("round {round}");
        shop.work_until_cut(mounts);
        mounts = shop.mount();
        assert_eq!(shop.sandbox.reelfs(["group", "show", "shop", "--json"]).ok().json()["epoch"], 1, "{when}");
        shop.check(shop.pvols.each_ref().map(PathBuf::as_path), &when);
        shop.sandbox.export("shop", &shop.tapes);
        let restored = shop.sandbox.restore(&shop.tapes, "latest", "restored");
        let both = [restored.join("db"), restored.join("logs")];
        shop.check(both.each_ref().map(PathBuf::as_path), &format!("{when}, restored"));
        for (here, there) in shop.pvols.iter().zip(&both) {
            Tree::of(here).assert_same(&Tree::of(there), &when);
        }
        fs::remove_dir_all(restored).unwrap();
    }
    assert!(shop.synced[0] > 0);
    shop.sandbox.reelfs(["umount", text(&mounts.1)]).ok();
    mounts.0.umount();
}

#[test]
fn ext4_stops_below_both_volumes_and_their_journal() {
    cut(FileSystem::Ext4, OnIt::All, tools::rounds(5, 100));
}

#[test]
fn xfs_stops_below_both_volumes_and_their_journal() {
    cut(FileSystem::Xfs, OnIt::All, tools::rounds(5, 100));
}

#[test]
fn the_disk_of_what_comes_first_stops() {
    cut(FileSystem::Ext4, OnIt::Orders, tools::rounds(5, 100));
}

#[test]
fn the_disk_of_what_follows_stops() {
    cut(FileSystem::Ext4, OnIt::Sent, tools::rounds(5, 100));
}
