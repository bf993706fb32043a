// What all kernels here share. The files of this directory are joined into one source that NVRTC compiles for a GPU;
// with tests/host/shim.h before it, any C++ compiler makes host code of the same source, for tests on machines without one.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

__device__ __forceinline__ u32 rotate_right(u32 x, u32 by) { return x >> by | x << (32 - by); }

__device__ __forceinline__ u32 swap_bytes(u32 x) { return __byte_perm(x, 0, 0x0123); }

__device__ __forceinline__ uint4 zero16() { return make_uint4(0, 0, 0, 0); }

__device__ __forceinline__ uint4 xor16(uint4 a, uint4 b) {
  return make_uint4(a.x ^ b.x, a.y ^ b.y, a.z ^ b.z, a.w ^ b.w);
}

// The first `count` bytes at `from`, at most 16, then zeros.
__device__ __forceinline__ uint4 read_some(const u8 *from, u32 count) {
  u64 low = 0, high = 0;
#pragma unroll 1
  for (u32 i = 0; i < count; i++) {
    const u64 byte = u64(from[i]) << i % 8 * 8;
    low |= i < 8 ? byte : 0;
    high |= i < 8 ? 0 : byte;
  }
  return make_uint4(u32(low), u32(low >> 32), u32(high), u32(high >> 32));
}

__device__ __forceinline__ void write_some(u8 *to, u32 count, uint4 value) {
  const u64 low = u64(value.y) << 32 | value.x, high = u64(value.w) << 32 | value.z;
#pragma unroll 1
  for (u32 i = 0; i < count; i++) to[i] = u8((i < 8 ? low : high) >> i % 8 * 8);
}
