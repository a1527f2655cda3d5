//! What tapes cost: export and restore against `tar | zstd -3 -T2` and `zstd -d | tar x` of the same bytes.

#[path = "../tests/support/mod.rs"]
mod support;

mod paired;

use std::fs;
use std::path::Path;
use std::time::Duration;

use paired::{Paired, Sample};
use support::{Mount, Random, Sandbox, Tree, tools, wait};

/// Text of a vocabulary: it compresses as sources and documents do.
fn text(random: &mut Random, length: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(length + 16);
    while text.len() < length {
        // squared: a few words are frequent, most are rare
        let rare = random.below(70) * random.below(70);
        let word = blake3::hash(&rare.to_le_bytes());
        let letters = word.as_bytes()[..3 + (rare % 7) as usize].iter().map(|byte| b'a' + byte % 26);
        text.extend(letters);
        text.push(if random.below(12) == 0 { b'\n' } else { b' ' });
    }
    text.truncate(length);
    text
}

/// 400 MB: many small files, some large ones, a quarter of it incompressible.
fn furnish(directory: &Path) -> u64 {
    let mut random = Random::new("tapes", 0);
    let mut total = 0;
    for number in 0..4_000_u64 {
        let place = directory.join(format!("d{}/e{}", number % 20, number % 180));
        fs::create_dir_all(&place).expect("a directory");
        let length = match number % 100 {
            0 => 6 << 20,
            1..=10 => 120_000,
            _ => random.below(20_000),
        };
        let bytes = if number % 400 == 0 { random.bytes(length) } else { text(&mut random, length as usize) };
        total += bytes.len() as u64;
        fs::write(place.join(format!("f{number}")), bytes).expect("room");
    }
    total
}

fn timed(run: impl FnOnce()) -> Sample {
    tools::run("sync", &[]);
    let begin = wait::now();
    run();
    Sample { took: begin.elapsed(), ..Sample::default() }
}

fn speed(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / 1e9 / took.as_secs_f64()
}

fn main() -> std::process::ExitCode {
    let sandbox = Sandbox::new();
    println!("{}\n", paired::machine(sandbox.root()));
    let pvol = sandbox.directory("pvol");
    let bytes = furnish(&pvol);
    let mut missed = 0;
    let mut row = |what: &str, limit: f64, paired: &Paired| {
        let ratio = paired.ratio("reelfs", "pipeline");
        let (ours, theirs) = (speed(bytes, paired.median("reelfs")), speed(bytes, paired.median("pipeline")));
        println!(
            "| {what} | {theirs:.2} GB/s | {ours:.2} GB/s | {ratio} | {} |",
            paired::verdict(what, ratio, limit, &mut missed)
        );
    };
    println!("| {:.2} GB in 4,000 files | pipeline | reelfs | time: reelfs / pipeline | limit |", bytes as f64 / 1e9);
    println!("|---|---|---|---|---|");
    row("base copy to a tape, `tar c \\| zstd -3 -T2`", 1.25, &base(&sandbox, &pvol));
    row("export of the journal, `tar c \\| zstd -3 -T2`", 1.25, &export(&sandbox, &pvol));
    row("restore of the base, `zstd -d \\| tar x`", 1.5, &restore(&sandbox, &pvol, "tapes-base"));
    row("restore of base and updates, `zstd -d \\| tar x`", 1.5, &restore(&sandbox, &pvol, "tapes-updates"));
    println!("\ntimes as multiples of the pipeline's: median of {} rounds (least-most)", paired::rounds());
    std::process::ExitCode::from(u8::from(missed > 0))
}

/// The pipeline of the measure; both sides end with their bytes on the disk.
fn pipeline(sandbox: &Sandbox) {
    tools::shell(
        sandbox.root(),
        "rm -f plain.tar.zst; tar -c -C pvol . | zstd -q -3 -T2 -o plain.tar.zst; sync plain.tar.zst",
    );
}

fn base(sandbox: &Sandbox, pvol: &Path) -> Paired {
    sandbox.group_of_size("base", pvol, "1GiB");
    let tapes = sandbox.path("tapes-base");
    let paired = Paired::measure(&["pipeline", "reelfs"], paired::rounds(), |subject| {
        drop(fs::remove_dir_all(&tapes));
        fs::create_dir(&tapes).expect("a directory");
        timed(|| if subject == 0 { pipeline(sandbox) } else { drop(sandbox.base("base", &tapes)) })
    });
    drop(fs::remove_dir_all(&tapes));
    sandbox.base("base", sandbox.directory("tapes-base").as_path());
    paired
}

/// All bytes go through the journal of an empty volume, once; the same journal is exported to a new directory a round.
fn export(sandbox: &Sandbox, pvol: &Path) -> Paired {
    let empty = sandbox.directory("empty");
    sandbox.group_of_size("updates", &empty, "1GiB");
    // a target that lags behind keeps the journal from being freed
    sandbox.base("updates", &sandbox.directory("tapes-lagging"));
    let tapes = sandbox.directory("tapes-updates");
    sandbox.base("updates", &tapes);
    let mount = Mount::new(sandbox, "updates", &sandbox.directory("mnt"), &[]);
    tools::run("cp", &["-a", &format!("{}/.", pvol.display()), mount.path().to_str().expect("UTF-8")]);
    mount.umount();
    let kept: Vec<_> = sandbox.tapes(&tapes);
    let paired = Paired::measure(&["pipeline", "reelfs"], paired::rounds(), |subject| {
        for tape in sandbox.tapes(&tapes).iter().filter(|tape| !kept.contains(tape)) {
            fs::remove_file(tape).expect("our tape");
        }
        timed(|| if subject == 0 { pipeline(sandbox) } else { drop(sandbox.export("updates", &tapes)) })
    });
    sandbox.export("updates", &tapes);
    paired
}

fn restore(sandbox: &Sandbox, pvol: &Path, tapes: &str) -> Paired {
    pipeline(sandbox);
    let tapes = sandbox.path(tapes);
    let paired = Paired::measure(&["pipeline", "reelfs"], paired::rounds(), |subject| {
        drop(fs::remove_dir_all(sandbox.path("back")));
        timed(|| {
            if subject == 0 {
                tools::shell(sandbox.root(), "mkdir back; zstd -q -dc plain.tar.zst | tar -x -C back; sync -f back");
            } else {
                sandbox.restore(&tapes, "latest", "back");
            }
        })
    });
    drop(fs::remove_dir_all(sandbox.path("back")));
    let restored = sandbox.restore(&tapes, "latest", "back");
    Tree::of(pvol).assert_same(&Tree::of(&restored), "what was measured");
    paired
}
