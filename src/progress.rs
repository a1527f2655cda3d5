//! How far a long run is: a bar on a terminal, a JSON line a second with `--json`, otherwise nothing.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::output::Output;

const EVENT_INTERVAL: Duration = Duration::from_secs(1);
const RECORDS: &str = "{prefix:14} {bar:24}  record {human_pos} of {human_len}  {msg}";
const TEMPLATE: &str = "{prefix:14} {bar:24}  {bytes} of {total_bytes}  {binary_bytes_per_sec}  {msg}";

/// The progress of one phase of a run.
pub struct Progress {
    phase: String,
    bar: ProgressBar,
    events: Option<Output>,
    last: Instant,
}

#[derive(Serialize)]
struct Status<'a> {
    phase: &'a str,
    done: u64,
    total: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    time_reached: &'a str,
}

impl Progress {
    /// Begins a phase that counts bytes, "zero-fill" say.
    #[must_use]
    pub fn new(output: &Output, phase: &str) -> Progress {
        Progress::begin(output, phase, TEMPLATE)
    }

    /// Begins a phase that counts records.
    #[must_use]
    pub fn records(output: &Output, phase: &str) -> Progress {
        Progress::begin(output, phase, RECORDS)
    }

    fn begin(output: &Output, phase: &str, template: &str) -> Progress {
        let shown = !output.quiet && !output.json && io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("## "));
        }
        bar.set_prefix(phase.to_owned());
        let events = (output.json && !output.quiet).then(|| output.clone());
        Progress { phase: phase.to_owned(), bar, events, last: now() }
    }

    /// So much is done; `reached` says where in time that is, or nothing.
    pub fn set(&mut self, done: u64, total: u64, reached: &str) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        if !reached.is_empty() {
            self.bar.set_message(format!("now at {reached}"));
        }
        let Some(output) = &self.events else { return };
        let at = now();
        if at.saturating_duration_since(self.last) >= EVENT_INTERVAL {
            self.last = at;
            let status = Status { phase: &self.phase, done, total, time_reached: reached };
            // a reader who has gone is noticed at the result
            let _ = output.event("status", &status);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[expect(clippy::disallowed_methods, reason = "how often a line is shown, nothing else")]
fn now() -> Instant {
    Instant::now()
}
