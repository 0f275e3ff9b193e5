{
  "variables": {
    "binding_sources": [
      "native/binding/addon.cc",
      "native/binding/async.cc",
      "native/binding/attend.cc",
      "native/binding/attend_arguments.cc",
      "native/binding/attend_step.cc",
      "native/binding/blocks.cc",
      "native/binding/environment.cc",
      "native/binding/information.cc",
      "native/binding/mapping.cc",
      "native/binding/operations.cc",
      "native/binding/storage.cc",
      "native/binding/training.cc"
    ],
    "core_sources": [
      "native/runtime/attend.cc",
      "native/runtime/attend_backward.cc",
      "native/runtime/attend_plan.cc",
      "native/runtime/attend_step.cc",
      "native/runtime/blocks.cc",
      "native/runtime/checksum.cc",
      "native/runtime/cpu.cc",
      "native/runtime/detached.cc",
      "native/runtime/dispatch.cc",
      "native/runtime/elementwise.cc",
      "native/runtime/linear.cc",
      "native/runtime/mapping.cc",
      "native/runtime/memory.cc",
      "native/runtime/merge.cc",
      "native/runtime/platform.cc",
      "native/runtime/prefetch.cc",
      "native/runtime/probe.cc",
      "native/runtime/thread_limits.cc",
      "native/runtime/thread_pool.cc",
      "native/runtime/tiles.cc",
      "native/runtime/training.cc"
    ],
    "common_cflags": ["-std=c++17", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra"]
  }
}
