// Every change of the jobs, once and in order, across breaks of the connection and restarts of the service.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "edbjobs/client.hpp"

namespace edbjobs {

// For one reading thread; `cancel` may be called by any.
//
//   Watch watch(client, request);
//   while (auto message = watch.next()) {
//     for (const auto& event : message->events()) ...
//     for (const auto& update : message->updates()) ...
//   }
class Watch {
 public:
  // `request` as for JobsService.WatchJobs; a watch of what is new, or from the oldest, resumes by position too.
  // `client` must live longer.
  explicit Watch(Client& client, v1::WatchJobsRequest request = {});
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  // Waits for the next message, a heartbeat without changes included; nothing: cancelled. After a break of the
  // connection `caught_up` and the updates come again, events do not. Throws Error when the service stays away for
  // longer than Options::patience, never answered, or refuses, as with REVISION_TOO_OLD: list the jobs again.
  std::optional<v1::WatchJobsResponse> next();

  // Ends the watch.
  void cancel();

  // Resume from here, in another program for example: the position of the last message that `next` returned. Before
  // the first one it is that of the request; revision 0 and no store_id: none.
  const v1::Position& position() const { return request_.after(); }

 private:
  using Clock = std::chrono::steady_clock;

  bool open();
  void accept(const v1::WatchJobsResponse& message);
  // Waits before the next try, or throws `error`.
  void retry(const Error& error);

  Client& client_;
  v1::WatchJobsRequest request_;
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
