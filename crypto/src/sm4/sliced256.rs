//! SM4 in counter mode with a 256-bit vector for each byte position of 32 blocks, for any way to compute S-boxes.
//!
//! The macro [`byte_sliced`] writes the same functions for each set of instructions: a function inlines only what has
//! its own `target_feature`s, so that a generic function would call each S-box through memory. The module that uses
//! it provides `to_state`, `from_state` (the basis of [`super::basis`]) and `images` (of the S-box and the linear
//! layer behind it).
//!
//! Byte positions in vectors of their own make turning a word by 8, 16 and 24 a renaming. Turning by 2 crosses bytes:
//! output byte `j` of the linear layer is `w_j + (w_0 + w_1 + w_2 + w_3)` with `w_j` the sum of one image of S-box
//! `j` and another one of S-box `j + 3`. The state holds each word `x` as `v_j = x_j + (x_0 + x_1 + x_2 + x_3)`, which
//! is its own inverse, so that a round adds to each byte but `w_j`.
//!
//! Guarantees that no branch and no address depends on key or data but their lengths.

use super::basis;

/// Blocks of one group of vectors.
pub(super) const GROUP_BLOCKS: u32 = 32;
/// Bytes of one group.
pub(super) const GROUP_BYTES: usize = 16 * 32;

/// The round keys in the state's basis: each byte four times, since broadcasting 32 bits needs no shuffle.
pub(super) type SlicedKeys = [[u32; 4]; 32];

/// The round keys in the state's basis.
pub(super) fn sliced_keys(words: &[u32; 32]) -> SlicedKeys {
    let byte = |byte| u32::from_le_bytes([basis::apply(basis::TO_STATE, byte) ^ basis::ROUND_KEY; 4]);
    std::array::from_fn(|round| words[round].to_be_bytes().map(byte))
}

