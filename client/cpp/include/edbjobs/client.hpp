// A connection to an edbjobs service: where it is, deadlines, tokens and errors. The calls are the generated ones.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>

#include "edbjobs/endpoint.hpp"
#include "edbjobs/error.hpp"
#include "edbjobs/repeat.hpp"

// <windows.h> has a macro of this name, which would rename the call. If <windows.h> is included after this header, use
// Client::get_job.
#ifdef GetJob
#undef GetJob
#endif

#include "edbjobs/v1/cluster_service.grpc.pb.h"
#include "edbjobs/v1/jobs_service.grpc.pb.h"
#include "edbjobs/v1/resources_service.grpc.pb.h"

namespace edbjobs {

using Milliseconds = std::chrono::milliseconds;

struct Options {
  std::string target;                   // host:port or unix:/path; empty: found, see resolve_target
  std::string token;                    // empty: found, see resolve_target
  std::filesystem::path certificates;   // folder with ca.crt, client.crt and client.key; empty: no TLS
  Milliseconds timeout{30'000};         // longest time of one unary call
  Milliseconds patience{300'000};       // how long a watch tries again while the service is away
};

// Makes a channel with the settings that a service expects: keepalive, reconnection, message sizes, TLS.
// Throws Error with the reason BAD_CERTIFICATES.
std::shared_ptr<grpc::Channel> make_channel(const Target& target, const Options& options = {});

// One channel and the stubs on it.
class Connection {
 public:
  Connection(Target target, const Options& options);

  const Target target;
  const std::shared_ptr<grpc::Channel> channel;
  const std::unique_ptr<v1::JobsService::Stub> jobs;
  const std::unique_ptr<v1::ResourcesService::Stub> resources;
  const std::unique_ptr<v1::ClusterService::Stub> cluster;

  // A context with the token. A timeout of zero is none: for streams.
  std::unique_ptr<grpc::ClientContext> context(Milliseconds timeout = Milliseconds::zero()) const;

  v1::JobsService::StubInterface& stub(v1::JobsService::StubInterface*) const { return *jobs; }
  v1::ResourcesService::StubInterface& stub(v1::ResourcesService::StubInterface*) const { return *resources; }
  v1::ClusterService::StubInterface& stub(v1::ClusterService::StubInterface*) const { return *cluster; }
};

// May be used by several threads at once. Connects at the first call; after a restart of the service it goes to
// the address that endpoint.json names then.
class Client {
 public:
  explicit Client(Options options = {});

  // Makes one unary call; throws Error.
  //
  //   auto job = client.call(&v1::JobsService::StubInterface::SubmitJob, request).job();
  //
  // Sends it again while the service is unreachable for a moment, if that is safe: see make_repeatable, which fills in
  // the request_ids of a copy. WaitJob needs a `timeout` longer than the one in its request.
  template <class Stub, class Request, class Response>
  Response call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*), const Request& request,
                Milliseconds timeout = Milliseconds::zero()) {
    if (timeout == Milliseconds::zero()) timeout = options_.timeout;
    const auto end = Clock::now() + timeout;
    Request sent(request);
    const bool again = make_repeatable(sent);
    for (int attempt = 1;; ++attempt) {
      auto connection = this->connection();
      const auto left = std::chrono::ceil<Milliseconds>(end - Clock::now());
      auto context = connection->context(left > Milliseconds(1) ? left : Milliseconds(1));
      Response response;
      grpc::Status status = (connection->stub(static_cast<Stub*>(nullptr)).*method)(context.get(), sent, &response);
      if (status.ok()) {
        answered_ = true;
        return response;
      }
      Error error(status);
      if (!again || !retry(error, *connection, attempt, end)) throw error;
    }
  }

  // JobsService.GetJob under a name that is no macro of <windows.h>.
  v1::GetJobResponse get_job(const v1::GetJobRequest& request, Milliseconds timeout = Milliseconds::zero()) {
    return call(&v1::JobsService::StubInterface::GetJob, request, timeout);
  }

  // The connection in use; for calls that this class does not make, such as streams.
  std::shared_ptr<Connection> connection();
  // Lets the connection go if the service has another address now.
  bool moved(const Connection& old);

  const Options& options() const { return options_; }
  // The service has answered once, so its address is right.
  bool answered() const { return answered_; }
  void note_answer() { answered_ = true; }

 private:
  using Clock = std::chrono::steady_clock;

  // Returns whether to send a call again, after a delay.
  bool retry(const Error& error, const Connection& connection, int attempt, Clock::time_point end);

  const Options options_;
  std::mutex mutex_;
  std::shared_ptr<Connection> connection_;
  std::atomic<bool> answered_{false};
};

}  // namespace edbjobs
