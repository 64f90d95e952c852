//! Which form of each declaration counts: the newest that can be used, or else the last good one.
//!
//! One declaration's fault is its own: it keeps its last good form, or is left out, and the others
//! go on.

use std::collections::BTreeMap;

use mapsmith_core::services::RejectedService;
use mapsmith_core::{ServiceForms, ServiceTexts};

use super::base::Base;
use super::{Overlay, Refusals};

/// How often all is put together for services that can't keep their last good form, each time with
/// more of them as they were, before everything that changes stays so.
const MOST_ROUNDS: usize = 8;

/// What makes settings of declarations.
pub(in crate::settings) trait Declares<'a> {
    /// Adds a declaration of this form; nothing where it can't be used. What is wrong with it
    /// although it is.
    ///
    /// # Errors
    /// Why it can't be used.
    fn take(&mut self, name: &str, text: &str) -> Result<Vec<String>, String>;

    /// Where they were added to.
    fn base(&self) -> &Base<'a>;

    /// All are taken.
    fn finish(self, rejected: &mut Vec<RejectedService>) -> Base<'a>;
}

/// Puts declarations over settings, each in the form that counts. `make` begins without any.
pub(in crate::settings) fn choose<'a, D: Declares<'a>>(
    make: impl Fn() -> D,
    texts: &ServiceTexts,
    good: &ServiceForms,
    refused: &Refusals,
) -> Overlay {
    // What contradicts the rest of the settings shows once all is put together.
    let mut contradicting = Refusals::new();
    // So does what one service takes from another that has to stay as it was.
    let mut staying = BTreeMap::new();
    let mut rounds = 0;
    loop {
        let mut round = Round { made: make(), rejected: Vec::new() };
        let left_out = round.take_all(texts, good, [refused, &contradicting], &staying);
        if !left_out.is_empty() {
            rounds += 1;
            if rounds == MOST_ROUNDS {
                stay_all(&mut staying, texts, good);
            }
            staying.extend(left_out);
            continue;
        }
        let problems = round.made.base().problems();
        if problems.is_empty() {
            return round.finish();
        }
        for (name, why) in problems {
            let Some(text) = round.made.base().forms.get(&name).cloned() else { continue };
            contradicting.entry(name).or_default().insert(text, why);
        }
    }
}

/// Has every service that changes stay as it was.
fn stay_all(staying: &mut BTreeMap<String, Wrong>, texts: &ServiceTexts, good: &ServiceForms) {
    for (name, text) in &texts.texts {
        if good.get(name).is_some_and(|known| text.as_ref() != Ok(known)) {
            let reason = "it takes what others have that stay as they were; change them one after \
                the other";
            staying.entry(name.clone()).or_insert_with(|| reason.to_owned().into());
        }
    }
}

/// Why a form of a service is not used.
#[derive(Debug, Clone)]
struct Wrong {
    reason: String,
    by_haproxy: bool,
}

impl From<String> for Wrong {
    fn from(reason: String) -> Self {
        Self { reason, by_haproxy: false }
    }
}

/// All of them put together once.
struct Round<D> {
    made: D,
    rejected: Vec<RejectedService>,
}

impl<'a, D: Declares<'a>> Round<D> {
    /// Takes each service in the first of its forms that can be used; those that are `staying` as
    /// they were. Which have a last good form and can't keep it, for another one that changes has
    /// taken something of it, and why they need it.
    fn take_all(
        &mut self,
        texts: &ServiceTexts,
        good: &ServiceForms,
        refusals: [&Refusals; 2],
        staying: &BTreeMap<String, Wrong>,
    ) -> BTreeMap<String, Wrong> {
        // What is in force has its names and ports before what changes, and that before what is
        // new.
        let rank = |name: &String, text: &Result<String, String>| match good.get(name) {
            Some(known) if text.as_ref() == Ok(known) || staying.contains_key(name) => 0,
            Some(_) => 1,
            None => 2,
        };
        let mut ranked: Vec<_> = texts.texts.iter().collect();
        ranked.sort_by_key(|(name, text)| rank(name, text));
        let mut left_out = BTreeMap::new();
        for (name, text) in ranked {
            let text = text.as_ref().map_err(String::as_str);
            let outcome = match staying.get(name) {
                Some(why) => Err(why.clone()),
                None => self.try_form(name, text, refusals),
            };
            let Err(wrong) = outcome else { continue };
            let known = good.get(name).filter(|known| text.ok() != Some(known));
            let kept = known.map(|known| self.try_form(name, Ok(known), refusals));
            if matches!(kept, Some(Err(_))) && !staying.contains_key(name) {
                left_out.insert(name.clone(), wrong.clone());
            }
            let keeps_last_good = matches!(kept, Some(Ok(())));
            let (name, Wrong { reason, by_haproxy }) = (name.clone(), wrong);
            self.rejected.push(RejectedService { name, reason, by_haproxy, keeps_last_good });
        }
        left_out
    }

    /// Where nobody refuses it: HAProxy, or the rest of the settings.
    fn try_form(
        &mut self,
        name: &str,
        text: Result<&String, &str>,
        [by_haproxy, by_settings]: [&Refusals; 2],
    ) -> Result<(), Wrong> {
        let text = text.map_err(str::to_owned)?;
        let refusal = |refusals: &Refusals| refusals.get(name)?.get(text).cloned();
        if let Some(reason) = refusal(by_haproxy) {
            return Err(Wrong { reason, by_haproxy: true });
        }
        if let Some(reason) = refusal(by_settings) {
            return Err(reason.into());
        }
        let remarks = self.made.take(name, text)?;
        let remark = |reason| {
            let name = name.to_owned();
            RejectedService { name, reason, by_haproxy: false, keeps_last_good: false }
        };
        self.rejected.extend(remarks.into_iter().map(remark));
        Ok(())
    }

    fn finish(mut self) -> Overlay {
        let base = self.made.finish(&mut self.rejected);
        self.rejected.sort_by(|one, other| one.name.cmp(&other.name));
        base.finish(self.rejected)
    }
}
