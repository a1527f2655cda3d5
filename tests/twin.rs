//! The twin: whatever applications do on the mount, a restore to any moment equals the volume as it was at that moment.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use support::{Mount, Random, Sandbox, Tree, tools, wait};

/// Files of the source tree.
const FILES: u64 = 5_000;

/// Processes at work in the mount, as one process group.
struct Workload {
    child: Child,
    name: &'static str,
    log: PathBuf,
}

impl Workload {
    /// Starts `tests/workloads/SCRIPT` in a directory of its own.
    fn start(sandbox: &Sandbox, mount: &Path, name: &'static str, words: &[&str]) -> Workload {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workloads");
        let directory = mount.join(name);
        fs::create_dir(&directory).unwrap();
        let log = sandbox.path(&format!("{name}.log"));
        let interpreter = if words[0].ends_with(".py") { "python3" } else { "bash" };
        let child = Command::new(interpreter)
            .arg(scripts.join(words[0]))
            .args(&words[1..])
            .current_dir(directory)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(File::create(&log).unwrap())
            .stderr(File::options().append(true).open(&log).unwrap())
            .spawn()
            .unwrap();
        Workload { child, name, log }
    }

    fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Stops all its processes, and returns when they stand still.
    fn stop(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(
            ended.is_none(),
            "{} ended with {}: {}",
            self.name,
            ended.unwrap(),
            fs::read_to_string(&self.log).unwrap()
        );
        kill_process_group(self.group(), Signal::STOP).unwrap();
        let stands =
            wait::until(Duration::from_secs(30), || states(self.group()).iter().all(|state| "TZX".contains(*state)));
        assert!(stands, "{} does not stop: {:?}", self.name, states(self.group()));
    }

    fn go_on(&self) {
        kill_process_group(self.group(), Signal::CONT).unwrap();
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        _ = kill_process_group(self.group(), Signal::CONT);
        _ = kill_process_group(self.group(), Signal::KILL);
        _ = self.child.wait();
        wait::until(Duration::from_secs(10), || states(self.group()).is_empty());
    }
}

/// The state letter of every process of a group.
fn states(group: Pid) -> Vec<char> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let stats = processes.filter_map(|process| fs::read_to_string(process.path().join("stat")).ok());
    stats
        .filter_map(|stat| {
            let (_, fields) = stat.rsplit_once(") ")?;
            let mut fields = fields.split(' ');
            let state = fields.next()?.chars().next()?;
            (fields.nth(1)?.parse() == Ok(group.as_raw_nonzero().get())).then_some(state)
        })
        .collect()
}

/// What is unpacked, and what is cloned.
fn prepare(sandbox: &Sandbox) -> (String, String) {
    let tree = sandbox.directory("source");
    let mut random = Random::new("source", 0);
    for number in 0..FILES {
        let directory = tree.join(format!("part{}/unit{}", number % 13, number % 131));
        fs::create_dir_all(&directory).unwrap();
        let length = random.below(1 + 40 * random_square(number));
        fs::write(
            directory.join(format!("file{number}.{}", if number % 2 == 0 { "c" } else { "h" })),
            random.bytes(length),
        )
        .unwrap();
    }
    tools::shell(
        sandbox.root(),
        "tar -cf source.tar -C source . && export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
         git init -q repository && cp -r source/part1 source/part2 repository/ && cd repository && git add -A
         git -c user.name=a -c user.email=a@example.org commit -q -m begin",
    );
    let path = |name: &str| sandbox.path(name).to_str().unwrap().to_owned();
    (path("source.tar"), path("repository"))
}

/// Most files are small, a few are not.
fn random_square(number: u64) -> u64 {
    (number % 17) * (number % 17)
}

/// A moment at which everything stood still.
struct Moment {
    point: String,
    copy: Tree,
}