/// The functions of a kernel, for the instructions named.
macro_rules! byte_sliced {
    ($features:literal) => {
        /// One word of 32 blocks.
        type Word = [__m256i; 4];

        /// XORs `data` with the key stream from `counter` on.
        #[target_feature(enable = $features)]
        fn ctr(keys: &SlicedKeys, counter: &Block, mut data: InOutBuf<'_, '_, u8>) {
            // Four groups in flight hide the latency of a round, and fewer are enough for a short end.
            let fixed = fixed_words(counter);
            let mut count = u32::from_be_bytes([counter[12], counter[13], counter[14], counter[15]]);
            while !data.is_empty() {
                let groups = data.len().div_ceil(GROUP_BYTES);
                let taken = data.len().min(4 * GROUP_BYTES);
                let (part, rest) = data.split_at(taken);
                match groups {
                    1 => groups_of::<1>(keys, &fixed, count, part),
                    2 => groups_of::<2>(keys, &fixed, count, part),
                    _ => groups_of::<4>(keys, &fixed, count, part),
                }
                count = count.wrapping_add(4 * GROUP_BLOCKS);
                data = rest;
            }
        }

        /// One block, its words in the lowest bytes of a vector each: what does not fill a group and must not wait.
        #[target_feature(enable = $features)]
        fn encrypt_block(keys: &SlicedKeys, block: Block) -> Block {
            let mut bytes = [0; 32];
            bytes[..16].copy_from_slice(&block);
            let all = to_state(load(&bytes));
            let mut x =
                [all, _mm256_srli_si256::<4>(all), _mm256_srli_si256::<8>(all), _mm256_srli_si256::<12>(all)];
            for keys in keys.chunks_exact(4) {
                x[0] = add(x[0], word_round(add(add(x[1], x[2]), x[3]), &keys[0]));
                x[1] = add(x[1], word_round(add(add(x[2], x[3]), x[0]), &keys[1]));
                x[2] = add(x[2], word_round(add(add(x[3], x[0]), x[1]), &keys[2]));
                x[3] = add(x[3], word_round(add(add(x[0], x[1]), x[2]), &keys[3]));
            }
            let ends = [_mm256_unpacklo_epi32(x[3], x[2]), _mm256_unpacklo_epi32(x[1], x[0])];
            store(&mut bytes, from_state(_mm256_unpacklo_epi64(ends[0], ends[1])));
            std::array::from_fn(|i| bytes[i])
        }

        /// What a round adds to its word; `t` is the sum of the other three.
        #[inline]
        #[target_feature(enable = $features)]
        fn word_round(t: __m256i, key: &[u32; 4]) -> __m256i {
            // Byte `j` of the result is byte `j + by` of the word.
            let turn = |x, by: u32| {
                const SAME: u32 = 0x0302_0100;
                _mm256_shuffle_epi8(x, _mm256_set1_epi32(SAME.rotate_right(8 * by).cast_signed()))
            };
            let key = key.map(|byte| byte.to_le_bytes()[0]);
            let (image, carried) = images(add(t, _mm256_set1_epi32(i32::from_le_bytes(key))));
            let w = add(image, turn(carried, 3));
            let pairs = add(w, turn(w, 2));
            add(w, add(pairs, turn(pairs, 1)))
        }

        /// At most `GROUPS` groups, which need not be full.
        #[target_feature(enable = $features)]
        fn groups_of<const GROUPS: usize>(
            keys: &SlicedKeys,
            fixed: &[Word; 3],
            count: u32,
            data: InOutBuf<'_, '_, u8>,
        ) {
            let mut state = [[fixed[0], fixed[1], fixed[2], fixed[2]]; GROUPS];
            for (words, group) in state.iter_mut().zip(0..) {
                words[3] = counter_word(count.wrapping_add(GROUP_BLOCKS * group));
            }
            for keys in keys.chunks_exact(4) {
                two_rounds::<0, GROUPS>(&mut state, &keys[0], &keys[1]);
                two_rounds::<2, GROUPS>(&mut state, &keys[2], &keys[3]);
            }
            let mut data = data;
            for group in &state {
                let taken = data.len().min(GROUP_BYTES);
                let (part, rest) = data.split_at(taken);
                xor(part, &blocks(group));
                data = rest;
            }
        }

        /// Two rounds of each group; `FIRST` is the word that the first one changes.
        #[inline]
        #[target_feature(enable = $features)]
        fn two_rounds<const FIRST: usize, const GROUPS: usize>(
            state: &mut [[Word; 4]; GROUPS],
            first: &[u32; 4],
            second: &[u32; 4],
        ) {
            let [a, b, c, d] = [FIRST, FIRST + 1, (FIRST + 2) % 4, (FIRST + 3) % 4];
            for x in state {
                let shared = add_words(x[c], x[d]);
                x[a] = add_words(x[a], round(add_words(x[b], shared), first));
                x[b] = add_words(x[b], round(add_words(x[a], shared), second));
            }
        }

        /// What a round adds to its word; `t` is the sum of the other three.
        #[inline]
        #[target_feature(enable = $features)]
        fn round(t: Word, key: &[u32; 4]) -> Word {
            let sum = add(add(t[0], t[1]), add(t[2], t[3]));
            let [a, b, c, d] = [
                images(add(keyed(t[0], key[0]), sum)),
                images(add(keyed(t[1], key[1]), sum)),
                images(add(keyed(t[2], key[2]), sum)),
                images(add(keyed(t[3], key[3]), sum)),
            ];
            [add(a.0, d.1), add(b.0, a.1), add(c.0, b.1), add(d.0, c.1)]
        }

        /// From a word's bytes to the state's form and back, basis apart.
        #[inline]
        #[target_feature(enable = $features)]
        fn with_sum(x: Word) -> Word {
            let sum = add(add(x[0], x[1]), add(x[2], x[3]));
            add_words(x, [sum; 4])
        }

        /// The first three words of a counter block, which are the same in all.
        #[target_feature(enable = $features)]
        fn fixed_words(counter: &Block) -> [Word; 3] {
            let mut words = [[_mm256_setzero_si256(); 4]; 3];
            for (word, bytes) in words.iter_mut().zip(counter.chunks_exact(4)) {
                for (vector, byte) in word.iter_mut().zip(bytes) {
                    *vector = to_state(_mm256_set1_epi8(byte.cast_signed()));
                }
                *word = with_sum(*word);
            }
            words
        }

        /// The last word of 32 counter blocks from `count` on. Block `2 k` stands in byte `k` of the low half, block
        /// `2 k + 1` in that of the high half, so that transposing in halves leaves neighbours beside each other.
        #[inline]
        #[target_feature(enable = $features)]
        fn counter_word(count: u32) -> Word {
            const EVEN: i64 = 0x0e0c_0a08_0604_0200;
            const TO_16: i64 = 0x1010_1010_1010_1010;
            const TO_ODD: i64 = 0x0101_0101_0101_0101;
            let numbers = _mm256_setr_epi64x(EVEN, EVEN + TO_16, EVEN + TO_ODD, EVEN + TO_16 + TO_ODD);
            let [first, second, third, fourth] = count.to_be_bytes();
            let zero = _mm256_setzero_si256();
            let start = _mm256_set1_epi8(fourth.cast_signed());
            let fourth = _mm256_add_epi8(start, numbers);
            // Where the last byte wrapped it is less than before; a byte that gains one wraps when it becomes zero.
            let kept = _mm256_cmpeq_epi8(_mm256_max_epu8(fourth, start), fourth);
            let carry = _mm256_xor_si256(kept, _mm256_set1_epi8(-1));
            let third = _mm256_sub_epi8(_mm256_set1_epi8(third.cast_signed()), carry);
            let carry = _mm256_and_si256(carry, _mm256_cmpeq_epi8(third, zero));
            let second = _mm256_sub_epi8(_mm256_set1_epi8(second.cast_signed()), carry);
            let carry = _mm256_and_si256(carry, _mm256_cmpeq_epi8(second, zero));
            let first = _mm256_sub_epi8(_mm256_set1_epi8(first.cast_signed()), carry);
            with_sum([to_state(first), to_state(second), to_state(third), to_state(fourth)])
        }

        /// The blocks of a state, two in each vector: words in reverse, as the last step of SM4 has it.
        #[inline]
        #[target_feature(enable = $features)]
        fn blocks(state: &[Word; 4]) -> [__m256i; 16] {
            let mut rows = [_mm256_setzero_si256(); 16];
            for (bytes, word) in rows.chunks_exact_mut(4).zip(state.iter().rev()) {
                for (row, byte) in bytes.iter_mut().zip(with_sum(*word)) {
                    *row = from_state(byte);
                }
            }
            // Each step turns the number of a byte, row then column, left by one bit; after four they are exchanged.
            for _ in 0..4 {
                let (upper, lower) = rows.split_at(8);
                let mut turned = rows;
                for (pair, (a, b)) in turned.chunks_exact_mut(2).zip(upper.iter().zip(lower)) {
                    pair[0] = _mm256_unpacklo_epi8(*a, *b);
                    pair[1] = _mm256_unpackhi_epi8(*a, *b);
                }
                rows = turned;
            }
            rows
        }

        /// XORs one group, or its beginning, into `data`.
        #[inline]
        #[target_feature(enable = $features)]
        fn xor(data: InOutBuf<'_, '_, u8>, stream: &[__m256i; 16]) {
            if data.len() == GROUP_BYTES {
                let (pairs, _) = data.into_chunks::<U32>();
                for (mut pair, stream) in pairs.into_iter().zip(stream) {
                    let sum = add(load(&pair.get_in().0), *stream);
                    store(&mut pair.get_out().0, sum);
                }
            } else {
                let mut bytes = [[0; 32]; 16];
                for (bytes, stream) in bytes.iter_mut().zip(stream) {
                    store(bytes, *stream);
                }
                let mut data = data;
                let length = data.len();
                data.xor_in2out(&bytes.as_flattened()[..length]);
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn keyed(byte: __m256i, key: u32) -> __m256i {
            add(byte, _mm256_set1_epi32(key.cast_signed()))
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn add_words(a: Word, b: Word) -> Word {
            [add(a[0], b[0]), add(a[1], b[1]), add(a[2], b[2]), add(a[3], b[3])]
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn add(a: __m256i, b: __m256i) -> __m256i {
            _mm256_xor_si256(a, b)
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn load(bytes: &[u8; 32]) -> __m256i {
            // SAFETY: the reference is valid for reading 32 bytes, and the instruction asks for no alignment.
            unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn store(bytes: &mut [u8; 32], vector: __m256i) {
            // SAFETY: the reference is valid for writing 32 bytes, and the instruction asks for no alignment.
            unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), vector) }
        }
    };
}
pub(super) use byte_sliced;
