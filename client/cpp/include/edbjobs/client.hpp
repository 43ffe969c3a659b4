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

// A random request_id (a UUID): a submit that carries one can be repeated and never makes a second job.
std::string make_request_id();

// Makes a channel with the settings that a service expects: keepalive, retries, message sizes, TLS.
// Throws Error with the reason BAD_CERTIFICATES.
std::shared_ptr<grpc::Channel> make_channel(const Target& target, const Options& options = {});

// One channel and the stubs on it.
class Connection {
 public:
  Connection(Target target, const Options& options);

  const Target target;
  const std::shared_ptr<grpc::Channel> channel;
  const std::unique_ptr<v1::Jobs::Stub> jobs;
  const std::unique_ptr<v1::Resources::Stub> resources;
  const std::unique_ptr<v1::Cluster::Stub> cluster;

  // A context with the token. A timeout of zero is none: for streams.
  std::unique_ptr<grpc::ClientContext> context(Milliseconds timeout = Milliseconds::zero()) const;

  v1::Jobs::StubInterface& stub(v1::Jobs::StubInterface*) const { return *jobs; }
  v1::Resources::StubInterface& stub(v1::Resources::StubInterface*) const { return *resources; }
  v1::Cluster::StubInterface& stub(v1::Cluster::StubInterface*) const { return *cluster; }
};

// May be used by several threads at once. Connects at the first call; after a restart of the service it goes to
// the address that endpoint.json names then.
class Client {
 public:
  explicit Client(Options options = {});

  // Makes one unary call; throws Error.
  //
  //   auto job = client.call(&v1::Jobs::StubInterface::GetJob, request).job();
  //
  // WaitJob needs a `timeout` longer than the one in its request.
  template <class Stub, class Request, class Response>
  Response call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*), const Request& request,
                Milliseconds timeout = Milliseconds::zero()) {
    if (timeout == Milliseconds::zero()) timeout = options_.timeout;
    for (bool again = false;; again = true) {
      auto connection = this->connection();
      auto context = connection->context(timeout);
      Response response;
      grpc::Status status =
          (connection->stub(static_cast<Stub*>(nullptr)).*method)(context.get(), request, &response);
      if (status.ok()) {
        answered_ = true;
        return response;
      }
      Error error(status);
      if (again || !unreachable(error) || !moved(*connection)) throw error;
    }
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
  static bool unreachable(const Error& error);

  const Options options_;
  std::mutex mutex_;
  std::shared_ptr<Connection> connection_;
  std::atomic<bool> answered_{false};
};

}  // namespace edbjobs
