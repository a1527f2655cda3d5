//! The control directory of a mount: what it tells is so, what is written to it is a marker, and nobody finds it on a tape.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rustix::io::Errno;
use serde_json::Value;
use support::{Mount, Sandbox, Tree, tools, wait};

const NAMES: [&str; 4] = ["lag", "mark", "position", "status"];

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn errno<T>(result: io::Result<T>) -> Option<Errno> {
    result.err().map(|error| Errno::from_raw_os_error(error.raw_os_error().unwrap()))
}

fn status(sandbox: &Sandbox) -> Value {
    sandbox.reelfs(["status", "--json"]).ok().json()["groups"][0].clone()
}

/// The number of the last record.
fn position(mount: &Mount) -> u64 {
    let text = fs::read_to_string(mount.join(".reelfs/position")).unwrap();
    let (seq, epoch) = text.trim_end().split_once(' ').unwrap();
    assert_eq!(epoch, "epoch:1");
    seq.strip_prefix("seq:").unwrap().parse().unwrap()
}

/// Milliseconds.
fn lag(mount: &Mount) -> i64 {
    let text = fs::read_to_string(mount.join(".reelfs/lag")).unwrap();
    assert_eq!(text.len(), 11, "{text:?}");
    text.trim_end().parse().unwrap()
}

#[test]
fn it_tells_what_the_daemon_knows() {
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    sandbox.group("docs", &pvol);
    let mount = sandbox.mount("docs", "mnt");
    assert_eq!(names(&mount.join(".reelfs")), NAMES);
    assert_eq!(lag(&mount), -1, "there is nobody to be behind");
    sandbox.base("docs", &tapes);
    sandbox.export("docs", &tapes);
    assert_eq!(lag(&mount), 0);
    let before = position(&mount);
    fs::write(mount.join("file"), "a change").unwrap();
    let after = position(&mount);
    assert!(after > before, "whoever writes and then asks is told of it: {before}, {after}");
    assert_eq!(status(&sandbox)["journal"]["last"], after);
    wait::pause(Duration::from_millis(50));
    let behind = lag(&mount);
    assert!(behind >= 50, "{behind}");
    let metadata = fs::metadata(mount.join(".reelfs/lag")).unwrap();
    let everything_until = metadata.modified().unwrap().duration_since(UNIX_EPOCH).unwrap();
    let written = fs::metadata(mount.join("file")).unwrap().modified().unwrap().duration_since(UNIX_EPOCH).unwrap();
    assert_eq!(metadata.len(), 11);
    assert!(everything_until < written + Duration::from_secs(1), "{everything_until:?} {written:?}");
    sandbox.export("docs", &tapes);
    assert_eq!(lag(&mount), 0);
    let told: Value = serde_json::from_str(&fs::read_to_string(mount.join(".reelfs/status")).unwrap()).unwrap();
    let (told, asked) = (&told["groups"][0], status(&sandbox));
    for field in ["group", "uuid", "state", "pvol", "targets", "base", "volumes"] {
        assert_eq!(told[field], asked[field], "{field}");
    }
    assert_eq!(told["mount"]["mountpoint"], mount.path().to_str().unwrap());
    let mode = |name: &str| fs::metadata(mount.join(".reelfs").join(name)).unwrap().mode();
    let modes = ["", "lag", "mark", "position", "status"].map(mode);
    assert_eq!(modes, [0o40_555, 0o100_444, 0o100_200, 0o100_444, 0o100_400]);
    tools::shell(mount.path(), "ls -la .reelfs >/dev/null; cp .reelfs/status ../copied; test -s ../copied");
    mount.umount();
    // what was told of is what can be restored to
    sandbox.try_restore(&tapes, &format!("seq:{after}"), "restored").ok();
    assert_eq!(fs::read_to_string(sandbox.path("restored/file")).unwrap(), "a change");
}

