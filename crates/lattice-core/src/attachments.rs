//! Forms of a value that other crates derive from it, such as its copy on a device, kept for as long as the value lives.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

type Forms = HashMap<(TypeId, u64), Arc<dyn Any + Send + Sync>>;

/// One form for each type and key; a key tells devices apart.
#[derive(Default)]
pub struct Attachments(Mutex<Forms>);

impl std::fmt::Debug for Attachments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Attachments({})", self.forms().len())
    }
}

impl Attachments {
    /// The form of this type under `key`, built by the first caller and kept. Two callers at once may both build it; one is kept.
    ///
    /// # Errors
    /// The error of `build`; nothing is kept then.
    pub fn get_or_build<T: Any + Send + Sync, E>(
        &self,
        key: u64,
        build: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let at = (TypeId::of::<T>(), key);
        if let Some(form) = self.forms().get(&at).cloned().and_then(|form| form.downcast::<T>().ok()) {
            return Ok(form);
        }
        // Outside the lock: a build may ask for another form of the same value.
        let built: Arc<T> = Arc::new(build()?);
        let kept = self.forms().entry(at).or_insert_with(|| built.clone()).clone();
        Ok(kept.downcast::<T>().unwrap_or(built))
    }

    /// Forgets every form.
    pub fn clear(&self) {
        self.forms().clear();
    }

    fn forms(&self) -> std::sync::MutexGuard<'_, Forms> {
        // Entries are inserted whole, so a panic elsewhere leaves the map as it should be.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_form_is_built_once_for_each_type_and_key() {
        let forms = Attachments::default();
        let number = forms.get_or_build::<u32, ()>(0, || Ok(1)).unwrap();
        assert_eq!((*number, *forms.get_or_build::<u32, ()>(0, || Ok(2)).unwrap()), (1, 1));
        assert_eq!(*forms.get_or_build::<u32, ()>(1, || Ok(2)).unwrap(), 2);
        assert_eq!(*forms.get_or_build::<u64, ()>(0, || Ok(3)).unwrap(), 3);
        assert!(forms.get_or_build::<u8, &str>(0, || Err("no")).is_err());
        assert_eq!(*forms.get_or_build::<u8, &str>(0, || Ok(4)).unwrap(), 4);
        forms.clear();
        assert_eq!(*forms.get_or_build::<u32, ()>(0, || Ok(5)).unwrap(), 5);
    }
}
