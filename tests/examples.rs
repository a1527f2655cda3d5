//! The examples do what they say: each is run as a newcomer would run it, and fails when what it compares differs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../examples/in_memory.rs"]
mod in_memory;
#[path = "../examples/point_in_time.rs"]
mod point_in_time;
#[path = "../examples/tape_by_hand.rs"]
mod tape_by_hand;
#[path = "../examples/two_sites.rs"]
mod two_sites;

#[test]
fn in_memory_without_a_kernel() {
    in_memory::main().unwrap();
}

#[test]
fn a_tape_by_hand() {
    tape_by_hand::main().unwrap();
}

#[test]
fn every_point_in_time() {
    point_in_time::main().unwrap();
}

#[test]
fn two_sites_and_a_bag() {
    two_sites::main().unwrap();
}
