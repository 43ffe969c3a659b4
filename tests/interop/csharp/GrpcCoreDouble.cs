// A stand-in for the part of Grpc.Core.Api that generated code and our client use, with the same names and signatures.
// The real assembly comes from NuGet only, which the tests cannot count on. Never part of the client.
using System;
using System.Buffers;
using System.Collections;
using System.Collections.Generic;
using System.Linq;
using System.Runtime.CompilerServices;
using System.Threading;
using System.Threading.Tasks;

namespace Grpc.Core
{
    public enum StatusCode
    {
        OK = 0, Cancelled = 1, Unknown = 2, InvalidArgument = 3, DeadlineExceeded = 4, NotFound = 5, AlreadyExists = 6,
        PermissionDenied = 7, ResourceExhausted = 8, FailedPrecondition = 9, Aborted = 10, OutOfRange = 11,
        Unimplemented = 12, Internal = 13, Unavailable = 14, DataLoss = 15, Unauthenticated = 16,
    }

    public struct Status
    {
        public Status(StatusCode statusCode, string detail)
        {
            StatusCode = statusCode;
            Detail = detail;
        }

        public StatusCode StatusCode { get; }
        public string Detail { get; }
    }

    public class RpcException : Exception
    {
        public RpcException(Status status, Metadata trailers) : base(status.StatusCode + ": " + status.Detail)
        {
            Status = status;
            Trailers = trailers;
        }

        public Status Status { get; }
        public StatusCode StatusCode => Status.StatusCode;
        public Metadata Trailers { get; }
    }

    public sealed class Metadata : IEnumerable<Metadata.Entry>
    {
        private readonly List<Entry> entries = new List<Entry>();

        public void Add(Entry entry) => entries.Add(entry);
        public void Add(string key, string value) => entries.Add(new Entry(key, value));
        public void Add(string key, byte[] value) => entries.Add(new Entry(key, value));
        public IEnumerator<Entry> GetEnumerator() => entries.GetEnumerator();
        IEnumerator IEnumerable.GetEnumerator() => entries.GetEnumerator();

        public class Entry
        {
            public Entry(string key, string value)
            {
                Key = key;
                Value = value;
            }

            public Entry(string key, byte[] value)
            {
                Key = key;
                ValueBytes = value;
            }

            public string Key { get; }
            public string Value { get; }
            public byte[] ValueBytes { get; }
        }
    }

    public struct CallOptions
    {
        public CallOptions(
            Metadata headers = null, DateTime? deadline = null, CancellationToken cancellationToken = default(CancellationToken))
        {
            Headers = headers;
            Deadline = deadline;
            CancellationToken = cancellationToken;
        }

        public Metadata Headers { get; }
        public DateTime? Deadline { get; }
        public CancellationToken CancellationToken { get; }
        public CallOptions WithHeaders(Metadata headers) => new CallOptions(headers, Deadline, CancellationToken);
        public CallOptions WithDeadline(DateTime deadline) => new CallOptions(Headers, deadline, CancellationToken);
    }

    public interface IAsyncStreamReader<out T>
    {
        T Current { get; }
        Task<bool> MoveNext(CancellationToken cancellationToken);
    }

    public sealed class AsyncUnaryCall<TResponse> : IDisposable
    {
        private readonly Action dispose;

        public AsyncUnaryCall(Task<TResponse> response, Action dispose)
        {
            ResponseAsync = response;
            this.dispose = dispose;
        }

        public Task<TResponse> ResponseAsync { get; }
        public TaskAwaiter<TResponse> GetAwaiter() => ResponseAsync.GetAwaiter();
        public void Dispose() => dispose();
    }

    public sealed class AsyncServerStreamingCall<TResponse> : IDisposable
    {
        private readonly Action dispose;

        public AsyncServerStreamingCall(IAsyncStreamReader<TResponse> stream, Action dispose)
        {
            ResponseStream = stream;
            this.dispose = dispose;
        }

        public IAsyncStreamReader<TResponse> ResponseStream { get; }
        public void Dispose() => dispose();
    }

    public sealed class AsyncClientStreamingCall<TRequest, TResponse>
    {
    }

