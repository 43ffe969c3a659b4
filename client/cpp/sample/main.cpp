// Submits a project, shows its changes and its progress to the end, prints the solver's log.
//
//   edbjobs-cpp PROJECT [CORES]
//
// Finds this user's service; EDBJOBS_TARGET and EDBJOBS_TOKEN choose another.
// Exit code: 0 the solve completed, 1 it did not or was refused, 2 wrong usage.
#include <edbjobs/client.hpp>
#include <edbjobs/watch.hpp>

#include <cmath>
#include <filesystem>
#include <iostream>
#include <sstream>
#include <string>

namespace v1 = edbjobs::v1;

namespace {

// Numbers that the solver has not reported are absent: test for presence before reading one.
std::string text_of(const v1::JobProgress& progress) {
  std::ostringstream text;
  text << v1::SolvePhase_Name(progress.phase());
  if (!progress.setup().empty()) text << ' ' << progress.setup();
  if (progress.has_current_pass()) text << ", pass " << progress.current_pass();
  if (progress.has_current_pass() && progress.has_max_passes()) text << " of " << progress.max_passes();
  if (progress.last_pass().has_delta()) text << ", delta " << progress.last_pass().delta();
  if (progress.has_frequencies_solved()) text << ", frequencies " << progress.frequencies_solved();
  if (progress.has_fraction()) text << ", " << std::lround(100 * progress.fraction()) << " %";
  return text.str();
}

std::string text_of(const v1::JobUpdate& update) {
  if (update.has_waiting()) return "waiting: " + update.waiting().message();
  return update.has_progress() ? text_of(update.progress()) : "";
}

v1::Job submit(edbjobs::Client& client, const std::string& project, int cores) {
  v1::SubmitJobRequest request;
  request.mutable_config()->set_project_path(std::filesystem::absolute(project).string());
  request.mutable_config()->set_cores(cores);
  return client.call(&v1::JobsService::StubInterface::SubmitJob, request).job();
}

v1::Job watch(edbjobs::Client& client, v1::Job job) {
  v1::WatchJobsRequest request;
  request.mutable_after()->set_revision(job.revision());
  request.mutable_filter()->add_jobs()->set_uid(job.uid());
  request.set_include_updates(true);
  edbjobs::Watch changes(client, request);
  std::string shown;
  while (!job.has_end_time()) {
    const auto message = changes.next();
    for (const auto& event : message->events()) {
      if (!event.has_job_change()) continue;  // of a newer service
      job = event.job_change().job();
      std::cout << event.revision() << ' ' << v1::JobChangeType_Name(event.job_change().type()) << ' '
                << job.outcome().message() << std::endl;
    }
    for (const auto& update : message->updates()) {
      const std::string text = text_of(update);
      if (!text.empty() && text != shown) std::cout << "  " << text << std::endl;
      shown = text;
    }
  }
  return job;
}

// The log has ended with the job. One that is followed also has empty pieces, which are no end.
void print_log(edbjobs::Client& client, const v1::Job& job) {
  v1::ReadLogRequest request;
  request.mutable_job()->set_uid(job.uid());
  const auto connection = client.connection();
  const auto context = connection->context();
  const auto reader = connection->jobs->ReadLog(context.get(), request);
  v1::ReadLogResponse piece;
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
