//! Blocks with every byte of their trailer changed, sealed again with the right key; and zstd frames of ill will.

use tierstream_crypto::{Cipher, Nonce};
use tierstream_storage::codec::Scratch;
use tierstream_storage::format::{BlockKind, Coding, FileId, TRAILER_BYTES, Trailer, capacity};
use tierstream_storage::units::to_usize;
use tierstream_storage::{ErrorKind, Result};

use crate::allocations;
use crate::forge::{BLOCK, Forge, Opened, Seal};

/// Seals `body` and `trailer` as they are, whatever they say.
fn sealed(file: &Opened, body: &[u8], trailer: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    let aad = &trailer[..TRAILER_BYTES - 16];
    let cipher = file.sealed.keys.block_cipher();
    let nonce = Nonce::block(0, 1);
    let tag = match file.sealed.header.params.cipher {
        Cipher::AuthOnly => cipher.seal_in_place(&nonce, &[&body, aad].concat(), &mut []),
        _ => cipher.seal_in_place(&nonce, aad, &mut body),
    };
    [&body, aad, &tag].concat()
}

/// Opens `stored` as data block 1, which is full.
fn open(file: &Opened, stored: &[u8]) -> Result<Vec<u8>> {
    let len = to_usize(capacity(BLOCK));
    let mut plain = vec![0xee; to_usize(u64::from(BLOCK))];
    let mut scratch = Scratch::new().unwrap();
    let opened = file.codec(None).open(BlockKind::Data, 1, len, stored, &mut plain, &mut scratch);
    allocations::check("a forged block");
    assert!(plain[len..].iter().all(|byte| *byte == 0xee || *byte == 0), "written beyond the block");
    opened.map(|()| plain[..len].to_vec())
}

fn trailer(file: &Opened, coding: Coding, coded_bytes: u32) -> Trailer {
    Trailer {
        kind: BlockKind::Data,
        coding,
        number: 1,
        file_id: file.sealed.header.params.file_id,
        plain_bytes: u32::try_from(capacity(BLOCK)).unwrap(),
        coded_bytes,
    }
}

fn bytes_of(trailer: &Trailer) -> [u8; TRAILER_BYTES] {
    let mut bytes = [0; TRAILER_BYTES];
    trailer.write(&[0; 16], &mut bytes);
    bytes
}

fn files() -> impl Iterator<Item = (Forge, Opened)> {
    [Cipher::Sm4Gcm, Cipher::AuthOnly].into_iter().map(|cipher| {
        let forge = Forge::new(Seal { cipher, compressed: true });
        let file = Opened::read(std::fs::read(forge.shard("set", 0)).unwrap(), &forge.root);
        (forge, file)
    })
}

#[test]
fn every_byte_of_a_trailer_may_change() {
    for (_forge, file) in files() {
        let len = to_usize(capacity(BLOCK));
        let plain: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let good = bytes_of(&trailer(&file, Coding::Raw, u32::try_from(len).unwrap()));
        assert!(open(&file, &sealed(&file, &plain, &good)).unwrap() == plain);
        for at in 0..TRAILER_BYTES - 16 {
            for value in 0..=255 {
                let mut bad = good;
                bad[at] = value;
                match open(&file, &sealed(&file, &plain, &bad)) {
                    Ok(opened) => assert!(bad == good && opened == plain, "byte {at} is {value}"),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at} is {value}"),
                }
            }
        }
        for extreme in [0, 1, 4032, 8127, 8129, 1 << 24, u32::MAX] {
            let lengths = [
                Trailer { coded_bytes: extreme, ..trailer(&file, Coding::Raw, 8128) },
                Trailer { coded_bytes: extreme, ..trailer(&file, Coding::Zstd, 8128) },
                Trailer { plain_bytes: extreme, ..trailer(&file, Coding::Raw, 8128) },
                Trailer { number: u64::from(extreme) + 2, ..trailer(&file, Coding::Raw, 8128) },
                Trailer { file_id: FileId([1; 16]), ..trailer(&file, Coding::Raw, 8128) },
            ];
            for bad in lengths {
                let error = open(&file, &sealed(&file, &plain, &bytes_of(&bad))).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{bad:?}");
            }
        }
    }
}

/// A frame that says it holds `claimed` bytes and is one block of `len` times the same byte.
fn bomb(claimed: u64, len: u32) -> Vec<u8> {
    let mut frame = 0xfd2f_b528_u32.to_le_bytes().to_vec();
    // Single segment, content size in 8 bytes; then one last block of run-length coding.
    frame.push(0b1110_0000);
    frame.extend_from_slice(&claimed.to_le_bytes());
    frame.extend_from_slice(&((len << 3) | 0b011).to_le_bytes()[..3]);
    frame.push(b'!');
    frame
}

#[test]
fn frames_that_claim_or_give_other_lengths_are_refused() {
    for (_forge, file) in files() {
        let len = capacity(BLOCK);
        let small = u32::try_from(len).unwrap();
        let open_frame = |frame: &[u8]| {
            let coded = u32::try_from(frame.len()).unwrap();
            let mut body = vec![0; 4096 - TRAILER_BYTES];
            body[..frame.len()].copy_from_slice(frame);
            open(&file, &sealed(&file, &body, &bytes_of(&trailer(&file, Coding::Zstd, coded))))
                .map(|plain| assert!(plain.iter().all(|byte| *byte == b'!')))
        };
        open_frame(&bomb(len, small)).unwrap();
        // All ones mean that the frame does not say, which it need not.
        open_frame(&bomb(u64::MAX, small)).unwrap();
        let claims = [(1 << 62, small), (1 << 40, small), (len + 1, small + 1), (len - 1, small - 1), (0, 0)];
        for (claimed, gives) in claims.into_iter().chain([(len, small - 1), (len, small + 1), (len, 100_000)])
        {
            assert_eq!(
                open_frame(&bomb(claimed, gives)).unwrap_err().kind(),
                ErrorKind::Corrupt,
                "{claimed}"
            );
        }
        // Many small frames in one body that give too much together, and noise.
        let many = bomb(len, small).repeat(200);
        assert_eq!(open_frame(&many).unwrap_err().kind(), ErrorKind::Corrupt);
        for start in 0..64 {
            let noise: Vec<u8> = (0..3000_u32).map(|at| (at * 7 + start).to_le_bytes()[0]).collect();
            assert_eq!(open_frame(&noise).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
}
