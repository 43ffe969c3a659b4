using System;
using EdbJobs.V1;
using Grpc.Core;

namespace EdbJobs
{
    /// <summary>
    /// A connection to an edbjobs service. The calls are the generated ones, on <see cref="Jobs"/>,
    /// <see cref="Resources"/> and <see cref="Cluster"/>; they get the token and a deadline, and after a restart of the
    /// service they go to its new address. Submits and retries get a request_id where none is set, so that every unary call
    /// can be sent again while the service is unreachable for a moment. A call that fails throws
    /// <see cref="RpcException"/>: <see cref="ServiceError.From(RpcException)"/> reads its details. May be used by several
    /// threads at once.
    /// </summary>
    public sealed class EdbJobsClient : IDisposable
    {
        private readonly ServiceInvoker invoker;

        public EdbJobsClient(EdbJobsOptions options = null)
        {
            Options = options ?? new EdbJobsOptions();
            invoker = new ServiceInvoker(Options);
            Jobs = new JobsService.JobsServiceClient(invoker);
            Resources = new ResourcesService.ResourcesServiceClient(invoker);
            Cluster = new ClusterService.ClusterServiceClient(invoker);
        }

        public EdbJobsOptions Options { get; }

        public JobsService.JobsServiceClient Jobs { get; }

        public ResourcesService.ResourcesServiceClient Resources { get; }

        public ClusterService.ClusterServiceClient Cluster { get; }

        /// <summary>Address that is used now.</summary>
        public string Address => invoker.Address;

        /// <summary>
        /// Every change of the jobs, once and in order, across breaks of the connection and restarts of the service.
        /// </summary>
        /// <param name="request">As for JobsService.WatchJobs; null: all jobs, only what is new.</param>
        public JobWatch Watch(WatchJobsRequest request = null)
        {
            return new JobWatch(this, request ?? new WatchJobsRequest());
        }

        public void Dispose()
        {
            invoker.Dispose();
        }
    }
}