#[test]
fn what_is_written_to_it_is_a_marker() {
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    sandbox.group("docs", &pvol);
    let mount = sandbox.mount("docs", "mnt");
    sandbox.base("docs", &tapes);
    fs::write(mount.join("file"), "before").unwrap();
    tools::shell(mount.path(), "echo 'before the upgrade' >.reelfs/mark");
    fs::write(mount.join("file"), "after").unwrap();
    // append, too
    let mut mark = File::options().append(true).open(mount.join(".reelfs/mark")).unwrap();
    mark.write_all(b"second\nwith a note\n").unwrap();
    drop(mark);
    assert_eq!(status(&sandbox)["last_marker"]["name"], "second");
    let before = position(&mount);
    for refused in ["", " ", "a~b", "\u{7}"] {
        let said = if refused.is_empty() {
            fs::write(mount.join(".reelfs/mark"), "\n")
        } else {
            fs::write(mount.join(".reelfs/mark"), refused)
        };
        assert_eq!(errno(said), Some(Errno::INVAL), "{refused:?}");
    }
    assert_eq!(errno(fs::write(mount.join(".reelfs/mark"), [0xFF, 0xFE])), Some(Errno::INVAL));
    assert!(errno(fs::write(mount.join(".reelfs/lag"), "x")).is_some());
    assert_eq!(position(&mount), before, "a refused marker left something in the journal");
    if rustix::process::geteuid().is_root() && tools::present(&["setpriv"]) {
        fs::set_permissions(sandbox.root(), fs::Permissions::from_mode(0o755)).unwrap();
        let as_nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups sh -c";
        tools::shell(mount.path(), &format!("{as_nobody} 'cat .reelfs/lag .reelfs/position' >/dev/null"));
        for forbidden in ["echo mine >.reelfs/mark", "cat .reelfs/status"] {
            tools::shell(mount.path(), &format!("! {as_nobody} '{forbidden}' 2>/dev/null"));
        }
        assert_eq!(position(&mount), before);
    }
    let log = sandbox.reelfs(["log", "docs", "--json"]).ok().stdout;
    assert!(log.contains("with a note"), "{log}");
    sandbox.export("docs", &tapes);
    mount.umount();
    let restored = sandbox.restore(&tapes, "marker:before the upgrade", "restored");
    assert_eq!(fs::read_to_string(restored.join("file")).unwrap(), "before");
}

#[test]
fn its_name_is_nobodys_and_nothing_of_it_is_kept() {
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    sandbox.group("docs", &pvol);
    let mount = sandbox.mount("docs", "mnt");
    sandbox.base("docs", &tapes);
    fs::write(mount.join("file"), "a file").unwrap();
    fs::create_dir(mount.join("directory")).unwrap();
    let before = position(&mount);
    let at = |name: &str| mount.join(name);
    let (own, inside) = (at(".reelfs"), at(".reelfs/new"));
    assert_eq!(names(mount.path()), ["directory", "file"], "no listing shows it");
    let refusals = [
        ("mkdir", errno(fs::create_dir(&own))),
        ("create", errno(File::create_new(&own))),
        ("symlink", errno(symlink("x", &own))),
        ("link", errno(fs::hard_link(at("file"), &own))),
        ("rename onto", errno(fs::rename(at("directory"), &own))),
        ("rename away", errno(fs::rename(&own, at("mine")))),
        ("rmdir", errno(fs::remove_dir(&own))),
        ("chmod", errno(fs::set_permissions(&own, fs::Permissions::from_mode(0o777)))),
        ("create inside", errno(File::create(&inside))),
        ("mkdir inside", errno(fs::create_dir(&inside))),
        ("symlink inside", errno(symlink("x", &inside))),
        ("rename inside", errno(fs::rename(at("file"), &inside))),
        ("rename out", errno(fs::rename(at(".reelfs/lag"), at("lag")))),
        ("link out", errno(fs::hard_link(at(".reelfs/lag"), at("lag")))),
        ("unlink inside", errno(fs::remove_file(at(".reelfs/mark")))),
        ("truncate", errno(File::options().write(true).open(at(".reelfs/lag")).and_then(|file| file.set_len(0)))),
        ("setxattr", errno(set_xattr(&at(".reelfs/lag")))),
    ];
    for (what, refusal) in refusals {
        let is_one = matches!(
            refusal,
            Some(Errno::EXIST | Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::NOTEMPTY | Errno::XDEV)
        );
        assert!(is_one, "{what}: {refusal:?}");
    }
    assert_eq!(errno(fs::metadata(&inside)), Some(Errno::NOENT));
    // below the root it is a name as any other
    fs::write(at("directory/.reelfs"), "a file").unwrap();
    let found = tools::shell(mount.path(), "find . | sort; tar cf - . | tar t | grep -c reelfs");
    assert_eq!(found, ".\n./directory\n./directory/.reelfs\n./file\n1\n");
    fs::remove_file(at("directory/.reelfs")).unwrap();
    let log = sandbox.reelfs(["log", "docs", "--since", &format!("seq:{before}"), "--json"]).ok().stdout;
    assert_eq!(log.matches(".reelfs").count(), log.matches("directory/.reelfs").count(), "{log}");
    sandbox.export("docs", &tapes);
    mount.umount();
    assert_eq!(names(&pvol), ["directory", "file"], "it is in the volume");
    let restored = sandbox.restore(&tapes, "latest", "restored");
    Tree::of(&pvol).assert_same(&Tree::of(&restored), "a mount with a control directory");
}

