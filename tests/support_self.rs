//! The tests' own instruments: a comparison that sees nothing proves nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use support::{Sandbox, Tree, tools};

/// A tree with one of everything that is compared.
fn furnish(directory: &Path) {
    tools::shell(
        directory,
        "mkdir d; echo one >d/f; ln d/f g; ln -s there l; mkfifo p; setfattr -n user.x -v 1 g
         truncate -s 1M sparse; printf x | dd of=sparse bs=1 seek=70000 conv=notrunc status=none
         setfacl -m u:7:rwx d; touch -d '1969-07-20 20:17:40.123456789Z' d/f d .",
    );
}

#[test]
fn equal_trees_are_equal_and_every_difference_is_seen() {
    if !tools::present(&["setfattr", "setfacl"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let (one, two) = (sandbox.directory("one"), sandbox.directory("two"));
    furnish(&one);
    let copy = |script: &str| {
        fs::remove_dir_all(&two).unwrap();
        tools::shell(sandbox.root(), &format!("cp -a one two; cd two; {script}"));
        Tree::of(&one).differences(&Tree::of(&two))
    };
    assert_eq!(copy("true"), Vec::<String>::new());
    let damages = [
        ("mode", "chmod u+s sparse"),
        ("owner", if tools::root() { "chown 5 p" } else { "chmod 1 p; echo owner >/dev/null" }),
        ("mtime", "touch -d '1969-07-20 20:17:40.123456788Z' d/f"),
        ("mtime", "touch d"),
        ("mtime", "touch -d '2001-01-01' ."),
        ("bytes", "printf y | dd of=sparse bs=1 seek=69999 conv=notrunc status=none"),
        ("size", "truncate -s 1048577 sparse"),
        ("target", "ln -sfn elsewhere l"),
        ("xattrs", "setfattr -n user.x -v 2 g"),
        ("xattrs", "setfattr -x user.x g"),
        ("xattrs", "setfacl -m u:8:r d"),
        ("same as", "cp -a g h; mv h g"),
        ("- p p", "rm p"),
        ("+ f new", "touch new"),
        ("type", "rm p; touch p"),
    ];
    for (word, script) in damages {
        let lines = copy(script);
        assert!(lines.iter().any(|line| line.contains(word)), "{script}: {lines:?}");
    }
}

#[test]
fn links_are_not_followed() {
    let sandbox = Sandbox::new();
    let directory = sandbox.directory("one");
    symlink("/etc", directory.join("away")).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o750)).unwrap();
    let tree = Tree::of(&directory);
    assert_eq!(tree.nodes().len(), 2);
    assert_eq!(tree.nodes()[Path::new("")].mode, 0o750);
    assert_eq!(tree.nodes()[Path::new("away")].content, b"/etc");
}
