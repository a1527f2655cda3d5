//! A group in a sandbox, opened in this process, and the tapes that say whether they agree with the volume.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use reelfs::base_copy::base_copy;
use reelfs::export::{self, Destination};
use reelfs::group::{self, NewGroup};
use reelfs::open_group::OpenGroup;
use reelfs::output::Output;
use reelfs::pair;
use reelfs::point::Point;
use reelfs::pool::JournalOrigin;
use reelfs::restore::{self, Deck, Plan, Request};
use reelfs::settings::Settings;
use reelfs::size::Size;
use reelfs::state::{GroupDir, StateDir};
use reelfs::when::Zone;
use reelfs_journal::{Clock, Epoch, Jvol, Seq, SystemClock, Timestamp};
use reelfs_volume::{OnFull, Primary};

use super::trace;
use super::twin::twin;
use crate::support::{Sandbox, Tree};

/// A group `sim` whose everything lies in memory.
pub struct Site {
    /// Where everything is.
    pub sandbox: Sandbox,
    /// The protected directory.
    pub pvol: PathBuf,
    /// The directory of tapes.
    pub tapes: PathBuf,
    /// Restores so far.
    restored: u32,
}

impl Site {
    /// Directories, and no group yet.
    pub fn bare() -> Site {
        let sandbox = Sandbox::in_memory();
        let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
        sandbox.directory("stash");
        Site { sandbox, pvol, tapes, restored: 0 }
    }

    /// A group with the smallest journal.
    pub fn new() -> Site {
        let site = Site::bare();
        site.create().expect("a group can be made");
        site
    }

    /// Makes the group.
    pub fn create(&self) -> reelfs::error::Result<()> {
        let new = NewGroup {
            name: "sim".parse().expect("a name"),
            pvol: Some(self.pvol.clone()),
            journal: None,
            size: Some(Size(Jvol::SIZE_MIN)),
            origin: JournalOrigin::default(),
            on_full: OnFull::Block,
            settings: Settings::default(),
            created: SystemClock.read().wall,
        };
        let state = StateDir::resolve(Some(&self.sandbox.state())).expect("a state directory");
        group::create(&state, &new, &mut |_, _| {}).map(|_| ())
    }

    /// Where the group's state lives.
    pub fn dir(&self) -> GroupDir {
        let state = StateDir::resolve(Some(&self.sandbox.state())).expect("a state directory");
        state.group(&"sim".parse().expect("a name"))
    }

    /// Opens the group as a mount does.
    pub fn open(&self) -> reelfs::error::Result<OpenGroup> {
        let mut output = Output::plain(false);
        output.quiet = true;
        let group = OpenGroup::open(&self.dir(), "a test", false, &output)?;
        group.begin_ring();
        Ok(group)
    }

    /// What the journal holds; nobody has the group open.
    pub fn journal(&self) -> String {
        match reelfs::group_file::GroupFile::load(&self.dir()) {
            Ok(file) => trace::journal(&file.journal, file.uuid),
            Err(error) => error.chain(),
        }
    }

    fn destination(&self, group: &OpenGroup) -> reelfs::error::Result<Destination> {
        Destination::check(&group.file(), &group.devices(), &[], &self.tapes)
    }

    /// A base copy to the tapes.
    pub fn base(&self, group: &OpenGroup) -> reelfs::error::Result<()> {
        base_copy(group, None, &self.destination(group)?, &mut |_, _| {}).map(|_| ())
    }

    /// Exports what is not on the tapes yet.
    pub fn export(&self, group: &OpenGroup) -> reelfs::error::Result<()> {
        export::export(group, &self.destination(group)?, None, &mut |_, _| {}).map(|_| ())
    }

    /// Whether nothing is suspended.
    pub fn is_journaling(&self, group: &OpenGroup) -> bool {
        primary(group).suspension().is_none()
    }

    /// Exports, and tells whether that freed anything: what `pair resync` does when the journal has no room.
    fn makes_room(&self, group: &OpenGroup) -> bool {
        let before = primary(group).jvol().pointers().out;
        self.export(group).is_ok() && primary(group).jvol().pointers().out > before
    }

    /// Whether the journal still holds all that ever happened.
    pub fn is_in_one_journal(&self, group: &OpenGroup) -> bool {
        let primary = primary(group);
        group.journal().epoch() == Epoch(1) && primary.jvol().pointers().out == Seq(1)
    }

    /// Fails unless what the journal says is the volume: by a replay of its records, or, when it no longer holds all of them, by
    /// tapes. A suspended group is brought back first.
    pub fn check_twin(&mut self, group: &OpenGroup) -> Result<(), String> {
        let primary = primary(group);
        if primary.suspension().is_some() {
            let mut make_room = || self.makes_room(group);
            primary.resync(&mut make_room, &mut |_, _| {}).map_err(|error| format!("resync: {error}"))?;
        }
        if !self.is_in_one_journal(group) {
            return self.check_tapes(group);
        }
        self.restored += 1;
        let to = self.sandbox.path(&format!("twin{}", self.restored));
        let replayed = twin(primary.jvol(), primary.root_id(), &to)?;
        let real = Tree::of(&self.pvol);
        // the root's own state before the first record was never told
        let same = replayed.clone().with_root_of(&real).same(&real, "what the journal says and the volume");
        fs::remove_dir_all(&to).expect("the replayed tree is ours");
        same
    }

    /// Fails unless what the tapes restore is the volume.
    pub fn check_tapes(&mut self, group: &OpenGroup) -> Result<(), String> {
        let failed = |what: &'static str| move |error: reelfs::error::Error| format!("{what}: {}", error.chain());
        self.export(group).map_err(failed("export"))?;
        let deck = Deck::open(std::slice::from_ref(&self.tapes), None, &mut |_, _| {}).map_err(failed("the tapes"))?;
        let zone = Zone::UTC;
        let latest = Point::parse("latest", Timestamp(0), &zone).map_err(failed("a point"))?;
        let target = deck.resolve(&latest, zone).map_err(failed("resolve"))?;
        let plan = Plan::new(&deck, target).map_err(failed("a plan"))?;
        self.restored += 1;
        let to = self.sandbox.path(&format!("restored{}", self.restored));
        let request = Request { to: to.clone(), tapes: vec![self.tapes.clone()], ..Request::default() };
        restore::run(&deck, &plan, &request, &mut |_| {}).map_err(failed("restore"))?;
        let same = Tree::of(&self.pvol).same(&Tree::of(&to), "the volume and what the tapes restore");
        fs::remove_dir_all(&to).expect("the restored tree is ours");
        same
    }
}

/// The one volume of the group.
pub fn primary(group: &OpenGroup) -> Arc<Primary> {
    group.volumes().remove(0).primary
}