fn set_xattr(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::setxattr(path, "user.x", b"y", rustix::fs::XattrFlags::empty())?)
}

/// The value of an extended attribute.
fn about(path: &Path, name: &str) -> Result<String, Errno> {
    let mut value = vec![0; 4096];
    let length = rustix::fs::lgetxattr(path, name, &mut value)?;
    Ok(String::from_utf8_lossy(&value[..length]).into_owned())
}

#[test]
fn an_object_says_where_it_is_and_what_becomes_of_it_and_no_copy_takes_that_along() {
    let sandbox = Sandbox::new();
    let (pvol, tapes) = (sandbox.directory("pvol"), sandbox.directory("tapes"));
    sandbox.group("docs", &pvol);
    let mount = sandbox.mount("docs", "mnt");
    let at = |name: &str| mount.join(name);
    assert_eq!(about(mount.path(), "user.reelfs.pair").unwrap(), "SMPL");
    sandbox.base("docs", &tapes);
    fs::create_dir_all(at("one/two")).unwrap();
    fs::write(at("one/two/file"), "x").unwrap();
    fs::hard_link(at("one/two/file"), at("one/other name")).unwrap();
    symlink("nowhere", at("link")).unwrap();
    let seq = about(&at("one"), "user.reelfs.seq").unwrap();
    assert_eq!((seq.parse(), about(&at("one"), "user.reelfs.pair")), (Ok(position(&mount)), Ok("PAIR".to_owned())));
    let place = |name: &str| about(&at(name), "user.reelfs.backend").map(|place| Path::new(&place).to_owned());
    assert_eq!(place("."), Ok(pvol.clone()));
    assert_eq!(place("one/two/file"), Ok(pvol.join("one/two/file")));
    assert_eq!(place("link"), Err(Errno::NODATA), "the kernel does not ask");
    fs::rename(at("one"), at("renamed")).unwrap();
    fs::remove_file(at("renamed/two/file")).unwrap();
    assert_eq!(place("renamed/other name"), Ok(pvol.join("renamed/other name")));
    let held = File::open(at("renamed/other name")).unwrap();
    fs::remove_file(at("renamed/other name")).unwrap();
    assert_eq!(rustix::fs::fgetxattr(&held, "user.reelfs.backend", &mut [0; 64]), Err(Errno::STALE));
    drop(held);
    assert_eq!(about(&at("renamed"), "user.reelfs.else"), Err(Errno::NODATA));

    let set = |name: &str| rustix::fs::setxattr(at("renamed"), name, b"y", rustix::fs::XattrFlags::empty());
    assert_eq!(
        (set("user.reelfs.seq"), set("user.reelfs.mine"), set("user.mine")),
        (Err(Errno::PERM), Err(Errno::PERM), Ok(()))
    );
    assert_eq!(rustix::fs::removexattr(at("renamed"), "user.reelfs.seq"), Err(Errno::PERM));
    let mut list = vec![0; 256];
    let length = rustix::fs::listxattr(at("renamed"), &mut list).unwrap();
    assert_eq!(&list[..length], b"user.mine\0");
    sandbox.export("docs", &tapes);
    mount.umount();
    let restored = sandbox.restore(&tapes, "latest", "restored");
    Tree::of(&pvol).assert_same(&Tree::of(&restored), "objects that say something of themselves");
    let plain = Mount::new(&sandbox, "docs", &sandbox.directory("mnt"), &["-o", "no_control_dir"]);
    assert_eq!(about(plain.path(), "user.reelfs.pair"), Err(Errno::NODATA));
    // one that the volume has by itself is not in the way of a copy
    let own = |path: &Path| rustix::fs::setxattr(path, "user.reelfs.own", b"y", rustix::fs::XattrFlags::empty());
    own(&plain.join("renamed")).unwrap();
    plain.umount();
    let mount = sandbox.mount("docs", "mnt");
    let length = rustix::fs::listxattr(mount.join("renamed"), &mut list).unwrap();
    assert_eq!(&list[..length], b"user.mine\0");
    mount.umount();
}

