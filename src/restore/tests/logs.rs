//! What the log says of tapes, with the paths that names had then.

use reelfs_journal::{NodeKind, Seq};

use super::Bench;
use super::world::name;
use crate::log::{Event, Filter, tell};
use crate::restore::Deck;

fn events(bench: &Bench, filter: &Filter) -> Vec<Event> {
    let deck = Deck::open(&bench.tapes(), None, &mut |_, _| {}).expect("tapes");
    let mut events = Vec::new();
    let told = tell(&deck, filter, &mut |event| {
        events.push(event);
        Ok(())
    });
    told.expect("told");
    events
}

fn lines(events: &[Event]) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let line = |event: &Event| {
        let other = event.other.as_deref().map(|other| format!(" -> {}", text(other))).unwrap_or_default();
        format!("{} {}{other}", event.op, text(&event.path))
    };
    events.iter().map(line).collect()
}

fn renamed() -> (Bench, Seq) {
    let mut bench = Bench::new();
    let world = &mut bench.world;
    let root = world.model.root;
    let directory = world.create(root, "old", NodeKind::Directory);
    let file = world.create(directory, "file.txt", NodeKind::File);
    world.begin_base();
    world.end_base();
    let since = world.last().next();
    world.write(file, 3, b"abc");
    world.rename((root, name("old")), (root, name("new")), false);
    world.export();
    world.write(file, 0, b"abc");
    let never = world.write_change(file, 0, b"never");
    world.failed(never);
    world.unlink(directory, name("file.txt"), file);
    world.write(file, 0, b"nameless");
    world.export();
    (bench, since)
}

#[test]
fn paths_are_those_of_that_moment_and_what_failed_did_not_happen() {
    let (bench, since) = renamed();
    let filter = Filter::new(None).expect("no pattern").from(since);
    let events = events(&bench, &filter);
    let nameless = format!("write #{}", bench.world.records[bench.world.records.len() - 1].change.file());
    let wanted = ["write old/file.txt", "rename old -> new", "write new/file.txt", "unlink new/file.txt", &nameless];
    assert_eq!(lines(&events), wanted);
    assert_eq!(events[0].range, Some((3, 3)));
    assert_eq!(events[0].who.seq, since);
}

#[test]
fn before_the_base_names_are_told_as_far_as_they_are_known() {
    let (bench, since) = renamed();
    let filter = Filter::new(None).expect("no pattern").to(since);
    let lines = lines(&events(&bench, &filter));
    assert_eq!(lines.last().expect("a line"), "write old/file.txt");
    assert!(lines.iter().any(|line| line.starts_with("mkdir #") && line.ends_with("/old")), "{lines:?}");
}

#[test]
fn patterns_with_and_without_a_slash() {
    let (bench, since) = renamed();
    let count = |pattern: &str| {
        let filter = Filter::new(Some(pattern)).expect("a pattern").from(since);
        events(&bench, &filter).len()
    };
    assert_eq!(count("*.txt"), 3);
    assert_eq!(count("new"), 1);
    assert_eq!(count("new/*"), 2);
    assert_eq!(count("/old/*.txt"), 1);
    assert_eq!(count("none"), 0);
    assert_eq!(Filter::new(Some("a[")).expect_err("not a pattern").code(), 2);
}
