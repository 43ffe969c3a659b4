#include "edbjobs/repeat.hpp"

#include <google/protobuf/descriptor.pb.h>

#include <iomanip>
#include <map>
#include <random>
#include <sstream>

#include "edbjobs/v1/cluster_service.pb.h"
#include "edbjobs/v1/jobs_service.pb.h"
#include "edbjobs/v1/resources_service.pb.h"

namespace edbjobs {
namespace {

namespace pb = google::protobuf;

constexpr char kRequestId[] = "request_id";

// Nothing else refers to what protoc makes of a file that has only a service; without this a linker leaves it, and with
// it the service's descriptor, out of the program.
const void* volatile service_files[] = {
    &descriptor_table_edbjobs_2fv1_2fcluster_5fservice_2eproto,
    &descriptor_table_edbjobs_2fv1_2fjobs_5fservice_2eproto,
    &descriptor_table_edbjobs_2fv1_2fresources_5fservice_2eproto,
};

using Methods = std::map<const pb::Descriptor*, const pb::MethodDescriptor*>;

// By request: each RPC has a request message of its own.
Methods find_methods() {
  static_cast<void>(service_files[0]);
  Methods found;
  for (const char* name : {"edbjobs.v1.ClusterService", "edbjobs.v1.JobsService", "edbjobs.v1.ResourcesService"}) {
    const auto* service = pb::DescriptorPool::generated_pool()->FindServiceByName(name);
    for (int number = 0; number < service->method_count(); ++number) {
      found[service->method(number)->input_type()] = service->method(number);
    }
  }
  return found;
}

bool safe_to_repeat(const pb::MethodDescriptor& method) {
  // Safe, but if the first try was obeyed, the second would answer NOT_FOUND.
  if (method.name() == "DeleteJob" || method.name() == "DeleteJobs") return false;
  return method.options().idempotency_level() != pb::MethodOptions::IDEMPOTENCY_UNKNOWN;
}

// Fills in the request_id of a message; false: it has no such field.
bool fill_request_id(pb::Message& message) {
  const auto* field = message.GetDescriptor()->FindFieldByName(kRequestId);
  if (field == nullptr) return false;
  const auto* reflection = message.GetReflection();
  if (reflection->GetString(message, field).empty()) reflection->SetString(&message, field, make_request_id());
  return true;
}

// The same for each item of a call on many.
bool fill_request_ids(pb::Message& request) {
  const auto* descriptor = request.GetDescriptor();
  const auto* reflection = request.GetReflection();
  for (int number = 0; number < descriptor->field_count(); ++number) {
    const auto* field = descriptor->field(number);
    if (!field->is_repeated() || field->message_type() == nullptr) continue;
    if (field->message_type()->FindFieldByName(kRequestId) == nullptr) continue;
    const int size = reflection->FieldSize(request, field);
    for (int item = 0; item < size; ++item) fill_request_id(*reflection->MutableRepeatedMessage(&request, field, item));
    return true;
  }
  return false;
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

bool make_repeatable(pb::Message& request) {
  static const Methods methods = find_methods();
  const auto found = methods.find(request.GetDescriptor());
  return (found != methods.end() && safe_to_repeat(*found->second)) || fill_request_id(request) || fill_request_ids(request);
}

}  // namespace edbjobs
