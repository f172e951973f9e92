//! What a check has found.

use std::fmt::Display;
use std::process::ExitCode;

use serde::Serialize;

use crate::text;

/// From the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Ok,
    Warning,
    Failure,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    pub(crate) text: String,
    /// What to do.
    pub(crate) advice: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Line<'a> {
    check: &'a str,
    level: &'static str,
    text: &'a str,
    advice: Option<&'a str>,
}

impl Finding {
    pub(crate) fn ok(text: impl Display) -> Self {
        Self {
            level: Level::Ok,
            text: text.to_string(),
            advice: None,
        }
    }

    pub(crate) fn warning(text: impl Display, advice: impl Display) -> Self {
        Self {
            level: Level::Warning,
            text: text.to_string(),
            advice: Some(advice.to_string()),
        }
    }

    pub(crate) fn failure(text: impl Display, advice: impl Display) -> Self {
        Self {
            level: Level::Failure,
            ..Self::warning(text, advice)
        }
    }

    pub(crate) fn line<'a>(&'a self, check: &'a str) -> Line<'a> {
        Line {
            check,
            level: self.level.word(),
            text: &self.text,
            advice: self.advice.as_deref(),
        }
    }

    /// The finding, and below it what to do.
    pub(crate) fn page(&self, check: &str) -> String {
        let (level, said) = (self.level.word(), text::plain(&self.text));
        let mut page = format!("{level:<8} {check:<9} {said}\n");
        if let Some(advice) = &self.advice {
            page.push_str(&format!("{:18} -> {}\n", "", text::plain(advice)));
        }
        page
    }
}

impl Level {
    /// How a program ends in which this is the worst.
    pub(crate) fn exit_code(self) -> ExitCode {
        match self {
            Self::Ok | Self::Warning => ExitCode::SUCCESS,
            Self::Failure => ExitCode::FAILURE,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}