    public sealed class AsyncDuplexStreamingCall<TRequest, TResponse>
    {
    }

    public abstract class CallInvoker
    {
        public abstract TResponse BlockingUnaryCall<TRequest, TResponse>(
            Method<TRequest, TResponse> method, string host, CallOptions options, TRequest request)
            where TRequest : class where TResponse : class;

        public abstract AsyncUnaryCall<TResponse> AsyncUnaryCall<TRequest, TResponse>(
            Method<TRequest, TResponse> method, string host, CallOptions options, TRequest request)
            where TRequest : class where TResponse : class;

        public abstract AsyncServerStreamingCall<TResponse> AsyncServerStreamingCall<TRequest, TResponse>(
            Method<TRequest, TResponse> method, string host, CallOptions options, TRequest request)
            where TRequest : class where TResponse : class;

        public abstract AsyncClientStreamingCall<TRequest, TResponse> AsyncClientStreamingCall<TRequest, TResponse>(
            Method<TRequest, TResponse> method, string host, CallOptions options)
            where TRequest : class where TResponse : class;

        public abstract AsyncDuplexStreamingCall<TRequest, TResponse> AsyncDuplexStreamingCall<TRequest, TResponse>(
            Method<TRequest, TResponse> method, string host, CallOptions options)
            where TRequest : class where TResponse : class;
    }

    public abstract class ChannelBase
    {
        public abstract CallInvoker CreateCallInvoker();
    }

    public abstract class ClientBase
    {
        protected ClientBase(CallInvoker callInvoker)
        {
            CallInvoker = callInvoker;
        }

        protected CallInvoker CallInvoker { get; }

        protected internal class ClientBaseConfiguration
        {
            internal ClientBaseConfiguration(CallInvoker undecorated)
            {
                Undecorated = undecorated;
            }

            internal CallInvoker Undecorated { get; }
        }
    }

    public abstract class ClientBase<T> : ClientBase where T : ClientBase<T>
    {
        protected ClientBase() : base(null)
        {
        }

        protected ClientBase(ChannelBase channel) : base(channel.CreateCallInvoker())
        {
        }

        protected ClientBase(CallInvoker callInvoker) : base(callInvoker)
        {
        }

        protected ClientBase(ClientBaseConfiguration configuration) : base(configuration.Undecorated)
        {
        }

        protected abstract T NewInstance(ClientBaseConfiguration configuration);
    }

    public enum MethodType
    {
        Unary, ClientStreaming, ServerStreaming, DuplexStreaming,
    }

    public class Method<TRequest, TResponse>
    {
        public Method(
            MethodType type, string serviceName, string name, Marshaller<TRequest> request, Marshaller<TResponse> response)
        {
            FullName = "/" + serviceName + "/" + name;
            RequestMarshaller = request;
            ResponseMarshaller = response;
        }

        public string FullName { get; }
        public Marshaller<TRequest> RequestMarshaller { get; }
        public Marshaller<TResponse> ResponseMarshaller { get; }
    }

    public abstract class SerializationContext
    {
        public abstract void Complete(byte[] payload);
        public abstract IBufferWriter<byte> GetBufferWriter();
        public abstract void SetPayloadLength(int payloadLength);
        public abstract void Complete();
    }

    public abstract class DeserializationContext
    {
        public abstract int PayloadLength { get; }
        public abstract byte[] PayloadAsNewBuffer();
        public abstract ReadOnlySequence<byte> PayloadAsReadOnlySequence();
    }

    public class Marshaller<T>
    {
        public Marshaller(Action<T, SerializationContext> serializer, Func<DeserializationContext, T> deserializer)
        {
            ContextualSerializer = serializer;
            ContextualDeserializer = deserializer;
        }

        public Action<T, SerializationContext> ContextualSerializer { get; }
        public Func<DeserializationContext, T> ContextualDeserializer { get; }
    }

    public static class Marshallers
    {
        public static Marshaller<T> Create<T>(
            Action<T, SerializationContext> serializer, Func<DeserializationContext, T> deserializer)
        {
            return new Marshaller<T>(serializer, deserializer);
        }
    }
}
