#include "edbjobs/watch.hpp"

#include <algorithm>

namespace edbjobs {
namespace {

constexpr Milliseconds kFirstDelay{100};
constexpr Milliseconds kLongestDelay{2'000};

}  // namespace

Watch::Watch(Client& client, v1::WatchJobsRequest request)
    : client_(client), request_(std::move(request)), delay_(kFirstDelay) {}

Watch::~Watch() {
  cancel();
  if (reader_) reader_->Finish();
}

std::optional<v1::WatchJobsResponse> Watch::next() {
  for (;;) {
    if (!reader_ && !open()) return std::nullopt;
    v1::WatchJobsResponse message;
    if (reader_->Read(&message)) {
      accept(message);
      return message;
    }
    const grpc::Status status = reader_->Finish();
    reader_.reset();
    if (!status.ok()) retry(Error(status));
  }
}

void Watch::cancel() {
  std::lock_guard<std::mutex> lock(mutex_);
  cancelled_ = true;
  if (context_) context_->TryCancel();
  wake_.notify_all();
}

bool Watch::open() {
  connection_ = client_.connection();
  std::lock_guard<std::mutex> lock(mutex_);
  if (cancelled_) return false;
  context_ = connection_->context();
  reader_ = connection_->stub(static_cast<v1::JobsService::StubInterface*>(nullptr)).WatchJobs(context_.get(), request_);
  return true;
}

void Watch::accept(const v1::WatchJobsResponse& message) {
  client_.note_answer();
  away_since_.reset();
  delay_ = kFirstDelay;
  if (!message.has_position()) return;
  request_.clear_from_oldest();
  *request_.mutable_after() = message.position();
}

void Watch::retry(const Error& error) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (cancelled_) return;
  if (!client_.answered() || !error.may_pass()) throw error;
  const auto now = Clock::now();
  if (!away_since_) away_since_ = now;
  if (now - *away_since_ >= client_.options().patience) throw error;
  wake_.wait_for(lock, delay_, [this] { return cancelled_; });
  delay_ = std::min(2 * delay_, kLongestDelay);
  client_.moved(*connection_);
}

}  // namespace edbjobs
