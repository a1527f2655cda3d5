//! Power cuts: of what was written since the last flush, each sector is on the disk or is not.

use std::ops::Range;

use proptest::prelude::*;

use super::*;
use crate::jvol::geometry::PAGE;

/// What a disk writes whole.
const SECTOR: usize = 512;

/// The bytes of the file at some moments since the last flush.
struct Disk(Vec<Vec<u8>>);

impl Disk {
    fn look(&mut self, fixture: &Fixture) {
        self.0.push(std::fs::read(fixture.path()).expect("read the file"));
    }

    /// Leaves each sector as it was at one of the moments.
    fn cut(self, fixture: &Fixture, mut seed: u64) {
        let mut bytes = self.0[0].clone();
        let is_same =
            |range: Range<usize>| self.0.iter().all(|moment| moment[range.clone()] == self.0[0][range.clone()]);
        let pages = (0..bytes.len()).step_by(PAGE as usize).filter(|&page| !is_same(page..page + PAGE as usize));
        for start in pages.flat_map(|page| (page..page + PAGE as usize).step_by(SECTOR)) {
            let sector = start..start + SECTOR;
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let moment = &self.0[(seed >> 33) as usize % self.0.len()];
            bytes[sector.clone()].copy_from_slice(&moment[sector]);
        }
        std::fs::write(fixture.path(), bytes).expect("write the file");
    }
}

fn lengths() -> impl Strategy<Value = Vec<Vec<usize>>> {
    let length = prop_oneof![Just(100_usize), Just(4068_usize), 0_usize..9000];
    prop::collection::vec(prop::collection::vec(length, 1..4), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_power_cut_leaves_whole_operations_and_all_that_was_durable(
        (before, between, lost, after) in (lengths(), lengths(), lengths(), lengths()),
        (seed, freed) in (any::<u64>(), any::<bool>()),
    ) {
        let fixture = Fixture::new();
        let jvol = fixture.open();
        // a lap behind, so that old slots and old data lie beyond the end
        if freed {
            let filler = vec![1 << 19; 20];
            for _ in 0..3 {
                fixture.append(&jvol, &filler).expect("append");
                jvol.free(jvol.pointers().next, Digest::ZERO).expect("free");
            }
        }
        for operation in &before {
            fixture.append(&jvol, operation).expect("append");
        }
        let durable = jvol.sync(Seq(u64::MAX)).expect("sync");
        let mut disk = Disk(Vec::new());
        disk.look(&fixture);
        for operation in &between {
            fixture.append(&jvol, operation).expect("append");
        }
        // a watermark on its way to the disk together with what it does not cover
        let mut writer = jvol.flusher.lock().writer.take().expect("nobody flushes");
        jvol.write_superblock(&mut writer, None).expect("write");
        disk.look(&fixture);
        for operation in &lost {
            fixture.append(&jvol, operation).expect("append");
        }
        disk.look(&fixture);
        let whole = held(&jvol);
        let out = jvol.pointers().out;
        drop(jvol);
        disk.cut(&fixture, seed);

        let mut jvol = fixture.open();
        prop_assert!(jvol.pointers().next > durable, "lost {} of {durable}", jvol.pointers().next);
        let mut left = held(&jvol);
        prop_assert_eq!(&left[..], &whole[..left.len()]);
        let boundary = |count: usize| {
            let mut end = (durable.0 + 1 - out.0) as usize;
            std::iter::once(end).chain(between.iter().chain(&lost).map(|operation| { end += operation.len(); end }))
                .any(|end| end == count)
        };
        prop_assert!(boundary(left.len()), "{} records end inside an operation", left.len());

        jvol.cut_tail().expect("cut");
        for operation in after {
            fixture.append(&jvol, &operation).expect("append");
            left.extend(operation);
        }
        drop(jvol);
        let jvol = fixture.open();
        prop_assert_eq!(jvol.torn(), None);
        prop_assert_eq!(held(&jvol), left);
    }
}

#[test]
fn a_superblock_torn_while_freeing_leaves_the_one_before() {
    let fixture = Fixture::new();
    let jvol = fixture.open();
    for _ in 0..10 {
        fixture.append(&jvol, &[5000]).expect("append");
    }
    for kept in 2..8_u64 {
        let before = std::fs::read(fixture.path()).expect("read the file");
        jvol.free(Seq(kept), Digest([kept as u8; 32])).expect("free");
        let after = std::fs::read(fixture.path()).expect("read the file");
        let changed: Vec<usize> = (0..2)
            .filter(|slot| {
                let range = slot * PAGE as usize..(slot + 1) * PAGE as usize;
                before[range.clone()] != after[range]
            })
            .collect();
        assert_eq!(changed.len(), 1, "both slots written for one free");
        let torn = fixture.directory.path().join("torn.jvol");
        let mut bytes = after.clone();
        let middle = changed[0] * PAGE as usize + 100;
        bytes[middle..middle + 60].fill(0xee);
        std::fs::write(&torn, bytes).expect("write the file");
        let older = Jvol::open(&torn, GROUP).expect("open");
        assert_eq!(older.pointers().out, Seq(kept - 1));
        assert_eq!(held(&older).len() as u64, 12 - kept);
    }
}
