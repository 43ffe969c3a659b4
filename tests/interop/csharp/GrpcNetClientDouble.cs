// A stand-in for the part of Grpc.Net.Client and Grpc.Net.Client.Web that our client uses: gRPC-Web over HttpClient.
using System;
using System.Buffers;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Text;
using System.Threading;
using System.Threading.Tasks;
using Grpc.Core;
using Grpc.Net.Client.Configuration;

namespace Grpc.Net.Client.Configuration
{
    // Taken, not obeyed: nothing is sent again here.
    public sealed class ServiceConfig
    {
        public IList<MethodConfig> MethodConfigs { get; } = new List<MethodConfig>();
    }

    public sealed class MethodConfig
    {
        public IList<MethodName> Names { get; } = new List<MethodName>();
        public RetryPolicy RetryPolicy { get; set; }
    }

    public sealed class MethodName
    {
        public string Service { get; set; }
        public string Method { get; set; }
    }

    public sealed class RetryPolicy
    {
        public int? MaxAttempts { get; set; }
        public TimeSpan? InitialBackoff { get; set; }
        public TimeSpan? MaxBackoff { get; set; }
        public double? BackoffMultiplier { get; set; }
        public IList<StatusCode> RetryableStatusCodes { get; } = new List<StatusCode>();
    }
}

namespace Grpc.Net.Client
{
    public sealed class GrpcChannelOptions
    {
        public HttpMessageHandler HttpHandler { get; set; }
        public int? MaxReceiveMessageSize { get; set; }
        public bool DisposeHttpClient { get; set; }
        public ServiceConfig ServiceConfig { get; set; }
    }

    public sealed class GrpcChannel : ChannelBase, IDisposable
    {
        private readonly HttpClient client;

        private GrpcChannel(string address, GrpcChannelOptions options)
        {
            if (!(options.HttpHandler is Web.GrpcWebHandler)) throw new NotSupportedException("gRPC-Web only");
            client = new HttpClient(options.HttpHandler, options.DisposeHttpClient)
            {
                BaseAddress = new Uri(address),
                Timeout = Timeout.InfiniteTimeSpan,
            };
        }

        public static GrpcChannel ForAddress(string address, GrpcChannelOptions options)
        {
            return new GrpcChannel(address, options);
        }

        public override CallInvoker CreateCallInvoker() => new WebInvoker(client);
        public void Dispose() => client.Dispose();
    }

    internal sealed class WebInvoker : CallInvoker
    {
        private readonly HttpClient client;

        internal WebInvoker(HttpClient client)
        {
            this.client = client;
        }

        public override TResponse BlockingUnaryCall<TRequest, TResponse>(
            Method<TRequest, TResponse> method, string host, CallOptions options, TRequest request)
        {
            return AsyncUnaryCall(method, host, options, request).ResponseAsync.GetAwaiter().GetResult();
        }

        public override AsyncUnaryCall<TResponse> AsyncUnaryCall<TRequest, TResponse>(
            Method<TRequest, TResponse> method, string host, CallOptions options, TRequest request)
        {
            var call = new WebCall<TRequest, TResponse>(client, method, options, request);
            return new AsyncUnaryCall<TResponse>(call.Only(), call.Dispose);
        }

        public override AsyncServerStreamingCall<TResponse> AsyncServerStreamingCall<TRequest, TResponse>(
            Method<TRequest, TResponse> method, string host, CallOptions options, TRequest request)
        {
            var call = new WebCall<TRequest, TResponse>(client, method, options, request);
            return new AsyncServerStreamingCall<TResponse>(call, call.Dispose);
        }

        public override AsyncClientStreamingCall<TRequest, TResponse> AsyncClientStreamingCall<TRequest, TResponse>(
            Method<TRequest, TResponse> method, string host, CallOptions options)
        {
            throw new NotSupportedException();
        }

        public override AsyncDuplexStreamingCall<TRequest, TResponse> AsyncDuplexStreamingCall<TRequest, TResponse>(
            Method<TRequest, TResponse> method, string host, CallOptions options)
        {
            throw new NotSupportedException();
        }
    }

