{
  "includes": ["defaults.gypi"],
  "targets": [
    {
      "target_name": "scalar",
      "type": "static_library",
      "variables": {"flags": ["-O2"]}
    }
  ]
}
