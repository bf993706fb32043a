//! Mistakes that a store can be told to make on a simulated host, each the loss of one promise: the simulation must find
//! every one of them, or it shows nothing. In any other build the answer is a constant.

/// What the store does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A put is acknowledged before the name of its file is durable.
    AcknowledgesEarly,
    /// Blocks of L2 are taken as they are read, whatever their tag says.
    TrustsL2,
    /// A full L2 gives up objects that it alone has.
    EvictsDirty,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::AcknowledgesEarly, Self::TrustsL2, Self::EvictsDirty];

    /// Whether it is to be made here.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn is_made(self) -> bool {
        super::current().is_some_and(|host| host.mistake() == Some(self))
    }

    /// Whether it is to be made here.
    #[cfg(not(any(test, feature = "testing")))]
    #[must_use]
    pub const fn is_made(self) -> bool {
        false
    }
}
