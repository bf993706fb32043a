// CUDA on the host, for tests: each thread of a thread block is a fiber, so that barriers and shuffles work as written.
// Thread blocks run one after the other. Warps are 32 fibers that meet at each shuffle.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <ucontext.h>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

struct alignas(16) uint4 { unsigned int x, y, z, w; };
struct alignas(8) uint2 { unsigned int x, y; };
struct Index { unsigned int x; };
static inline uint4 make_uint4(unsigned int x, unsigned int y, unsigned int z, unsigned int w) { return {x, y, z, w}; }
static inline uint2 make_uint2(unsigned int x, unsigned int y) { return {x, y}; }

static Index threadIdx, blockIdx, blockDim, gridDim;

static inline unsigned int __byte_perm(unsigned int x, unsigned int y, unsigned int selector) {
  const std::uint64_t bytes = std::uint64_t(y) << 32 | x;
  unsigned int result = 0;
  for (int i = 0; i < 4; i++) result |= (unsigned int)(bytes >> (selector >> 4 * i & 7) * 8 & 0xff) << 8 * i;
  return result;
}
static inline unsigned int __float_as_uint(float x) {
  unsigned int bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
static inline float __fmaf_rn(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
static inline unsigned int atomicXor(unsigned int *at, unsigned int by) { unsigned int old = *at; *at ^= by; return old; }
static inline unsigned int atomicAdd(unsigned int *at, unsigned int by) { unsigned int old = *at; *at += by; return old; }
static inline void __threadfence() {}

namespace fibers {
struct Fiber { ucontext_t context; std::vector<char> stack; unsigned long waits; bool ended; };
static std::vector<Fiber> all;
static ucontext_t scheduler;
static unsigned int current;
static const std::function<void()> *body;
static unsigned int exchange[1024];
// A fiber goes on only after all fibers of its group came to the same wait.
static inline bool behind(unsigned int from, unsigned int count, unsigned long waits) {
  for (unsigned int i = from; i < from + count && i < all.size(); i++)
    if (!all[i].ended && all[i].waits < waits) return true;
  return false;
}
static inline void yield() { swapcontext(&all[current].context, &scheduler); }
static inline void meet(unsigned int from, unsigned int count) {
  const unsigned long waits = ++all[current].waits;
  while (behind(from, count, waits)) yield();
}
static inline void enter() { (*body)(); all[current].ended = true; }
static inline void run(unsigned int grid, unsigned int block, const std::function<void()> &kernel) {
  body = &kernel;
  gridDim.x = grid;
  blockDim.x = block;
  for (blockIdx.x = 0; blockIdx.x < grid; blockIdx.x++) {
    all.resize(block);
    for (auto &fiber : all) {
      fiber.stack.resize(64 << 10);
      fiber.waits = 0;
      fiber.ended = false;
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.data();
      fiber.context.uc_stack.ss_size = fiber.stack.size();
      fiber.context.uc_link = &scheduler;
      makecontext(&fiber.context, enter, 0);
    }
    for (bool some = true; some;) {
      some = false;
      for (current = 0; current < block; current++) {
        if (all[current].ended) continue;
        some = true;
        threadIdx.x = current;
        swapcontext(&scheduler, &all[current].context);
      }
    }
  }
}
}  // namespace fibers

static inline void __syncthreads() { fibers::meet(0, blockDim.x); }
// All lanes write before any reads, and read before any writes again.
static inline unsigned int __shfl_xor_sync(unsigned int, unsigned int value, int other) {
  const unsigned int self = fibers::current, warp = self / 32 * 32;
  fibers::exchange[self] = value;
  fibers::meet(warp, 32);
  const unsigned int theirs = fibers::exchange[self ^ (unsigned int)other];
  fibers::meet(warp, 32);
  return theirs;
}
