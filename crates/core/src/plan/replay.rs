//! A model of HAProxy's map memory: what a plan leaves behind. The tests hold it against the real
//! process.

use super::map::{Edit, MapPlan};
use crate::EntryMap;

/// A key and its value as they stand in memory.
pub type Entry = (Vec<u8>, Vec<u8>);

/// The live map after `plan`, in the order that `show map` lists it. Duplicates stay together in
/// what `set map` and `del map` do to them (2.6 to 3.2; a plan never edits a map that has any).
pub fn replay(memory: &[Entry], plan: &MapPlan, wanted: &EntryMap) -> Vec<Entry> {
    let mut after = memory.to_vec();
    match plan {
        MapPlan::InSync => {}
        MapPlan::Edit { edits, .. } => edits.iter().for_each(|edit| match edit {
            Edit::Add { key, value } => {
                after.push((key.clone().into_bytes(), value.clone().into_bytes()))
            }
            Edit::Set { key, value } => after
                .iter_mut()
                .filter(|(held, _)| held == key.as_bytes())
                .for_each(|(_, held)| *held = value.clone().into_bytes()),
            Edit::Remove { key } => after.retain(|(held, _)| held != key.as_bytes()),
        }),
        MapPlan::Swap { .. } => {
            after = wanted
                .iter()
                .map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()))
                .collect();
        }
    }
    after
}
