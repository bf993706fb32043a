//! A data set with its key, and the means to change any byte of it and seal it again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tierstream_crypto::{Cipher, DataKey, FileKeys, KeyProvider, RootKey};
use tierstream_storage::codec::{
    BlockCodec, Dictionary, FinalSizes, Scratch, SealedHeader, open_header, seal_header,
};
use tierstream_storage::format::{
    BlockKind, FileId, HEADER_BYTES, Header, Kind, MANIFEST_NAME, Manifest, PROLOGUE_BYTES, SealParams,
    SectionType, capacity, put_wrap, raw_stored_bytes,
};
use tierstream_storage::io::ServiceConfig;
use tierstream_storage::store::{VerifyProgress, verify};
use tierstream_storage::testing::Random;
use tierstream_storage::units::{to_u64, to_usize};
use tierstream_storage::{
    DataSetWriter, Error, ErrorKind, RangeRead, RangeSource, Result, Store, StoreConfig, WriteContext,
};

use crate::allocations;

/// Small, so that a few kilobytes are many blocks.
pub(crate) const BLOCK: u32 = 8192;
/// A section of the payload's owner.
pub(crate) const OWN: SectionType = SectionType(17);

/// How a data set is sealed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seal {
    pub(crate) cipher: Cipher,
    pub(crate) compressed: bool,
}

/// Every kind of sealing.
pub(crate) fn seals() -> impl Iterator<Item = Seal> {
    [Cipher::Sm4Gcm, Cipher::Aes256Gcm, Cipher::AuthOnly]
        .into_iter()
        .flat_map(|cipher| [false, true].map(|compressed| Seal { cipher, compressed }))
}

/// A directory for data sets, their key, and what they hold.
pub(crate) struct Forge {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) root: Arc<RootKey>,
    pub(crate) payloads: Vec<Vec<u8>>,
    pub(crate) seal: Seal,
}

fn words(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut text = Vec::new();
    while text.len() < len {
        // Half of it repeats itself: some blocks shrink, none to nothing.
        let word = random.next_u64();
        text.extend_from_slice(&word.to_le_bytes());
        text.extend_from_slice(b"a word ");
    }
    text.truncate(len);
    text
}

impl Forge {
    /// A data set `set` of two shards of five blocks and a bit.
    pub(crate) fn new(seal: Seal) -> Self {
        allocations::bound();
        let len = to_usize(capacity(BLOCK)) * 5 + 1000;
        let payloads = vec![words(1, len), words(2, len)];
        let root = Arc::new(RootKey::random("hostile-test").unwrap());
        let forge = Self { dir: tempfile::tempdir().unwrap(), root, payloads, seal };
        forge.write("set", false);
        forge
    }

    pub(crate) fn path(&self, set: &str) -> PathBuf {
        self.dir.path().join(set)
    }

    pub(crate) fn shard(&self, set: &str, number: usize) -> PathBuf {
        self.path(set).join(format!("shard-{number:05}.tss"))
    }

    pub(crate) fn context() -> WriteContext {
        WriteContext::new(&ServiceConfig::default(), BLOCK, 1).unwrap()
    }

    /// Writes the payloads as data set `set`.
    pub(crate) fn write(&self, set: &str, overwrite: bool) {
        let context = Self::context();
        let Seal { cipher, compressed } = self.seal;
        let keys: Arc<dyn KeyProvider> = Arc::<RootKey>::clone(&self.root);
        let path = self.path(set);
        let mut writer =
            DataSetWriter::create(&context, keys, &path, overwrite, cipher, compressed, BLOCK, 1).unwrap();
        if compressed {
            writer = writer.with_dictionary(&words(3, 3000)).unwrap();
        }
        let shards = self.payloads.iter().enumerate().map(|(number, payload)| {
            let mut shard = writer.shard(number).unwrap();
            shard.write(payload).unwrap();
            writer.finish_shard(number, shard, 7, vec![(OWN, vec![b'x'; 100])]).unwrap()
        });
        let shards = shards.collect();
        writer.publish(serde_json::json!({"fields": []}), serde_json::Value::Null, shards).unwrap();
    }

    /// Puts `shard` in the place of shard 0 of `set`, and a manifest that says so, as one who has the key can.
    pub(crate) fn install(&self, set: &str, shard: &[u8]) {
        std::fs::write(self.shard(set, 0), shard).unwrap();
        let header: &[u8; HEADER_BYTES] = shard[..HEADER_BYTES].try_into().unwrap();
        let Ok((header, mac)) = Header::parse(header) else { return };
        let (params, mut manifest) = self.manifest(set);
        let entry = &mut manifest.shards[0];
        (entry.id, entry.mac) = (header.params.file_id.0, mac);
        entry.file_bytes = header.file_bytes();
        manifest.records = manifest.records - entry.records + header.record_count.min(1 << 40);
        manifest.payload_bytes = manifest.payload_bytes - entry.payload_bytes + header.payload_bytes;
        (entry.records, entry.payload_bytes) = (header.record_count.min(1 << 40), header.payload_bytes);
        self.install_manifest(set, params, &serde_json::to_vec(&manifest).unwrap());
    }

