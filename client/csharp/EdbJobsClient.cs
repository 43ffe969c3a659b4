using System;
using EdbJobs.V1;
using Grpc.Core;

namespace EdbJobs
{
    /// <summary>
    /// A connection to an edbjobs service. The calls are the generated ones, on <see cref="Jobs"/>,
    /// <see cref="Resources"/> and <see cref="Cluster"/>; they get the token and a deadline, and after a restart of the
    /// service they go to its new address. A call that fails throws <see cref="RpcException"/>:
    /// <see cref="ServiceError.From"/> reads its details. May be used by several threads at once.
    /// </summary>
    public sealed class EdbJobsClient : IDisposable
    {
        private readonly ServiceInvoker invoker;

        public EdbJobsClient(EdbJobsOptions options = null)
        {
            Options = options ?? new EdbJobsOptions();
            invoker = new ServiceInvoker(Options);
            Jobs = new Jobs.JobsClient(invoker);
            Resources = new Resources.ResourcesClient(invoker);
            Cluster = new Cluster.ClusterClient(invoker);
        }

        public EdbJobsOptions Options { get; }

        public Jobs.JobsClient Jobs { get; }

        public Resources.ResourcesClient Resources { get; }

        public Cluster.ClusterClient Cluster { get; }

        /// <summary>Address that is used now.</summary>
        public string Address => invoker.Address;

        /// <summary>
        /// Every change of the jobs, once and in order, across breaks of the connection and restarts of the service.
        /// </summary>
        /// <param name="request">As for Jobs.WatchJobs; null: all jobs, only what is new.</param>
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
