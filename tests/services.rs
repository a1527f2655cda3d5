//! Databases and file servers on the mount: O_DIRECT, aio, io_uring, locks and what Samba does, beside the file system below.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;

use support::{Sandbox, Tree, tools};

/// What is answered otherwise, as docs/SEMANTICS.md has it, and by what the mount answers.
const OTHERWISE: [&str; 1] = ["file_handle: no handle: ENOTSUP"];

#[test]
fn databases_and_file_servers_find_what_they_ask_for() {
    if !tools::present(&["python3"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let (plain, pvol, tapes) = (sandbox.directory("plain"), sandbox.directory("pvol"), sandbox.directory("tapes"));
    sandbox.group("services", &pvol);
    let mount = sandbox.mount("services", "mnt");
    sandbox.base("services", &tapes);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workloads/asynchronous.py");
    let ask = |directory: &Path| tools::shell(directory, &format!("python3 {}", script.display()));
    let (expected, answers) = (ask(&plain), ask(mount.path()));
    assert_eq!(expected.lines().count(), 17, "{expected}");
    let differing: Vec<&str> =
        expected.lines().zip(answers.lines()).filter(|(one, two)| one != two).map(|(_, two)| two).collect();
    assert_eq!(differing, OTHERWISE, "beside:\n{expected}");
    assert_eq!(answers.lines().count(), 17, "{answers}");
    sandbox.export("services", &tapes);
    mount.umount();
    let restored = sandbox.restore(&tapes, "latest", "restored");
    Tree::of(&pvol).assert_same(&Tree::of(&restored), "what databases and file servers leave");
    Tree::of(&plain).without_times().assert_same(&Tree::of(&pvol).without_times(), "what they leave anywhere");
}
