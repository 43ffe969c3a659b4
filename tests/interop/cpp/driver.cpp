// Makes the calls of the table with the C++ client: one JSON line in, one out.
#define GetJob GetJobW  // as <windows.h> does, if it comes first
#include <edbjobs/client.hpp>
#include <edbjobs/watch.hpp>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>

#include <functional>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#define GetJob GetJobW  // and as it does later

namespace v1 = edbjobs::v1;
namespace pb = google::protobuf;

namespace {

struct Call {
  std::string rpc;
  std::string request;
  double deadline = 0;
  std::string token;
  std::string until;

  edbjobs::Milliseconds timeout() const { return edbjobs::Milliseconds(static_cast<long long>(1000 * deadline)); }
};

using Messages = std::vector<std::string>;
using Method = std::function<void(edbjobs::Client&, const Call&, Messages&)>;

std::string to_json(const pb::Message& message) {
  std::string text;
  if (!pb::util::MessageToJsonString(message, &text).ok()) throw std::runtime_error("no JSON of a message");
  return text;
}

template <class Message>
Message from_json(const std::string& text) {
  Message message;
  const auto status = pb::util::JsonStringToMessage(text, &message);
  if (!status.ok()) throw std::runtime_error("not a request: " + std::string(status.message()));
  return message;
}

std::string quoted(const std::string& text) {
  pb::Value value;
  value.set_string_value(text);
  return to_json(value);
}

template <class Stub, class Request, class Response>
Method unary(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*)) {
  return [method](edbjobs::Client& client, const Call& call, Messages& messages) {
    messages.push_back(to_json(client.call(method, from_json<Request>(call.request), call.timeout())));
  };
}

void get_job(edbjobs::Client& client, const Call& call, Messages& messages) {
  messages.push_back(to_json(client.get_job(from_json<v1::GetJobRequest>(call.request), call.timeout())));
}

template <class Request, class Response, class Open>
Method stream(Open open) {
  return [open](edbjobs::Client& client, const Call& call, Messages& messages) {
    const auto connection = client.connection();
    const auto context = connection->context(call.timeout());
    const auto reader = open(*connection, context.get(), from_json<Request>(call.request));
    bool left = false;
    Response response;
    while (!left && reader->Read(&response)) {
      messages.push_back(to_json(response));
      left = !call.until.empty() && messages.back().find(call.until) != std::string::npos;
    }
    if (left) context->TryCancel();
    const grpc::Status status = reader->Finish();
    if (!left && !status.ok()) throw edbjobs::Error(status);
  };
}

#define UNARY(service, name) \
  { #service "." #name, unary(&v1::service::StubInterface::name) }
#define STREAM(service, stub, name)                                                                           \
  {                                                                                                           \
    #service "." #name, stream<v1::name##Request, v1::name##Response>(                                        \
                            [](edbjobs::Connection& to, grpc::ClientContext* context, v1::name##Request request) { \
                              return to.stub->name(context, request);                                         \
                            })                                                                                \
  }

const std::map<std::string, Method>& methods() {
  static const std::map<std::string, Method> table = {
      UNARY(JobsService, SubmitJob),
      UNARY(JobsService, SubmitJobs),
      UNARY(JobsService, PreviewJob),
      UNARY(JobsService, InspectProject),
      UNARY(JobsService, ListProjects),
      {"JobsService.GetJob", get_job},
      UNARY(JobsService, ListJobs),
      UNARY(JobsService, WaitJob),
      STREAM(JobsService, jobs, WatchJobs),
      UNARY(JobsService, CancelJob),
      UNARY(JobsService, CancelJobs),
      UNARY(JobsService, HoldJob),
      UNARY(JobsService, HoldJobs),
      UNARY(JobsService, ReleaseJob),
      UNARY(JobsService, ReleaseJobs),
      UNARY(JobsService, SetJobPriority),
      UNARY(JobsService, SetJobsPriority),
      UNARY(JobsService, RetryJob),
      UNARY(JobsService, RetryJobs),
      UNARY(JobsService, DeleteJob),
      UNARY(JobsService, DeleteJobs),
      UNARY(JobsService, GetBatch),
      UNARY(JobsService, ListBatches),
      STREAM(JobsService, jobs, ReadLog),
      UNARY(JobsService, GetConvergence),
      UNARY(JobsService, ListFiles),
      STREAM(JobsService, jobs, ReadFile),
      UNARY(ResourcesService, GetResources),
      STREAM(ResourcesService, resources, WatchResources),
      UNARY(ResourcesService, GetQueue),
      UNARY(ResourcesService, PauseQueue),
      UNARY(ResourcesService, ResumeQueue),
      UNARY(ResourcesService, GetLimits),
      UNARY(ResourcesService, UpdateLimits),
      UNARY(ResourcesService, ListLicenses),
      UNARY(ClusterService, GetSystemStatus),
      UNARY(ClusterService, ListSolvers),
      UNARY(ClusterService, ListPartitions),
      UNARY(ClusterService, ListClusterJobs),
  };
  return table;
}

void watch(edbjobs::Client& client, const Call& call) {
  edbjobs::Watch changes(client, from_json<v1::WatchJobsRequest>(call.request));
  bool last = false;
  while (!last) {
    const auto message = changes.next();
    for (const auto& event : message->events()) {
      const std::string text = to_json(event);
      std::cout << "{\"event\":" << quoted(text) << "}" << std::endl;
      last = last || text.find(call.until) != std::string::npos;
    }
  }
}

Call read(const std::string& line) {
  const auto object = from_json<pb::Struct>(line);
  const auto text = [&](const char* name) { return object.fields().at(name).string_value(); };
  return {text("rpc"), text("request"), object.fields().at("deadline").number_value(), text("token"), text("until")};
}

std::string joined(const std::map<std::string, std::string>& values) {
  std::string text;
  for (const auto& [name, value] : values) {
    text += (text.empty() ? "" : ",") + quoted(name) + ":" + quoted(value);
  }
  return "{" + text + "}";
}

std::string answer(const edbjobs::Error& error, const Messages& messages) {
  std::string texts;
  for (const auto& message : messages) texts += (texts.empty() ? "" : ",") + quoted(message);
  return "{\"code\":" + std::to_string(error.code()) + ",\"message\":" + quoted(error.what()) +
         ",\"reason\":" + quoted(error.reason()) + ",\"errorReason\":" + std::to_string(error.error_reason()) +
         ",\"fields\":" + joined(error.fields()) + ",\"metadata\":" + joined(error.metadata()) + ",\"messages\":[" + texts + "]}";
}

}  // namespace

// With an argument: the folder with the certificates.
int main(int count, char** arguments) {
  const std::string certificates = count > 1 ? arguments[1] : "";
  edbjobs::Client usual({{}, {}, certificates});
  std::string line;
  while (std::getline(std::cin, line)) {
    const Call call = read(line);
    edbjobs::Client another({{}, call.token, certificates});
    edbjobs::Client& client = call.token.empty() ? usual : another;
    Messages messages;
    edbjobs::Error error(grpc::StatusCode::OK, "");
    try {
      if (call.rpc == "watch") {
        watch(client, call);
      } else {
        methods().at(call.rpc)(client, call, messages);
      }
    } catch (const edbjobs::Error& caught) {
      error = caught;
    }
    std::cout << answer(error, messages) << std::endl;
  }
}
