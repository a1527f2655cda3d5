//! The first member of a tape: how to read it with nothing but tar and zstd.

use crate::{Label, TapeKind};

/// Its name.
pub(crate) const NAME: &str = "README.txt";

/// The command that restores a base tape with GNU tar. `TAPE` and `DIR` stand for the tape and an empty directory.
pub const GNU_TAR_COMMAND: &str = "tar --zstd -xpf TAPE -C DIR --numeric-owner --xattrs --xattrs-include='*' --acls \
                                   --delay-directory-restore base";
/// The same with bsdtar.
pub const BSDTAR_COMMAND: &str = "bsdtar -xpf TAPE -C DIR --numeric-owner --xattrs --acls base";

/// The text for a tape with this label.
pub(crate) fn text(label: &Label) -> String {
    let Label { group, group_uuid, epoch, kind, first, tape, host, program, .. } = label;
    let volumes: Vec<String> = label.volumes.iter().map(|volume| volume.called().to_string()).collect();
    let volumes = volumes.join(", ");
    let own = match kind {
        TapeKind::Base => base_part(),
        TapeKind::Update => UPDATE_PART.to_owned(),
    };
    format!(
        "This is a reelfs tape: an ordinary tar archive, compressed with zstd.\n\n\
         Group:    {group} ({group_uuid}), epoch {epoch}\n\
         Volume:   {volumes}\n\
         Kind:     {kind} tape, from record {first}\n\
         Tape:     {tape}\n\
         Written:  on {host} by {program}\n\n{own}{COMMON_PART}"
    )
}

fn base_part() -> String {
    format!(
        "It holds a directory tree as ordinary tar entries beneath `base`. If you have lost everything else:\n\n\
         \x20   {GNU_TAR_COMMAND}\n\n\
         as root, with GNU tar, puts the tree into DIR/base: names, types, contents, modes, owners, times, extended\n\
         attributes, access control lists, hard links, holes. With bsdtar:\n\n\
         \x20   {BSDTAR_COMMAND}\n\n\
         Without root the owners are yours, and what only root may set is reported. The tree was read while it was\n\
         in use: a file that was written to meanwhile may be a mixture of old and new; reelfs repairs that with the\n\
         update tapes that follow. Sockets have no tar entry. bsdtar misreads times before 1970 with a fraction.\n\n"
    )
}

const UPDATE_PART: &str = "\
It holds the changes of a directory tree, in order. To restore the tree as it was at any moment of them, put this\n\
tape beside the others of its group and run\n\n\
\x20   reelfs restore --tapes DIRECTORY-OF-TAPES --at MOMENT --to EMPTY-DIRECTORY\n\n\
Without reelfs, `tar --zstd -xf TAPE` gives the records themselves: reelfs/control/*.ctl are records of 64 bytes, and\n\
reelfs/journal/*.jd is the data that belongs to them, one after the other.\n\n";

const COMMON_PART: &str = "\
\x20   tar --zstd -tvf TAPE       lists it              zstd -t TAPE                checks its checksums\n\
\x20   reelfs tape show TAPE      describes it          reelfs tape verify TAPE     checks everything\n\n\
Members: README.txt, reelfs/label.json (what this tape is), then control data, journal data and files in frames of\n\
at most 4 MiB, then reelfs/index.json (what was written; a tape without it is cut off) and reelfs/root.b3 (a digest\n\
of all of it). A tape that was cut off is still good up to the cut: `zstd -dc TAPE | tar -xf -` gives every complete\n\
frame. The format is described in docs/FORMAT-tape.md of reelfs.\n";
