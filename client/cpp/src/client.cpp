#include "edbjobs/client.hpp"

#include <fstream>
#include <iomanip>
#include <random>
#include <sstream>

namespace edbjobs {
namespace {

// DeleteJob is not sent again by itself: had the first try been obeyed, the second would answer NOT_FOUND.
// All others change nothing more when repeated; submits and retries because of their request_id.
constexpr char kServiceConfig[] = R"({"methodConfig": [{
  "name": [
    {"service": "edbjobs.v1.Resources"},
    {"service": "edbjobs.v1.Cluster"},
    {"service": "edbjobs.v1.Jobs", "method": "SubmitJob"},
    {"service": "edbjobs.v1.Jobs", "method": "SubmitJobs"},
    {"service": "edbjobs.v1.Jobs", "method": "GetJob"},
    {"service": "edbjobs.v1.Jobs", "method": "ListJobs"},
    {"service": "edbjobs.v1.Jobs", "method": "CancelJob"},
    {"service": "edbjobs.v1.Jobs", "method": "CancelJobs"},
    {"service": "edbjobs.v1.Jobs", "method": "HoldJob"},
    {"service": "edbjobs.v1.Jobs", "method": "ReleaseJob"},
    {"service": "edbjobs.v1.Jobs", "method": "SetJobPriority"},
    {"service": "edbjobs.v1.Jobs", "method": "RetryJob"},
    {"service": "edbjobs.v1.Jobs", "method": "WaitJob"},
    {"service": "edbjobs.v1.Jobs", "method": "PreviewJob"}
  ],
  "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2,
                  "retryableStatusCodes": ["UNAVAILABLE"]}
}]})";

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

std::string make_request_id() {
  std::random_device device;
  std::uniform_int_distribution<unsigned> any(0, 0xFFFF);
  std::ostringstream text;
  text << std::hex << std::setfill('0');
  for (int group = 0; group < 8; ++group) {
    unsigned value = any(device);
    if (group == 3) value = (value & 0x0FFF) | 0x4000;  // version 4, random
    if (group == 4) value = (value & 0x3FFF) | 0x8000;
    text << std::setw(4) << value;
    if (group >= 1 && group <= 4) text << '-';
  }
  return text.str();
}

std::shared_ptr<grpc::Channel> make_channel(const Target& target, const Options& options) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 15'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  // grpc's own back-off grows to two minutes; a restarted service must be found again at once.
  // Shorter than the attempts of a call (0.7 s less 20 %): channels to one address share the back-off (plus 20 %).
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 400);
  arguments.SetMaxReceiveMessageSize(16 * 1024 * 1024);
  arguments.SetServiceConfigJSON(kServiceConfig);
  arguments.SetUserAgentPrefix("edbjobs-cpp/" EDBJOBS_VERSION);
  // A proxy named in the environment for the world outside cannot reach this machine's loopback.
  if (is_loopback(target.address)) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(target.address, credentials(options.certificates), arguments);
}

Connection::Connection(Target address, const Options& options)
    : target(std::move(address)),
      channel(make_channel(target, options)),
      jobs(v1::Jobs::NewStub(channel)),
      resources(v1::Resources::NewStub(channel)),
      cluster(v1::Cluster::NewStub(channel)) {}

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

bool Client::unreachable(const Error& error) {
  return error.code() == grpc::StatusCode::UNAVAILABLE && error.reason().empty();
}

}  // namespace edbjobs
