//! What a store does with objects, as its users call it.

use super::config::PutOptions;
use super::handle::Object;
use super::payload::Payload;
use super::report::{Drained, ObjectInfo, ObjectStatus, PutReport, RecoveryReport};
use crate::error::Result;
use crate::store::Store;

impl Store {
    /// Puts `payload` under `name`, in the place of what is there; returns when it is durable. Readers of what was
    /// there finish.
    ///
    /// # Errors
    /// `Misuse` for a name or payload out of range, or a store without objects; `Full` when L2 is full of dirty objects
    /// and the drain makes no room in time; else as the devices say. The object is then as it was before.
    pub fn put(&self, name: &str, payload: &dyn Payload, options: &PutOptions) -> Result<PutReport> {
        self.core().put(name, payload, options)
    }

    /// Opens the current version of the object `name`.
    ///
    /// # Errors
    /// `Missing` when there is none; `Corrupt` when it is damaged, or another file is in its place.
    pub fn get(&self, name: &str) -> Result<Object> {
        Object::open(self, name)
    }

    /// Deletes the object `name`; returns when that is durable, with whether there was one.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn delete(&self, name: &str) -> Result<bool> {
        self.core().delete(name)
    }

    /// The objects whose names begin with `prefix`, by name.
    ///
    /// # Errors
    /// `Misuse` for a store without objects.
    pub fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        Ok(self.core().objects()?.list(prefix))
    }

    /// Returns when everything that was put before is on L3.
    ///
    /// # Errors
    /// As [`Store::drain_one`].
    pub fn flush(&self) -> Result<()> {
        self.core().flush()
    }

    /// Drains the oldest dirty object to L3. None when nothing is dirty.
    ///
    /// # Errors
    /// As the devices say; the object is then as dirty as before. `Corrupt` when its copy on L2 is damaged: it stays,
    /// and the next call goes on with the next one.
    pub fn drain_one(&self) -> Result<Option<Drained>> {
        self.core().drain_one()
    }

    /// How many objects there are, and how much of them L2 alone has.
    ///
    /// # Errors
    /// `Misuse` for a store without objects.
    pub fn object_status(&self) -> Result<ObjectStatus> {
        Ok(self.core().objects()?.status())
    }

    /// What opening found amiss and put right.
    ///
    /// # Errors
    /// `Misuse` for a store without objects.
    pub fn recovery(&self) -> Result<RecoveryReport> {
        Ok(self.core().objects()?.lock().recovery.clone())
    }
}
