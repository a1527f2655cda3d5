//! Random changes while a base copy walks the tree: every point from its end on is exact, by both methods.

use proptest::prelude::*;
use reelfs_journal::{Change, FileId, MarkerKind, NodeKind, Xattr};

use super::volumes::{assert_state, clear, restore_all};
use super::world::{World, name};
use super::{Bench, Method};
use crate::point::Point;

/// What to do, and which of the objects that happen to be there to do it with.
type Step = (u8, u16, u16, u8);

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn pick<T: Clone>(from: &[T], index: u16) -> Option<T> {
    (!from.is_empty()).then(|| from[usize::from(index) % from.len()].clone())
}

fn directory(world: &World, index: u16) -> FileId {
    let mut directories = world.model.directories();
    directories.push(world.model.root);
    directories.sort();
    pick(&directories, index).expect("the root at least")
}

fn file(world: &World, index: u16) -> Option<FileId> {
    // nameless ones too: somebody may have them open
    let mut files: Vec<FileId> = world.model.objects.keys().copied().collect();
    files.retain(|file| world.model.objects[file].kind == NodeKind::File);
    pick(&files, index)
}

pub fn act(world: &mut World, (kind, one, two, three): Step) {
    let into = directory(world, one);
    let new_name = name(NAMES[usize::from(three) % NAMES.len()]);
    let taken = world.model.objects[&into].names.get(&new_name).copied();
    let place = pick(&world.model.places(), two);
    let text = new_name.to_string();
    match kind % 16 {
        0 | 1 if taken.is_none() => {
            world.create(into, &text, NodeKind::File);
        }
        2 if taken.is_none() => {
            world.create(into, &text, NodeKind::Directory);
        }
        3 if taken.is_none() => {
            world.create(into, &text, NodeKind::Symlink(b"somewhere".to_vec()));
        }
        4..=6 => {
            if let Some(file) = file(world, two) {
                let data = vec![three | 1; usize::from(one % 40) + 1];
                world.write(file, u64::from(three % 64), &data);
            }
        }
        7 => {
            if let Some(file) = file(world, two) {
                world.set_size(file, u64::from(three % 80));
            }
        }
        8 => {
            if let Some(file) = file(world, two) {
                let mtime = world.mtime();
                let present = world.model.objects[&file].data.len() as u64;
                let (offset, length) = (u64::from(three % 32), u64::from(one % 32) + 1);
                if one % 2 == 0 {
                    world.change(Change::Punch { file, offset, length, mtime });
                } else {
                    let size = present.max(offset + length);
                    world.change(Change::Zero { file, offset, length, size, mtime });
                }
            }
        }
        9 | 10 => {
            if let Some((parent, name, file)) = place
                && world.model.objects[&file].names.is_empty()
            {
                world.unlink(parent, name, file);
            }
        }
        11 | 12 => {
            if let Some((parent, name, file)) = place {
                rename(world, (parent, name, file), into, &text);
            }
        }
        13 => {
            if let Some((_, _, file)) = place
                && taken.is_none()
                && !world.model.is_directory(file)
            {
                let parent_mtime = world.mtime();
                world.change(Change::Link { file, parent: into, name: new_name, parent_mtime });
            }
        }
        14 => {
            if let Some((_, _, file)) = place
                && !matches!(world.model.objects[&file].kind, NodeKind::Symlink(_))
            {
                attributes(world, file, three);
            }
        }
        _ => {
            if let Some(file) = file(world, two) {
                world.short_write(file, 3, b"asked for all of this", usize::from(three % 20) + 1);
            }
        }
    }
}

