{
  "includes": ["defaults.gypi"],
  "targets": [
    {
      "target_name": "neon",
      "type": "static_library",
      "variables": {"flags": []}
    },
    {
      "target_name": "neondot",
      "type": "static_library",
      "variables": {"flags": ["-march=armv8.2-a+dotprod"]}
    },
    {
      "target_name": "neonbf16",
      "type": "static_library",
      "variables": {"flags": ["-march=armv8.2-a+dotprod+bf16"]}
    }
  ]
}
