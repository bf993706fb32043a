// Moves pieces of opened blocks to where a batch wants them, and a kernel that only computes, for measurements.

struct __align__(16) Piece {
  u64 from; // offsets from `base`
  u64 to;
  u64 bytes;
  u64 unused;
};

// A thread block to a piece, in turn. Where both ends have the same alignment, 16 bytes at a time.
extern "C" __global__ void gather(u8 *base, const Piece *pieces, u32 count) {
  for (u32 number = blockIdx.x; number < count; number += gridDim.x) {
    const Piece piece = pieces[number];
    const u8 *from = base + piece.from;
    u8 *to = base + piece.to;
    u64 head = (16 - piece.to % 16) % 16, body = 0;
    if (piece.from % 16 != piece.to % 16 || head > piece.bytes) head = piece.bytes;
    if (head < piece.bytes) body = (piece.bytes - head) / 16;
    for (u64 i = threadIdx.x; i < head; i += blockDim.x) to[i] = from[i];
    const uint4 *wide_from = reinterpret_cast<const uint4 *>(from + head);
    uint4 *wide_to = reinterpret_cast<uint4 *>(to + head);
    for (u64 i = threadIdx.x; i < body; i += blockDim.x) wide_to[i] = wide_from[i];
    for (u64 i = head + body * 16 + threadIdx.x; i < piece.bytes; i += blockDim.x) to[i] = from[i];
  }
}

// `rounds` dependent multiply-adds in each thread: stands for a training step.
extern "C" __global__ void compute(float *out, u64 rounds) {
  float x = float(threadIdx.x), y = 1.0f;
  for (u64 i = 0; i < rounds; i++) {
    x = __fmaf_rn(x, 0.999f, y);
    y = __fmaf_rn(y, 0.998f, x);
  }
  if (x == 12345.0f) out[0] = y;
}
