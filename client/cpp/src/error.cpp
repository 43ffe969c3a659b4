#include "edbjobs/error.hpp"

#include "google/rpc/error_details.pb.h"

namespace edbjobs {

Error::Error(grpc::StatusCode code, const std::string& message, std::string reason)
    : std::runtime_error(message), code_(code), reason_(std::move(reason)) {}

Error::Error(const grpc::Status& status) : Error(status.error_code(), status.error_message()) {
  google::rpc::Status details;
  if (details.ParseFromString(status.error_details())) read(details);
}

Error::Error(const google::rpc::Status& status)
    : Error(static_cast<grpc::StatusCode>(status.code()), status.message()) {
  read(status);
}

void Error::read(const google::rpc::Status& status) {
  for (const auto& detail : status.details()) {
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

v1::ErrorReason Error::error_reason() const {
  v1::ErrorReason value = v1::ERROR_REASON_UNSPECIFIED;
  v1::ErrorReason_Parse("ERROR_REASON_" + reason_, &value);
  return value;
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
