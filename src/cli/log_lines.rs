//! What the program logs, on stderr. A verb that ends soon says it as it says its own warnings; one that stays says when it was.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::error::{Error, Result};
use crate::output::Output;

/// Warnings and errors, more with `-v`; `REELFS_LOG` says exactly what. `stays`: the program does not end by itself.
///
/// # Errors
/// 2 when `REELFS_LOG` says nothing that is understood.
pub(super) fn begin(stays: bool, output: &Output) -> Result<()> {
    let asked = std::env::var("REELFS_LOG").ok();
    let level = match output.verbose {
        _ if output.quiet => "error",
        0 => "warn",
        1 => "warn,reelfs=info",
        2 => "info,reelfs=debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_new(asked.as_deref().unwrap_or(level)).map_err(|error| {
        Error::usage(format!("REELFS_LOG is no filter: {error}")).hint("for example REELFS_LOG=info,reelfs=debug")
    })?;
    let registry = tracing_subscriber::registry().with(filter);
    // a second call in one process (a test) keeps the first
    let _ = if output.json || !stays && asked.is_none() && output.verbose == 0 {
        registry.with(Lines(output.clone())).try_init()
    } else {
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
        registry.with(lines).try_init()
    };
    Ok(())
}

/// As warnings.
struct Lines(Output);

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        match *event.metadata().level() {
            Level::ERROR => self.0.trouble(line),
            _ => self.0.warn(line),
        }
    }
}

/// The sentence of an event, and what it is about in brackets.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // writing to a string cannot fail
        let _ = match (field.name(), self.fields.is_empty()) {
            ("message", _) => write!(self.message, "{value:?}"),
            (name, true) => write!(self.fields, "{name}: {value:?}"),
            (name, false) => write!(self.fields, ", {name}: {value:?}"),
        };
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fields.as_str() {
            "" => write!(f, "{}", self.message),
            fields => write!(f, "{} ({fields})", self.message),
        }
    }
}
