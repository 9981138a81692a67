//! Forms of a value that other crates derive from it, such as its copy on a device, kept for as long as the value lives.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What may be kept with a value.
pub trait Form: Any + Send + Sync {
    /// Bytes that it holds, on a device for the most part; it may grow.
    fn bytes(&self) -> usize;
}

/// A form, and its bytes by its type.
#[derive(Clone)]
struct Kept(Arc<dyn Any + Send + Sync>, fn(&dyn Any) -> usize);

type Forms = HashMap<(TypeId, u64), Kept>;

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
    pub fn get_or_build<T: Form, E>(
        &self,
        key: u64,
        build: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let at = (TypeId::of::<T>(), key);
        if let Some(form) = self.forms().get(&at).cloned().and_then(|kept| kept.0.downcast::<T>().ok()) {
            return Ok(form);
        }
        // Outside the lock: a build may ask for another form of the same value.
        let built: Arc<T> = Arc::new(build()?);
        let bytes = |form: &dyn Any| form.downcast_ref::<T>().map_or(0, T::bytes);
        let kept = self.forms().entry(at).or_insert_with(|| Kept(built.clone(), bytes)).clone();
        Ok(kept.0.downcast::<T>().unwrap_or(built))
    }

    /// Bytes of all forms.
    pub fn bytes(&self) -> usize {
        self.forms().values().map(|Kept(form, bytes)| bytes(form.as_ref())).sum()
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

    #[derive(Debug, PartialEq)]
    struct Words(Vec<u32>);

    impl Form for Words {
        fn bytes(&self) -> usize {
            4 * self.0.len()
        }
    }

    #[derive(Debug, PartialEq)]
    struct Byte(u8);

    impl Form for Byte {
        fn bytes(&self) -> usize {
            1
        }
    }

    #[test]
    fn a_form_is_built_once_for_each_type_and_key() {
        let forms = Attachments::default();
        let words = |key, n| forms.get_or_build::<Words, ()>(key, || Ok(Words(vec![n; 3]))).unwrap();
        assert_eq!((words(0, 1), words(0, 2)), (words(0, 3), Arc::new(Words(vec![1; 3]))));
        assert_eq!(*words(1, 2), Words(vec![2; 3]));
        assert!(forms.get_or_build::<Byte, &str>(0, || Err("no")).is_err());
        assert_eq!(forms.bytes(), 24);
        assert_eq!(*forms.get_or_build::<Byte, &str>(0, || Ok(Byte(4))).unwrap(), Byte(4));
        assert_eq!(forms.bytes(), 25);
        forms.clear();
        assert_eq!(forms.bytes(), 0);
        assert_eq!(*words(0, 5), Words(vec![5; 3]));
    }
}
