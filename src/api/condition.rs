//! Changes that are made only where a resource is as whoever asks has it.

use serde::Serialize;

use super::Error;

/// Says whether a resource, by its JSON, is as it should be; none where it is not there.
type Check = Box<dyn Fn(Option<&[u8]>) -> bool + Send + Sync>;

/// What must be true of a resource for a change of it to be made.
#[derive(Default)]
pub struct Precondition(Option<Check>);

impl Precondition {
    pub fn new(check: impl Fn(Option<&[u8]>) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(check)))
    }

    /// # Errors
    /// [`Error::Changed`], with what it is.
    pub fn check<T: Serialize>(&self, resource: Option<&T>) -> Result<(), Error> {
        let Some(check) = &self.0 else { return Ok(()) };
        let error = |error: serde_json::Error| Error::Store(error.to_string());
        let current = resource.map(serde_json::to_value).transpose().map_err(error)?;
        let text = resource.map(serde_json::to_vec).transpose().map_err(error)?;
        match check(text.as_deref()) {
            true => Ok(()),
            false => Err(Error::Changed { current }),
        }
    }
}

/// The same of what changes with a number alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NumberCondition {
    /// One of these, where it is given; none is anything that is there.
    pub is: Option<Vec<Option<u64>>>,
    /// None of these.
    pub is_not: Option<Vec<Option<u64>>>,
}

impl NumberCondition {
    /// Whether it holds of what has this number; none where it is not there.
    pub fn holds(&self, number: Option<u64>) -> bool {
        let is_among = |wanted: &Vec<Option<u64>>| {
            number.is_some_and(|number| {
                wanted.iter().any(|wanted| wanted.is_none_or(|wanted| wanted == number))
            })
        };
        self.is.as_ref().is_none_or(is_among) && !self.is_not.as_ref().is_some_and(is_among)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_what_was_seen_or_is_not_there_yet() {
        let is = |is: &[Option<u64>]| NumberCondition { is: Some(is.to_vec()), is_not: None };
        let is_not = |is: &[Option<u64>]| NumberCondition { is: None, is_not: Some(is.to_vec()) };
        assert!(
            NumberCondition::default().holds(None) && NumberCondition::default().holds(Some(1))
        );
        assert!(is(&[Some(7), Some(8)]).holds(Some(8)));
        assert!(!is(&[Some(7)]).holds(Some(8)) && !is(&[Some(7)]).holds(None));
        assert!(is(&[None]).holds(Some(1)) && !is(&[None]).holds(None));
        assert!(is_not(&[None]).holds(None) && !is_not(&[None]).holds(Some(1)));
        assert!(!is(&[]).holds(Some(1)), "what is no number of ours is another state");
    }
}
