//! How a handle is served: what the open handles of a file allow the next one, as one table. It knows nothing of requests.
//!
//! The kernel has one rule: as long as a handle of an inode passes its reads through to the backing file, no handle of that inode may
//! use the page cache of the mount, and the other way round. Who passes through maps the *backing file*, so what may store
//! into a mapping never does. For such a handle beside readers that pass through, the file gets a second inode in the kernel.

#[cfg(test)]
mod tests;

/// What a handle was opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// `O_RDONLY`: reads, and mappings that nobody can store into.
    Read,
    /// The same with `O_DIRECT`: its unaligned reads succeed, so they come to us.
    ReadDirect,
    /// `O_WRONLY`: it cannot be mapped.
    Write,
    /// `O_RDWR`: it can be mapped, and stored into.
    ReadWrite,
}

impl Purpose {
    pub(crate) fn of(flags: i32) -> Purpose {
        match (flags & libc::O_ACCMODE, flags & libc::O_DIRECT != 0) {
            (libc::O_RDONLY, false) => Purpose::Read,
            (libc::O_RDONLY, true) => Purpose::ReadDirect,
            (libc::O_WRONLY, _) => Purpose::Write,
            _ => Purpose::ReadWrite,
        }
    }
}

/// How the kernel serves a handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    /// Through the page cache of the mount, for who only reads, and for who only writes beside readers: what it writes is
    /// where they look for it. Each write comes to us.
    Cached,
    /// Each request comes to us, whole; what it writes is dropped from the page cache of the mount.
    Direct,
    /// Reads and mappings go to the backing file without us.
    Through,
    /// Reads and writes come to us; mappings would go to the backing file. For handles that can not be mapped, or not be
    /// stored into.
    ThroughDirect,
    /// Through the page cache of the mount, written through, and its mappings may be stored into.
    Storing,
}

impl Mode {
    pub(crate) const ALL: [Mode; 5] = [Mode::Cached, Mode::Direct, Mode::Through, Mode::ThroughDirect, Mode::Storing];

    /// The number that the kernel gives back with the handle's release.
    pub(crate) fn number(self) -> u64 {
        self as u64
    }

    /// The mode of a number; none of one that is not ours.
    pub(crate) fn of_number(number: u64) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.number() == number)
    }

    /// That of a handle in the page cache of the mount.
    fn in_cache(purpose: Purpose) -> Mode {
        match purpose {
            Purpose::ReadWrite => Mode::Storing,
            Purpose::Read | Purpose::ReadDirect | Purpose::Write => Mode::Cached,
        }
    }

    pub(crate) fn passes_through(self) -> bool {
        matches!(self, Mode::Through | Mode::ThroughDirect)
    }
}

/// The inodes that the kernel can have of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Inode {
    /// The one that each file has.
    First,
    /// Made for who stores, while readers pass through on the first.
    Second,
}

/// What an open is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is open.
    Open(Mode),
    /// Not on this inode: the kernel is to look the name up again.
    LookAgain,
    /// The same, when the file has got its second inode.
    Switch,
}

/// Open handles of one inode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Handles {
    cached: u32,
    storing: u32,
    direct: u32,
    through: u32,
}

/// What they come to. Never are some cached while others pass through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Nothing,
    /// By writers whose requests come to us, alone. One of their opens may not be done in the kernel yet, so nobody begins to
    /// pass through beside them.
    Direct,
    Cached,
    Through,
}

impl Handles {
    fn held(self) -> Held {
        match self {
            Handles { through: 1.., .. } => Held::Through,
            Handles { cached: 1.., .. } | Handles { storing: 1.., .. } => Held::Cached,
            Handles { direct: 1.., .. } => Held::Direct,
            Handles { through: 0, cached: 0, storing: 0, direct: 0 } => Held::Nothing,
        }
    }

    fn count(&mut self, mode: Mode) -> &mut u32 {
        match mode {
            Mode::Cached => &mut self.cached,
            Mode::Storing => &mut self.storing,
            Mode::Direct => &mut self.direct,
            Mode::Through | Mode::ThroughDirect => &mut self.through,
        }
    }
}

