#include "edbjobs/error.hpp"

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace edbjobs {

Error::Error(grpc::StatusCode code, const std::string& message, std::string reason)
    : std::runtime_error(message), code_(code), reason_(std::move(reason)) {}

Error::Error(const grpc::Status& status) : Error(status.error_code(), status.error_message()) {
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return;
  for (const auto& detail : details.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad;
    if (detail.UnpackTo(&info)) {
      reason_ = info.reason();
      metadata_ = {info.metadata().begin(), info.metadata().end()};
    } else if (detail.UnpackTo(&bad)) {
      for (const auto& item : bad.field_violations()) fields_[item.field()] = item.description();
    }
  }
}

bool Error::may_pass() const {
  switch (code_) {
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return true;
    case grpc::StatusCode::CANCELLED:
    case grpc::StatusCode::INTERNAL:
    case grpc::StatusCode::UNKNOWN:
      return reason_.empty();  // a stream that broke with its connection
    default:
      return false;
  }
}

}  // namespace edbjobs
