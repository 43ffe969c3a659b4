// Submits a project, watches the job to its end, prints the solver's log.
//
//   edbjobs-cpp PROJECT [CORES]
//
// Finds this user's service; EDBJOBS_TARGET and EDBJOBS_TOKEN choose another.
// Exit code: 0 the solve completed, 1 it did not or was refused, 2 wrong usage.
#include <edbjobs/client.hpp>
#include <edbjobs/watch.hpp>

#include <filesystem>
#include <iostream>
#include <string>

namespace v1 = edbjobs::v1;

namespace {

bool ended(const v1::Job& job) {
  return job.state() == v1::JOB_STATE_COMPLETED || job.state() == v1::JOB_STATE_FAILED ||
         job.state() == v1::JOB_STATE_CANCELLED;
}

v1::Job submit(edbjobs::Client& client, const std::string& project, int cores) {
  v1::SubmitJobRequest request;
  request.set_request_id(edbjobs::make_request_id());
  request.mutable_config()->set_project_path(std::filesystem::absolute(project).string());
  request.mutable_config()->set_cores(cores);
  return client.call(&v1::Jobs::StubInterface::SubmitJob, request).job();
}

v1::Job watch(edbjobs::Client& client, v1::Job job) {
  v1::WatchJobsRequest request;
  request.set_after_revision(job.revision());
  request.mutable_filter()->add_names(job.uid());
  edbjobs::Watch changes(client, request);
  while (!ended(job)) {
    auto event = changes.next();
    job = event->job();
    std::cout << event->revision() << ' ' << v1::EventType_Name(event->type()) << ' ' << job.message() << std::endl;
  }
  return job;
}

void print_log(edbjobs::Client& client, const v1::Job& job) {
  v1::TailLogRequest request;
  request.set_name(job.uid());
  request.set_stream(v1::LOG_STREAM_SOLVER);
  const auto connection = client.connection();
  const auto context = connection->context();
  const auto reader = connection->jobs->TailLog(context.get(), request);
  v1::TailLogResponse piece;
  while (reader->Read(&piece)) std::cout << piece.data();
  const grpc::Status status = reader->Finish();
  if (!status.ok()) throw edbjobs::Error(status);
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2 || count > 3) {
    std::cerr << "usage: edbjobs-cpp PROJECT [CORES]\n";
    return 2;
  }
  try {
    edbjobs::Client client;
    v1::Job job = submit(client, arguments[1], count == 3 ? std::stoi(arguments[2]) : 1);
    std::cout << "submitted " << job.id() << " to " << client.connection()->target.address << std::endl;
    job = watch(client, job);
    print_log(client, job);
    return job.state() == v1::JOB_STATE_COMPLETED ? 0 : 1;
  } catch (const edbjobs::Error& error) {
    std::cerr << "edbjobs-cpp: " << error.what() << '\n';
    for (const auto& [field, text] : error.fields()) std::cerr << "  " << field << ": " << text << '\n';
    return 1;
  }
}
