//! The kernel's rules for handles, as far as they concern us, in a model: page caches, what passes through, opens and releases
//! that are on their way. Random interleavings of opens, writes, stores and reads go against `Handled`.

use std::collections::HashMap;

use super::{Answer, Handled, Inode, Mode, Purpose};

const PAGES: usize = 3;
const PURPOSES: [Purpose; 4] = [Purpose::Read, Purpose::ReadDirect, Purpose::Write, Purpose::ReadWrite];

/// A page: what mappings store, and what `write(2)` writes. Each knows only its own, so nothing of either may get lost.
type Page = [u64; 2];
const STORED: usize = 0;
const WRITTEN: usize = 1;

/// An inode in the kernel: `fs/fuse/iomode.c`.
#[derive(Default)]
struct KernelInode {
    /// Handles that use the page cache count up, those that pass through count down.
    mode: i32,
    pages: HashMap<usize, (Page, bool)>,
}

struct Handle {
    inode: Inode,
    purpose: Purpose,
    mode: Mode,
}

/// An open that is under way.
enum Opening {
    /// It has no inode yet, or was told to look again.
    Unknown {
        purpose: Purpose,
        tries: u32,
    },
    LookedUp {
        purpose: Purpose,
        tries: u32,
        inode: Inode,
    },
    /// The answer is on its way to the kernel.
    Answered(Handle),
}

struct World {
    seed: u64,
    handled: Handled,
    backing: [Page; PAGES],
    journal: Vec<(usize, Page)>,
    last: [Page; PAGES],
    first: KernelInode,
    second: Option<KernelInode>,
    openings: Vec<Opening>,
    handles: Vec<Handle>,
    /// Closed in the kernel, and not told to us yet.
    releases: Vec<(Inode, Mode)>,
    /// How often each kind of handle was open, and files had two inodes.
    seen: HashMap<&'static str, u32>,
    number: u64,
}

