//! What the libraries have to say, as records of Python's `logging`, logger `tierstream`.
//!
//! Warnings come from threads that may not wait for the interpreter's lock: they are kept, a bounded number of them, until
//! a thread of Python's comes by.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Records kept; of more, the oldest are lost and counted.
const KEPT_MAX: usize = 256;

static KEPT: Mutex<(VecDeque<(bool, String)>, u64)> = Mutex::new((VecDeque::new(), 0));

/// Starts keeping what is said. Once per process: the module is loaded once.
pub(crate) fn start() {
    // Another subscriber is there when two copies of the module are loaded: the first one serves.
    let _another = tracing::subscriber::set_global_default(Keep);
}

/// Keeps a warning of our own.
pub(crate) fn warn(text: String) {
    keep(false, text);
}

fn keep(is_error: bool, text: String) {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.0.len() == KEPT_MAX {
        kept.0.pop_front();
        kept.1 += 1;
    }
    kept.0.push_back((is_error, text));
}

/// Hands what was kept to Python's `logging`.
pub(crate) fn tell(py: Python<'_>) -> PyResult<()> {
    let (records, lost) = {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.0.is_empty() {
            return Ok(());
        }
        std::mem::take(&mut *kept)
    };
    let logger = py.import("logging")?.call_method1("getLogger", ("tierstream",))?;
    if lost > 0 {
        logger.call_method1("warning", ("%d earlier records were lost", lost))?;
    }
    for (is_error, text) in records {
        logger.call_method1(if is_error { "error" } else { "warning" }, ("%s", text))?;
    }
    Ok(())
}

struct Keep;

impl Subscriber for Keep {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::WARN
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let fields = if text.fields.is_empty() { String::new() } else { format!(" ({})", text.fields) };
        keep(*event.metadata().level() == Level::ERROR, format!("{}{fields}", text.message));
    }

    // Spans are at trace level, which is never enabled.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _always = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            let comma = if self.fields.is_empty() { "" } else { ", " };
            write!(self.fields, "{comma}{}: {value:?}", field.name())
        };
    }
}
