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

std::optional<v1::Event> Watch::next() {
  while (events_.empty()) {
    if (!reader_ && !open()) return std::nullopt;
    v1::WatchJobsResponse message;
    if (reader_->Read(&message)) {
      accept(std::move(message));
      continue;
    }
    const grpc::Status status = reader_->Finish();
    reader_.reset();
    if (!status.ok()) retry(Error(status));
  }
  auto event = std::move(events_.front());
  events_.pop_front();
  return event;
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
  reader_ = connection_->stub(static_cast<v1::Jobs::StubInterface*>(nullptr)).WatchJobs(context_.get(), request_);
  return true;
}

void Watch::accept(v1::WatchJobsResponse message) {
  client_.note_answer();
  away_since_.reset();
  delay_ = kFirstDelay;
  const bool started = request_.has_after_revision();
  auto known = request_.after_revision();
  auto newest = std::max(known, message.revision());
  for (auto& event : *message.mutable_events()) {
    if (started && event.revision() <= known) continue;
    newest = std::max(newest, event.revision());
    events_.push_back(std::move(event));
  }
  request_.set_after_revision(newest);
  if (!message.store_id().empty()) request_.set_store_id(message.store_id());
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
