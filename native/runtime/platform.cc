// Operating system calls of the thread pool.
#include "platform.h"

#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif
#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace gqa {
namespace {

bool pin() {
#if defined(_WIN32)
  HMODULE self;
  return GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_PIN,
                            reinterpret_cast<LPCWSTR>(&pinLibrary), &self) != 0;
#else
  Dl_info self;
  if (dladdr(reinterpret_cast<void*>(&pinLibrary), &self) == 0) return false;
  // Null in a program that links this statically, which cannot be unloaded anyway.
  return dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE) != nullptr;
#endif
}

}  // namespace

int currentProcessor() {
#if defined(_WIN32)
  return static_cast<int>(GetCurrentProcessorNumber());
#elif defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

bool requestTiles() {
#if defined(__linux__) && defined(__x86_64__)
  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA: the kernel must save 8 KiB more for each thread.
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#elif defined(_WIN32)
  return true;  // given at the first use
#else
  return false;
#endif
}

void pinLibrary() {
  static const bool pinned = pin();
  (void)pinned;
}

}  // namespace gqa
