//! What a base copy looked at is forgotten, however the copy ends: a copy of a large volume takes no memory for good, and what is
//! removed meanwhile gives up its room.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::sync::Arc;

use reelfs_journal::{Epoch, Jvol, SystemClock};
use reelfs_volume::{OnFull, OpenOptions, Opened, Primary, Requester, Visit, WalkError};
use support::Sandbox;
use uuid::Uuid;

const WHO: Requester = Requester { uid: 0, gid: 0, pid: 1 };

fn opened(sandbox: &Sandbox) -> Opened {
    let pvol = sandbox.directory("pvol");
    for directory in ["a", "a/b", "a/b/c", "d", "e"] {
        fs::create_dir(pvol.join(directory)).unwrap();
        (0..10).for_each(|number| fs::write(pvol.join(format!("{directory}/f{number}")), b"bytes").unwrap());
    }
    fs::create_dir(pvol.join("empty")).unwrap();
    fs::hard_link(pvol.join("a/f1"), pvol.join("d/link")).unwrap();
    let (jvol, group) = (sandbox.path("test.jvol"), Uuid::from_u128(7));
    Jvol::create(&jvol, 64 << 20, group, &mut |_, _| {}).unwrap();
    let options = OpenOptions {
        root: File::open(pvol).unwrap().into(),
        jvol,
        group,
        state: sandbox.state(),
        epoch: Epoch(1),
        session: None,
        strict: false,
        on_full: OnFull::Block,
        clock: Arc::new(SystemClock),
    };
    Primary::start(options).unwrap()
}

/// Objects that are known, and descriptors.
fn held(primary: &Primary) -> (usize, usize) {
    (primary.known(), fs::read_dir("/proc/self/fd").unwrap().count())
}

/// Walks, with something done at the visit of this number.
fn walk(
    primary: &Primary,
    at: usize,
    act: &mut dyn FnMut(&Visit<'_>) -> Result<(), String>,
) -> Result<(), WalkError<String>> {
    let mut visits = 0;
    primary.walk(&mut |visit| {
        visits += 1;
        if visits == at { act(&visit) } else { Ok(()) }
    })
}

// one test: another one beside it would open descriptors, too
#[test]
fn whatever_a_copy_looked_at() {
    let sandbox = Sandbox::in_memory();
    let opened = opened(&sandbox);
    let (primary, root) = (&opened.primary, opened.primary.root());
    let before = held(primary);
    assert_eq!(before.0, 1, "an opening looks at every directory, and leaves the root known");
    walk(primary, usize::MAX, &mut |_| Ok(())).unwrap();
    assert_eq!(held(primary), before, "behind a walk");
    for at in [1, 4, 17, 40] {
        walk(primary, at, &mut |_| Err("the disk of the tapes is full".to_owned())).unwrap_err();
        assert_eq!(held(primary), before, "behind a walk that ended at {at}");
    }
    // the root has been told, and what is in it is queued: one of it moves, another one goes
    let deep = |name: &str| primary.lookup(root, name.as_ref()).unwrap().id.ino;
    walk(primary, 8, &mut |_| {
        let (a, d) = (deep("a"), deep("d"));
        primary.rename(&WHO, (a, "b".as_ref()), (d, "moved".as_ref()), 0).unwrap();
        primary.rmdir(&WHO, root, "empty".as_ref()).unwrap();
        [a, d].into_iter().for_each(|ino| primary.forget(ino, 1));
        Ok(())
    })
    .unwrap();
    assert_eq!(held(primary), before, "behind a walk while things moved");
    let base = primary.begin_base(Uuid::from_u128(9)).unwrap();
    base.tell(&mut || false, &mut |_, _| {}).unwrap();
    assert_eq!(held(primary), before, "behind a copy through the journal");
}
