// GHASH (SP 800-38D) without a carry-less multiplier: products of integers whose bits stand four apart.
//
// An operand is cut into four, each with every fourth bit. In the product of two such parts a bit's count of ones (at most
// 8) has four bits of room, and its lowest bit is what a carry-less product has there. Counts of 8 and 7 still fit one
// room: so some pairs of products are added in the multiplier itself. Two levels of Karatsuba make nine products of 32
// bits from one of 128. Products are summed before they are reduced. All of it takes the same time for all values.
//
// A value is four words, lowest first, of the block as a big-endian number.

#define LANE0 0x11111111u
#define LANE1 0x22222222u
#define LANE2 0x44444444u
#define LANE3 0x88888888u
#define WIDE(lane) ((u64(lane) << 32) | lane)

// Unreduced products: for each of nine operands the four lanes.
struct Sum {
  u64 lane[36];
};

__device__ __forceinline__ u64 wide_product(u32 a, u32 b) { return u64(a) * b; }

__device__ __forceinline__ void clear(Sum &sum) {
#pragma unroll
  for (u32 i = 0; i < 36; i++) sum.lane[i] = 0;
}

// Adds the products of word `x` with the lanes `y` of another.
__device__ __forceinline__ void add_word(u64 *lane, u32 x, uint4 y) {
  const u32 x0 = x & LANE0, x1 = x & LANE1, x2 = x & LANE2, x3 = x & LANE3;
  lane[0] ^= (wide_product(x0, y.x) + wide_product(x1, y.w)) ^ wide_product(x2, y.z) ^ wide_product(x3, y.y);
  lane[1] ^= (wide_product(x0, y.y) + wide_product(x2, y.w)) ^ (wide_product(x1, y.x) + wide_product(x3, y.z));
  lane[2] ^= (wide_product(x0, y.z) + wide_product(x3, y.w)) ^ wide_product(x1, y.y) ^ wide_product(x2, y.x);
  lane[3] ^= wide_product(x0, y.w) ^ wide_product(x1, y.z) ^ wide_product(x2, y.y) ^ wide_product(x3, y.x);
}

__device__ __forceinline__ void karatsuba(const u32 x[4], u32 operand[9]) {
  operand[0] = x[0];
  operand[1] = x[1];
  operand[2] = x[2];
  operand[3] = x[3];
  operand[4] = x[0] ^ x[1];
  operand[5] = x[2] ^ x[3];
  operand[6] = x[0] ^ x[2];
  operand[7] = x[1] ^ x[3];
  operand[8] = operand[6] ^ operand[7];
}

// Adds `x` times a power of the key, whose nine operands are given by lanes.
__device__ __forceinline__ void add_product(Sum &sum, const u32 x[4], const uint4 *power) {
  u32 operand[9];
  karatsuba(x, operand);
#pragma unroll
  for (u32 i = 0; i < 9; i++) add_word(sum.lane + 4 * i, operand[i], power[i]);
}

__device__ __forceinline__ u64 joined(const u64 *lane) {
  return (lane[0] & WIDE(LANE0)) | (lane[1] & WIDE(LANE1)) | (lane[2] & WIDE(LANE2)) | (lane[3] & WIDE(LANE3));
}

// The sum modulo GCM's polynomial.
__device__ __forceinline__ void reduce(const Sum &sum, u32 y[4]) {
  u64 p[9];
#pragma unroll
  for (u32 i = 0; i < 9; i++) p[i] = joined(sum.lane + 4 * i);
  const u64 in_low = p[4] ^ p[0] ^ p[1], in_high = p[5] ^ p[2] ^ p[3], in_middle = p[8] ^ p[6] ^ p[7];
  const u64 low0 = p[0] ^ in_low << 32, low1 = p[1] ^ in_low >> 32;
  const u64 high0 = p[2] ^ in_high << 32, high1 = p[3] ^ in_high >> 32;
  const u64 middle0 = p[6] ^ in_middle << 32 ^ low0 ^ high0, middle1 = p[7] ^ in_middle >> 32 ^ low1 ^ high1;
  const u64 raw0 = low0, raw1 = low1 ^ middle0, raw2 = high0 ^ middle1, raw3 = high1;
  // Bits are reflected: the product of two 128-bit values is one place short.
  u64 t0 = raw0 << 1, t1 = raw1 << 1 | raw0 >> 63, t2 = raw2 << 1 | raw1 >> 63, t3 = raw3 << 1 | raw2 >> 63;
  t2 ^= t0 ^ t0 >> 1 ^ t0 >> 2 ^ t0 >> 7;
  t1 ^= t0 << 63 ^ t0 << 62 ^ t0 << 57;
  t3 ^= t1 ^ t1 >> 1 ^ t1 >> 2 ^ t1 >> 7;
  t2 ^= t1 << 63 ^ t1 << 62 ^ t1 << 57;
  y[0] = u32(t2);
  y[1] = u32(t2 >> 32);
  y[2] = u32(t3);
  y[3] = u32(t3 >> 32);
}

// `x` times `y`, modulo GCM's polynomial, into `x`.
__device__ __forceinline__ void multiply(u32 x[4], const u32 y[4]) {
  u32 a[9], b[9];
  karatsuba(x, a);
  karatsuba(y, b);
  Sum sum;
  clear(sum);
#pragma unroll
  for (u32 i = 0; i < 9; i++) {
    add_word(sum.lane + 4 * i, a[i], make_uint4(b[i] & LANE0, b[i] & LANE1, b[i] & LANE2, b[i] & LANE3));
  }
  reduce(sum, x);
}

// A block of memory as a value.
__device__ __forceinline__ void value_of(uint4 block, u32 x[4]) {
  x[3] = swap_bytes(block.x);
  x[2] = swap_bytes(block.y);
  x[1] = swap_bytes(block.z);
  x[0] = swap_bytes(block.w);
}
