{
  "includes": ["defaults.gypi"],
  "targets": [
    {
      "target_name": "avx2",
      "type": "static_library",
      "variables": {"flags": ["-mavx2", "-mfma", "-mf16c"]}
    },
    {
      "target_name": "avx512",
      "type": "static_library",
      "variables": {
        "flags": [
          "-mavx512f",
          "-mavx512bw",
          "-mavx512vl",
          "-mavx512dq",
          "-mfma",
          "-mf16c",
          "-mprefer-vector-width=512",
          "-Wno-uninitialized",
          "-Wno-maybe-uninitialized"
        ]
      }
    },
    {
      "target_name": "avx512bf16",
      "type": "static_library",
      "variables": {
        "flags": [
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
        ]
      }
    },
    {
      "target_name": "amx",
      "type": "static_library",
      "variables": {
        "flags": [
          "-mavx512f",
          "-mavx512bw",
          "-mavx512vl",
          "-mavx512dq",
          "-mavx512vnni",
          "-mavx512bf16",
          "-mamx-tile",
          "-mamx-bf16",
          "-mfma",
          "-mf16c",
          "-mprefer-vector-width=512",
          "-Wno-uninitialized",
          "-Wno-maybe-uninitialized"
        ]
      }
    }
  ]
}
