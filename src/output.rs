//! What the verbs say: results on stdout, everything else on stderr; text for people, JSON for programs.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use clap::ColorChoice;
use clap::builder::styling::{AnsiColor, Style};
use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::when::Zone;

/// Version of everything printed as JSON; fields may be added without a new one.
pub const SCHEMA: u32 = 1;

/// How to say it.
#[derive(Debug, Clone)]
pub struct Output {
    /// JSON instead of text.
    pub json: bool,
    /// Only results and errors.
    pub quiet: bool,
    /// More than usual: how often `-v` was given.
    pub verbose: u8,
    /// The zone that times are printed in.
    pub zone: Zone,
    stdout_color: bool,
    stderr_color: bool,
}

/// What a word means; the colour follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Needs a look.
    Warning,
    /// Wrong.
    Bad,
    /// A heading.
    Strong,
    /// Beside the point.
    Faint,
}

#[derive(Serialize)]
struct Document<'a, T> {
    schema: u32,
    #[serde(flatten)]
    body: &'a T,
}

#[derive(Serialize)]
struct Event<'a, T> {
    message_type: &'a str,
    #[serde(flatten)]
    body: &'a T,
}

#[derive(Serialize)]
struct ExitError<'a> {
    message_type: &'static str,
    schema: u32,
    code: u8,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl Output {
    /// From the global flags; colour follows `--color`, `NO_COLOR`, `CLICOLOR_FORCE` and whether it is a terminal.
    #[must_use]
    pub fn new(json: bool, quiet: bool, verbose: u8, color: ColorChoice, zone: Zone) -> Output {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
        let automatic = |terminal: bool| match color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto if set("NO_COLOR") => false,
            ColorChoice::Auto if set("CLICOLOR_FORCE") => true,
            ColorChoice::Auto => terminal && std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
        };
        Output {
            json,
            quiet,
            verbose,
            zone,
            stdout_color: automatic(io::stdout().is_terminal()),
            stderr_color: automatic(io::stderr().is_terminal()),
        }
    }

    /// Plain text without colour: for tests and for the time before the flags are read.
    #[must_use]
    pub fn plain(json: bool) -> Output {
        Output::new(json, false, 0, ColorChoice::Never, Zone::UTC)
    }

    /// A line of the result. Nothing in JSON mode.
    ///
    /// # Errors
    /// Nobody reads any more ([`ErrorKind::BrokenPipe`]), or the disk behind stdout is full.
    pub fn say(&self, line: impl fmt::Display) -> Result<()> {
        if self.json { Ok(()) } else { write_stdout(&format!("{line}\n")) }
    }

    /// A line that says that it was done. Nothing in JSON mode and with `-q`.
    ///
    /// # Errors
    /// As [`Output::say`].
    pub fn confirm(&self, line: impl fmt::Display) -> Result<()> {
        if self.quiet { Ok(()) } else { self.say(line) }
    }

    /// The result as one JSON document with `"schema"`. Nothing in text mode.
    ///
    /// # Errors
    /// As [`Output::say`].
    pub fn document<T: Serialize>(&self, body: &T) -> Result<()> {
        if self.json { write_json(&Document { schema: SCHEMA, body }) } else { Ok(()) }
    }

    /// One line of JSON Lines: `status`, `summary`, or whatever the verb's lines are called. Nothing in text mode.
    ///
    /// # Errors
    /// As [`Output::say`].
    pub fn event<T: Serialize>(&self, message_type: &str, body: &T) -> Result<()> {
        if self.json { write_json(&Event { message_type, body: &Document { schema: SCHEMA, body } }) } else { Ok(()) }
    }

    /// Something worth knowing, on stderr. Nothing with `-q` or in JSON mode.
    pub fn note(&self, line: impl fmt::Display) {
        if !self.quiet && !self.json {
            write_stderr(&format!("{line}\n"));
        }
    }

    /// Something that may be wrong, on stderr; as JSON in JSON mode.
    pub fn warn(&self, line: impl fmt::Display) {
        self.tell("warning", Tone::Warning, line);
    }

    /// Something that is wrong, and does not end the program by itself; likewise.
    pub fn trouble(&self, line: impl fmt::Display) {
        self.tell("error", Tone::Bad, line);
    }

    fn tell(&self, label: &'static str, tone: Tone, line: impl fmt::Display) {
        #[derive(Serialize)]
        struct Told {
            message: String,
        }
        if self.json {
            let event = Event { message_type: label, body: &Told { message: line.to_string() } };
            write_stderr(&format!("{}\n", serde_json::to_string(&event).unwrap_or_default()));
        } else {
            let label = paint(self.stderr_color, tone, &format!("{label}:"));
            write_stderr(&format!("{label} {line}\n"));
        }
    }

    /// The error that ends the program, on stderr.
    pub fn error(&self, error: &Error) {
        if error.kind() == ErrorKind::BrokenPipe || error.is_told() {
            return;
        }
        if self.json {
            let line = ExitError {
                message_type: "exit_error",
                schema: SCHEMA,
                code: error.code(),
                message: error.chain(),
                hint: error.hint_text(),
            };
            write_stderr(&format!("{}\n", serde_json::to_string(&line).unwrap_or_default()));
            return;
        }
        let mut text = format!("{} {}\n", paint(self.stderr_color, Tone::Bad, "error:"), error.chain());
        if let Some(hint) = error.hint_text() {
            text.push_str(&format!("{} {hint}\n", paint(self.stderr_color, Tone::Strong, "hint:")));
        }
        write_stderr(&text);
    }

    /// The text in the colour of its tone, if stdout takes colour.
    #[must_use]
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        paint(self.stdout_color, tone, text)
    }
}

/// `1 record`, `2 records`, `2 directories`.
#[must_use]
pub fn count(number: u64, noun: &str) -> String {
    match noun.strip_suffix("ry") {
        _ if number == 1 => format!("1 {noun}"),
        Some(stem) => format!("{number} {stem}ries"),
        None => format!("{number} {noun}s"),
    }
}

fn paint(color: bool, tone: Tone, text: &str) -> String {
    if !color {
        return text.to_owned();
    }
    let style = match tone {
        Tone::Good => AnsiColor::Green.on_default(),
        Tone::Warning => AnsiColor::Yellow.on_default().bold(),
        Tone::Bad => AnsiColor::Red.on_default().bold(),
        Tone::Strong => Style::new().bold(),
        Tone::Faint => Style::new().dimmed(),
    };
    format!("{style}{text}{style:#}")
}

fn write_json<T: Serialize>(value: &T) -> Result<()> {
    write_stdout(&line(value)?)
}

fn line<T: Serialize>(value: &T) -> Result<String> {
    let mut text = serde_json::to_string(value).map_err(|error| Error::failed("write JSON").because(error))?;
    text.push('\n');
    Ok(text)
}

/// A result as [`Output::document`] prints it, newline included.
///
/// # Errors
/// It is no JSON.
pub fn json_line<T: Serialize>(body: &T) -> Result<String> {
    line(&Document { schema: SCHEMA, body })
}

/// Writes at once, so that a pipe gets whole lines; a reader that has gone ends the program without a complaint.
///
/// # Errors
/// As [`Output::say`].
pub fn write_stdout(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Err(Error::new(ErrorKind::BrokenPipe, "nobody reads the output"))
        }
        Err(error) => Err(Error::io("write the output", error)),
    }
}

fn write_stderr(text: &str) {
    // nobody can be told that nobody can be told
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
