//! What a mount costs the programs that people run on it: two databases and a compiler.

#[path = "../tests/support/mod.rs"]
mod support;

mod paired;
mod subjects;
mod workload;

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::tools;
use workload::{Bench, Limit, Workload};

/// Transactions of each database in a round.
const TRANSACTIONS: usize = 1_000;
/// Modules of the crate that is compiled, and functions of each.
const MODULES: usize = 40;
const FUNCTIONS: usize = 30;

fn text(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}

/// A new database of `SQLite` with one table, and the file of statements to be run.
fn sqlite_database(place: &Path, bench: &Bench) {
    for ending in ["", "-wal", "-shm"] {
        drop(fs::remove_file(place.join(format!("sqlite.db{ending}"))));
    }
    let pragmas = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;\n";
    let inserts: String =
        (0..TRANSACTIONS).map(|n| format!("INSERT INTO t VALUES ({n}, 'a line of {n}');\n")).collect();
    fs::write(bench.disk.join("statements.sql"), format!("{pragmas}{inserts}")).expect("room");
    let create = format!("{pragmas} CREATE TABLE t (n INTEGER PRIMARY KEY, line TEXT);");
    tools::run("sqlite3", &[text(&place.join("sqlite.db")), &create]);
}

fn sqlite_transactions(place: &Path, bench: &Bench) {
    let read = format!(".read {}", text(&bench.disk.join("statements.sql")));
    tools::run("sqlite3", &[text(&place.join("sqlite.db")), &read]);
}

/// A program of PostgreSQL, which runs as its own user.
fn postgres(program: &str, arguments: &[&str]) {
    let (uid, gid) = postgres_user().expect("asked for before");
    let output = Command::new("setpriv")
        .args(["--reuid", &uid.to_string(), "--regid", &gid.to_string(), "--clear-groups"])
        .arg(postgres_programs().expect("asked for before").join(program))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("setpriv starts");
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Where Debian has the programs of its newest PostgreSQL.
fn postgres_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    versions.flatten().map(|version| version.path().join("bin")).filter(|bin| bin.join("pgbench").exists()).max()
}

fn postgres_user() -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.starts_with("postgres:"))?;
    let mut ids = line.split(':').skip(2).map(str::parse);
    Some((ids.next()?.ok()?, ids.next()?.ok()?))
}

/// The server runs over the measurement; its socket lies outside of what is measured.
fn postgres_server(place: &Path, bench: &Bench) {
    let (data, socket) = (place.join("postgres"), bench.disk.join("socket"));
    if !data.exists() {
        let (uid, gid) = postgres_user().expect("asked for before");
        for directory in [&data, &socket] {
            fs::create_dir_all(directory).expect("a directory");
            chown(directory, Some(uid), Some(gid)).expect("root gives it away");
        }
        postgres("initdb", &["-D", text(&data), "-A", "trust", "-U", "postgres", "--no-sync"]);
        start(&data, &socket);
        postgres("pgbench", &["-h", text(&socket), "-U", "postgres", "-i", "-s", "2", "-q", "postgres"]);
    } else {
        start(&data, &socket);
    }
}

fn start(data: &Path, socket: &Path) {
    let options = format!("-c listen_addresses= -k {}", text(socket));
    let log = socket.join("log");
    postgres("pg_ctl", &["-D", text(data), "-l", text(&log), "-w", "-o", &options, "start"]);
}

fn postgres_transactions(_: &Path, bench: &Bench) {
    let count = (TRANSACTIONS / 4).to_string();
    let socket = bench.disk.join("socket");
    postgres("pgbench", &["-h", text(&socket), "-U", "postgres", "-n", "-c", "4", "-t", &count, "postgres"]);
}

fn postgres_stop(place: &Path, _: &Bench) {
    postgres("pg_ctl", &["-D", text(&place.join("postgres")), "-w", "-m", "fast", "stop"]);
}

/// A crate without dependencies, 40 modules long, and nothing of it built.
fn crate_to_build(place: &Path, _: &Bench) {
    let root = place.join("crate");
    drop(fs::remove_dir_all(root.join("target")));
    if root.exists() {
        return;
    }
    fs::create_dir_all(root.join("src")).expect("a directory");
    let manifest = "[package]\nname = \"midsize\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n";
    fs::write(root.join("Cargo.toml"), manifest).expect("room");
    let mut library = String::new();
    for module in 0..MODULES {
        library.push_str(&format!("pub mod m{module};\n"));
        let function = |n: usize| {
            format!(
                "pub fn f{n}(words: &[u64]) -> Option<u64> {{\n    \
                     let shifted = words.iter().map(|word| word.rotate_left({n}));\n    \
                     shifted.reduce(|sum, word| sum.wrapping_mul({module}).wrapping_add(word))\n}}\n"
            )
        };
        let functions: String = (0..FUNCTIONS).map(function).collect();
        fs::write(root.join(format!("src/m{module}.rs")), functions).expect("room");
    }
    fs::write(root.join("src/lib.rs"), library).expect("room");
}

fn build(place: &Path, _: &Bench) {
    let root = place.join("crate");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline", "--manifest-path", text(&root.join("Cargo.toml"))])
        .env("CARGO_TARGET_DIR", root.join("target"))
        .status();
    assert!(status.is_ok_and(|status| status.success()), "the crate is not built");
}

fn main() -> std::process::ExitCode {
    let transactions = Limit::OfBacking { scheduled: 1.25, on_one: 1.0 };
    let compiler = Limit::OfBacking { scheduled: 1.15, on_one: 1.15 };
    let mut workloads =
        vec![Workload::new("cargo build of a crate of 40 modules", compiler, build).prepared(crate_to_build)];
    if tools::present(&["sqlite3"]) {
        let name = "SQLite (WAL, synchronous=FULL), 1,000 transactions";
        workloads.push(Workload::new(name, transactions, sqlite_transactions).prepared(sqlite_database));
    }
    let has_postgres = postgres_programs().is_some() && postgres_user().is_some();
    if !has_postgres || !rustix::process::geteuid().is_root() {
        println!("pgbench is not run: it needs root, and PostgreSQL where Debian has it");
    } else {
        let pgbench = Workload::new("pgbench, 4 clients, 1,000 transactions", transactions, postgres_transactions);
        workloads.push(pgbench.prepared(postgres_server).ended(postgres_stop));
    }
    workload::main(&workloads)
}
