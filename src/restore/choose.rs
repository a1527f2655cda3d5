//! Whose tapes they are: which group is meant, and which files stand there that only look like tapes.

use std::path::PathBuf;
use std::str::FromStr;

use reelfs_archive::{Catalog, GroupSummary, TapeKind, TapeName};
use reelfs_journal::Seq;

use crate::error::{Error, ErrorKind, Result};

/// A file that has the name of a tape and cannot be read as one.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) error: Error,
    pub(super) name: Option<TapeName>,
}

impl Broken {
    pub(crate) fn may_belong_to(&self, group: Option<&str>) -> bool {
        match (&self.name, group) {
            (Some(name), Some(group)) => name.group.as_str() == group,
            _ => true,
        }
    }

    pub(crate) fn may_hold_after(&self, end: Seq) -> bool {
        self.name.as_ref().is_none_or(|name| name.last > end)
    }

    pub(super) fn may_hold_records(&self) -> bool {
        self.name.as_ref().is_none_or(|name| name.kind == TapeKind::Update)
    }

    pub(super) fn may_begin_with(&self, id: &str) -> bool {
        self.name.as_ref().is_none_or(|name| name.to_string().starts_with(id))
    }

    /// It is a base tape, or may be one.
    pub(super) fn is_base(&self) -> bool {
        self.name.as_ref().is_none_or(|name| name.kind == TapeKind::Base)
    }
}

/// Files that are named like tapes, or were given as tapes, and of which no other copy reads well.
pub(crate) fn broken_tapes(catalog: &Catalog) -> Vec<Broken> {
    let same_as_good = |name: &TapeName| catalog.tapes().iter().any(|tape| tape.head.name() == *name);
    let broken = catalog.damaged().iter().map(|damaged| {
        let name =
            damaged.path.file_name().and_then(|name| name.to_str()).and_then(|name| TapeName::from_str(name).ok());
        let message = format!("tape {}: {}", damaged.path.display(), damaged.error);
        Broken { error: Error::new(ErrorKind::Damaged, message), name }
    });
    broken.filter(|broken| !broken.name.as_ref().is_some_and(same_as_good)).collect()
}

/// The one group that is meant.
pub(super) fn choose_group(
    groups: &[GroupSummary],
    wanted: Option<&str>,
    broken: &[Broken],
    paths: &[PathBuf],
) -> Result<GroupSummary> {
    let fits = |group: &&GroupSummary| wanted.is_none_or(|name| group.name.as_str() == name);
    let fitting: Vec<&GroupSummary> = groups.iter().filter(fits).collect();
    let names = |groups: &[&GroupSummary]| {
        let mut names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    };
    let place = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    match fitting.as_slice() {
        [one] => {
            Ok(GroupSummary { uuid: one.uuid, name: one.name.clone(), epochs: one.epochs.clone(), tapes: one.tapes })
        }
        [] if broken.iter().any(|broken| broken.may_belong_to(wanted)) => {
            let first = broken.iter().find(|broken| broken.may_belong_to(wanted));
            Err(first.map_or_else(
                || Error::failed("no tape"),
                |broken| Error::new(ErrorKind::Damaged, broken.error.to_string()),
            ))
        }
        [] if groups.is_empty() => Err(Error::new(ErrorKind::NotFound, format!("there is no tape in {place}"))),
        [] => {
            let all: Vec<&GroupSummary> = groups.iter().collect();
            let message = format!("no tape of {} in {place}", wanted.unwrap_or_default());
            Err(Error::new(ErrorKind::NotFound, message).hint(format!("the tapes there are of {}", names(&all))))
        }
        [first, rest @ ..] if rest.iter().all(|group| group.name == first.name) => {
            let message =
                format!("{place} holds tapes of {} different groups that are all named {}", fitting.len(), first.name);
            Err(Error::new(ErrorKind::Foreign, message)
                .hint("they come from different hosts or different times: keep them in directories of their own"))
        }
        several => Err(Error::usage(format!("{place} holds tapes of several groups: {}", names(several)))
            .hint(format!("choose one with --group {}", several[0].name))),
    }
}
