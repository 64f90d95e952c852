//! What is compared and never applied.

use std::fmt::Write as _;

use mapsmith_core::desired::shadow::ShadowStatus;

use super::backends::{rejected_rows, rejections};
use crate::cli::output::{Colour, ago, paint};

/// One line of a shadow, and what is wrong with it or different, an example a line.
pub(in crate::cli) fn text(shadow: &ShadowStatus) -> String {
    // What is compared is its last answer, however long ago that was.
    let answered =
        shadow.source.answered_at.map_or(String::new(), |at| format!("; answered {}", ago(at)));
    let mut text = format!("  {}  {}{answered}\n", shadow.source.name, in_brief(shadow));
    let mut notes: Vec<_> = shadow.source.error.iter().cloned().collect();
    notes.extend(shadow.source.warning.iter().cloned());
    match shadow.backend {
        None => notes.extend(rejections(&shadow.source)),
        Some(_) => {
            notes.extend(rejected_rows(&shadow.compared.rejected, shadow.compared.rejected_count));
        }
    }
    for note in notes {
        let _ = writeln!(text, "    {}", paint(Colour::Yellow, &note));
    }
    let examples = shadow.compared.differences.iter().flat_map(|found| &found.examples);
    for example in examples {
        let _ = writeln!(text, "    {example}");
    }
    text
}

/// `2 missing, 1 elsewhere, compared with backend web`.
pub(in crate::cli) fn in_brief(shadow: &ShadowStatus) -> String {
    let with = match &shadow.backend {
        Some(backend) => format!("backend {backend}"),
        None => "the node map".to_owned(),
    };
    let compared = &shadow.compared;
    match (&compared.differences, &compared.waiting_for) {
        (Some(differences), _) => {
            let colour = if differences.is_empty() { Colour::Green } else { Colour::Yellow };
            format!("{}, compared with {with}", paint(colour, &differences.to_string()))
        }
        (None, Some(waiting_for)) => {
            format!("not compared with {with} yet: waiting for {waiting_for}")
        }
        (None, None) => format!("not compared with {with} yet"),
    }
}
