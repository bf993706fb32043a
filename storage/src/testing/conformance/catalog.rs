//! The suite of the catalog; see below.
pub fn catalog_store(){}