    /// The manifest of `set` and how it was sealed.
    pub(crate) fn manifest(&self, set: &str) -> (SealParams, Manifest) {
        let (params, json) = self.manifest_text(set);
        (params, Manifest::parse(&json).unwrap())
    }

    /// The text of the manifest of `set`.
    pub(crate) fn manifest_text(&self, set: &str) -> (SealParams, Vec<u8>) {
        let bytes = std::fs::read(self.path(set).join(MANIFEST_NAME)).unwrap();
        let file = Opened::read(bytes, &self.root);
        let payload = file.open(BlockKind::Data, None);
        (file.sealed.header.params, payload)
    }

    /// Seals `json` as the manifest of `set`.
    pub(crate) fn install_manifest(&self, set: &str, params: SealParams, json: &[u8]) {
        let params = SealParams { file_id: FileId([0x44; 16]), ..params };
        std::fs::write(self.path(set).join(MANIFEST_NAME), seal(&params, &self.root, json)).unwrap();
    }

    /// Reads all there is in `set` by the store and by verification. `Ok` only when every byte is what was written.
    pub(crate) fn read(&self, set: &str) -> Result<()> {
        let l1_bytes = 16 * u64::from(BLOCK);
        let io = ServiceConfig { fast_depth: 2, slow_depth: 2, ..ServiceConfig::default() };
        let config =
            StoreConfig { l1_bytes, block_bytes: BLOCK, codec_threads: 1, io, ..StoreConfig::default() };
        let store = Store::open(config, Arc::<RootKey>::clone(&self.root))?;
        let path = self.path(set);
        let opened = store.open_data_set(path.to_str().unwrap())?;
        for (shard, info) in opened.shards.iter().enumerate() {
            for section in 1..24 {
                store.section(&opened, shard, SectionType(section))?;
            }
            let mut piece = [0; 777];
            for start in (0..info.payload_bytes).step_by(piece.len()).take(100) {
                let len = to_u64(piece.len()).min(info.payload_bytes - start);
                let to = &mut piece[..to_usize(len)];
                store.read(&opened, &mut [RangeRead { shard, range: start..start + len, to: &mut *to }])?;
                let expected = self.payloads[shard].get(to_usize(start)..to_usize(start + len));
                assert!(expected == Some(&*to), "other bytes than were written, at {start} of shard {shard}");
            }
        }
        drop(store);
        let report = verify(&Self::context(), &*self.root, &path, 1, &VerifyProgress::default())?;
        report.errors.into_iter().next().map_or(Ok(()), Err)
    }

    /// As [`Forge::read`], for a file of one who has the key: it may open or be refused, for a reason that is not a
    /// lack of memory. Returns whether it opened.
    pub(crate) fn survives(&self, set: &str, what: &str) -> bool {
        let outcome = self.read(set);
        allocations::check(what);
        match outcome {
            Ok(()) => true,
            Err(error) => {
                let kind = error.kind();
                let expected =
                    [ErrorKind::Corrupt, ErrorKind::Unsupported, ErrorKind::Misuse, ErrorKind::Missing];
                assert!(expected.contains(&kind), "{what}: {error}");
                false
            }
        }
    }
}

/// A copy of every file of the directory `from`.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A sealed file in memory, with its keys.
pub(crate) struct Opened {
    pub(crate) bytes: Vec<u8>,
    pub(crate) sealed: SealedHeader,
}

impl Opened {
    pub(crate) fn read(bytes: Vec<u8>, root: &RootKey) -> Self {
        let header: &[u8; HEADER_BYTES] = bytes[..HEADER_BYTES].try_into().unwrap();
        let sealed = open_header(header, root).unwrap();
        Self { bytes, sealed }
    }

    pub(crate) fn codec(&self, dictionary: Option<&[u8]>) -> BlockCodec {
        let codec = BlockCodec::new(Arc::clone(&self.sealed.keys), &self.sealed.header.params);
        match dictionary {
            Some(bytes) => codec.with_dictionary(Arc::new(Dictionary::for_opening(bytes).unwrap())),
            None => codec,
        }
    }

