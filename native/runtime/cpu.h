// What this CPU and operating system can run. A feature counts only where the system saves its registers (XCR0).
#pragma once

namespace gqa {

struct CpuFeatures {
  // x86
  bool avx2, fma, f16c;
  bool avxVnni, clflushopt;
  bool avx512f, avx512bw, avx512vl, avx512dq, avx512vnni, avx512bf16, avx512fp16;
  bool amxTile, amxBf16, amxInt8;  // using tiles needs a permission from the system first: tilesGranted
  // aarch64
  bool neon, dotprod, fp16, bf16, i8mm;
  bool intel, amd;  // vendor; both false for any other
  char text[256];   // "Intel: avx2 fma f16c ..."

  // What several targets ask for.
  bool runsAvx2() const { return avx2 && fma && f16c; }
  bool runsAvx512() const { return runsAvx2() && avx512f && avx512bw && avx512vl && avx512dq; }
  bool runsAvx512Bf16() const { return runsAvx512() && avx512vnni && avx512bf16; }
};

// Detected once, at the first call.
const CpuFeatures& cpuFeatures();

}  // namespace gqa
