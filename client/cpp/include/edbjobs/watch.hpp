// Every change of the jobs, once and in order, across breaks of the connection and restarts of the service.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "edbjobs/client.hpp"

namespace edbjobs {

// For one reading thread; `cancel` may be called by any.
//
//   Watch watch(client, request);
//   while (auto event = watch.next()) ...
class Watch {
 public:
  // `request` as for Jobs.WatchJobs; its after_revision and store_id are kept up to date here.
  // `client` must live longer.
  explicit Watch(Client& client, v1::WatchJobsRequest request = {});
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  // Waits for the next change; nothing: cancelled. Throws Error when the service stays away for longer than
  // Options::patience, never answered, or refuses, as with REVISION_TOO_OLD: list the jobs again.
  std::optional<v1::Event> next();

  // Ends the watch.
  void cancel();

  // Resume from here, in another program for example; 0: nothing has been sent yet.
  long long revision() const { return request_.after_revision(); }
  const std::string& store_id() const { return request_.store_id(); }

 private:
  using Clock = std::chrono::steady_clock;

  bool open();
  void accept(v1::WatchJobsResponse message);
  // Waits before the next try, or throws `error`.
  void retry(const Error& error);

  Client& client_;
  v1::WatchJobsRequest request_;
  std::deque<v1::Event> events_;
  std::shared_ptr<Connection> connection_;
  std::unique_ptr<grpc::ClientReaderInterface<v1::WatchJobsResponse>> reader_;
  std::optional<Clock::time_point> away_since_;
  Milliseconds delay_;

  std::mutex mutex_;  // guards what `cancel` touches
  std::condition_variable wake_;
  std::unique_ptr<grpc::ClientContext> context_;
  bool cancelled_ = false;
};

}  // namespace edbjobs