/// Stops the workloads, looks, and lets them go on. Two markers prove that nothing happened while we looked.
fn look(sandbox: &Sandbox, mount: &Mount, pvol: &Path, workloads: &mut [Workload], number: usize) -> Moment {
    workloads.iter_mut().for_each(Workload::stop);
    mount.sync();
    // sync(2) does not wait for what was stored through mappings: such pages are still on their way when it returns, and wait
    // with the daemon while it makes them hot; fsync(2) of the file waits for them
    File::open(mount.path().join("bytes/mapped")).and_then(|mapped| mapped.sync_all()).unwrap();
    // the kernel does not wait for the answer to a close: the end of a nameless file may be on its way still
    let last = || sandbox.reelfs(["status", "twin", "--json"]).ok().json()["groups"][0]["journal"]["last"].clone();
    let is_quiet = wait::until(Duration::from_secs(30), || {
        let before = last();
        wait::pause(Duration::from_millis(300));
        last() == before
    });
    assert!(is_quiet, "the journal grows though all workloads stand still");
    let mark = |name: &str| {
        let marked = sandbox.reelfs(["mark", "twin", name, "--json"]).ok().json();
        marked["seq"].as_u64().unwrap_or_else(|| panic!("no number in {marked}"))
    };
    let before = mark(&format!("moment{number}"));
    let copy = Tree::of(pvol);
    let after = mark(&format!("after{number}"));
    if after != before + 1 {
        let (since, until) = (format!("marker:moment{number}"), format!("marker:after{number}"));
        let log = sandbox.reelfs(["log", "twin", "--since", &since, "--until", &until]).ok();
        panic!("changed between the markers of moment {number}, {before} and {after}:\n{}", log.stdout);
    }
    workloads.iter().for_each(Workload::go_on);
    Moment { point: format!("marker:moment{number}"), copy }
}

#[test]
fn a_restore_to_any_moment_equals_the_volume_at_that_moment() {
    if !tools::present(&["sqlite3", "git", "setfattr", "setfacl", "python3", "setpriv", "tar"]) {
        return;
    }
    let (sandbox, fast) = (Sandbox::new(), Sandbox::in_memory());
    let (tar, repository) = prepare(&sandbox);
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    tools::shell(
        &pvol,
        &format!(
            "mkdir was-there && tar -xf {tar} -C was-there ./part3 ./part4 && ln was-there/part3/unit3/file3.h linked"
        ),
    );
    sandbox.group_of_size("twin", &pvol, "1GiB");
    let mount = Mount::new(&sandbox, "twin", &sandbox.directory("mnt"), &[]);
    sandbox.base("twin", &tapes);
    let start = |name, words: &[&str]| Workload::start(&sandbox, mount.path(), name, words);
    let mut workloads = vec![
        start("tree", &["tree.sh", &tar]),
        start("wal", &["sqlite.sh", "wal"]),
        start("rollback", &["sqlite.sh", "delete"]),
        start("git", &["git.sh", &repository]),
        start("bytes", &["bytes.py"]),
        start("names", &["names.py"]),
    ];
    let count = tools::rounds(20, 200);
    let mut moments = Vec::new();
    for number in 0..count {
        wait::pause(Duration::from_millis(if number == 0 { 3_000 } else { 800 }));
        moments.push(look(&sandbox, &mount, &pvol, &mut workloads, number));
        if number % 3 == 2 {
            sandbox.export("twin", &tapes);
        }
    }
    drop(workloads);
    sandbox.export("twin", &tapes);
    mount.umount();
    let bases = sandbox.tapes(&tapes).iter().filter(|tape| tape.to_string_lossy().contains(".base.")).count();
    assert_eq!(bases, 1, "one base tape, taken before the workload");
    let sizes: Vec<usize> = moments.iter().map(|moment| moment.copy.nodes().len()).collect();
    println!("{count} moments of {sizes:?} objects, {} tapes", sandbox.tapes(&tapes).len());
    assert!(sizes.iter().max() > Some(&(FILES as usize)), "the workload was not at work: {sizes:?}");
    let next = std::sync::atomic::AtomicUsize::new(0);
    let compare = |worker: &str| {
        while let Some(moment) = moments.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            let restored = fast.restore(&tapes, &moment.point, worker);
            moment.copy.assert_same(&Tree::of(&restored), &moment.point);
            applications_can_go_on(&restored);
            fs::remove_dir_all(restored).unwrap();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| compare("restored-by-one"));
        scope.spawn(|| compare("restored-by-another"));
    });
}

/// A moment is a state that a power cut could have left: databases and repositories are whole.
fn applications_can_go_on(restored: &Path) {
    for database in ["wal/wal.db", "rollback/delete.db"] {
        let answer =
            tools::shell(restored, &format!("test ! -e {database} || sqlite3 {database} 'pragma integrity_check'"));
        assert!(["", "ok"].contains(&answer.trim()), "{database}: {answer}");
    }
}
