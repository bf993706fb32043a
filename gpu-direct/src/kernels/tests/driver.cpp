// Runs kernels for the test beside it: launches come on stdin, memory goes back on stdout.
//
//   launch   kernel, grid, block, arguments (u32 each), memory bytes (u64),
//            arguments (u32 kind: 0 value, 1 offset in memory; u64), memory
//   reply    memory

#include <memory>

template <typename T> static T take() {
  T value;
  if (fread(&value, sizeof value, 1, stdin) != 1) exit(sizeof value == 4 && feof(stdin) ? 0 : 3);
  return value;
}

int main() {
  for (;;) {
    const u32 kernel = take<u32>(), grid = take<u32>(), block = take<u32>(), count = take<u32>();
    const u64 bytes = take<u64>();
    std::vector<u64> arguments(count);
    std::unique_ptr<uint4[]> memory(new uint4[bytes / 16 + 1]);
    u8 *base = reinterpret_cast<u8 *>(memory.get());
    for (auto &argument : arguments) {
      const u32 kind = take<u32>();
      argument = take<u64>() + (kind == 1 ? reinterpret_cast<u64>(base) : 0);
    }
    if (fread(base, 1, bytes, stdin) != bytes) return 3;
    const u64 *a = arguments.data();
    fibers::run(grid, block, [&] {
      switch (kernel) {
        case 0:
          return sm4_gcm_open((u8 *)a[0], (const KeyTable *)a[1], (const Message *)a[2], (const uint2 *)a[3], u32(a[4]),
                              (State *)a[5]);
        case 1:
          return normalize_u8((const u8 *)a[0], (u8 *)a[1], a[2], (const float *)a[3], (const float *)a[4], u32(a[5]),
                              u32(a[6]), u32(a[7]));
        case 2: return widen_u16((const u16 *)a[0], (u8 *)a[1], a[2], u32(a[3]));
        case 3: return gather((u8 *)a[0], (const Piece *)a[1], u32(a[2]));
        default: exit(4);
      }
    });
    fwrite(base, 1, bytes, stdout);
    fflush(stdout);
  }
}
