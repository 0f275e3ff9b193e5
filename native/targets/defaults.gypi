{
  "includes": ["../sources.gypi"],
  "target_defaults": {
    "sources": [">(_target_name).cc"],
    "cflags_cc": ["<@(common_cflags)", ">@(flags)"],
    "cflags_cc!": ["-std=gnu++17", "-std=gnu++20"],
    "xcode_settings": {"OTHER_CFLAGS": ["<@(common_cflags)", ">@(flags)"]}
  }
}
