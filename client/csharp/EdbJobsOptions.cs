using System;
using System.Net.Http;

namespace EdbJobs
{
    /// <summary>Where the service is, and how long to wait for it.</summary>
    public sealed class EdbJobsOptions
    {
        /// <summary>
        /// <c>http://host:port</c> or <c>https://host:port</c>: of the gRPC endpoint, or with <see cref="UseGrpcWeb"/> of the
        /// HTTP endpoint. Null: found by endpoint.json, else the documented port on this host.
        /// </summary>
        public string Address { get; set; }

        /// <summary>Null: EDBJOBS_TOKEN, else the file that endpoint.json names.</summary>
        public string Token { get; set; }

        /// <summary>
        /// gRPC-Web over HTTP/1.1 instead of gRPC over HTTP/2. The default is true for .NET Framework, whose HTTP/2
        /// needs TLS and a Windows newer than 10; all calls of the contract work either way.
        /// </summary>
        public bool UseGrpcWeb { get; set; } =
#if NETFRAMEWORK
            true;
#else
            false;
#endif

        /// <summary>Longest time of a unary call that sets no deadline itself.</summary>
        public TimeSpan Timeout { get; set; } = TimeSpan.FromSeconds(30);

        /// <summary>How long a watch tries again while the service is away.</summary>
        public TimeSpan Patience { get; set; } = TimeSpan.FromMinutes(5);

        /// <summary>For client certificates or a proxy; null: one made here. It is not disposed.</summary>
        public HttpMessageHandler HttpHandler { get; set; }
    }
}
