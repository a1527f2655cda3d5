//! Three versions of one file, and each of them back: by time, by number, by name.
//!
//! `cargo run --example point_in_time`. The group, its tapes and the restore are the program's own; only the kernel is
//! missing, so the example writes through the volume's door itself.

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use clap::ColorChoice;
use reelfs::export::{self, Destination};
use reelfs::group::{self, NewGroup};
use reelfs::open_group::OpenGroup;
use reelfs::output::Output;
use reelfs::point::Point;
use reelfs::pool::JournalOrigin;
use reelfs::restore::{self, Deck, Plan, Request};
use reelfs::settings::Settings;
use reelfs::size::Size;
use reelfs::state::StateDir;
use reelfs::when::Zone;
use reelfs_journal::{Clock, GroupName, Jvol, SystemClock, Tags};
use reelfs_volume::OnFull;
use reelfs_volume::Requester;

/// Runs the example.
///
/// # Errors
/// Whatever goes wrong on the way.
pub fn main() -> Result<(), Box<dyn Error>> {
    let home = tempfile::tempdir_in("/dev/shm")?;
    let (pvol, tapes) = (home.path().join("pvol"), home.path().join("tapes"));
    fs::create_dir(&pvol)?;
    fs::create_dir(&tapes)?;
    fs::write(pvol.join("price.txt"), "100")?;

    // a group, opened as the mount process opens it
    let state = StateDir::resolve(Some(&home.path().join("state")))?;
    let name: GroupName = "prices".parse()?;
    let created = SystemClock.read().wall;
    let (size, on_full) = (Size(Jvol::SIZE_MIN), OnFull::Block);
    let new = NewGroup {
        name: name.clone(),
        pvol: Some(pvol),
        journal: None,
        size: Some(size),
        origin: JournalOrigin::default(),
        on_full,
        settings: Settings::default(),
        created,
    };
    group::create(&state, &new, &mut |_, _| {})?;
    let output = Output::new(false, true, 0, ColorChoice::Never, Zone::UTC);
    let open = OpenGroup::open(&state.existing(&name)?, "example", false, &output)?;

    // what is there already, then two changes, each noted in another way
    let to = Destination::check(&open.file(), &open.devices(), &[], &tapes)?;
    reelfs::base_copy::base_copy(&open, None, &to, &mut |_, _| {})?;
    let volume = open.volumes().remove(0);
    let primary = &volume.primary;
    let (who, price) = (Requester::reelfs(), primary.lookup(primary.root(), OsStr::new("price.txt"))?.id.ino);
    primary.write(&who, price, 0, b"120", false)?;
    let raised = primary.jvol().pointers();
    let (_, noticed) = primary.group().mark("before-the-mistake", "", &Tags::default(), Vec::new())?;
    primary.write(&who, price, 0, b"0.1", false)?;
    export::export(&open, &to, None, &mut |_, _| {})?;
    open.close()?;

    // from here on nothing but the tapes is used
    for (point, expected) in [
        ("last-base".to_owned(), "100"),
        (format!("seq:{}", raised.next.previous()), "120"),
        (format!("@{}.{:09}", noticed.0.div_euclid(1_000_000_000), noticed.0.rem_euclid(1_000_000_000)), "120"),
        ("marker:before-the-mistake".to_owned(), "120"),
        ("latest".to_owned(), "0.1"),
    ] {
        let target = home.path().join("restored");
        let found = restore_price(&tapes, &point, &target)?;
        println!("{point:<28} {found}");
        if found != expected {
            return Err(format!("{point}: {found}, not {expected}").into());
        }
        fs::remove_dir_all(target)?;
    }
    Ok(())
}

/// Restores the whole directory as it was at a point, and reads the file.
fn restore_price(tapes: &Path, point: &str, to: &Path) -> Result<String, Box<dyn Error>> {
    let tapes = vec![tapes.to_owned()];
    let deck = Deck::open(&tapes, None, &mut |_, _| {})?;
    let point = Point::parse(point, SystemClock.read().wall, &Zone::UTC)?;
    let plan = Plan::new(&deck, deck.resolve(&point, Zone::UTC)?)?;
    let request = Request { to: to.to_owned(), tapes, ..Request::default() };
    restore::run(&deck, &plan, &request, &mut |_| {})?;
    Ok(fs::read_to_string(to.join("price.txt"))?)
}
