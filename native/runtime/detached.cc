// Runners for detached jobs: a few threads apart from the workers, because a job makes parallel calls of its own.
#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>

#include "platform.h"
#include "runtime.h"
#include "thread_limits.h"

namespace gqa {
namespace {

// Async calls that run at once; the others queue. Each of them is parallel in itself.
constexpr int kMaxRunners = 4;

struct Job {
  void (*run)(void*);
  void* context;
};

class Runners {
 public:
  // Never destroyed: at exit its threads may still run.
  static Runners& instance() {
    static Runners* runners = new Runners;
    return *runners;
  }

  // False where no thread can be had.
  bool enqueue(Job job);

 private:
  void runJobs();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> jobs_;
  int started_ = 0, idle_ = 0;
};

bool Runners::enqueue(Job job) {
  std::lock_guard<std::mutex> lock(mutex_);
  const int most = std::min(kMaxRunners, threadLimits().threads);
  if (idle_ <= static_cast<int>(jobs_.size()) && started_ < most) {
    if (startThread([this] { runJobs(); })) started_++;
  }
  if (started_ == 0) return false;
  jobs_.push_back(job);
  wake_.notify_one();
  return true;
}

void Runners::runJobs() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    idle_++;
    wake_.wait(lock, [this] { return !jobs_.empty(); });
    idle_--;
    const Job job = jobs_.front();
    jobs_.pop_front();
    lock.unlock();
    job.run(job.context);
    lock.lock();
  }
}

}  // namespace

void runDetached(void (*job)(void* context), void* context) {
  if (!Runners::instance().enqueue({job, context})) job(context);
}

}  // namespace gqa
