{
  "variables": {
    "binding_sources": [
      "native/binding/addon.cc",
      "native/binding/async.cc",
      "native/binding/attend.cc",
      "native/binding/environment.cc",
      "native/binding/information.cc",
      "native/binding/operations.cc",
      "native/binding/storage.cc"
    ],
    "core_sources": [
      "native/runtime/attend.cc",
      "native/runtime/cpu.cc",
      "native/runtime/detached.cc",
      "native/runtime/dispatch.cc",
      "native/runtime/elementwise.cc",
      "native/runtime/linear.cc",
      "native/runtime/memory.cc",
      "native/runtime/merge.cc",
      "native/runtime/platform.cc",
      "native/runtime/prefetch.cc",
      "native/runtime/probe.cc",
      "native/runtime/thread_limits.cc",
      "native/runtime/thread_pool.cc",
      "native/runtime/tiles.cc"
    ],
    "common_cflags": ["-std=c++17", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra"],
    "scalar_sources": ["native/targets/scalar.cc"],
    "scalar_cflags": ["-O2"],
    "avx2_sources": ["native/targets/avx2.cc"],
    "avx2_cflags": ["-mavx2", "-mfma", "-mf16c"],
    "avx512_sources": ["native/targets/avx512.cc"],
    "avx512_cflags": [
      "-mavx512f",
      "-mavx512bw",
      "-mavx512vl",
      "-mavx512dq",
      "-mfma",
      "-mf16c",
      "-mprefer-vector-width=512",
      "-Wno-uninitialized",
      "-Wno-maybe-uninitialized"
    ],
    "avx512bf16_sources": ["native/targets/avx512bf16.cc"],
    "avx512bf16_cflags": [
      "-mavx512f",
      "-mavx512bw",
      "-mavx512vl",
      "-mavx512dq",
      "-mavx512vnni",
      "-mavx512bf16",
      "-mfma",
      "-mf16c",
      "-mprefer-vector-width=512",
      "-Wno-uninitialized",
      "-Wno-maybe-uninitialized"
    ],
    "neon_sources": ["native/targets/neon.cc"],
    "neon_cflags": []
  }
}