#[test]
fn a_volume_that_has_the_name_keeps_it_and_one_may_go_without() {
    let sandbox = Sandbox::new();
    let pvol = sandbox.directory("pvol");
    sandbox.group("docs", &pvol);
    let mount = Mount::new(&sandbox, "docs", &sandbox.directory("mnt"), &["-o", "no_control_dir"]);
    assert_eq!(errno(fs::metadata(mount.join(".reelfs"))), Some(Errno::NOENT));
    fs::create_dir(mount.join(".reelfs")).unwrap();
    fs::write(mount.join(".reelfs/lag"), "the user's own").unwrap();
    mount.umount();
    let mount = sandbox.mount("docs", "mnt");
    assert_eq!(names(mount.path()), [".reelfs"], "the user's own is listed");
    assert_eq!(fs::read_to_string(mount.join(".reelfs/lag")).unwrap(), "the user's own");
    fs::rename(mount.join(".reelfs"), mount.join("moved")).unwrap();
    let log = mount.umount();
    assert!(log.contains("has a .reelfs of its own"), "{log}");
    let mount = sandbox.mount("docs", "mnt");
    assert_eq!(names(&mount.join(".reelfs")), NAMES, "it comes back when the name is free");
    mount.umount();
}

#[test]
fn a_second_volume_has_one_and_a_read_only_mount_takes_no_marker() {
    let sandbox = Sandbox::new();
    let (one, two) = (sandbox.directory("one"), sandbox.directory("two"));
    sandbox.group("docs", &one);
    sandbox.reelfs(["pair", "create", "docs/two", "--pvol", two.to_str().unwrap()]).ok();
    let first = status(&sandbox)["volumes"][0]["name"].as_str().unwrap().to_owned();
    let mount = Mount::new(&sandbox, &format!("docs/{first}"), &sandbox.directory("mnt1"), &[]);
    let point = sandbox.directory("mnt2");
    sandbox.reelfs(["mount", "docs/two", point.to_str().unwrap(), "-o", "ro"]).ok();
    let refused = errno(fs::write(point.join(".reelfs/mark"), "x"));
    let at_both = [point.as_path(), mount.path()].map(|at| fs::read_to_string(at.join(".reelfs/position")).unwrap());
    sandbox.reelfs(["umount", point.to_str().unwrap()]).ok();
    assert_eq!(refused, Some(Errno::ROFS));
    assert_eq!(at_both[0], at_both[1], "the volumes have one order");
    mount.umount();
}
