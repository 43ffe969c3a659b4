// Errors of the service, with their details.
#pragma once

#include <grpcpp/support/status.h>

#include <map>
#include <stdexcept>
#include <string>

#include "edbjobs/v1/errors.pb.h"
#include "google/rpc/status.pb.h"

namespace edbjobs {

// A call that failed. `what()` is a sentence for people.
class Error : public std::runtime_error {
 public:
  Error(grpc::StatusCode code, const std::string& message, std::string reason = {});

  // Reads the google.rpc details that the service sends with every error.
  explicit Error(const grpc::Status& status);

  // Reads an error within an answer, such as JobResult.error.
  explicit Error(const google::rpc::Status& status);

  grpc::StatusCode code() const { return code_; }
  // For programs, for example JOB_NOT_FOUND, or a word of this client such as BAD_CERTIFICATES; empty: the service did
  // not answer itself.
  const std::string& reason() const { return reason_; }
  // The same as a value of the contract; ERROR_REASON_UNSPECIFIED: it has no such value, or a newer one has it.
  v1::ErrorReason error_reason() const;
  // Path of each wrong field, and what is wrong with it.
  const std::map<std::string, std::string>& fields() const { return fields_; }
  // Values that belong to the reason, for example the uid of the job that exists.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // The service, or the way to it, is away for a while: the same call may work later.
  bool may_pass() const;

 private:
  void read(const google::rpc::Status& status);

  grpc::StatusCode code_;
  std::string reason_;
  std::map<std::string, std::string> fields_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace edbjobs
