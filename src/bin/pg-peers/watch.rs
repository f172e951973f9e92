//! `pg-peers watch`.

use std::io::{self, IsTerminal};
use std::mem::ManuallyDrop;
use std::process::ExitCode;

use crate::connection::Arguments;
use crate::roster::Meeting;
use crate::{Ended, NOTES, json, terminal};

const EXIT: &str = "\
Ends with 0 when it is quit, or nobody reads its output any more; with 1 on an
error; with 2 on arguments that are not valid; and by the signal that ends it.";

#[derive(clap::Args)]
#[command(after_help = format!("{NOTES}\n\n{EXIT}"))]
pub(crate) struct Watch {
    #[command(flatten)]
    connection: Arguments,
    #[command(flatten)]
    meeting: Meeting,
    /// Write a line of JSON for each event, as if standard output were no terminal
    #[arg(long)]
    json: bool,
}

impl Watch {
    pub(crate) fn run(self) -> Ended {
        let connection = self.connection.resolve()?;
        // An observer has no goodbye to say: the operator who quits need not wait for a server that may not answer.
        let cluster = ManuallyDrop::new(connection.join(self.meeting.observer())?);
        if self.json || !io::stdout().is_terminal() {
            json::write_events(&cluster)?;
        } else {
            let place = format!("channel {} in {}", self.meeting.channel, connection.place());
            terminal::show(&cluster, &place, self.meeting.bare_name)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
