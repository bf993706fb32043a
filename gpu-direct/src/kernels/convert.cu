// What is done to a batch on the device before it is used: pixels to normalised floating point, tokens to wider integers.
// Each element is read once and written once.

__device__ __forceinline__ u32 bits_of(float x) { return __float_as_uint(x); }

// Rounded to nearest, ties to even.
__device__ __forceinline__ u16 to_bf16(float x) {
  const u32 bits = bits_of(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return u16(bits >> 16 | 0x40);
  return u16((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Rounded to nearest, ties to even; beyond the range it is infinite, below it subnormal.
__device__ __forceinline__ u16 to_fp16(float x) {
  const u32 bits = bits_of(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return u16(sign | 0x7e00);
  // From 65520 on, what rounds is no longer finite.
  if (magnitude >= 0x477ff000) return u16(sign | 0x7c00);
  if (magnitude >= 0x38800000) {
    const u32 rebased = magnitude - 0x38000000;
    return u16(sign | (rebased + 0xfff + (rebased >> 13 & 1)) >> 13);
  }
  // Half of the smallest subnormal rounds to zero, being even.
  if (magnitude <= 0x33000000) return u16(sign);
  const u32 shift = 126 - (magnitude >> 23), mantissa = (magnitude & 0x7fffff) | 0x800000;
  const u32 kept = mantissa >> shift, rest = mantissa & ((1u << shift) - 1), half = 1u << (shift - 1);
  return u16(sign | (kept + (rest > half || (rest == half && (kept & 1)))));
}

#define BF16 0
#define FP16 1
#define FP32 2

// `to[i] = from[i] * scale[channel] + shift[channel]` for `count` bytes, where the channel of element `i` is
// `i / inner % channels`: inner is 1 where channels come last, else the elements of one plane.
extern "C" __global__ void normalize_u8(const u8 *from, u8 *to, u64 count, const float *scale, const float *shift,
                                        u32 channels, u32 inner, u32 format) {
  const u64 stride = u64(gridDim.x) * blockDim.x * 4;
  for (u64 at = (u64(blockIdx.x) * blockDim.x + threadIdx.x) * 4; at < count; at += stride) {
    const u32 some = count - at < 4 ? u32(count - at) : 4;
    u32 pixels = 0;
    if (some == 4) {
      pixels = *reinterpret_cast<const u32 *>(from + at);
    } else {
      for (u32 i = 0; i < some; i++) pixels |= u32(from[at + i]) << 8 * i;
    }
    float values[4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      // A batch has fewer than 2^32 elements.
      const u32 channel = (u32(at) + i) / inner % channels;
      values[i] = __fmaf_rn(float(pixels >> 8 * i & 0xff), scale[channel], shift[channel]);
    }
    if (format == FP32) {
      for (u32 i = 0; i < some; i++) reinterpret_cast<float *>(to)[at + i] = values[i];
      continue;
    }
    u16 halves[4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) halves[i] = format == BF16 ? to_bf16(values[i]) : to_fp16(values[i]);
    if (some == 4) {
      reinterpret_cast<uint2 *>(to)[at / 4] =
          make_uint2(halves[0] | u32(halves[1]) << 16, halves[2] | u32(halves[3]) << 16);
    } else {
      for (u32 i = 0; i < some; i++) reinterpret_cast<u16 *>(to)[at + i] = halves[i];
    }
  }
}

// Unsigned 16-bit elements to 32 bits (`wide` 0) or 64 (`wide` 1).
extern "C" __global__ void widen_u16(const u16 *from, u8 *to, u64 count, u32 wide) {
  const u64 stride = u64(gridDim.x) * blockDim.x * 2;
  for (u64 at = (u64(blockIdx.x) * blockDim.x + threadIdx.x) * 2; at < count; at += stride) {
    const bool both = at + 1 < count;
    const u32 pair = both ? *reinterpret_cast<const u32 *>(from + at) : from[at];
    if (both && !wide) {
      reinterpret_cast<uint2 *>(to)[at / 2] = make_uint2(pair & 0xffff, pair >> 16);
    } else if (both) {
      reinterpret_cast<uint4 *>(to)[at / 2] = make_uint4(pair & 0xffff, 0, pair >> 16, 0);
    } else if (wide) {
      reinterpret_cast<u64 *>(to)[at] = pair;
    } else {
      reinterpret_cast<u32 *>(to)[at] = pair;
    }
  }
}