impl World {
    fn new(seed: u64) -> World {
        World {
            seed: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            handled: Handled::default(),
            backing: [[0; 2]; PAGES],
            journal: Vec::new(),
            last: [[0; 2]; PAGES],
            first: KernelInode::default(),
            second: None,
            openings: Vec::new(),
            handles: Vec::new(),
            releases: Vec::new(),
            seen: HashMap::new(),
            number: 0,
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        usize::try_from(self.seed >> 33).unwrap() % limit
    }

    fn kernel(&mut self, inode: Inode) -> &mut KernelInode {
        match inode {
            Inode::First => &mut self.first,
            Inode::Second => self.second.as_mut().expect("the kernel knows the second inode"),
        }
    }

    fn step(&mut self) {
        match self.below(12) {
            0 | 1 => {
                let purpose = PURPOSES[self.below(4)];
                self.openings.push(Opening::Unknown { purpose, tries: 0 });
            }
            2..=4 if !self.openings.is_empty() => {
                let index = self.below(self.openings.len());
                let opening = self.openings.swap_remove(index);
                self.go_on(opening);
            }
            5 if !self.handles.is_empty() => {
                let index = self.below(self.handles.len());
                self.close(index);
            }
            6 if !self.releases.is_empty() => {
                let index = self.below(self.releases.len());
                let (inode, mode) = self.releases.swap_remove(index);
                self.handled.remove(inode, mode);
            }
            7 => self.forget(),
            8 => self.refresh(),
            9..=11 if !self.handles.is_empty() => self.use_handle(),
            _ => {}
        }
    }

    fn go_on(&mut self, opening: Opening) {
        match opening {
            Opening::Unknown { purpose, tries } => {
                let inode = if self.handled.second.is_some() { Inode::Second } else { Inode::First };
                self.openings.push(Opening::LookedUp { purpose, tries, inode });
            }
            Opening::LookedUp { purpose, tries, inode } => self.ask(purpose, tries, inode),
            Opening::Answered(handle) => self.opened(handle),
        }
    }

    fn ask(&mut self, purpose: Purpose, tries: u32, inode: Inode) {
        // a file that had to get a second inode passes nothing more through
        let may_pass = !self.seen.contains_key("switch");
        match self.handled.answer(inode, purpose, may_pass) {
            Answer::Open(mode) => {
                let stores = purpose == Purpose::ReadWrite;
                assert!(!(stores && mode.passes_through()), "a store would go past the journal");
                assert!(!(purpose != Purpose::Read && mode == Mode::Through), "a write would go past the journal");
                self.handled.add(inode, mode);
                self.openings.push(Opening::Answered(Handle { inode, purpose, mode }));
            }
            Answer::LookAgain => self.again(purpose, tries),
            Answer::Switch => {
                *self.seen.entry("switch").or_default() += 1;
                self.handled.split();
                self.second = Some(KernelInode::default());
                self.first.pages.clear();
                self.again(purpose, tries);
            }
        }
    }

    fn again(&mut self, purpose: Purpose, tries: u32) {
        assert!(tries == 0, "the kernel looks a name up again once, and {purpose:?} is told twice");
        self.openings.push(Opening::Unknown { purpose, tries: tries + 1 });
    }

    /// The kernel takes the answer, or says EIO.
    fn opened(&mut self, handle: Handle) {
        let kernel = self.kernel(handle.inode);
        let passes = kernel.mode < 0;
        match handle.mode {
            Mode::Cached | Mode::Storing => {
                assert!(!passes, "EIO: cached beside what passes through");
                kernel.mode += 1;
            }
            Mode::Direct => assert!(!passes, "EIO: direct beside what passes through"),
            Mode::Through | Mode::ThroughDirect => {
                assert!(kernel.mode <= 0, "EIO: passes through beside the page cache");
                kernel.mode -= 1;
            }
        }
        let name = match handle.mode {
            Mode::Cached | Mode::Storing if handle.inode == Inode::Second => "cached, second",
            Mode::Cached | Mode::Storing => "cached",
            Mode::Direct => "direct",
            Mode::Through => "through",
            Mode::ThroughDirect => "through, direct",
        };
        *self.seen.entry(name).or_default() += 1;
        self.handles.push(handle);
    }

    fn close(&mut self, index: usize) {
        let Handle { inode, mode, .. } = self.handles.swap_remove(index);
        if is_cached(mode) {
            self.write_back(inode);
        }
        let kernel = self.kernel(inode);
        match mode {
            Mode::Cached | Mode::Storing => kernel.mode -= 1,
            Mode::Direct => {}
            Mode::Through | Mode::ThroughDirect => kernel.mode += 1,
        }
        self.releases.push((inode, mode));
    }

    /// The kernel forgets the second inode when nobody has it in his hands.
    fn forget(&mut self) {
        let on_its_way = |opening: &Opening| match opening {
            Opening::Unknown { .. } => false,
            Opening::LookedUp { inode, .. } => *inode == Inode::Second,
            Opening::Answered(handle) => handle.inode == Inode::Second,
        };
        let in_use = self.handles.iter().any(|handle| handle.inode == Inode::Second);
        if in_use || self.openings.iter().any(on_its_way) {
            return;
        }
        if let Some(second) = &mut self.second {
            second.pages.clear();
        }
        if self.handled.join() {
            self.second = None;
        }
    }

    /// Dirty pages come to us as writes.
    fn write_back(&mut self, inode: Inode) {
        let dirty: Vec<(usize, Page)> = {
            let pages = self.kernel(inode).pages.iter_mut().filter(|(_, (_, dirty))| *dirty);
            pages.map(|(&at, (page, dirty))| (at, (*page, *dirty = false).0)).collect()
        };
        dirty.into_iter().for_each(|(at, page)| self.apply(at, page));
    }

    fn invalidate(&mut self, inode: Inode) {
        self.write_back(inode);
        self.kernel(inode).pages.clear();
    }

    /// What the thread of second inodes does now and then.
    fn refresh(&mut self) {
        if self.handled.may_hide_stores() {
            self.invalidate(Inode::Second);
        }
    }

    fn apply(&mut self, at: usize, page: Page) {
        self.journal.push((at, page));
        self.backing[at] = page;
    }

    fn use_handle(&mut self) {
        let (index, at) = (self.below(self.handles.len()), self.below(PAGES));
        let Handle { inode, purpose, mode } = self.handles[index];
        self.number += 1;
        match (purpose, self.below(3)) {
            (Purpose::Write | Purpose::ReadWrite, 0) => self.write(inode, mode, at),
            (Purpose::ReadWrite, 1) => {
                self.fill(inode, at);
                let number = self.number;
                let (page, dirty) = self.kernel(inode).pages.get_mut(&at).unwrap();
                (page[STORED], *dirty) = (number, true);
                self.last[at][STORED] = number;
                assert_eq!(self.handled.may_store(), Some(inode), "who looks for holes passes over what was stored");
            }
            (Purpose::Write, _) => {}
            _ => self.read(inode, mode, at),
        }
    }

    fn fill(&mut self, inode: Inode, at: usize) {
        let page = self.backing[at];
        self.kernel(inode).pages.entry(at).or_insert((page, false));
    }

    /// `write(2)` of the half of a page.
    fn write(&mut self, inode: Inode, mode: Mode, at: usize) {
        // what the second inode holds is brought here before, and is old afterwards
        let told = inode == Inode::First && self.handled.second.is_some();
        if told {
            self.invalidate(Inode::Second);
        }
        if !is_cached(mode) {
            self.write_back(inode); // the kernel does, of the range of a direct write
        }
        let number = self.number;
        let mut page = self.backing[at];
        page[WRITTEN] = number;
        self.apply(at, page);
        self.last[at][WRITTEN] = number;
        match mode {
            _ if is_cached(mode) => drop(self.kernel(inode).pages.get_mut(&at).map(|(page, _)| page[WRITTEN] = number)),
            _ => drop(self.kernel(inode).pages.remove(&at)),
        }
        if told {
            self.invalidate(Inode::Second);
        }
    }

    fn read(&mut self, inode: Inode, mode: Mode, at: usize) {
        let page = match mode {
            _ if is_cached(mode) => {
                self.fill(inode, at);
                self.kernel(inode).pages[&at].0
            }
            _ => self.backing[at],
        };
        assert_eq!(page[WRITTEN], self.last[at][WRITTEN], "an old write is read");
        if is_cached(mode) {
            assert_eq!(page[STORED], self.last[at][STORED], "an old store is read through a cache");
        }
    }

    /// Everything is closed, and the journal holds every store and write.
    fn end(mut self) -> HashMap<&'static str, u32> {
        while !self.openings.is_empty() {
            let opening = self.openings.swap_remove(0);
            self.go_on(opening);
        }
        while !self.handles.is_empty() {
            self.close(0);
        }
        for (inode, mode) in std::mem::take(&mut self.releases) {
            self.handled.remove(inode, mode);
        }
        self.forget();
        assert!(self.handled.is_closed(), "something is counted that nobody has: {:?}", self.handled);
        let mut replayed = [[0; 2]; PAGES];
        self.journal.iter().for_each(|&(at, page)| replayed[at] = page);
        assert_eq!(replayed, self.last, "the journal lacks something");
        assert_eq!(self.backing, self.last, "the volume lacks something");
        self.seen
    }
}

