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
      "dependencies": ["native/targets/any.gyp:*"],
      "conditions": [
        ["target_arch=='x64' or target_arch=='arm64'", {"dependencies": ["native/targets/<(target_arch).gyp:*"]}]
      ]
    }
  ]
}
