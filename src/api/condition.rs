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
