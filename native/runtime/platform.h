// What differs between operating systems and compilers, for the thread pool.
#pragma once
#include <system_error>
#include <thread>

#if defined(_MSC_VER)
#include <intrin.h>
#endif
#if !defined(_WIN32)
#include <signal.h>
#endif

namespace gqa {

// Tells the CPU that this thread spins.
inline void pauseThread() {
#if defined(_M_X64)
  _mm_pause();
#elif defined(_M_ARM64)
  __yield();
#elif defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");  // yield is over at once on most cores
#endif
}

// Threads started in its scope take no signals: they are for the threads that the process knows.
class SignalsBlocked {
 public:
#if defined(_WIN32)
  SignalsBlocked() = default;
#else
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
#endif
 public:
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;
};

// The processor that this thread is on at the moment; -1 where the system does not tell.
int currentProcessor();

// Asks for the use of AMX tiles, for all threads; false where the system does not give it.
bool requestTiles();

// Keeps this library in memory until the process ends: an addon is unloaded with the last isolate that uses it, but its
// threads still run.
void pinLibrary();

// A thread that is never joined. False where the system has no more threads to give.
template <class Body>
bool startThread(Body body) {
  pinLibrary();
  const SignalsBlocked signalsStayWithTheCaller;
  try {
    std::thread(body).detach();
    return true;
  } catch (const std::system_error&) {
    return false;
  }
}

}  // namespace gqa