    // One call: the request in one frame, then frames of messages and a last one of trailers.
    internal sealed class WebCall<TRequest, TResponse> : IAsyncStreamReader<TResponse>, IDisposable
    {
        private const byte TrailerFlag = 0x80;

        private readonly HttpClient client;
        private readonly Method<TRequest, TResponse> method;
        private readonly CallOptions options;
        private readonly TRequest request;
        private readonly CancellationTokenSource cancel;
        private HttpResponseMessage response;
        private Stream body;

        internal WebCall(HttpClient client, Method<TRequest, TResponse> method, CallOptions options, TRequest request)
        {
            this.client = client;
            this.method = method;
            this.options = options;
            this.request = request;
            cancel = CancellationTokenSource.CreateLinkedTokenSource(options.CancellationToken);
            if (options.Deadline.HasValue) cancel.CancelAfter(Left());
        }

        public TResponse Current { get; private set; }

        public void Dispose()
        {
            cancel.Cancel();
            if (response != null) response.Dispose();
        }

        public async Task<bool> MoveNext(CancellationToken token)
        {
            try
            {
                using (token.Register(cancel.Cancel))
                using (cancel.Token.Register(() => { if (response != null) response.Dispose(); }))
                {
                    return await Read().ConfigureAwait(false);
                }
            }
            catch (RpcException)
            {
                throw;
            }
            catch (Exception error)
            {
                throw Failed(error);
            }
        }

        internal async Task<TResponse> Only()
        {
            if (!await MoveNext(CancellationToken.None).ConfigureAwait(false)) throw Ended(StatusCode.Internal, "no answer");
            TResponse answer = Current;
            await MoveNext(CancellationToken.None).ConfigureAwait(false);
            return answer;
        }

        private async Task<bool> Read()
        {
            if (response == null) await Send().ConfigureAwait(false);
            byte[] head = await Exactly(5).ConfigureAwait(false);
            byte[] frame = await Exactly(head[1] << 24 | head[2] << 16 | head[3] << 8 | head[4]).ConfigureAwait(false);
            if ((head[0] & TrailerFlag) == 0)
            {
                Current = method.ResponseMarshaller.ContextualDeserializer(new Incoming(frame));
                return true;
            }
            IEnumerable<string[]> lines = Encoding.ASCII.GetString(frame)
                .Split(new[] { "\r\n" }, StringSplitOptions.RemoveEmptyEntries)
                .Select(line => line.Split(new[] { ':' }, 2));
            ThrowUnlessOk(lines.ToDictionary(line => line[0].Trim().ToLowerInvariant(), line => line[1].Trim()));
            return false;
        }

        private async Task Send()
        {
            var outgoing = new Outgoing();
            method.RequestMarshaller.ContextualSerializer(request, outgoing);
            var message = new HttpRequestMessage(HttpMethod.Post, method.FullName)
            {
                Content = new ByteArrayContent(outgoing.Frame()),
            };
            message.Content.Headers.ContentType = new MediaTypeHeaderValue("application/grpc-web+proto");
            message.Headers.Add("x-grpc-web", "1");
            foreach (Metadata.Entry entry in options.Headers ?? new Metadata())
            {
                message.Headers.TryAddWithoutValidation(entry.Key, entry.Value);
            }
            if (options.Deadline.HasValue)
            {
                message.Headers.Add("grpc-timeout", Math.Max(1, (long)Left().TotalMilliseconds) + "m");
            }
            response = await client
                .SendAsync(message, HttpCompletionOption.ResponseHeadersRead, cancel.Token).ConfigureAwait(false);
            IEnumerable<string> status;
            if (response.Headers.TryGetValues("grpc-status", out status))
            {
                ThrowUnlessOk(response.Headers.ToDictionary(pair => pair.Key.ToLowerInvariant(), pair => pair.Value.First()));
            }
            if (!response.IsSuccessStatusCode) throw Ended(StatusCode.Unknown, "HTTP " + (int)response.StatusCode);
            body = await response.Content.ReadAsStreamAsync().ConfigureAwait(false);
        }

