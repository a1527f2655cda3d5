//! A small disk of its own: a file system on a loop device, for what needs a full disk, another disk, or a fresh one.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::sandbox::remove_rings;
use super::{Sandbox, tools};

/// What a disk is formatted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// ext4, without blocks reserved for root.
    Ext4,
    /// XFS; needs 300 MiB.
    Xfs,
    /// Plain memory, in every kernel: no extended attributes.
    Ram,
}

/// A mounted loop device; unmounted and freed on drop.
pub struct Disk {
    file_system: FileSystem,
    image: PathBuf,
    point: PathBuf,
}

impl Disk {
    /// Makes and mounts a disk of `mebibytes` at the sandbox's directory `name`. Root only.
    pub fn new(sandbox: &Sandbox, name: &str, file_system: FileSystem, mebibytes: u64) -> Disk {
        let image = sandbox.path(&format!("{name}.img"));
        File::create(&image).and_then(|file| file.set_len(mebibytes << 20)).expect("an image in the sandbox");
        let path = text(&image);
        match file_system {
            FileSystem::Ext4 => tools::run("mkfs.ext4", &["-q", "-m", "0", "-E", "lazy_itable_init=1", path]),
            FileSystem::Xfs => tools::run("mkfs.xfs", &["-q", path]),
            FileSystem::Ram => String::new(),
        };
        let disk = Disk { file_system, image: image.clone(), point: sandbox.directory(name) };
        disk.mount();
        disk
    }

    /// Mounts it (again).
    pub fn mount(&self) {
        match self.file_system {
            FileSystem::Ram => tools::run("mount", &["-t", "ramfs", "ramfs", text(&self.point)]),
            _ => tools::run("mount", &["-o", "loop", text(&self.image), text(&self.point)]),
        };
    }

    /// What is written to it goes past the page cache of the file system that its image lies on, until it is mounted again: no disk
    /// has a second page cache.
    pub fn leave_cache_of_image(&self) {
        let devices = tools::run("losetup", &["--noheadings", "--output", "NAME", "--associated", text(&self.image)]);
        devices.lines().for_each(|device| drop(tools::run("losetup", &["--direct-io=on", device.trim()])));
    }

    /// Unmounts it; it must not be in use.
    pub fn umount(&self) {
        tools::run("umount", &[text(&self.point)]);
    }

    /// Pulls it out: whoever has it open loses it by and by.
    pub fn unplug(&self) {
        tools::run("umount", &["-l", text(&self.point)]);
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.point
    }

    /// A directory on it, made when it is missing.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.point.join(name);
        std::fs::create_dir_all(&path).expect("a directory on the disk");
        path
    }

    /// Fills it up to `left` KiB; less when others take the room meanwhile.
    pub fn fill(&self, left: u64) -> PathBuf {
        let free = rustix::fs::statvfs(&self.point).expect("a mounted disk");
        let size = (free.f_bavail * free.f_frsize).saturating_sub(left << 10);
        let path = self.point.join("filler");
        let file = File::create(&path).expect("a name takes no room");
        _ = rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, size.max(1));
        path
    }
}

impl Drop for Disk {
    /// What was on it is lost, and so says what its journals left in memory nothing any more.
    fn drop(&mut self) {
        // mountinfo knows the device of a file system that answers nothing any more
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let ours = |line: &&str| line.split(' ').nth(4) == self.point.to_str();
        let device = mounts.lines().rev().find(ours).and_then(|line| line.split(' ').nth(2)?.split_once(':'));
        if let Some((Ok(major), Ok(minor))) = device.map(|(major, minor)| (major.parse(), minor.parse())) {
            let device = rustix::fs::makedev(major, minor);
            remove_rings(|ring| ring.contains(&format!("-{device:x}-")));
        }
        drop(std::process::Command::new("umount").args(["-l", "-q"]).arg(&self.point).status());
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("sandboxes have UTF-8 paths")
}
