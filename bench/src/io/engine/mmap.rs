//! Reading through a mapping of the file: the page cache's way, with a copy as fio's mmap engine makes one.

use tierstream_storage::units::to_usize;

use crate::Result;
use crate::io::session::Session;
use crate::os::Mapping;

pub(super) fn run(session: &mut Session) -> Result<()> {
    if session.direct {
        session.direct = false;
        session.notes.push("direct=1 is ignored: a mapping is the page cache".to_owned());
    }
    let mapping = Mapping::new(&session.file, to_usize(session.size))?;
    mapping.announce(session.random);
    session.engine = "memcpy from a shared mapping".to_owned();
    let mut buffer = vec![0; session.block_bytes];
    session.begin();
    while let Some(io) = session.next() {
        mapping.copy_to(to_usize(io.offset), &mut buffer);
        // Without a reader the copy could be left out.
        std::hint::black_box(&mut buffer);
        session.done(&io, None, session.now(), &buffer);
    }
    session.end();
    Ok(())
}
