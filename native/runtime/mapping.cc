// Files of packed weights in memory: mapped where the system can, so that all processes share the pages of one file,
// else read.
#include "runtime.h"

#if defined(_WIN32)
#include <cstdio>
#include <filesystem>
#else
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace gqa {
namespace {

#if !defined(_WIN32)

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

// False where the file cannot be read to its end.
bool readWhole(int fd, char* base, int64_t bytes) {
  constexpr int64_t kMostBytes = int64_t{1} << 30;
  for (int64_t at = 0; at < bytes;) {
    const int64_t length = bytes - at < kMostBytes ? bytes - at : kMostBytes;
    const ssize_t got = pread(fd, base + at, static_cast<size_t>(length), static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    at += got;
  }
  return true;
}

#endif

}  // namespace

#if defined(_WIN32)

// A mapped file could be neither replaced nor removed there, as a cache has to be.
FileMapping mapFile(const char* path) {
  FileMapping result;
  FILE* file = _wfopen(std::filesystem::u8path(path).c_str(), L"rb");
  if (file == nullptr) {
    result.error = "cannot be opened";
    return result;
  }
  _fseeki64(file, 0, SEEK_END);
  result.bytes = _ftelli64(file);
  _fseeki64(file, 0, SEEK_SET);
  result.base = static_cast<char*>(allocatePages(result.bytes));
  if (result.base == nullptr) {
    result.error = "no memory";
  } else if (fread(result.base, 1, static_cast<size_t>(result.bytes), file) != static_cast<size_t>(result.bytes)) {
    releasePages(result.base, result.bytes);
    result.base = nullptr;
    result.error = "cannot be read";
  }
  fclose(file);
  return result;
}

void unmapFile(const FileMapping& mapping) { releasePages(mapping.base, mapping.bytes); }

#else

FileMapping mapFile(const char* path) {
  FileMapping result;
  const Descriptor file = {open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  struct stat status = {};
  if (file.fd < 0 || fstat(file.fd, &status) != 0) {
    result.error = std::strerror(errno);
    return result;
  }
  if (!S_ISREG(status.st_mode) || status.st_size == 0) {
    result.error = "not a file with contents";
    return result;
  }
  result.bytes = static_cast<int64_t>(status.st_size);
  void* base = mmap(nullptr, static_cast<size_t>(result.bytes), PROT_READ, MAP_SHARED, file.fd, 0);
  if (base != MAP_FAILED) {
    result.base = static_cast<char*>(base);
    result.shared = true;
    return result;
  }
  // Some network and FUSE file systems map nothing.
  result.base = static_cast<char*>(allocatePages(result.bytes));
  if (result.base != nullptr && readWhole(file.fd, result.base, result.bytes)) return result;
  result.error = result.base == nullptr ? "no memory" : "cannot be read";
  releasePages(result.base, result.bytes);
  result.base = nullptr;
  return result;
}

void unmapFile(const FileMapping& mapping) {
  if (!mapping.shared) return releasePages(mapping.base, mapping.bytes);
  munmap(mapping.base, static_cast<size_t>(mapping.bytes));
}

#endif

}  // namespace gqa
