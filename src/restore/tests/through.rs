//! A base copy through the journal, in memory, step by step while everything changes; and the points that it leads to.

use std::borrow::Cow;
use std::collections::HashMap;

use proptest::prelude::*;
use reelfs_journal::{Change, FileId, MarkerKind, Name, NodeKind, Seq};
use uuid::Uuid;

use super::Bench;
use super::random::{act, cases, steps};
use super::world::{World, entry_of, name};

/// A base copy through the journal that is under way.
#[derive(Default)]
pub struct Through {
    base: Uuid,
    began: Seq,
    queue: Vec<FileId>,
    listing: Option<(FileId, Vec<Name>)>,
    listed: Vec<FileId>,
    /// Objects that were told, and whether with all names.
    told: HashMap<FileId, bool>,
    seen: Vec<FileId>,
    moved: Vec<FileId>,
    /// The file whose bytes are being told: from where, up to where, whether with all names.
    content: Option<(FileId, usize, usize, bool)>,
}

impl Through {
    /// A change of names touches these.
    pub fn note_moved(&mut self, change: &Change<'_>) {
        match change {
            Change::Link { file, .. } => self.moved.push(*file),
            Change::Rename { file, replaced, .. } => self.moved.extend([*file, *replaced]),
            _ => {}
        }
    }
}

impl World {
    fn begin_through(&mut self) {
        let base = Uuid::from_u128(u128::from(self.last().0) + 5000);
        let root = self.model.root;
        let began = self.journal(Change::BaseBegin { base, root }, false);
        self.through = Some(Through { base, began, moved: vec![root], ..Through::default() });
    }

    /// The daemon is killed, and goes on with what was noted.
    fn interrupt_through(&mut self) {
        let root = self.model.root;
        let Some(Through { base, began, listed, told, .. }) = self.through.take() else { return };
        self.journal(Change::BaseBegin { base, root }, false);
        self.through = Some(Through { base, began, listed, told, moved: vec![root], ..Through::default() });
    }

    fn through_step(&mut self) -> bool {
        let Some(mut run) = self.through.take() else { return false };
        let goes_on = self.step_of(&mut run);
        self.through = Some(run);
        goes_on
    }

    fn step_of(&mut self, run: &mut Through) -> bool {
        if let Some(content) = run.content.take() {
            run.content = self.tell_bytes(run, content);
        } else if let Some((directory, mut names)) = run.listing.take() {
            match names.pop() {
                Some(name) => {
                    let file = self.model.objects.get(&directory).and_then(|object| object.names.get(&name)).copied();
                    run.listing = Some((directory, names));
                    if let Some(file) = file {
                        self.tell_object(run, (directory, name), file);
                    }
                }
                None => run.listed.push(directory),
            }
        } else if let Some(directory) = run.queue.pop() {
            let object = self.model.objects.get(&directory);
            run.listing = object.map(|object| (directory, object.names.keys().cloned().collect()));
        } else if let Some(file) = run.moved.pop() {
            let has_place = file == self.model.root || self.model.places().iter().any(|(_, _, at)| *at == file);
            if has_place {
                self.tell_object(run, (FileId::NONE, name("moved")), file);
            }
        } else {
            return false;
        }
        true
    }

    fn tell_object(&mut self, run: &mut Through, (parent, name): (FileId, Name), file: FileId) {
        let links = self.model.places().iter().filter(|(_, _, at)| *at == file).count();
        let is_directory = self.model.is_directory(file) || file == self.model.root;
        let known = run.told.get(&file).copied();
        let has_place = parent != FileId::NONE;
        let is_told = known == Some(true) || known.is_some() && (!has_place || run.listed.contains(&parent));
        if !is_told {
            let entry = entry_of(&self.model, parent, &name, file);
            self.journal(entry, false);
        }
        if is_directory && !run.seen.contains(&file) {
            run.seen.push(file);
            run.queue.push(file);
        }
        if known.is_some() {
            return;
        }
        let object = &self.model.objects[&file];
        let with_all_names = is_directory || has_place && links <= 1;
        if object.kind == NodeKind::File {
            let (size, mtime) = (object.data.len() as u64, object.attributes.mtime);
            run.content = Some((file, 0, object.data.len(), with_all_names));
            self.journal(Change::SetSize { file, size, mtime }, false);
        } else {
            run.told.insert(file, with_all_names);
        }
    }

    fn tell_bytes(
        &mut self,
        run: &mut Through,
        (file, at, end, with_all_names): (FileId, usize, usize, bool),
    ) -> Option<(FileId, usize, usize, bool)> {
        let has_place = self.model.places().iter().any(|(_, _, place)| *place == file);
        let object = self.model.objects.get(&file).filter(|_| has_place);
        let (data, attributes) = object.map_or((&[][..], None), |object| (&object.data[..], Some(object.attributes)));
        let piece = data.get(at..end.min(at + 16).min(data.len())).unwrap_or_default().to_vec();
        if piece.is_empty() || at >= end {
            run.told.insert(file, with_all_names);
            attributes.map(|attributes| self.journal(Change::SetAttr { file, attributes }, false));
            return None;
        }
        let (size, next) = (data.len() as u64, at + piece.len());
        let mtime = attributes.map(|attributes| attributes.mtime).unwrap_or_default();
        self.journal(Change::Write { file, offset: at as u64, data: Cow::Owned(piece), size, mtime }, false);
        Some((file, next, end, with_all_names))
    }

    fn end_through(&mut self) -> Seq {
        while self.through_step() {}
        let run = self.through.take().expect("a base copy under way");
        let ended = self.journal(Change::BaseEnd { base: run.base, began: run.began, digest: [0; 32] }, false);
        self.first_point.get_or_insert(ended);
        ended
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_base_through_the_journal_leads_to_exact_points_with_and_without_an_earlier_one(
        on_tape_first in any::<bool>(),
        before in steps(25),
        during in proptest::collection::vec((steps(2), 0..4_u8, 0..12_u8), 0..40),
        after in steps(25),
        behind in steps(8),
    ) {
        let mut bench = Bench::in_memory();
        let world = &mut bench.world;
        before.into_iter().for_each(|step| act(world, step));
        if on_tape_first {
            world.begin_base();
            world.end_base();
            world.export();
        }
        world.begin_through();
        for (steps, walk, kill) in during {
            steps.into_iter().for_each(|step| act(world, step));
            for _ in 0..walk {
                world.through_step();
            }
            if kill == 0 {
                world.interrupt_through();
                world.behind(|world| behind.iter().for_each(|step| act(world, *step)));
            }
        }
        let ended = world.end_through();
        world.export();
        after.into_iter().for_each(|step| act(world, step));
        world.marker(MarkerKind::Named, "end");
        world.export();
        let first = world.first_point.expect("a base");
        prop_assert_eq!(on_tape_first, first < ended);
        let points: Vec<_> = bench.world.states.range(first..).map(|(seq, _)| *seq).collect();
        for seq in points.iter().step_by(10).chain([&ended]).chain(points.last()) {
            bench.assert_exact(*seq);
        }
    }
}
