{
  "includes": ["defaults.gypi"],
  "targets": [
    {
      "target_name": "neon",
      "type": "static_library",
      "variables": {"flags": []}
    }
  ]
}
