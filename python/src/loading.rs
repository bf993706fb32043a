//! A loader's settings as Python spells them.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tierstream_gpu_direct::{choose, probe};
use tierstream_loader::{
    Dataset, Loader, LoaderBuilder, LoaderState, OnCorrupt, Overlong, Sequences, Shuffle, Stage,
};
use tierstream_storage::{Error, ErrorKind, Result};

use crate::error::{raise, raised};
use crate::process::InProcess;
use crate::source::Source;
use crate::store::Tiers;

/// Data sets with their weights, and the samples after which the next stage begins.
pub(crate) type Stages<'py> = Vec<(Vec<(PyRef<'py, Source>, f64)>, Option<u64>)>;

fn misuse(why: String, hint: &str) -> PyErr {
    raise(Error::new(ErrorKind::Misuse, "start loader", why).hint(hint))
}

/// Takes settings one by one, so that none is forgotten or given in vain.
struct Settings<'a, 'py>(&'a Bound<'py, PyDict>);

impl<'py> Settings<'_, 'py> {
    fn take<T>(&self, name: &str) -> PyResult<T>
    where
        T: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
    {
        let value = self.0.get_item(name)?;
        let value = value.ok_or_else(|| PyTypeError::new_err(format!("no setting `{name}`")))?;
        self.0.del_item(name)?;
        value.extract()
    }

    fn finish(self) -> PyResult<()> {
        match self.0.keys().iter().next() {
            Some(name) => Err(PyTypeError::new_err(format!("unknown setting {name}"))),
            None => Ok(()),
        }
    }
}

/// The builder of a loader of `stages`. Consumes `settings`.
pub(crate) fn builder(stages: &Stages<'_>, settings: &Bound<'_, PyDict>) -> PyResult<LoaderBuilder> {
    let settings = Settings(settings);
    let tiers = tiers(stages)?;
    let first = first(stages)?;
    let sized = stages.iter().map(|(parts, samples)| {
        let data_sets = parts
            .iter()
            .map(|(source, weight)| Ok((source.dataset()?.clone(), *weight)))
            .collect::<PyResult<Vec<_>>>()?;
        Ok(Stage { data_sets, samples: *samples })
    });
    let mut builder = Loader::curriculum(sized.collect::<PyResult<Vec<_>>>()?)
        .batch_size(settings.take("batch_size")?)
        .shuffle_by(shuffle(
            &first,
            &settings.take::<String>("shuffle")?,
            settings.take("shuffle_window_bytes")?,
        )?)
        .seed(settings.take("seed")?)
        .rank(settings.take("rank")?, settings.take("world_size")?)
        .drop_last(settings.take("drop_last")?)
        .num_epochs(settings.take("num_epochs")?)
        .prefetch_factor(settings.take("prefetch_factor")?)
        .num_workers(settings.take("num_workers")?)
        .on_corrupt(on_corrupt(&settings.take::<String>("on_corrupt")?)?);
    if let Some(samples) = settings.take("epoch_size")? {
        builder = builder.epoch_size(samples);
    }
    if let Some(sequences) = settings.take::<Option<SequenceSettings>>("sequences")? {
        builder = builder.sequences(self::sequences(sequences)?);
    }
    if let Some(state) = settings.take::<Option<String>>("state")? {
        builder = builder.load_state_dict(raised(parse(&state))?);
    }
    if settings.take("pin_memory")? {
        builder = builder.allocator(choose(&probe()).1);
    }
    if let Some(prefetcher) = tiers.prefetcher() {
        builder = builder.prefetcher(prefetcher.clone());
    }
    settings.finish()?;
    Ok(builder)
}

fn first(stages: &Stages<'_>) -> PyResult<Dataset> {
    let first = stages.iter().flat_map(|(parts, _)| parts).next();
    let (source, _) = first.ok_or_else(|| misuse("no data sets".to_owned(), "give one or more"))?;
    Ok(source.dataset()?.clone())
}

/// The tiers that all data sets come from: their blocks are fetched ahead by one prefetcher.
fn tiers<'a>(stages: &'a Stages<'_>) -> PyResult<&'a Tiers> {
    let mut all = stages.iter().flat_map(|(parts, _)| parts).map(|(source, _)| source.tiers());
    let none = || misuse("no data sets".to_owned(), "give one or more");
    let first: &std::sync::Arc<InProcess<Tiers>> = all.next().ok_or_else(none)?;
    if all.any(|other| !std::sync::Arc::ptr_eq(first, other)) {
        let why = "the data sets were opened through different stores".to_owned();
        return Err(misuse(
            why,
            "share one: store = tierstream.Store(key=...), then Dataset(path, store=store)",
        ));
    }
    first.get("store")
}

fn shuffle(first: &Dataset, how: &str, window_bytes: u64) -> PyResult<Shuffle> {
    match how {
        "off" => Ok(Shuffle::Off),
        "global" => Ok(Shuffle::Global),
        "blocks" => {
            let info = first.info();
            let sample_bytes = info.payload_bytes / info.records.max(1);
            Ok(Shuffle::blocks(sample_bytes, u64::from(info.block_bytes), window_bytes))
        }
        _ => Err(misuse(format!("shuffle `{how}`"), "use True, False, \"global\", \"blocks\" or \"off\"")),
    }
}

fn on_corrupt(how: &str) -> PyResult<OnCorrupt> {
    match how {
        "error" => Ok(OnCorrupt::Error),
        "skip" => Ok(OnCorrupt::Skip),
        _ => Err(misuse(format!("on_corrupt `{how}`"), "use \"error\" or \"skip\"")),
    }
}

/// Packed or padded, field, length, padding, whether overlong ones are cut.
type SequenceSettings = (bool, String, Option<u64>, i64, bool);

fn sequences((packed, field, length, value, cut): SequenceSettings) -> PyResult<Sequences> {
    let made = match (packed, length) {
        (true, Some(length)) => Sequences::packed(&field, length, value),
        (true, None) => {
            return Err(misuse("packed rows without a length".to_owned(), "say length=2048, or so"));
        }
        (false, Some(length)) => Sequences::padded(&field, value).length(length),
        (false, None) => Sequences::padded(&field, value),
    };
    Ok(made.overlong(if cut { Overlong::Cut } else { Overlong::Error }))
}

fn parse(state: &str) -> Result<LoaderState> {
    serde_json::from_str(state).map_err(|error| {
        Error::new(ErrorKind::Misuse, "load state", format!("not the state of a loader: {error}"))
            .hint("give load_state_dict what state_dict returned")
    })
}
