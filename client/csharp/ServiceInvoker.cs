using System;
using System.IO;
using System.Net;
using System.Net.Http;
using Google.Protobuf.Reflection;
using Grpc.Core;
using Grpc.Net.Client;
using Grpc.Net.Client.Configuration;
using Grpc.Net.Client.Web;

namespace EdbJobs
{
    /// <summary>Sends calls to where the service is now, with the token, and with a deadline where none is set.</summary>
    internal sealed class ServiceInvoker : CallInvoker, IDisposable
    {
        private const string DefaultGrpc = "http://127.0.0.1:18080";
        private const string DefaultHttp = "http://127.0.0.1:8080";
        private const int MaxMessageBytes = 16 * 1024 * 1024;
        private const int Connections = 64;

        private readonly EdbJobsOptions options;
        private readonly object gate = new object();
        private Connection current;

        internal ServiceInvoker(EdbJobsOptions options)
        {
            this.options = options;
        }

        internal string Address => Now().Address;

        public void Dispose()
        {
            lock (gate)
            {
                if (current != null) current.Channel.Dispose();
                current = null;
            }
        }

        public override TResponse BlockingUnaryCall<TRequest, TResponse>(
            Method<TRequest, TResponse> method, string host, CallOptions call, TRequest request)
        {
            Connection to = Now();
            return to.Invoker.BlockingUnaryCall(method, host, Unary(to, call), Repeatable.WithRequestIds(request));
        }

        public override AsyncUnaryCall<TResponse> AsyncUnaryCall<TRequest, TResponse>(
            Method<TRequest, TResponse> method, string host, CallOptions call, TRequest request)
        {
            Connection to = Now();
            return to.Invoker.AsyncUnaryCall(method, host, Unary(to, call), Repeatable.WithRequestIds(request));
        }

        public override AsyncServerStreamingCall<TResponse> AsyncServerStreamingCall<TRequest, TResponse>(
            Method<TRequest, TResponse> method, string host, CallOptions call, TRequest request)
        {
            Connection to = Now();
            return to.Invoker.AsyncServerStreamingCall(method, host, WithToken(to, call), request);
        }

        public override AsyncClientStreamingCall<TRequest, TResponse> AsyncClientStreamingCall<TRequest, TResponse>(
            Method<TRequest, TResponse> method, string host, CallOptions call)
        {
            throw new NotSupportedException("the contract has no client streaming");
        }

        public override AsyncDuplexStreamingCall<TRequest, TResponse> AsyncDuplexStreamingCall<TRequest, TResponse>(
            Method<TRequest, TResponse> method, string host, CallOptions call)
        {
            throw new NotSupportedException("the contract has no client streaming");
        }

        private CallOptions Unary(Connection to, CallOptions call)
        {
            call = WithToken(to, call);
            return call.Deadline == null ? call.WithDeadline(DateTime.UtcNow + options.Timeout) : call;
        }

        private static CallOptions WithToken(Connection to, CallOptions call)
        {
            if (to.Token == null) return call;
            var headers = new Metadata { { "authorization", "Bearer " + to.Token } };
            if (call.Headers != null)
            {
                foreach (Metadata.Entry entry in call.Headers) headers.Add(entry);
            }
            return call.WithHeaders(headers);
        }

        // A service that starts writes endpoint.json anew; one that stops removes it, and will most likely be back there.
        private Connection Now()
        {
            lock (gate)
            {
                string file = Endpoint.FilePath();
                bool told = file != null && File.Exists(file);
                DateTime written = told ? File.GetLastWriteTimeUtc(file) : DateTime.MinValue;
                if (current == null || (told && written != current.Written))
                {
                    Endpoint endpoint = Endpoint.Find();
                    string address = FindAddress(endpoint);
                    // The old one is left to the garbage collector: another thread may be in the middle of a call.
                    current = new Connection(address, FindToken(endpoint), Open(address), written);
                }
                return current;
            }
        }

        private string FindAddress(Endpoint endpoint)
        {
            if (!string.IsNullOrEmpty(options.Address)) return options.Address.TrimEnd('/');
            if (options.UseGrpcWeb)
            {
                return endpoint != null && endpoint.Http.Length > 0 ? endpoint.Http.TrimEnd('/') : DefaultHttp;
            }
            return endpoint != null && endpoint.Grpc.Length > 0 ? "http://" + endpoint.Grpc : DefaultGrpc;
        }

        private string FindToken(Endpoint endpoint)
        {
            string token = options.Token ?? Environment.GetEnvironmentVariable("EDBJOBS_TOKEN");
            if (!string.IsNullOrEmpty(token)) return token;
            // The file's token is that service's: never sent to an address that was given.
            return string.IsNullOrEmpty(options.Address) && endpoint != null ? endpoint.ReadToken() : null;
        }

        private GrpcChannel Open(string address)
        {
            var uri = new Uri(address);
#if NETFRAMEWORK
            // Two connections to a host are the default there; two watches would keep every other call waiting.
            ServicePointManager.FindServicePoint(uri).ConnectionLimit = Connections;
#endif
            HttpMessageHandler handler = options.HttpHandler ?? new HttpClientHandler
            {
                MaxConnectionsPerServer = Connections,
                UseProxy = !uri.IsLoopback,
            };
            return GrpcChannel.ForAddress(address, new GrpcChannelOptions
            {
                HttpHandler = options.UseGrpcWeb ? new GrpcWebHandler(GrpcWebMode.GrpcWeb, handler) : handler,
                MaxReceiveMessageSize = MaxMessageBytes,
                DisposeHttpClient = options.HttpHandler == null,
                ServiceConfig = new ServiceConfig { MethodConfigs = { Retries() } },
            });
        }

        private static MethodConfig Retries()
        {
            var retries = new MethodConfig
            {
                RetryPolicy = new RetryPolicy
                {
                    MaxAttempts = 4,
                    InitialBackoff = TimeSpan.FromMilliseconds(100),
                    MaxBackoff = TimeSpan.FromSeconds(2),
                    BackoffMultiplier = 2,
                    RetryableStatusCodes = { StatusCode.Unavailable },
                },
            };
            foreach (MethodDescriptor method in Repeatable.Calls)
            {
                retries.Names.Add(new MethodName { Service = method.Service.FullName, Method = method.Name });
            }
            return retries;
        }

        private sealed class Connection
        {
            internal Connection(string address, string token, GrpcChannel channel, DateTime written)
            {
                Written = written;
                Address = address;
                Token = token;
                Channel = channel;
                Invoker = channel.CreateCallInvoker();
            }

            internal DateTime Written { get; }

            internal string Address { get; }

            internal string Token { get; }

            internal GrpcChannel Channel { get; }

            internal CallInvoker Invoker { get; }
        }
    }
}