fn is_cached(mode: Mode) -> bool {
    matches!(mode, Mode::Cached | Mode::Storing)
}

#[test]
fn ten_thousand_interleavings_lose_nothing_and_show_nothing_old() {
    let mut seen: HashMap<&'static str, u32> = HashMap::new();
    for seed in 0..10_000 {
        let mut world = World::new(seed);
        (0..120).for_each(|_| world.step());
        world.end().into_iter().for_each(|(name, count)| *seen.entry(name).or_default() += count);
    }
    for name in ["cached", "cached, second", "direct", "through", "through, direct", "switch"] {
        assert!(seen.get(name).is_some_and(|&count| count > 1000), "{name} was hardly tried: {seen:?}");
    }
}

#[test]
fn the_number_of_a_mode_gives_it_back() {
    Mode::ALL.into_iter().for_each(|mode| assert_eq!(Mode::of_number(mode.number()), Some(mode)));
    assert_eq!(Mode::of_number(5), None);
}

/// Past the cache each write drops a page that a reader would find there.
#[test]
fn who_writes_beside_readers_of_the_cache_writes_through_it() {
    let mut handled = Handled::default();
    assert_eq!(handled.answer(Inode::First, Purpose::Write, false), Answer::Open(Mode::Direct));
    handled.add(Inode::First, Mode::Direct);
    assert_eq!(handled.answer(Inode::First, Purpose::Write, false), Answer::Open(Mode::Direct));
    handled.add(Inode::First, Mode::Cached);
    assert_eq!(handled.answer(Inode::First, Purpose::Write, false), Answer::Open(Mode::Cached));
    handled.add(Inode::First, Mode::Storing);
    assert_eq!(handled.answer(Inode::First, Purpose::Write, false), Answer::Open(Mode::Direct));
    handled.remove(Inode::First, Mode::Cached);
    assert_eq!(handled.answer(Inode::First, Purpose::Write, false), Answer::Open(Mode::Direct));
}
