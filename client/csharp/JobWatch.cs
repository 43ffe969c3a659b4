using System;
using System.Collections.Generic;
using System.Threading;
using System.Threading.Tasks;
using EdbJobs.V1;
using Grpc.Core;

namespace EdbJobs
{
    /// <summary>
    /// Changes of the jobs: <c>await foreach (Event change in client.Watch(request).WithCancellation(token))</c>.
    /// Ends with <see cref="OperationCanceledException"/>, or with <see cref="RpcException"/> when the service stays away
    /// for longer than <see cref="EdbJobsOptions.Patience"/>, never answered, or refuses, as with REVISION_TOO_OLD: list
    /// the jobs again.
    /// </summary>
    public sealed class JobWatch : IAsyncEnumerable<Event>
    {
        private readonly EdbJobsClient client;
        private readonly WatchJobsRequest request;

        internal JobWatch(EdbJobsClient client, WatchJobsRequest request)
        {
            this.client = client;
            this.request = request;
        }

        public IAsyncEnumerator<Event> GetAsyncEnumerator(CancellationToken cancellationToken = default(CancellationToken))
        {
            return new Enumerator(client, request.Clone(), cancellationToken);
        }

        private sealed class Enumerator : IAsyncEnumerator<Event>
        {
            private static readonly TimeSpan FirstDelay = TimeSpan.FromMilliseconds(100);
            private static readonly TimeSpan LongestDelay = TimeSpan.FromSeconds(2);

            private readonly EdbJobsClient client;
            private readonly WatchJobsRequest request;
            private readonly CancellationToken token;
            private readonly Queue<Event> events = new Queue<Event>();
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

            public Event Current { get; private set; }

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
                while (events.Count == 0)
                {
                    token.ThrowIfCancellationRequested();
                    try
                    {
                        if (call == null) call = client.Jobs.WatchJobs(request, cancellationToken: token);
                        if (await call.ResponseStream.MoveNext(token).ConfigureAwait(false))
                        {
                            Accept(call.ResponseStream.Current);
                        }
                        else
                        {
                            Close();
                        }
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
                Current = events.Dequeue();
                return true;
            }

            private void Accept(WatchJobsResponse message)
            {
                answered = true;
                awaySince = null;
                delay = FirstDelay;
                long known = request.HasAfterRevision ? request.AfterRevision : -1;
                long newest = Math.Max(known, message.Revision);
                foreach (Event change in message.Events)
                {
                    if (change.Revision <= known) continue;
                    newest = Math.Max(newest, change.Revision);
                    events.Enqueue(change);
                }
                request.AfterRevision = newest;
                if (message.StoreId.Length > 0) request.StoreId = message.StoreId;
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
