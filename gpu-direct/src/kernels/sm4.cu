// SM4 in counter mode, eight blocks to a thread, bit-sliced in bytes.
//
// A register holds one bit of one 32-bit word of eight blocks: byte `j` of it belongs to byte `j` of the word (in the order
// of memory), and bit `i` of that byte to block `i`. So one run of the circuit does the four S-boxes of eight blocks; the
// rotations by 8, 16 and 24 turn a register by bytes; the state takes 32 registers, a quarter of what one bit to a
// register would. No branch and no address depends on key or data.

// Bit `b` of byte `j` of word `i` becomes bit `i` of byte `j` of word `b`. Its own inverse.
__device__ __forceinline__ void transpose_bits(u32 x[8]) {
#pragma unroll
  for (u32 side = 1; side < 8; side *= 2) {
    const u32 mask = side == 1 ? 0x55555555 : side == 2 ? 0x33333333 : 0x0f0f0f0f;
#pragma unroll
    for (u32 i = 0; i < 8; i++) {
      if (i & side) continue;
      const u32 change = (x[i] >> side ^ x[i + side]) & mask;
      x[i + side] ^= change;
      x[i] ^= change << side;
    }
  }
}

// One round: `a` becomes the new word. `key` has the eight planes of the round key.
__device__ __forceinline__ void sm4_round(u32 a[8], const u32 b[8], const u32 c[8], const u32 d[8], const uint4 *key) {
  const uint4 low = key[0], high = key[1];
  const u32 k[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
  u32 s[8];
#pragma unroll
  for (u32 bit = 0; bit < 8; bit++) s[bit] = b[bit] ^ c[bit] ^ d[bit] ^ k[bit];
  sbox(s);
  // s + (s <<< 2) + (s <<< 10) + (s <<< 18) + (s <<< 24), where turning the word by 8 moves each byte to the one before.
#pragma unroll
  for (u32 bit = 0; bit < 8; bit++) {
    const u32 from = s[(bit + 6) % 8];
    const u32 by2 = bit < 2 ? rotate_right(from, 24) : from;
    a[bit] ^= s[bit] ^ rotate_right(s[bit], 24) ^ by2 ^ rotate_right(from, 8) ^ rotate_right(from, 16);
  }
}

// The planes of a word that is the same in all blocks.
__device__ __forceinline__ void spread_word(u32 word, u32 planes[8]) {
#pragma unroll
  for (u32 bit = 0; bit < 8; bit++) planes[bit] = (word >> bit & 0x01010101) * 0xff;
}

// The key stream of the counter blocks `nonce` + `counter` + 0, 32, 64, ... 224, as words `stream[word][block]` in the
// order of memory. `keys` has the planes of the 32 round keys.
__device__ __forceinline__ void sm4_key_stream(const uint4 *keys, const u32 nonce[3], u32 counter, u32 stream[4][8]) {
  u32 a[8], b[8], c[8], d[8];
  spread_word(nonce[0], a);
  spread_word(nonce[1], b);
  spread_word(nonce[2], c);
#pragma unroll
  for (u32 block = 0; block < 8; block++) d[block] = swap_bytes(counter + 32 * block);
  transpose_bits(d);
#pragma unroll 1
  for (u32 round = 0; round < 32; round += 4) {
    sm4_round(a, b, c, d, keys + 2 * round);
    sm4_round(b, c, d, a, keys + 2 * round + 2);
    sm4_round(c, d, a, b, keys + 2 * round + 4);
    sm4_round(d, a, b, c, keys + 2 * round + 6);
  }
  // The standard's last step takes the words in reverse.
#pragma unroll
  for (u32 bit = 0; bit < 8; bit++) {
    stream[0][bit] = d[bit];
    stream[1][bit] = c[bit];
    stream[2][bit] = b[bit];
    stream[3][bit] = a[bit];
  }
#pragma unroll
  for (u32 word = 0; word < 4; word++) transpose_bits(stream[word]);
}
