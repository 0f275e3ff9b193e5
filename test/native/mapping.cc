// Mapped files and their checksum: vectors of XXH64 from its specification, lengths around its steps, files of any
// kind. g++ -std=c++17 -Inative test/native/mapping.cc build/libgqa_core.a -o mapping -pthread
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#if !defined(_WIN32)
#include <sys/stat.h>
#include <unistd.h>
#endif

#include "checks.h"
#include "runtime/runtime.h"

using namespace gqa;

namespace {

// XXH64 of every MiB, and of those: what the reference implementation gives (xxhash.xxh64_intdigest in Python).
void vectors() {
  CHECK(checksum("", 0) == 0xEF46DB3751D8E999);  // of no chunks at all
  std::vector<unsigned char> bytes(3 << 20);
  for (size_t i = 0; i < bytes.size(); i++) bytes[i] = static_cast<unsigned char>(i * 131 + (i >> 11));
  const struct {
    int64_t length;
    uint64_t sum;
  } known[] = {{1, 0x36979D78F232250A},       {3, 0x3026828F95B92282},       {4, 0xFDC1371052FD9C17},
               {7, 0x5181279146C183B2},       {8, 0xD8CEE6863BB826B7},       {31, 0xD9F4D0E6A257157A},
               {32, 0x3CAD6125FB3B37D9},      {33, 0x74173C4DFA8F73D5},      {63, 0xF9619CAD63D86DF8},
               {100, 0x146BAF6AFA9C2D06},     {1048575, 0x924976D4307640EC}, {1048576, 0xE3AC1EF5C7CAF22A},
               {1048577, 0xD76ACA9E39A66D65}, {3145728, 0xF40B5A9C3E03D289}};
  for (const auto& [length, sum] : known) CHECK(checksum(bytes.data(), length) == sum);
}

// Every bit counts, wherever it lies, and so do chunks that change places.
void damage() {
  std::vector<char> bytes((2 << 20) + 77, 1);
  const int64_t length = static_cast<int64_t>(bytes.size());
  const uint64_t whole = checksum(bytes.data(), length);
  for (size_t at : {size_t{0}, size_t{31}, size_t{1} << 20, (size_t{2} << 20) + 76}) {
    for (int bit = 0; bit < 8; bit++) {
      bytes[at] ^= static_cast<char>(1 << bit);
      CHECK(checksum(bytes.data(), length) != whole);
      bytes[at] ^= static_cast<char>(1 << bit);
    }
  }
  CHECK(checksum(bytes.data(), length) == whole);
  CHECK(checksum(bytes.data(), length - 1) != whole);
  std::memset(bytes.data(), 2, size_t{1} << 20);
  const uint64_t first = checksum(bytes.data(), length);
  std::memset(bytes.data(), 1, size_t{1} << 20);
  std::memset(bytes.data() + (1 << 20), 2, size_t{1} << 20);
  CHECK(checksum(bytes.data(), length) != first);
}

#if !defined(_WIN32)
void files() {
  const std::string path = "/tmp/gqa-mapping-" + std::to_string(getpid());
  const auto write = [&](const std::string& text) {
    FILE* file = std::fopen(path.c_str(), "wb");
    std::fwrite(text.data(), 1, text.size(), file);
    std::fclose(file);
  };
  write("some bytes");
  const FileMapping mapping = mapFile(path.c_str());
  CHECK(mapping.base != nullptr && mapping.shared && mapping.bytes == 10);
  CHECK(mapping.base != nullptr && std::memcmp(mapping.base, "some bytes", 10) == 0);
  unlink(path.c_str());
  CHECK(mapping.base != nullptr && mapping.base[9] == 's');
  if (mapping.base != nullptr) unmapFile(mapping);
  CHECK(mapFile(path.c_str()).base == nullptr);
  CHECK(std::strlen(mapFile(path.c_str()).error) > 0);
  CHECK(mapFile("/tmp").base == nullptr);
  write("");
  CHECK(mapFile(path.c_str()).base == nullptr);
  unlink(path.c_str());
  CHECK(mkfifo(path.c_str(), 0600) == 0);
  CHECK(mapFile(path.c_str()).base == nullptr);  // and does not wait for a writer
  unlink(path.c_str());
}
#endif

}  // namespace

int main() {
  vectors();
  damage();
#if !defined(_WIN32)
  files();
#endif
  return reportChecks();
}
