// Where the service of this user is: the runtime folder and its endpoint.json.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace edbjobs {

// What a service tells about itself; an empty value is not served or not known.
struct Endpoint {
  std::string grpc;        // host:port
  std::string uds;         // path of the Unix socket
  std::string http;        // base URL
  std::string host;        // name of the host it runs on
  std::string token_file;  // file with the token
};

// An address in gRPC's form, the token for it, and where it was found.
struct Target {
  std::string address;
  std::string token;
  std::string source;

  bool operator==(const Target& other) const { return address == other.address && token == other.token; }
};

// The folder for sockets, ready files and endpoint.json of this user: EDBJOBS_RUNTIME_DIR, else `edbjobs` in
// XDG_RUNTIME_DIR (Windows: LOCALAPPDATA), else `edbjobs-<uid>` in the temporary folder.
// Throws Error with the reason UNSAFE_RUNTIME_DIR if it belongs to another account or is open to others: whoever
// can write there could send this client, and its token, to an address of his own.
std::filesystem::path runtime_dir();

// Reads endpoint.json or a ready file; nothing if there is none.
// Throws Error with the reason BAD_ENDPOINT_FILE if it is not what a service writes.
std::optional<Endpoint> read_endpoint(const std::filesystem::path& file);

// Finds the address: the argument, else EDBJOBS_TARGET, else endpoint.json, else 127.0.0.1:18080.
// The token is the argument, else EDBJOBS_TOKEN, else the file that endpoint.json names.
Target resolve_target(const std::string& target = {}, const std::string& token = {});

}  // namespace edbjobs
