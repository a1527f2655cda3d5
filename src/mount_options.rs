//! The words after `-o`: split, understood, or refused by name.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What `-o` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// Everybody may use the mount.
    pub allow_other: bool,
    /// The mountpoint need not be empty.
    pub nonempty: bool,
    /// Refuse instead of adopting what changed behind the mount.
    pub strict: bool,
    /// No control directory in the mount.
    pub no_control_dir: bool,
    /// When reads pass through to the files of the volume.
    pub passthrough: Passthrough,
    /// When processors are kept from halting.
    pub awake: Awake,
    /// For the kernel.
    pub kernel: Vec<String>,
}

/// When the kernel reads the volume's files itself, through read-only handles and where it can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Passthrough {
    /// In read-only mounts (`-o ro`)
    #[default]
    Auto,
    /// Also beside writers; docs/SEMANTICS.md says what locks and mappings then do
    On,
    /// Never
    Off,
}

impl Passthrough {
    /// The word for `-o` that says the same.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Passthrough::Auto => "passthrough=auto",
            Passthrough::On => "passthrough=on",
            Passthrough::Off => "passthrough=off",
        }
    }

    /// Whether it is wanted in a mount with these options of the kernel.
    #[must_use]
    pub fn is_wanted(self, kernel: &[String]) -> bool {
        match self {
            Passthrough::Auto => kernel.iter().any(|word| word == "ro"),
            Passthrough::On => true,
            Passthrough::Off => false,
        }
    }
}

/// When processors are kept from halting while requests come in rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Awake {
    /// On a virtual machine with few processors.
    #[default]
    Auto,
    /// Wherever the kernel lets root.
    On,
    /// Never.
    Off,
}

impl Awake {
    /// Whether it is wanted on this machine.
    #[must_use]
    pub fn is_wanted(self) -> bool {
        match self {
            Awake::Auto => reelfs_fuse::wakes_slowly(),
            Awake::On => true,
            Awake::Off => false,
        }
    }
}

/// Event loops at most; more than there are processors only pass requests to and fro.
const THREADS_MAX: usize = 4;

/// Event loops of a mount on this machine.
#[must_use]
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).min(THREADS_MAX)
}

/// Words of `/etc/fstab` and `mount(8)` that mean nothing here, and the kernel's defaults.
const PASSED_OVER: [&str; 29] = [
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "_netdev",
    "nofail",
    "defaults",
    "rw",
    "dev",
    "suid",
    "exec",
    "async",
    "atime",
    "relatime",
    "default_permissions",
    "diratime",
    "nostrictatime",
    "strictatime",
    "norelatime",
    "nodiratime",
    "lazytime",
    "nolazytime",
    "nomand",
    "noiversion",
    "silent",
    "loud",
];

/// How a line of fstab says where groups are kept: nobody sets `REELFS_STATE_DIR` for mount(8).
pub const STATE_DIR: &str = "state_dir=";

/// Words that the kernel takes.
const KERNEL: [&str; 7] = ["ro", "nodev", "nosuid", "noexec", "noatime", "sync", "dirsync"];

/// Splits and understands all `-o` arguments.
///
/// # Errors
/// A word that nobody knows, by name (exit code 2).
pub fn parse(arguments: &[String]) -> Result<Words> {
    let mut words = Words::default();
    for word in all(arguments)? {
        match word.as_str() {
            "" => {}
            "allow_other" => words.allow_other = true,
            "nonempty" => words.nonempty = true,
            "strict" => words.strict = true,
            "no_control_dir" => words.no_control_dir = true,
            "passthrough=auto" => words.passthrough = Passthrough::Auto,
            "passthrough=on" => words.passthrough = Passthrough::On,
            "passthrough=off" => words.passthrough = Passthrough::Off,
            "awake=auto" => words.awake = Awake::Auto,
            "awake=on" => words.awake = Awake::On,
            "awake=off" => words.awake = Awake::Off,
            "remount" => {
                return Err(Error::usage("a mount is not changed while it is there")
                    .hint("unmount it and mount it again: reelfs umount DIR"));
            }
            word if word.starts_with(STATE_DIR) => {
                return Err(Error::usage(format!("`{word}` is for fstab alone")).hint("here it is a flag: --state-dir"));
            }
            known if KERNEL.contains(&known) => words.kernel.push(word),
            known if PASSED_OVER.contains(&known) || known.starts_with("x-") || known.starts_with("comment=") => {}
            flag if flag.starts_with('-') => {
                return Err(Error::usage(format!("`{flag}` after -o is a flag, not a mount option"))
                    .hint(format!("write it by itself: {flag}")));
            }
            unknown => {
                return Err(Error::usage(format!("`{unknown}` is not a mount option")).hint(format!(
                    "there are: allow_other, nonempty, strict, no_control_dir, passthrough=auto|on|off, awake=auto|on|off, {}",
                    KERNEL.join(", ")
                )));
            }
        }
    }
    Ok(words)
}

/// The words of all `-o` arguments.
///
/// # Errors
/// A backslash at an end (exit code 2).
pub fn all(arguments: &[String]) -> Result<Vec<String>> {
    let lists = arguments.iter().map(|argument| split(argument)).collect::<Result<Vec<_>>>()?;
    Ok(lists.into_iter().flatten().filter(|word| !word.is_empty()).collect())
}

/// A word as [`parse`] reads it.
#[must_use]
pub fn escape(word: &str) -> String {
    word.replace('\\', "\\\\").replace(',', "\\,")
}

/// Splits at commas; a backslash takes the character after it as it is.
fn split(text: &str) -> Result<Vec<String>> {
    let (mut words, mut word, mut characters) = (Vec::new(), String::new(), text.chars());
    while let Some(character) = characters.next() {
        match character {
            ',' => words.push(std::mem::take(&mut word)),
            '\\' => match characters.next() {
                Some(escaped) => word.push(escaped),
                None => return Err(Error::usage(format!("`{text}` ends with a backslash"))),
            },
            other => word.push(other),
        }
    }
    words.push(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Words> {
        parse(&arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn what_mount_8_passes_on_is_understood() {
        let words = read(&["ro,_netdev,nofail,x-systemd.automount,user", "allow_other,noexec", "", "comment=a\\,b"]);
        let expected = Words { allow_other: true, kernel: vec!["ro".into(), "noexec".into()], ..Words::default() };
        assert_eq!(words.expect("words"), expected);
        let passthrough =
            |text: &str| read(&[text]).map(|words| words.passthrough.is_wanted(&words.kernel)).expect("words");
        assert_eq!((passthrough(""), passthrough("ro"), passthrough("ro,passthrough=off")), (false, true, false));
        assert!(passthrough("passthrough=off,passthrough=on"), "the last one counts");
    }

    #[test]
    fn unknown_words_are_named() {
        for (text, part) in [
            ("ro,bogus", "`bogus` is not"),
            ("--json", "is a flag"),
            ("a\\,b", "`a,b`"),
            ("a\\", "backslash"),
            ("remount,ro", "not changed"),
            ("state_dir=/x", "fstab"),
        ] {
            let error = read(&[text]).expect_err(text);
            assert!(error.code() == 2 && error.to_string().contains(part), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn escaped_words_come_back(words in proptest::collection::vec("[a-z,\\\\=]{1,8}", 1..5)) {
            let joined = words.iter().map(|word| escape(word)).collect::<Vec<_>>().join(",");
            proptest::prop_assert_eq!(split(&joined).expect("split"), words);
        }
    }
}
