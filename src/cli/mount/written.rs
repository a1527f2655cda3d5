//! A mount as it is written down: a line of `/etc/fstab`, and a service of systemd. Printed only; no file is touched.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::MountArgs;
use crate::cli::Context;
use crate::error::{Error, Result};
use crate::group_file::{GroupFile, VolumeEntry};
use crate::mount_options::{self, STATE_DIR};
use crate::mounts;

/// Where mount(8) finds the groups when it is told nothing.
const ROOTS_STATE: &str = "/var/lib/reelfs";

#[derive(Serialize)]
struct Written<'a> {
    group: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fstab: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<Unit<'a>>,
}

#[derive(Serialize)]
struct Unit<'a> {
    name: String,
    text: &'a str,
}

/// Prints what was asked for. The mountpoint need not be there yet.
pub(super) fn print(arguments: &MountArgs, context: &Context, file: &GroupFile, volume: &VolumeEntry) -> Result<()> {
    let mount = Mount {
        title: file.title(volume),
        point: mounts::place(&arguments.mountpoint)?,
        words: words(arguments)?,
        state: context.state.root().to_owned(),
        needs: needs(context, file, volume),
    };
    let group = file.name.as_str();
    if arguments.print_fstab {
        let line = mount.fstab()?;
        context.output.document(&Written { group, fstab: Some(&line), unit: None })?;
        return context.output.say(line);
    }
    let text = mount.unit(&program()?)?;
    let name = format!("reelfs-{}.service", mount.title.replace('/', "-"));
    context.output.document(&Written { group, fstab: None, unit: Some(Unit { name, text: &text }) })?;
    context.output.say(text.trim_end())
}

/// What a mount is made of.
struct Mount {
    title: String,
    point: PathBuf,
    /// Of `-o`, `strict` with them.
    words: Vec<String>,
    state: PathBuf,
    /// Directories whose file systems must be there before.
    needs: Vec<PathBuf>,
}

fn words(arguments: &MountArgs) -> Result<Vec<String>> {
    let mut words = mount_options::all(&arguments.options)?;
    if arguments.strict && !words.iter().any(|word| word == "strict") {
        words.push("strict".to_owned());
    }
    if let Some(passthrough) = arguments.passthrough {
        words.retain(|word| !word.starts_with("passthrough="));
        words.push(passthrough.word().to_owned());
    }
    Ok(words)
}

/// A PVOL that is mounted in place is needed by what lies around it.
fn needs(context: &Context, file: &GroupFile, volume: &VolumeEntry) -> Vec<PathBuf> {
    let above = |path: &Path| path.parent().unwrap_or(path).to_owned();
    let mut needs = vec![above(&volume.pvol), above(&file.journal), context.state.root().to_owned()];
    needs.sort();
    needs.dedup();
    needs
}

fn program() -> Result<PathBuf> {
    std::env::current_exe().map_err(|error| Error::io("find this program", error))
}

impl Mount {
    /// `nofail`: a group that cannot be mounted keeps no machine from starting.
    fn fstab(&self) -> Result<String> {
        let mut options = self.words.clone();
        if options.is_empty() {
            options.push("defaults".to_owned());
        }
        if !options.iter().any(|word| word == "nofail") {
            options.push("nofail".to_owned());
        }
        if self.state != Path::new(ROOTS_STATE) {
            options.push(format!("{STATE_DIR}{}", text(&self.state)?));
        }
        for path in &self.needs {
            options.push(format!("x-systemd.requires-mounts-for={}", text(path)?));
        }
        if let Some(word) = options.iter().find(|word| word.contains(',')) {
            return Err(Error::usage(format!("`{word}` cannot stand in fstab, for the comma in it"))
                .hint("a unit of systemd can have it: --print-unit"));
        }
        let fields = [self.title.as_str(), text(&self.point)?, "reelfs", &options.join(",")].map(escape_fstab);
        Ok(format!("{}  0  0", fields.join("  ")))
    }

