#include "edbjobs/client.hpp"

#include <fstream>
#include <sstream>
#include <thread>

namespace edbjobs {
namespace {

constexpr int kAttempts = 4;
constexpr Milliseconds kFirstDelay{100};

bool is_loopback(const std::string& address) {
  for (const char* prefix : {"unix:", "127.", "localhost:", "[::1]:"}) {
    if (address.rfind(prefix, 0) == 0) return true;
  }
  return false;
}

std::string read(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  if (!stream || !(text << stream.rdbuf())) {
    throw Error(grpc::StatusCode::FAILED_PRECONDITION,
                file.string() + " cannot be read; expected ca.crt, client.crt and client.key in one folder",
                "BAD_CERTIFICATES");
  }
  return text.str();
}

std::shared_ptr<grpc::ChannelCredentials> credentials(const std::filesystem::path& folder) {
  if (folder.empty()) return grpc::InsecureChannelCredentials();
  return grpc::SslCredentials({read(folder / "ca.crt"), read(folder / "client.key"), read(folder / "client.crt")});
}

}  // namespace

std::shared_ptr<grpc::Channel> make_channel(const Target& target, const Options& options) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 15'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  // grpc's own back-off grows to two minutes; a restarted service must be found again at once.
  // Shorter than the attempts of a call (0.7 s): channels to one address share the back-off (plus 20 %).
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  // Whatever its name says, the time that one attempt to connect may take: a busy host needs more than a moment.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 10'000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 400);
  arguments.SetMaxReceiveMessageSize(16 * 1024 * 1024);
  arguments.SetUserAgentPrefix("edbjobs-cpp/" EDBJOBS_VERSION);
  // A proxy named in the environment for the world outside cannot reach this machine's loopback.
  if (is_loopback(target.address)) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(target.address, credentials(options.certificates), arguments);
}

Connection::Connection(Target address, const Options& options)
    : target(std::move(address)),
      channel(make_channel(target, options)),
      jobs(v1::JobsService::NewStub(channel)),
      resources(v1::ResourcesService::NewStub(channel)),
      cluster(v1::ClusterService::NewStub(channel)) {}

std::unique_ptr<grpc::ClientContext> Connection::context(Milliseconds timeout) const {
  auto context = std::make_unique<grpc::ClientContext>();
  if (timeout > Milliseconds::zero()) context->set_deadline(std::chrono::system_clock::now() + timeout);
  if (!target.token.empty()) context->AddMetadata("authorization", "Bearer " + target.token);
  return context;
}

Client::Client(Options options) : options_(std::move(options)) {}

std::shared_ptr<Connection> Client::connection() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!connection_) {
    connection_ = std::make_shared<Connection>(resolve_target(options_.target, options_.token), options_);
  }
  return connection_;
}

bool Client::moved(const Connection& old) {
  if (resolve_target(options_.target, options_.token) == old.target) return false;
  std::lock_guard<std::mutex> lock(mutex_);
  // Let go, not closed: another thread may be in the middle of a call, and keeps it alive.
  if (connection_.get() == &old) connection_.reset();
  return true;
}

bool Client::retry(const Error& error, const Connection& connection, int attempt, Clock::time_point end) {
  if (error.code() != grpc::StatusCode::UNAVAILABLE || attempt >= kAttempts) return false;
  const auto delay = kFirstDelay * (1 << (attempt - 1));
  if (Clock::now() + delay >= end) return false;
  if (!moved(connection)) std::this_thread::sleep_for(delay);
  return true;
}

}  // namespace edbjobs