    /// The index, or the payload of a file without compression.
    pub(crate) fn open(&self, kind: BlockKind, dictionary: Option<&[u8]>) -> Vec<u8> {
        let header = &self.sealed.header;
        let (total, mut at) = match kind {
            BlockKind::Data => (header.payload_bytes, HEADER_BYTES),
            BlockKind::Index => (header.index_bytes, to_usize(header.index_offset)),
        };
        let mut scratch = Scratch::new().unwrap();
        let mut all = Vec::new();
        for number in 0..total.div_ceil(capacity(header.params.block_bytes)) {
            let len = tierstream_storage::format::plain_bytes(total, header.params.block_bytes, number);
            let stored = to_usize(tierstream_storage::format::stored_bytes(len));
            let mut plain = vec![0; header.block_slot_bytes()];
            let block = &self.bytes[at..at + stored];
            let codec = self.codec(dictionary);
            codec.open(kind, number, to_usize(len), block, &mut plain, &mut scratch).unwrap();
            all.extend_from_slice(&plain[..to_usize(len)]);
            at += stored;
        }
        all
    }

    /// The file with another index, properly sealed.
    pub(crate) fn with_index(&self, index: &[u8]) -> Vec<u8> {
        let mut header = self.sealed.header.clone();
        header.index_bytes = to_u64(index.len());
        let mut bytes = self.bytes[..to_usize(header.index_offset)].to_vec();
        append_blocks(&mut bytes, &self.codec(None), &header.params, BlockKind::Index, index);
        let head = header.encode(|maced| self.sealed.keys.mac(maced));
        bytes[..HEADER_BYTES].copy_from_slice(&head[..]);
        bytes
    }

    /// The file with another header, wrapped, committed to and authenticated as its writer would. `None` when nobody
    /// could: when no cipher has that number.
    pub(crate) fn with_header(&self, change: impl FnOnce(&mut [u8]), root: &RootKey) -> Option<Vec<u8>> {
        let mut bytes = self.bytes.clone();
        let head: &mut [u8; HEADER_BYTES] = (&mut bytes[..HEADER_BYTES]).try_into().unwrap();
        let before = *head;
        change(&mut head[..2016]);
        if before[..PROLOGUE_BYTES] != head[..PROLOGUE_BYTES] {
            let cipher = Cipher::from_id(head[13])?;
            let old = self.sealed.header.params.prologue(self.sealed.header.minor);
            let key = match cipher == self.sealed.header.params.cipher {
                true => root.unwrap(&self.sealed.header.wraps[0], &old).unwrap(),
                false => DataKey::random(cipher).unwrap(),
            };
            let prologue: [u8; PROLOGUE_BYTES] = head[..PROLOGUE_BYTES].try_into().unwrap();
            put_wrap(head, 0, Some(&root.wrap(&key, &prologue).unwrap()));
            let keys = FileKeys::derive(&key, &prologue[16..32], &prologue);
            head[128..160].copy_from_slice(keys.commitment());
            let mac = keys.mac(&head[..2016]);
            head[2016..2048].copy_from_slice(&mac);
        } else {
            let mac = self.sealed.keys.mac(&head[..2016]);
            head[2016..2048].copy_from_slice(&mac);
        }
        Some(bytes)
    }
}

fn append_blocks(
    bytes: &mut Vec<u8>,
    codec: &BlockCodec,
    params: &SealParams,
    kind: BlockKind,
    plain: &[u8],
) {
    let mut scratch = Scratch::new().unwrap();
    for (number, piece) in (0..).zip(plain.chunks(to_usize(capacity(params.block_bytes)))) {
        let mut block = vec![0; to_usize(u64::from(params.block_bytes))];
        block[..piece.len()].copy_from_slice(piece);
        let stored = codec.seal(kind, number, piece.len(), &mut block, &mut scratch);
        bytes.extend_from_slice(&block[..stored]);
    }
}

/// Seals `payload` as a whole file without an index or compression.
fn seal(params: &SealParams, root: &RootKey, payload: &[u8]) -> Vec<u8> {
    assert!(params.kind == Kind::Manifest && !params.compressed);
    let sealer = seal_header(params, root).unwrap();
    let codec = BlockCodec::new(Arc::clone(sealer.keys()), params);
    let mut bytes = vec![0; HEADER_BYTES];
    append_blocks(&mut bytes, &codec, params, BlockKind::Data, payload);
    let payload_bytes = to_u64(payload.len());
    let index_offset = to_u64(HEADER_BYTES) + raw_stored_bytes(payload_bytes, params.block_bytes);
    let sizes = FinalSizes { payload_bytes, record_count: 14, index_offset, index_bytes: 0 };
    bytes[..HEADER_BYTES].copy_from_slice(&sealer.header(sizes).1[..]);
    bytes
}

/// The error of an attack that must be found.
pub(crate) fn found(outcome: Result<()>, what: &str) -> Error {
    let error = outcome.expect_err(what);
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
    error
}
