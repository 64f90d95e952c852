//! What needs a person, on top of `mapsmith status`.

use std::fmt::Write as _;

use mapsmith_core::attention::{Attention, Item, Severity};

use crate::cli::output::{Colour, ago, paint};

/// The most items that are shown here.
const SHOWN: usize = 10;

pub(super) fn text(attention: &Attention) -> String {
    let (act, look) = (attention.act, attention.look);
    if act + look == 0 {
        return format!("{}\n\n", paint(Colour::Green, "all is well: nothing needs you"));
    }
    let needs = match act {
        0 => String::new(),
        1 => "1 thing needs you".to_owned(),
        _ => format!("{act} things need you"),
    };
    let worth = match look {
        0 => String::new(),
        1 => "1 is worth a look".to_owned(),
        _ => format!("{look} are worth a look"),
    };
    let joint = if act > 0 && look > 0 { ", " } else { "" };
    let colour = if act > 0 { Colour::Red } else { Colour::Yellow };
    let mut text = format!("{}\n", paint(colour, &format!("{needs}{joint}{worth}")));
    attention.items.iter().take(SHOWN).for_each(|item| text.push_str(&item_text(item)));
    let more = (act + look).saturating_sub(attention.items.len().min(SHOWN));
    if more > 0 {
        let _ = writeln!(text, "  and {more} more, see GET /v1/attention");
    }
    text.push('\n');
    text
}

fn item_text(item: &Item) -> String {
    let colour = if item.severity == Severity::Act { Colour::Red } else { Colour::Yellow };
    let since = item.since.map(|since| format!(" (since {})", ago(since))).unwrap_or_default();
    let mut text = format!("  {} {}{since}\n", paint(colour, item.severity.label()), item.text);
    for action in &item.actions {
        let command = action.command.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
        let _ = writeln!(text, "       {}{command}", action.text);
    }
    text
}
