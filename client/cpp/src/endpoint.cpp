#include "edbjobs/endpoint.hpp"

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "edbjobs/error.hpp"

#ifdef _WIN32
#include <winsock2.h>
#else
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace edbjobs {
namespace {

namespace fs = std::filesystem;

constexpr char kDefaultTarget[] = "127.0.0.1:18080";

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::optional<std::string> read_file(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) return std::nullopt;
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

std::string host_name() {
  char name[256] = "";
  return gethostname(name, sizeof name - 1) == 0 ? name : "";
}

#ifdef _WIN32
fs::path runtime_path() {
  const std::string local = variable("LOCALAPPDATA");
  return (local.empty() ? fs::temp_directory_path() : fs::u8path(local)) / "edbjobs";
}

void check_folder(const fs::path&) {}
#else
fs::path runtime_path() {
  const std::string base = variable("XDG_RUNTIME_DIR");
  struct stat found;
  // sudo and su may leave the folder of another account in the environment.
  if (!base.empty() && stat(base.c_str(), &found) == 0 && S_ISDIR(found.st_mode) && found.st_uid == geteuid()) {
    return fs::path(base) / "edbjobs";
  }
  return fs::temp_directory_path() / ("edbjobs-" + std::to_string(geteuid()));
}

void check_folder(const fs::path& folder) {
  struct stat found;
  if (lstat(folder.c_str(), &found) != 0) return;
  std::string wrong;
  if (!S_ISDIR(found.st_mode)) {
    wrong = "is not a folder";
  } else if (found.st_uid != geteuid()) {
    wrong = "belongs to another account";
  } else if (found.st_mode & (S_IWGRP | S_IWOTH)) {
    wrong = "can be written by other accounts";
  } else {
    return;
  }
  throw Error(grpc::StatusCode::FAILED_PRECONDITION,
              "the runtime folder " + folder.string() + " " + wrong +
                  "; remove it or set EDBJOBS_RUNTIME_DIR to a folder of your own",
              "UNSAFE_RUNTIME_DIR");
}
#endif

std::string text(const google::protobuf::Struct& object, const char* name) {
  const auto found = object.fields().find(name);
  return found == object.fields().end() ? "" : found->second.string_value();
}

std::string read_token(const std::string& file) {
  if (file.empty()) return "";
  // Not readable by this account: the service tells what is missing.
  const std::string token = read_file(fs::u8path(file)).value_or("");
  const auto end = token.find_last_not_of(" \t\r\n");
  return end == std::string::npos ? "" : token.substr(0, end + 1);
}

}  // namespace

fs::path runtime_dir() {
  const std::string chosen = variable("EDBJOBS_RUNTIME_DIR");
  const fs::path folder = chosen.empty() ? runtime_path() : fs::u8path(chosen);
  check_folder(folder);
  return folder;
}

std::optional<Endpoint> read_endpoint(const fs::path& file) {
  const auto content = read_file(file);
  if (!content) return std::nullopt;
  google::protobuf::Struct object;
  const auto status = google::protobuf::util::JsonStringToMessage(*content, &object);
  if (!status.ok()) {
    throw Error(grpc::StatusCode::FAILED_PRECONDITION,
                file.string() + " is not what a service writes (" + std::string(status.message()) +
                    "); remove it or set EDBJOBS_TARGET",
                "BAD_ENDPOINT_FILE");
  }
  return Endpoint{text(object, "grpc"), text(object, "uds"), text(object, "http"), text(object, "host"),
                  text(object, "token_file")};
}

Target resolve_target(const std::string& target, const std::string& token) {
  const std::string given = token.empty() ? variable("EDBJOBS_TOKEN") : token;
  if (!target.empty()) return {target, given, ""};
  const std::string chosen = variable("EDBJOBS_TARGET");
  if (!chosen.empty()) return {chosen, given, "from EDBJOBS_TARGET"};
  const auto endpoint = read_endpoint(runtime_dir() / "endpoint.json");
  // The file may lie on a shared file system; an address of another host's loopback is no use here.
  const bool here = endpoint && (endpoint->host.empty() || endpoint->host == host_name());
  if (here && !(endpoint->uds.empty() && endpoint->grpc.empty())) {
    const bool uds = !endpoint->uds.empty() && fs::exists(fs::u8path(endpoint->uds));
    return {uds || endpoint->grpc.empty() ? "unix:" + endpoint->uds : endpoint->grpc,
            given.empty() ? read_token(endpoint->token_file) : given, "from endpoint.json"};
  }
  return {kDefaultTarget, given, "the default"};
}

}  // namespace edbjobs
