//! `reelfs demo`: the whole story on temporary directories.

use serde::Serialize;

use crate::cli::Context;
use crate::demo::{self, Moment};
use crate::error::{Error, ErrorKind, Result};
use crate::output::Tone;
use crate::size::Size;

#[derive(Debug, clap::Args)]
#[command(after_help = "Needs nothing and leaves nothing behind.\n\nExample:\n  reelfs demo")]
pub(crate) struct DemoArgs {}

#[derive(Serialize)]
struct Document<'a> {
    moments: &'a [Moment],
    equal: bool,
}

pub(crate) fn run(_arguments: &DemoArgs, context: &Context) -> Result<()> {
    let output = &context.output;
    let moments = demo::run(output)?;
    let equal = moments.iter().all(|moment| moment.differences.is_empty());
    output.document(&Document { moments: &moments, equal })?;
    output.say(format!(
        "\n{:<10} {:>8} {:>9} {:>10}   COMPARED WITH THE COPY TAKEN THEN",
        "MOMENT", "SEQ", "OBJECTS", "BYTES"
    ))?;
    for moment in &moments {
        let verdict = match moment.differences.len() {
            0 => output.paint(Tone::Good, "equal, byte for byte"),
            count => output.paint(Tone::Bad, &format!("{count} differences: {}", moment.differences[0])),
        };
        let size = Size(moment.bytes).to_string();
        output.say(format!("{:<10} {:>8} {:>9} {size:>10}   {verdict}", moment.name, moment.seq, moment.objects))?;
    }
    if equal {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Damaged, "a restored moment differs from the copy that was taken then"))
}
