//! What packagers install beside the program.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::{Ended, NOTES};

#[derive(clap::Args)]
pub(crate) struct Generate {
    /// What to write
    what: What,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    Bash,
    Elvish,
    Fish,
    #[value(name = "powershell")]
    PowerShell,
    Zsh,
    Man,
}

impl Generate {
    pub(crate) fn run<C: CommandFactory>(self) -> Ended {
        let mut text = Vec::new();
        let mut command = C::command();
        match self.what.shell() {
            Some(shell) => clap_complete::generate(shell, &mut command, "pg-peers", &mut text),
            None => write_manual(command, &mut text)?,
        }
        io::stdout().write_all(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl What {
    fn shell(self) -> Option<Shell> {
        match self {
            Self::Bash => Some(Shell::Bash),
            Self::Elvish => Some(Shell::Elvish),
            Self::Fish => Some(Shell::Fish),
            Self::PowerShell => Some(Shell::PowerShell),
            Self::Zsh => Some(Shell::Zsh),
            Self::Man => None,
        }
    }
}

/// One page for the program, with a section for each verb.
fn write_manual(mut command: clap::Command, text: &mut Vec<u8>) -> io::Result<()> {
    command.build();
    clap_mangen::Man::new(command.clone()).render(text)?;
    let verbs = command.get_subcommands().filter(|it| !it.is_hide_set());
    for verb in verbs.filter(|it| it.get_name() != "help") {
        let name = format!("pg-peers {}", verb.get_name());
        let page = clap_mangen::Man::new(verb.clone().display_name(name));
        writeln!(text, ".SH {}", verb.get_name().to_uppercase())?;
        page.render_description_section(text)?;
        page.render_synopsis_section(text)?;
        page.render_options_section(text)?;
        // What is said of connections stands above already.
        if let Some(notes) = verb.get_after_help() {
            writeln!(text, ".PP\n{}", notes.to_string().replace(NOTES, "").trim())?;
        }
    }
    Ok(())
}