/// The open handles of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Handled {
    first: Handles,
    second: Option<Handles>,
}

impl Handled {
    /// What a further open is answered; `may_pass`: it may be the first that passes through.
    pub(crate) fn answer(&self, inode: Inode, purpose: Purpose, may_pass: bool) -> Answer {
        use Answer::{LookAgain, Open, Switch};
        match (inode, self.second.is_some(), self.first.held(), purpose) {
            (Inode::First, false, Held::Nothing, Purpose::Read) if may_pass => Open(Mode::Through),
            // beside readers what it writes is where they look for it; else past the cache is a copy less, and beside who stores it is
            // told apart from what he stored
            (Inode::First, false, Held::Cached, Purpose::Write) if self.first.storing == 0 => Open(Mode::Cached),
            (Inode::First, false, Held::Nothing | Held::Direct | Held::Cached, Purpose::Write) => Open(Mode::Direct),
            (Inode::First, false, Held::Nothing | Held::Direct | Held::Cached, _) => Open(Mode::in_cache(purpose)),
            // old readers stay where they are and may be joined; what they read is what stands
            (Inode::First, _, Held::Through, Purpose::Read) => Open(Mode::Through),
            (Inode::First, _, Held::Through, Purpose::ReadDirect) => Open(Mode::ThroughDirect),
            (Inode::First, false, Held::Through, Purpose::Write) => Open(Mode::ThroughDirect),
            (Inode::First, false, Held::Through, Purpose::ReadWrite) => Switch,
            (Inode::First, true, Held::Through, Purpose::Write | Purpose::ReadWrite) => LookAgain,
            (Inode::First, true, Held::Nothing | Held::Direct | Held::Cached, _) => LookAgain,
            (Inode::Second, true, _, Purpose::Write) => Open(Mode::Direct),
            (Inode::Second, true, _, _) => Open(Mode::in_cache(purpose)),
            (Inode::Second, false, _, _) => LookAgain,
        }
    }

    /// A handle more, as it was answered.
    pub(crate) fn add(&mut self, inode: Inode, mode: Mode) {
        *self.handles(inode).count(mode) += 1;
    }

    /// A handle less.
    pub(crate) fn remove(&mut self, inode: Inode, mode: Mode) {
        let count = self.handles(inode).count(mode);
        *count = count.saturating_sub(1);
    }

    fn handles(&mut self, inode: Inode) -> &mut Handles {
        match inode {
            Inode::First => &mut self.first,
            Inode::Second => self.second.get_or_insert_default(),
        }
    }

    /// From now on the file has a second inode.
    pub(crate) fn split(&mut self) {
        self.second.get_or_insert_default();
    }

    /// The kernel has forgotten the second inode. It stays while readers pass through on the first: whoever was told to look
    /// again must find it.
    pub(crate) fn join(&mut self) -> bool {
        let unused = self.second == Some(Handles::default()) && self.first.held() != Held::Through;
        if unused {
            self.second = None;
        }
        unused
    }

    /// The file of the second inode is gone, and its number is another file's.
    pub(crate) fn end_second(&mut self) {
        self.second = None;
    }

    /// The first inode has handles that pass through.
    pub(crate) fn passes_through(&self) -> bool {
        self.first.held() == Held::Through
    }

    /// Readers of the backing file would not see yet what is stored into mappings of the second inode.
    pub(crate) fn may_hide_stores(&self) -> bool {
        self.passes_through() && self.second.is_some_and(|second| second.storing > 0)
    }

    /// The inode whose mappings may have been stored into: what they hold is not in the volume before the kernel writes it back.
    pub(crate) fn may_store(&self) -> Option<Inode> {
        if self.second.is_some_and(|second| second.storing > 0) {
            return Some(Inode::Second);
        }
        (self.first.storing > 0).then_some(Inode::First)
    }

    /// Nobody has it open.
    pub(crate) fn is_closed(&self) -> bool {
        self.first == Handles::default() && self.second.is_none()
    }
}
