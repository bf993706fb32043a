// Opens sealed messages: SM4-GCM decryption of many at once, verified on the device.
//
// A message is counted in 16-byte slots: the AAD's (one empty slot where there is none), then the ciphertext's. Slots are
// cut into segments of 4096 from the end, so that the powers of the hash key that a place needs are the same for all
// messages; what a first segment lacks are empty slots at its start, which a hash does not notice. The slot before the
// ciphertext is where the counter is 1: its key stream masks the tag.
//
//   slots   | empty ... | AAD | ciphertext ...                        |
//   segment |     0           |     1           | ...  |  segments - 1 |     one for a thread block of 4 warps
//   warp    a quarter of a segment: 4 tiles of 256 slots
//   thread  in each tile 8 slots, 32 apart, so that neighbours read neighbouring memory
//
// A thread hashes its slots by Horner's rule in steps of 32, eight products to one reduction, then decrypts them. The last
// segment of a message to end compares the tag, and overwrites the plaintext with zeros if it is wrong. Until a message's
// state says `OPENED` nothing may use what lies at its destination.

#define WARPS 4
#define TILES 4
#define TILE_SLOTS 256
#define WARP_SLOTS (TILES * TILE_SLOTS)
#define SEGMENT_SLOTS (WARPS * WARP_SLOTS)
#define THREADS (32 * WARPS)
#define SEGMENTS_MAX 256

#define OPENED 1
#define REFUSED 2

// What a key becomes on the host (src/cipher/key_table.rs).
struct __align__(16) KeyTable {
  uint4 rounds[64];               // planes of the 32 round keys, with the constants of the S-boxes
  uint4 steps[8][9];              // lanes of the operands of H^256, H^224, ... H^32
  uint4 ends[THREADS];            // H^(1024 (3 - warp) + 32 - lane), lowest word first
  uint4 hash;                     // H
  uint4 segments[SEGMENTS_MAX];   // H^(4096 n)
};

// One message (src/cipher/message.rs).
struct __align__(16) Message {
  u64 sealed;   // where the ciphertext is, as an offset from `base`, 16-byte aligned
  u64 plain;    // where the plaintext goes, likewise; may be the same
  u64 aad;      // where the AAD is, likewise, with zeros to a multiple of 16 bytes
  u32 bytes;
  u32 aad_bytes;
  u32 nonce[3]; // in the order of memory
  u32 key;      // number of its key table
  uint4 tag;
};

// Zero before the launch.
struct __align__(16) State {
  u32 hash[4];
  uint4 mask;   // encryption of the counter block 1
  u32 ended;    // segments
  u32 outcome;
  u32 unused[2];
};

__device__ __forceinline__ u32 slots_before(const Message &message) {
  const u32 aad = (message.aad_bytes + 15) / 16;
  return aad == 0 ? 1 : aad;
}

// Where a message's slots are in memory. Only its last slot can be short, and that is the last one of a thread's tile.
struct Slots {
  const uint4 *aad;
  const uint4 *sealed; // slot 0 of the ciphertext
  uint4 *plain;
  int before;          // slots before the ciphertext
  bool no_aad;
  int short_slot;      // the slot of the ciphertext that is shorter than 16 bytes, or -1
  u32 short_bytes;
};

__device__ __forceinline__ Slots slots_of(u8 *base, const Message &message) {
  const u32 rest = message.bytes % 16;
  return Slots{reinterpret_cast<const uint4 *>(base + message.aad),
               reinterpret_cast<const uint4 *>(base + message.sealed),
               reinterpret_cast<uint4 *>(base + message.plain),
               int(slots_before(message)),
               message.aad_bytes == 0,
               rest == 0 ? -1 : int(message.bytes / 16),
               rest};
}

__device__ __forceinline__ uint4 sealed_slot(const Slots &slots, int number) {
  if (number == slots.short_slot) return read_some(reinterpret_cast<const u8 *>(slots.sealed + number), slots.short_bytes);
  return slots.sealed[number];
}

__device__ __forceinline__ uint4 hashed_slot(const Slots &slots, int slot) {
  if (slot >= slots.before) return sealed_slot(slots, slot - slots.before);
  if (slot < 0 || slots.no_aad) return zero16();
  return slots.aad[slot];
}

// Hashes the 8 slots from `slot` on of this thread into `y`.
__device__ __forceinline__ void hash_tile(const Slots &slots, int slot, const uint4 *steps, u32 y[4]) {
  Sum sum;
  clear(sum);
  u32 x[4] = {y[0], y[1], y[2], y[3]};
  // Each slot is asked for one step before it is needed: the products hide how long it takes.
#pragma unroll 1
  for (u32 i = 0; i < 8; i++) {
    const uint4 block = hashed_slot(slots, slot + 32 * int(i));
    add_product(sum, x, steps + 9 * i);
    value_of(block, x);
  }
  reduce(sum, y);
#pragma unroll
  for (u32 i = 0; i < 4; i++) y[i] ^= x[i];
}