    fn unit(&self, program: &Path) -> Result<String> {
        let is_root = rustix::process::geteuid().is_root();
        let (title, point, state) = (&self.title, text(&self.point)?, text(&self.state)?);
        let mut call = vec![text(program)?, "mount", title, point, "--foreground", "--state-dir", state];
        let options = self.words.iter().map(|word| mount_options::escape(word)).collect::<Vec<_>>().join(",");
        if !options.is_empty() {
            call.extend(["-o", &options]);
        }
        let call: Vec<String> = call.into_iter().map(|word| quote(&word.replace('$', "$$"))).collect();
        let needs: Vec<String> = self.needs.iter().map(|path| text(path).map(quote)).collect::<Result<_>>()?;
        let (directory, control, target) = match is_root {
            true => ("/etc/systemd/system", "systemctl", "multi-user.target"),
            false => ("~/.config/systemd/user", "systemctl --user", "default.target"),
        };
        let name = format!("reelfs-{}", title.replace('/', "-"));
        let mut unit = String::new();
        let _ = write!(
            unit,
            "# {directory}/{name}.service; then: {control} enable --now {name}\n\
             [Unit]\n\
             Description=reelfs mount of {title}\n\
             RequiresMountsFor={needs}\n\
             \n\
             [Service]\n\
             Type=notify\n\
             ExecStart={call}\n\
             Restart=on-failure\n\
             # what a second try does not mend: usage, refusals, damage\n\
             RestartPreventExitStatus=2 10 14 16 19 21\n\
             TimeoutStopSec=5min\n\
             LimitNOFILE=1048576\n",
            needs = needs.join(" "),
            call = call.join(" "),
        );
        if is_root {
            unit.push_str("OOMScoreAdjust=-900\n");
        }
        let _ = write!(unit, "\n[Install]\nWantedBy={target}\n");
        Ok(unit)
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::usage(format!("{} is not UTF-8, and cannot be written down", path.display())))
}

/// White space and backslashes as a backslash and three octal digits.
fn escape_fstab(field: &str) -> String {
    let escape = |character: char| match character {
        ' ' | '\t' | '\n' | '\\' | '#' => format!("\\{:03o}", character as u32),
        other => other.to_string(),
    };
    field.chars().map(escape).collect()
}

/// A word as systemd reads it; what it would expand stays as it is.
fn quote(word: &str) -> String {
    let escaped = word.replace('%', "%%").replace('\\', "\\\\").replace('"', "\\\"");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-=,:+@%$".contains(c);
    if escaped.chars().all(is_plain) && !escaped.is_empty() { escaped } else { format!("\"{escaped}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(words: &[&str], state: &str) -> Mount {
        Mount {
            title: "docs/web".into(),
            point: "/srv/my docs".into(),
            words: words.iter().map(|&word| word.to_owned()).collect(),
            state: state.into(),
            needs: vec!["/data".into()],
        }
    }

    #[test]
    fn a_line_of_fstab_has_six_fields() {
        let line = mount(&[], ROOTS_STATE).fstab().expect("a line");
        let needs = "x-systemd.requires-mounts-for=/data";
        assert_eq!(line, format!("docs/web  /srv/my\\040docs  reelfs  defaults,nofail,{needs}  0  0"));
        let line = mount(&["ro", "nofail"], "/st").fstab().expect("a line");
        assert!(line.contains(&format!("  ro,nofail,state_dir=/st,{needs}  ")), "{line}");
        assert!(mount(&[], "/a,b").fstab().expect_err("a comma").to_string().contains("comma"));
    }

    #[test]
    fn a_unit_says_when_it_is_ready_and_quotes_what_it_must() {
        let unit = mount(&["ro", "comment=a,b"], "/100%").unit(Path::new("/usr/bin/reelfs")).expect("a unit");
        let call = "ExecStart=/usr/bin/reelfs mount docs/web \"/srv/my docs\" --foreground --state-dir /100%% -o \
                    \"ro,comment=a\\\\,b\"\n";
        assert!(unit.contains(call) && unit.contains("Type=notify\n"), "{unit}");
        assert!(unit.contains("RequiresMountsFor=/data\n") && unit.contains("reelfs-docs-web.service"), "{unit}");
    }
}
