using System;
using System.IO;
using Google.Protobuf.WellKnownTypes;

namespace EdbJobs
{
    /// <summary>What a service tells about itself in endpoint.json; an empty value is not served or not known.</summary>
    public sealed class Endpoint
    {
        private Endpoint(Struct values)
        {
            Grpc = Text(values, "grpc");
            Http = Text(values, "http");
            Host = Text(values, "host");
            TokenFile = Text(values, "token_file");
        }

        /// <summary>host:port of gRPC.</summary>
        public string Grpc { get; }

        /// <summary>Base URL of REST and gRPC-Web.</summary>
        public string Http { get; }

        /// <summary>Name of the host it runs on.</summary>
        public string Host { get; }

        /// <summary>File with the token.</summary>
        public string TokenFile { get; }

        /// <summary>
        /// The folder of this user's service: EDBJOBS_RUNTIME_DIR, else <c>edbjobs</c> in LOCALAPPDATA (elsewhere
        /// XDG_RUNTIME_DIR). Null where neither is set: a folder in /tmp could be another account's.
        /// </summary>
        public static string RuntimeFolder()
        {
            string chosen = Environment.GetEnvironmentVariable("EDBJOBS_RUNTIME_DIR");
            if (!string.IsNullOrEmpty(chosen)) return chosen;
            bool windows = Environment.OSVersion.Platform == PlatformID.Win32NT;
            string parent = Environment.GetEnvironmentVariable(windows ? "LOCALAPPDATA" : "XDG_RUNTIME_DIR");
            return string.IsNullOrEmpty(parent) ? null : Path.Combine(parent, "edbjobs");
        }

        /// <summary>endpoint.json of this user; null: there is no folder where it could be.</summary>
        public static string FilePath()
        {
            string folder = RuntimeFolder();
            return folder == null ? null : Path.Combine(folder, "endpoint.json");
        }

        /// <summary>Reads endpoint.json of this user; null: no service has run, or it is another host's.</summary>
        /// <exception cref="IOException">It is not what a service writes, or cannot be read.</exception>
        public static Endpoint Find()
        {
            string file = FilePath();
            if (file == null || !File.Exists(file)) return null;
            var endpoint = new Endpoint(Struct.Parser.ParseJson(File.ReadAllText(file)));
            // The file may lie on a shared file system; an address of another host's loopback is no use here.
            bool here = endpoint.Host.Length == 0
                || string.Equals(endpoint.Host, System.Net.Dns.GetHostName(), StringComparison.OrdinalIgnoreCase);
            return here ? endpoint : null;
        }

        /// <summary>The token, or null if this account may not read it: the service tells what is missing.</summary>
        public string ReadToken()
        {
            if (TokenFile.Length == 0) return null;
            try
            {
                return File.ReadAllText(TokenFile).Trim();
            }
            catch (Exception error) when (error is IOException || error is UnauthorizedAccessException)
            {
                return null;
            }
        }

        private static string Text(Struct values, string name)
        {
            Value found;
            return values.Fields.TryGetValue(name, out found) ? found.StringValue : "";
        }
    }
}