        private async Task<byte[]> Exactly(int count)
        {
            var buffer = new byte[count];
            for (int have = 0; have < count;)
            {
                int read = await body.ReadAsync(buffer, have, count - have, cancel.Token).ConfigureAwait(false);
                if (read == 0) throw Ended(StatusCode.Unavailable, "the connection ended before the answer did");
                have += read;
            }
            return buffer;
        }

        private static void ThrowUnlessOk(IDictionary<string, string> trailers)
        {
            var code = (StatusCode)int.Parse(trailers["grpc-status"], CultureInfo.InvariantCulture);
            if (code == StatusCode.OK) return;
            string text;
            trailers.TryGetValue("grpc-message", out text);
            var metadata = new Metadata();
            foreach (var pair in trailers)
            {
                if (pair.Key.EndsWith("-bin", StringComparison.Ordinal)) metadata.Add(pair.Key, Unpadded(pair.Value));
            }
            throw new RpcException(new Status(code, Uri.UnescapeDataString(text ?? "")), metadata);
        }

        private static byte[] Unpadded(string text)
        {
            return Convert.FromBase64String(text.TrimEnd('=').PadRight((text.TrimEnd('=').Length + 3) / 4 * 4, '='));
        }

        private RpcException Failed(Exception error)
        {
            if (options.Deadline.HasValue && DateTime.UtcNow >= options.Deadline.Value)
            {
                return Ended(StatusCode.DeadlineExceeded, "the deadline passed");
            }
            return cancel.IsCancellationRequested
                ? Ended(StatusCode.Cancelled, "cancelled by the caller")
                : Ended(StatusCode.Unavailable, error.Message);
        }

        private static RpcException Ended(StatusCode code, string text)
        {
            return new RpcException(new Status(code, text), new Metadata());
        }

        private TimeSpan Left()
        {
            TimeSpan left = options.Deadline.Value - DateTime.UtcNow;
            return left > TimeSpan.Zero ? left : TimeSpan.Zero;
        }
    }

    internal sealed class Outgoing : SerializationContext, IBufferWriter<byte>
    {
        private byte[] payload = new byte[0];
        private int written;

        public override void Complete(byte[] given)
        {
            payload = given;
            written = given.Length;
        }

        public override IBufferWriter<byte> GetBufferWriter() => this;
        public override void SetPayloadLength(int length) => payload = new byte[length];

        public override void Complete()
        {
        }

        public void Advance(int count) => written += count;

        public Memory<byte> GetMemory(int sizeHint = 0)
        {
            if (payload.Length - written < Math.Max(sizeHint, 1)) Array.Resize(ref payload, written + Math.Max(sizeHint, 4096));
            return new Memory<byte>(payload, written, payload.Length - written);
        }

        public Span<byte> GetSpan(int sizeHint = 0) => GetMemory(sizeHint).Span;

        internal byte[] Frame()
        {
            var frame = new byte[5 + written];
            for (int at = 0; at < 4; ++at) frame[1 + at] = (byte)(written >> (24 - 8 * at));
            Array.Copy(payload, 0, frame, 5, written);
            return frame;
        }
    }

    internal sealed class Incoming : DeserializationContext
    {
        private readonly byte[] payload;

        internal Incoming(byte[] payload)
        {
            this.payload = payload;
        }

        public override int PayloadLength => payload.Length;
        public override byte[] PayloadAsNewBuffer() => payload;
        public override ReadOnlySequence<byte> PayloadAsReadOnlySequence() => new ReadOnlySequence<byte>(payload);
    }
}

namespace Grpc.Net.Client.Web
{
    public enum GrpcWebMode
    {
        GrpcWeb, GrpcWebText,
    }

    public sealed class GrpcWebHandler : DelegatingHandler
    {
        public GrpcWebHandler(GrpcWebMode mode, HttpMessageHandler inner) : base(inner)
        {
        }
    }
}
