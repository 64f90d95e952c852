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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use mapsmith_core::desired::shadow::{Compared, Differences};
    use mapsmith_core::{EntryMap, Invalid, SourceState};

    use super::*;

    #[test]
    fn a_shadow_of_the_node_map_says_how_old_its_answer_is_and_what_of_it_is_rejected() {
        let name = "consul".to_owned();
        let mut source =
            SourceState::<EntryMap>::before_first_poll(name.clone(), name, false).status;
        source.rejections.push("a node", Invalid::NoMaster);
        source.rejections.push("another", Invalid::NoMaster);
        source.answered_at = Some(Timestamp::now() - jiff::SignedDuration::from_hours(2));
        source.error = Some("refused".to_owned());
        let now: EntryMap = [("a", "m1")].into_iter().collect();
        let found = Differences::of_maps(&now, &EntryMap::default());
        let compared = Compared::of(found, Timestamp::now());
        let shown = text(&ShadowStatus { source, backend: None, compared });
        for part in ["1 missing", "node map; answered 2h ago", "refused", "2 rejected:", "a node"] {
            assert!(shown.contains(part), "{part:?} is not in {shown}");
        }
    }
}
