//! How a verb that fails says so: a line for people, an object for programs. Both go to standard
//! error, so that standard output has the data that was asked for or nothing.

use std::io::Write as _;
use std::process::ExitCode;

use serde::Serialize;

use super::{FAILED, OutputFormat, USAGE, output};
use crate::settings::{Place, Problem, SettingsError};

#[derive(Serialize)]
struct Failure<'a> {
    error: String,
    exit_code: u8,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<SettingsProblem<'a>>,
}

#[derive(Serialize)]
struct SettingsProblem<'a> {
    line: Option<usize>,
    variable: Option<&'a str>,
    problem: &'a str,
}

impl<'a> From<&'a Problem> for SettingsProblem<'a> {
    fn from(problem: &'a Problem) -> Self {
        let (line, variable) = match &problem.place {
            Some(Place::Line(line)) => (Some(*line), None),
            Some(Place::Variable(name)) => (None, Some(name.as_str())),
            None => (None, None),
        };
        Self { line, variable, problem: &problem.text }
    }
}

/// Prints why a verb failed. Settings that can't be used are wrong usage.
pub(super) fn print(format: OutputFormat, error: &anyhow::Error) -> ExitCode {
    let settings = error.downcast_ref::<SettingsError>();
    let exit_code = if settings.is_some() { USAGE } else { FAILED };
    match format {
        OutputFormat::Text => output::error_line(&format!("mapsmith: {error:#}")),
        OutputFormat::Json => {
            let problems = match settings {
                Some(SettingsError::Invalid { problems, .. }) => {
                    problems.iter().map(SettingsProblem::from).collect()
                }
                _ => Vec::new(),
            };
            print_json(&Failure { error: format!("{error:#}"), exit_code, problems });
        }
    }
    ExitCode::from(exit_code)
}

/// Prints what the parser of arguments has to say: what is wrong with them, or the help that was
/// asked for.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    let exit_code = u8::try_from(error.exit_code()).unwrap_or(USAGE);
    if !error.use_stderr() {
        let printed = error.print().and_then(|()| std::io::stdout().flush());
        return match output::written(printed) {
            Ok(()) => ExitCode::from(exit_code),
            Err(error) => print(OutputFormat::Text, &error),
        };
    }
    // The arguments that would say it were not understood.
    let words: Vec<_> = std::env::args_os().collect();
    let json = words.iter().any(|word| word == "--output=json")
        || words.windows(2).any(|two| two == ["--output", "json"]);
    if json {
        print_json(&Failure {
            error: error.to_string().trim_end().to_owned(),
            exit_code,
            problems: Vec::new(),
        });
    } else {
        let _ = error.print();
    }
    ExitCode::from(exit_code)
}

fn print_json(failure: &Failure<'_>) {
    // An object of texts and numbers can always be written.
    output::error_line(&serde_json::to_string(failure).unwrap_or_default());
}
