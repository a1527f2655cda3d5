//! Labels: one for each place in the program that changes or syncs a disk.

macro_rules! labels {
    ($($name:ident: $text:literal,)+) => {
        /// A place in the program that changes or syncs a disk; `docs/FAILPOINTS.md` lists them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Label {
            $(#[doc = $text] $name,)+
        }

        impl Label {
            /// All of them.
            pub const ALL: &[Label] = &[$(Label::$name,)+];

            /// As it is written in the documentation and in the environment.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Label::$name => stringify!($name),)+ }
            }

            /// What happens there.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Label::$name => $text,)+ }
            }
        }
    };
}

labels! {
    JvolCreate: "a new journal volume gets its temporary name",
    JvolPreallocate: "its blocks are allocated",
    JvolFill: "it is written full of zeros",
    JvolFillSync: "the zeros are made durable",
    JvolFirstSuperblocks: "its first superblocks are written",
    JvolFirstSync: "they are made durable",
    JvolTemporarySync: "its temporary name is made durable",
    JvolName: "a finished journal volume gets its name",
    JvolNameSync: "its name is made durable",
    JvolData: "journal data of an append",
    JvolControl: "control data of an append, which makes its records be there",
    JvolSuperblock: "watermark and journal-out",
    JvolSync: "the journal is made durable",
    JvolCutTail: "a stray slot behind a torn tail is made zeros",
    JvolGrowCreate: "a larger journal volume is begun beside the old one",
    JvolGrowOwner: "it gets the owner of the old one",
    JvolGrowMode: "it gets the mode of the old one",
    JvolGrowCopy: "what the old one holds is copied into it",
    JvolGrowSync: "most of that is made durable",
    JvolGrowSuperblocks: "its superblocks are written",
    JvolGrowLastSync: "all of it is made durable",
    JvolGrowName: "it takes the name of the old one",
    JvolGrowNameSync: "that is made durable",
    JvolGrowRemove: "a larger journal volume that was not finished goes",
    JvolHandOverWipe: "the control data of a journal volume that changes hands is made zeros",
    JvolHandOverWipeSync: "that is made durable",
    JvolHandOverSuperblocks: "its superblocks name the new owner",
    JvolHandOverSync: "they are made durable",
    JvolSpareCopy: "what a journal on a failing disk holds is copied into the spare",
    JvolSpareSuperblocks: "the superblocks of the spare are written",
    JvolSpareSync: "the spare is made durable",
    JvolMode: "others may read a journal volume, or no longer",
    JvolRemove: "a journal volume goes with its group",
    InFlightCreate: "the in-flight table is made",
    InFlightFill: "its slots are written",
    InFlightSetSize: "one that is not whole is emptied",
    InFlightCreating: "a slot says which name is about to be made",
    InFlightNumbered: "a slot says which numbers were given out",
    InFlightSettled: "a slot is free again",
    InFlightCleared: "all slots are free after an opening",
    ApplyWrite: "bytes of a file",
    ApplySetSize: "the size of a file",
    ApplyAllocate: "blocks, zeros or a hole in a file",
    ApplyZeros: "zeros where the file system has no call for them",
    ApplyTimes: "modification time of a file whose content changed",
    ApplyParentTimes: "modification time of a directory, or of any object alone",
    ApplyOwner: "owner of an object",
    ApplyMode: "permission bits of an object",
    ApplyAttributeTimes: "modification time that goes with attributes",
    ApplyXattr: "an extended attribute or ACL is set",
    ApplyRemoveXattr: "an extended attribute or ACL goes",
    ApplyLink: "a further name",
    ApplyUnlink: "a name goes",
    ApplyRename: "a name changes",
    MakeObject: "a new object on the primary, before it is journaled",
    MakeOwner: "it is given to its requester",
    MakeMode: "it gets the bits back that a change of owner took",
    UnmakeObject: "it is taken away again, for it could not be journaled",
    SetAccessTime: "an access time, which is not journaled",
    FileSync: "a file or directory of the volume is made durable",
    VolumeSync: "the whole volume is made durable",
    VolumeFlush: "the disk's own cache is emptied",
    DirtyMapCreate: "a dirty map is begun",
    DirtyMapHead: "its first entry",
    DirtyMapSync: "it is made durable",
    DirtyMapNameSync: "its name is made durable",
    DirtyMapAppend: "what is about to change is noted",
    DirtyMapRename: "a copy with what an opening noted takes its place",
    DirtyMapSetSize: "an entry cut short is cut off",
    DirtyMapRemove: "the map goes, for everything in it is journaled",
    DirtyMapRemoveSync: "that is made durable",
    BaseLogCreate: "the log of a base copy through the journal is begun",
    BaseLogHead: "its first entries",
    BaseLogSync: "it is made durable",
    BaseLogRename: "it takes the place of an older one",
    BaseLogNameSync: "that is made durable",
    BaseLogAppend: "what was told is noted",
    BaseLogAppendSync: "that is made durable",
    BaseLogSetSize: "an entry cut short is cut off",
    BaseLogRemove: "the log goes, for everything is told",
    BaseLogRemoveSync: "that is made durable",
    KnownCreate: "a new list of known directories is begun",
    KnownWrite: "its entries",
    KnownSync: "it is made durable",
    KnownRename: "it takes the place of the old one",
    KnownAppend: "a directory was made",
    RedoNoteCreate: "it is about to be noted that a redo is due",
    RedoNoteWrite: "the lull before it is noted",
    RedoNoteSync: "the note is made durable",
    RedoNoteNameSync: "its name is made durable",
    RedoNoteRemove: "the redo is done",
    StateCreate: "a new group file gets its temporary name",
    StateWrite: "its text",
    StateSync: "it is made durable",
    StateRename: "it takes the place of the old one",
    StateNameSync: "that is made durable",
    PoolsLock: "the lock of the pools is made",
    PoolsCreate: "a new list of pools gets its temporary name",
    PoolsWrite: "its text",
    PoolsSync: "it is made durable",
    PoolsRename: "it takes the place of the old one",
    PoolsNameSync: "that is made durable",
    ClockCreate: "how the group takes the clock gets a temporary name",
    ClockWrite: "its text",
    ClockSync: "it is made durable",
    ClockRename: "it takes the place of the old one",
    ClockNameSync: "that is made durable",
    TapeCreate: "a tape gets its temporary name",
    TapeWrite: "its bytes",
    TapeSync: "it is made durable",
    TapeName: "a tape that reads back gets its name",
    TapeNameSync: "its name is made durable",
    TapeRemove: "what an export left unfinished goes",
    ReplicaCreate: "what a replica knows of itself gets its temporary name",
    ReplicaWrite: "its text",
    ReplicaSync: "it is made durable",
    ReplicaRename: "it takes the place of the old one",
    ReplicaNameSync: "that is made durable",
    ReplicaRemove: "a replica is forgotten, to be made anew",
    ObjectsCreate: "a table of the objects of a replica is begun",
    ObjectsWrite: "its entries",
    ObjectsSync: "it is made durable",
    ObjectsNameSync: "its name is made durable",
    ObjectsAppend: "what a batch changed in it",
    ObjectsAppendSync: "that is made durable",
    ObjectsRemove: "a table that does not count any more goes",
    TapePrune: "a tape that is no longer kept goes",
    TapePruneSync: "that is made durable",
}
