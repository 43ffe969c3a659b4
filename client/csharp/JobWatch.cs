using System;
using System.Collections.Generic;
using System.Threading;
using System.Threading.Tasks;
using EdbJobs.V1;
using Grpc.Core;

namespace EdbJobs
{
    /// <summary>
    /// Changes of the jobs, as the service's messages, heartbeats without changes included:
    /// <c>await foreach (WatchJobsResponse message in client.Watch(request).WithCancellation(token))</c>. The position of a
    /// message is where another watch resumes after it. After a break of the connection CaughtUp and the updates come
    /// again, events do not. Ends with <see cref="OperationCanceledException"/>, or with <see cref="RpcException"/> when
    /// the service stays away for longer than <see cref="EdbJobsOptions.Patience"/>, never answered, or refuses, as with
    /// REVISION_TOO_OLD: list the jobs again.
    /// </summary>
    public sealed class JobWatch : IAsyncEnumerable<WatchJobsResponse>
    {
        private readonly EdbJobsClient client;
        private readonly WatchJobsRequest request;

        internal JobWatch(EdbJobsClient client, WatchJobsRequest request)
        {
            this.client = client;
            this.request = request;
        }

        public IAsyncEnumerator<WatchJobsResponse> GetAsyncEnumerator(
            CancellationToken cancellationToken = default(CancellationToken))
        {
            return new Enumerator(client, request.Clone(), cancellationToken);
        }

        private sealed class Enumerator : IAsyncEnumerator<WatchJobsResponse>
        {
            private static readonly TimeSpan FirstDelay = TimeSpan.FromMilliseconds(100);
            private static readonly TimeSpan LongestDelay = TimeSpan.FromSeconds(2);

            private readonly EdbJobsClient client;
            private readonly WatchJobsRequest request;
            private readonly CancellationToken token;
            private AsyncServerStreamingCall<WatchJobsResponse> call;
            private bool answered;
            private DateTime? awaySince;
            private TimeSpan delay = FirstDelay;

            internal Enumerator(EdbJobsClient client, WatchJobsRequest request, CancellationToken token)
            {
                this.client = client;
                this.request = request;
                this.token = token;
            }

            public WatchJobsResponse Current { get; private set; }

            public ValueTask<bool> MoveNextAsync()
            {
                return new ValueTask<bool>(Move());
            }

            public ValueTask DisposeAsync()
            {
                Close();
                return default(ValueTask);
            }

            private async Task<bool> Move()
            {
                for (;;)
                {
                    token.ThrowIfCancellationRequested();
                    try
                    {
                        if (call == null) call = client.Jobs.WatchJobs(request, cancellationToken: token);
                        if (await call.ResponseStream.MoveNext(token).ConfigureAwait(false))
                        {
                            Accept(call.ResponseStream.Current);
                            return true;
                        }
                        Close();
                    }
                    catch (RpcException error)
                    {
                        Close();
                        token.ThrowIfCancellationRequested();
                        if (!MayTryAgain(ServiceError.From(error))) throw;
                        await Task.Delay(delay, token).ConfigureAwait(false);
                        delay = delay + delay < LongestDelay ? delay + delay : LongestDelay;
                    }
                }
            }

            private void Accept(WatchJobsResponse message)
            {
                answered = true;
                awaySince = null;
                delay = FirstDelay;
                Current = message;
                if (message.Position == null) return;
                request.FromOldest = false;
                request.After = message.Position.Clone();
            }

            private bool MayTryAgain(ServiceError error)
            {
                if (!answered || !error.MayPass) return false;
                DateTime now = DateTime.UtcNow;
                if (awaySince == null) awaySince = now;
                return now - awaySince.Value < client.Options.Patience;
            }

            private void Close()
            {
                if (call != null) call.Dispose();
                call = null;
            }
        }
    }
}