fn rename(world: &mut World, from: (FileId, reelfs_journal::Name, FileId), into: FileId, text: &str) {
    let (parent, old, file) = from;
    let new = name(text);
    let taken = world.model.objects[&into].names.get(&new).copied();
    let moves_directory = world.model.is_directory(file);
    if (moves_directory && world.model.is_below(into, file)) || taken == Some(file) {
        return;
    }
    match taken {
        None => world.rename((parent, old), (into, new), false),
        Some(other) => {
            let replaces_directory = world.model.is_directory(other);
            let fits = moves_directory == replaces_directory && world.model.objects[&other].names.is_empty();
            let below = replaces_directory && world.model.is_below(parent, other);
            if fits && !below {
                world.rename((parent, old), (into, new), false);
            } else if !below {
                world.rename((parent, old), (into, new), true);
            }
        }
    }
}

fn attributes(world: &mut World, file: FileId, three: u8) {
    match three % 3 {
        0 => {
            let mtime = world.mtime();
            let attributes = World::attributes(0o700 | u32::from(three & 0o77), mtime);
            world.change(Change::SetAttr { file, attributes });
        }
        1 => {
            let xattr = Xattr { name: b"user.color".to_vec(), value: vec![three] };
            world.change(Change::SetXattr { file, xattr });
        }
        _ if world.model.objects[&file].xattrs.contains_key(&b"user.color"[..]) => {
            world.change(Change::RemoveXattr { file, name: b"user.color".to_vec() });
        }
        _ => {}
    }
}

pub fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(any::<Step>(), 0..count)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_base_taken_under_fire_leads_to_exact_points(
        before in steps(25),
        during in proptest::collection::vec((any::<Step>(), 0..3_u8), 0..40),
        after in steps(25),
        behind in steps(8),
    ) {
        let mut bench = Bench::new();
        let world = &mut bench.world;
        for step in before {
            act(world, step);
        }
        world.begin_base();
        for (step, walk) in during {
            act(world, step);
            for _ in 0..walk {
                world.base_step();
            }
        }
        world.end_base();
        world.export();
        let half = after.len() / 2;
        for (index, step) in after.into_iter().enumerate() {
            act(world, step);
            if index == half {
                world.behind(|world| behind.iter().for_each(|step| act(world, *step)));
            }
        }
        world.marker(MarkerKind::Named, "end");
        world.export();
        let first = world.first_point.expect("a base");
        let points: Vec<_> = bench.world.states.range(first..).map(|(seq, _)| *seq).collect();
        for seq in points.iter().step_by(3).chain(points.last()) {
            bench.assert_exact(*seq);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases() / 2, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bases_of_two_volumes_taken_together_lead_to_exact_points(
        during in proptest::collection::vec((any::<Step>(), 0..3_u8, any::<bool>()), 0..60),
        after in proptest::collection::vec((any::<Step>(), any::<bool>()), 0..25),
        behind in steps(8),
    ) {
        let mut bench = Bench::new();
        let world = &mut bench.world;
        let volumes = [world.volume, world.join("web")];
        for volume in volumes {
            world.switch(volume);
            world.begin_base();
        }
        for (step, walk, which) in during {
            world.switch(volumes[usize::from(which)]);
            act(world, step);
            for _ in 0..walk {
                world.base_step();
            }
        }
        for volume in volumes {
            world.switch(volume);
            world.end_base();
        }
        let first = world.last();
        world.export();
        let half = after.len() / 2;
        for (index, (step, which)) in after.into_iter().enumerate() {
            world.switch(volumes[usize::from(which)]);
            act(world, step);
            if index == half {
                world.behind(|world| behind.iter().for_each(|step| act(world, *step)));
            }
        }
        world.marker(MarkerKind::Named, "end");
        world.export();
        let points: Vec<_> = bench.world.whole.range(first..).collect();
        for (seq, state) in points.iter().step_by(4).chain(points.last()) {
            for method in [Method::Newest, Method::Replay] {
                let restored = restore_all(&bench, "docs", &Point::Seq(**seq), |request| request.method = method);
                restored.expect("restored");
                assert_state(&bench, state, &format!("{seq} by {method:?}"));
                clear(&bench);
            }
        }
    }
}

/// More of them when asked for, in the long runs.
pub fn cases() -> u32 {
    std::env::var("REELFS_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(24)
}