// Decrypts the same 8 slots.
__device__ __forceinline__ void decrypt_tile(const Slots &slots, const Message &message, int slot, const uint4 *rounds,
                                             State &state) {
  u32 stream[4][8];
  const u32 nonce[3] = {message.nonce[0], message.nonce[1], message.nonce[2]};
  const int first = slot - slots.before;
  sm4_key_stream(rounds, nonce, u32(first) + 2, stream);
#pragma unroll
  for (u32 i = 0; i < 8; i++) {
    const int number = first + 32 * int(i);
    const uint4 key = make_uint4(stream[0][i], stream[1][i], stream[2][i], stream[3][i]);
    if (number == -1) state.mask = key;
    if (number < 0) continue;
    if (i == 7 && number == slots.short_slot) {
      write_some(reinterpret_cast<u8 *>(slots.plain + number), slots.short_bytes, xor16(sealed_slot(slots, number), key));
    } else {
      slots.plain[number] = xor16(slots.sealed[number], key);
    }
  }
}

// Whether the hash of all segments makes the tag.
__device__ __forceinline__ bool is_tag_right(const Message &message, const State &state, uint4 hash_key) {
  const volatile State &seen = state;
  const u64 aad_bits = u64(message.aad_bytes) * 8, bits = u64(message.bytes) * 8;
  u32 y[4] = {seen.hash[0] ^ u32(bits), seen.hash[1] ^ u32(bits >> 32), seen.hash[2] ^ u32(aad_bits),
              seen.hash[3] ^ u32(aad_bits >> 32)};
  const u32 h[4] = {hash_key.x, hash_key.y, hash_key.z, hash_key.w};
  multiply(y, h);
  const u32 wrong = (swap_bytes(y[3]) ^ seen.mask.x ^ message.tag.x) | (swap_bytes(y[2]) ^ seen.mask.y ^ message.tag.y) |
                    (swap_bytes(y[1]) ^ seen.mask.z ^ message.tag.z) | (swap_bytes(y[0]) ^ seen.mask.w ^ message.tag.w);
  return wrong == 0;
}

// `base` is what the messages' offsets count from. `work` names the message and the segment of each item; thread blocks take items in turn, so that any number of them
// does all the work.
extern "C" __global__ void __launch_bounds__(THREADS, 4)
    sm4_gcm_open(u8 *base, const KeyTable *keys, const Message *messages, const uint2 *work, u32 items, State *states) {
  __shared__ uint4 rounds[64];
  __shared__ uint4 steps[72];
  __shared__ u32 hashes[WARPS][4];
  __shared__ u32 refused;
  const u32 thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  for (u32 item = blockIdx.x; item < items; item += gridDim.x) {
    const uint2 place = work[item];
    const Message &message = messages[place.x];
    State &state = states[place.x];
    const KeyTable &key = keys[message.key];
    for (u32 i = thread; i < 64; i += THREADS) rounds[i] = key.rounds[i];
    for (u32 i = thread; i < 72; i += THREADS) steps[i] = key.steps[i / 9][i % 9];
    if (thread == 0) refused = 0;
    __syncthreads();

    const Slots slots = slots_of(base, message);
    const int count = slots.before + int((message.bytes + 15) / 16);
    const u32 segments = u32(count + SEGMENT_SLOTS - 1) / SEGMENT_SLOTS;
    const u32 after = segments - 1 - place.y;
    const int start = count - int((after + 1) * SEGMENT_SLOTS) + int(warp * WARP_SLOTS);
    u32 y[4] = {0, 0, 0, 0};
#pragma unroll 1
    for (int tile = 0; tile < TILES; tile++) {
      const int first = start + tile * TILE_SLOTS;
      // Nothing but empty slots; the one for the mask is never among them.
      if (first + TILE_SLOTS <= 0) continue;
      hash_tile(slots, first + int(lane), steps, y);
      decrypt_tile(slots, message, first + int(lane), rounds, state);
    }
    const uint4 end = key.ends[thread];
    const u32 power[4] = {end.x, end.y, end.z, end.w};
    multiply(y, power);
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
#pragma unroll
      for (u32 other = 16; other > 0; other /= 2) y[i] ^= __shfl_xor_sync(0xffffffffu, y[i], int(other));
      if (lane == 0) hashes[warp][i] = y[i];
    }
    // What this thread wrote is seen before the segment counts as ended.
    __threadfence();
    __syncthreads();
    if (thread == 0) {
      u32 sum[4];
#pragma unroll
      for (u32 i = 0; i < 4; i++) sum[i] = hashes[0][i] ^ hashes[1][i] ^ hashes[2][i] ^ hashes[3][i];
      if (after > 0) {
        const uint4 later = key.segments[after];
        const u32 factor[4] = {later.x, later.y, later.z, later.w};
        multiply(sum, factor);
      }
#pragma unroll
      for (u32 i = 0; i < 4; i++) atomicXor(&state.hash[i], sum[i]);
      __threadfence();
      if (atomicAdd(&state.ended, 1u) == segments - 1) {
        __threadfence();
        const bool right = is_tag_right(message, state, key.hash);
        state.outcome = right ? OPENED : REFUSED;
        refused = !right;
      }
    }
    __syncthreads();
    if (refused) {
      for (u32 i = thread; i < message.bytes / 16; i += THREADS) slots.plain[i] = zero16();
      if (thread == 0) {
        write_some(reinterpret_cast<u8 *>(slots.plain + message.bytes / 16), message.bytes % 16, zero16());
      }
    }
    // Shared memory is written anew for the next item.
    __syncthreads();
  }
}
