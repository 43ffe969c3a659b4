// Which calls may be sent again when it is not known whether the service got them.
#pragma once

#include <google/protobuf/message.h>

#include <string>

namespace edbjobs {

// A random request_id (a UUID).
std::string make_request_id();

// Returns whether a call with this request is sent again: its idempotency_level is NO_SIDE_EFFECTS or IDEMPOTENT (but of
// deletes, whose second answer would be another one), or the request, or each of its items, has a request_id, which is
// filled in here where none is set.
bool make_repeatable(google::protobuf::Message& request);

}  // namespace edbjobs
