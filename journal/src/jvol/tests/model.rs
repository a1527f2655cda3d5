//! Random appends, frees and reopenings against a vector.

use proptest::prelude::*;

use super::ring::memory;
use super::*;

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<usize>),
    /// Frees this part of what is held, in 255ths.
    Free(u8),
    Sync,
    Kill,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![4 => 0_usize..300, 4 => 3900_usize..4300, 2 => 0_usize..1 << 20, 1 => Just(1_usize << 20)];
    prop_oneof![
        20 => prop::collection::vec(length, 1..5).prop_map(Step::Append),
        3 => any::<u8>().prop_map(Step::Free),
        2 => Just(Step::Sync),
        1 => Just(Step::Kill),
        1 => Just(Step::Close),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn holds_what_a_vector_holds(steps in prop::collection::vec(step(), 1..120), has_ring in any::<bool>()) {
        let (fixture, memory) = (Fixture::new(), memory());
        let open = || if has_ring { fixture.open_with_ring(&memory) } else { fixture.open() };
        let mut jvol = open();
        let (mut out, mut model) = (1_u64, Vec::new());
        for step in steps {
            match step {
                Step::Append(lengths) => match fixture.append(&jvol, &lengths) {
                    Ok(appended) => {
                        prop_assert_eq!(appended.first.0, out + model.len() as u64);
                        model.extend(lengths);
                    }
                    Err(JournalError::Full) => prop_assert!(!jvol.has_room(lengths.iter().sum::<usize>() as u64, 4)),
                    Err(error) => return Err(TestCaseError::fail(error.to_string())),
                },
                Step::Free(part) => {
                    let count = model.len() * usize::from(part) / 255;
                    model.drain(..count);
                    out += count as u64;
                    jvol.free(Seq(out), Digest([part; 32])).expect("free");
                    prop_assert_eq!(jvol.out_digest(), Digest([part; 32]));
                }
                Step::Sync => {
                    let last = jvol.pointers().next.previous();
                    prop_assert_eq!(jvol.sync(last).expect("sync"), last);
                }
                Step::Kill => {
                    drop(jvol);
                    jvol = open();
                    prop_assert_eq!(held(&jvol), model.clone());
                }
                Step::Close => {
                    jvol.close().expect("close");
                    jvol = open();
                    prop_assert_eq!(jvol.pointers().durable.next(), jvol.pointers().next);
                }
            }
            prop_assert_eq!(jvol.torn(), None);
            prop_assert_eq!(jvol.pointers().out, Seq(out));
        }
        prop_assert_eq!(held(&jvol), model);
    }
}

#[test]
fn goes_round_many_laps() {
    let fixture = Fixture::new();
    let jvol = fixture.open();
    let (mut bytes, mut round) = (0_u64, 0_usize);
    while bytes < 6 * SIZE || jvol.pointers().next.0 < 3 * jvol.geometry().control_slots {
        round += 1;
        let lengths: Vec<usize> = if round.is_multiple_of(3) { vec![77; 500] } else { vec![300_001 + round, 4096, 12] };
        bytes += lengths.iter().sum::<usize>() as u64;
        match fixture.append(&jvol, &lengths) {
            Ok(_) => {}
            Err(JournalError::Full) => {
                held(&jvol);
                let pointers = jvol.pointers();
                let kept = (pointers.next.0 - pointers.out.0) / 5;
                jvol.free(Seq(pointers.next.0 - kept), Digest::ZERO).expect("free");
            }
            Err(error) => panic!("{error}"),
        }
    }
    let before = held(&jvol);
    drop(jvol);
    assert_eq!(held(&fixture.open()), before);
}
