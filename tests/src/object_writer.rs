//! Puts and deletes objects until it is killed: `object-writer L2 L3 KEY RUN`.
//!
//! Each change is announced on stdout before it begins and once it is acknowledged, in lines `begin|done NAME RUN
//! COUNTER put|delete`. What an object holds follows from run and counter: [`contents`](tierstream_tests::contents).

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use tierstream_storage::keys::{KeyProvider, read_key_file};
use tierstream_storage::testing::Random;
use tierstream_storage::{Error, PutOptions, Result, Store};
use tierstream_tests::{OBJECT_NAMES, OBJECT_WRITERS, contents, object_store};

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [l2, l3, key, run] = &args[..] else { return Err("usage: object-writer L2 L3 KEY RUN".into()) };
    let keys: Arc<dyn KeyProvider> = Arc::new(read_key_file(Path::new(key))?);
    let store = Store::open(object_store(Path::new(l2), Path::new(l3)), keys)?;
    let run: u64 = run.parse()?;
    std::thread::scope(|scope| {
        let start = |writer| {
            let store = &store;
            scope.spawn(move || write(store, run, writer))
        };
        let writers: Vec<_> = (0..OBJECT_WRITERS).map(start).collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("a writer that does not panic"))
    })?;
    Ok(())
}

/// Changes the objects of one writer for ever.
fn write(store: &Store, run: u64, writer: u64) -> Result<()> {
    let mut random = Random::new(run * OBJECT_WRITERS + writer);
    for counter in (writer..).step_by(usize::try_from(OBJECT_WRITERS).expect("a few")) {
        let name = format!("object-{writer}-{}", random.below(OBJECT_NAMES));
        let delete = random.one_in(8);
        let what = if delete { "delete" } else { "put" };
        say(&format!("begin {name} {run} {counter} {what}\n"))?;
        if delete {
            store.delete(&name)?;
        } else {
            let options = PutOptions { write_through: random.one_in(16), ..PutOptions::default() };
            store.put(&name, &contents(run, counter), &options)?;
        }
        say(&format!("done {name} {run} {counter} {what}\n"))?;
    }
    Ok(())
}

/// One line, whole: less than a pipe takes at once.
fn say(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let said = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush());
    said.map_err(|error| Error::io("write", Path::new("stdout"), error))
}
