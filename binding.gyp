{
  "includes": ["native/sources.gypi"],
  "target_defaults": {
    "cflags_cc": ["<@(common_cflags)"],
    "cflags!": ["-fno-exceptions"],
    "cflags_cc!": ["-fno-exceptions", "-std=gnu++17", "-std=gnu++20"],
    "defines": ["NAPI_VERSION=8", "NAPI_CPP_EXCEPTIONS", "NODE_ADDON_API_DISABLE_DEPRECATED"],
    "include_dirs": ["<!(node -p \"require('node-addon-api').include_dir\")"],
    "xcode_settings": {
      "GCC_ENABLE_CPP_EXCEPTIONS": "YES",
      "MACOSX_DEPLOYMENT_TARGET": "11.0",
      "OTHER_CFLAGS": ["<@(common_cflags)"]
    }
  },
  "targets": [
    {
      "target_name": "gqa",
      "sources": ["<@(binding_sources)", "<@(core_sources)"],
      "dependencies": ["gqa_scalar"],
      "conditions": [
        ["target_arch=='x64'", {"dependencies": ["gqa_avx2", "gqa_avx512", "gqa_avx512bf16"]}],
        ["target_arch=='arm64'", {"dependencies": ["gqa_neon"]}]
      ]
    },
    {
      "target_name": "gqa_scalar",
      "type": "static_library",
      "sources": ["<@(scalar_sources)"],
      "cflags_cc": ["<@(scalar_cflags)"],
      "xcode_settings": {"OTHER_CFLAGS": ["<@(scalar_cflags)"]}
    }
  ],
  "conditions": [
    ["target_arch=='x64'", {
      "targets": [
        {
          "target_name": "gqa_avx2",
          "type": "static_library",
          "sources": ["<@(avx2_sources)"],
          "cflags_cc": ["<@(avx2_cflags)"],
          "xcode_settings": {"OTHER_CFLAGS": ["<@(avx2_cflags)"]}
        },
        {
          "target_name": "gqa_avx512",
          "type": "static_library",
          "sources": ["<@(avx512_sources)"],
          "cflags_cc": ["<@(avx512_cflags)"],
          "xcode_settings": {"OTHER_CFLAGS": ["<@(avx512_cflags)"]}
        },
        {
          "target_name": "gqa_avx512bf16",
          "type": "static_library",
          "sources": ["<@(avx512bf16_sources)"],
          "cflags_cc": ["<@(avx512bf16_cflags)"],
          "xcode_settings": {"OTHER_CFLAGS": ["<@(avx512bf16_cflags)"]}
        }
      ]
    }],
    ["target_arch=='arm64'", {
      "targets": [{"target_name": "gqa_neon", "type": "static_library", "sources": ["<@(neon_sources)"]}]
    }]
  ]
}
