// Makes the calls of the table with the C# client: one JSON line in, one out.
using System;
using System.Collections.Generic;
using System.Linq;
using System.Text;
using System.Threading;
using System.Threading.Tasks;
using EdbJobs;
using EdbJobs.V1;
using Google.Protobuf;
using Google.Protobuf.Reflection;
using Google.Protobuf.WellKnownTypes;
using Grpc.Core;

internal static class Driver
{
    private static readonly TypeRegistry Types = TypeRegistry.FromFiles(
        JobsMessagesReflection.Descriptor, Google.Rpc.ErrorDetailsReflection.Descriptor);
    private static readonly JsonFormatter Formatter = new JsonFormatter(new JsonFormatter.Settings(false, Types));

    private sealed class Call
    {
        internal string Rpc, Request, Token, Until;
        internal double Deadline;

        internal CallOptions Options(CancellationToken token = default(CancellationToken))
        {
            return new CallOptions(null, Deadline > 0 ? DateTime.UtcNow.AddSeconds(Deadline) : (DateTime?)null, token);
        }

        internal T Parse<T>() where T : IMessage<T>, new()
        {
            return new JsonParser(JsonParser.Settings.Default).Parse<T>(Request);
        }
    }

    private delegate Task Method(EdbJobsClient client, Call call, List<string> messages);

    private static Method Unary<TRequest, TResponse>(
        Func<EdbJobsClient, Func<TRequest, CallOptions, AsyncUnaryCall<TResponse>>> method)
        where TRequest : IMessage<TRequest>, new() where TResponse : IMessage<TResponse>
    {
        return async (client, call, messages) =>
            messages.Add(Formatter.Format(await method(client)(call.Parse<TRequest>(), call.Options()).ResponseAsync));
    }

    private static Method Stream<TRequest, TResponse>(
        Func<EdbJobsClient, Func<TRequest, CallOptions, AsyncServerStreamingCall<TResponse>>> method)
        where TRequest : IMessage<TRequest>, new() where TResponse : IMessage<TResponse>
    {
        return async (client, call, messages) =>
        {
            using (AsyncServerStreamingCall<TResponse> stream = method(client)(call.Parse<TRequest>(), call.Options()))
            {
                while (await stream.ResponseStream.MoveNext(CancellationToken.None))
                {
                    messages.Add(Formatter.Format(stream.ResponseStream.Current));
                    if (call.Until.Length > 0 && messages.Last().Contains(call.Until)) return;
                }
            }
        };
    }

    private static readonly Dictionary<string, Method> Methods = new Dictionary<string, Method>
    {
        ["JobsService.SubmitJob"] = Unary<SubmitJobRequest, SubmitJobResponse>(to => to.Jobs.SubmitJobAsync),
        ["JobsService.SubmitJobs"] = Unary<SubmitJobsRequest, SubmitJobsResponse>(to => to.Jobs.SubmitJobsAsync),
        ["JobsService.PreviewJob"] = Unary<PreviewJobRequest, PreviewJobResponse>(to => to.Jobs.PreviewJobAsync),
        ["JobsService.InspectProject"] =
            Unary<InspectProjectRequest, InspectProjectResponse>(to => to.Jobs.InspectProjectAsync),
        ["JobsService.ListProjects"] =
            Unary<ListProjectsRequest, ListProjectsResponse>(to => to.Jobs.ListProjectsAsync),
        ["JobsService.GetJob"] = Unary<GetJobRequest, GetJobResponse>(to => to.Jobs.GetJobAsync),
        ["JobsService.ListJobs"] = Unary<ListJobsRequest, ListJobsResponse>(to => to.Jobs.ListJobsAsync),
        ["JobsService.WaitJob"] = Unary<WaitJobRequest, WaitJobResponse>(to => to.Jobs.WaitJobAsync),
        ["JobsService.WatchJobs"] = Stream<WatchJobsRequest, WatchJobsResponse>(to => to.Jobs.WatchJobs),
        ["JobsService.CancelJob"] = Unary<CancelJobRequest, CancelJobResponse>(to => to.Jobs.CancelJobAsync),
        ["JobsService.CancelJobs"] = Unary<CancelJobsRequest, CancelJobsResponse>(to => to.Jobs.CancelJobsAsync),
        ["JobsService.HoldJob"] = Unary<HoldJobRequest, HoldJobResponse>(to => to.Jobs.HoldJobAsync),
        ["JobsService.HoldJobs"] = Unary<HoldJobsRequest, HoldJobsResponse>(to => to.Jobs.HoldJobsAsync),
        ["JobsService.ReleaseJob"] = Unary<ReleaseJobRequest, ReleaseJobResponse>(to => to.Jobs.ReleaseJobAsync),
        ["JobsService.ReleaseJobs"] = Unary<ReleaseJobsRequest, ReleaseJobsResponse>(to => to.Jobs.ReleaseJobsAsync),
        ["JobsService.SetJobPriority"] =
            Unary<SetJobPriorityRequest, SetJobPriorityResponse>(to => to.Jobs.SetJobPriorityAsync),
        ["JobsService.SetJobsPriority"] =
            Unary<SetJobsPriorityRequest, SetJobsPriorityResponse>(to => to.Jobs.SetJobsPriorityAsync),
        ["JobsService.RetryJob"] = Unary<RetryJobRequest, RetryJobResponse>(to => to.Jobs.RetryJobAsync),
        ["JobsService.RetryJobs"] = Unary<RetryJobsRequest, RetryJobsResponse>(to => to.Jobs.RetryJobsAsync),
        ["JobsService.DeleteJob"] = Unary<DeleteJobRequest, DeleteJobResponse>(to => to.Jobs.DeleteJobAsync),
        ["JobsService.DeleteJobs"] = Unary<DeleteJobsRequest, DeleteJobsResponse>(to => to.Jobs.DeleteJobsAsync),
        ["JobsService.GetBatch"] = Unary<GetBatchRequest, GetBatchResponse>(to => to.Jobs.GetBatchAsync),
        ["JobsService.ListBatches"] = Unary<ListBatchesRequest, ListBatchesResponse>(to => to.Jobs.ListBatchesAsync),
        ["JobsService.ReadLog"] = Stream<ReadLogRequest, ReadLogResponse>(to => to.Jobs.ReadLog),
        ["JobsService.GetConvergence"] =
            Unary<GetConvergenceRequest, GetConvergenceResponse>(to => to.Jobs.GetConvergenceAsync),
        ["JobsService.ListFiles"] = Unary<ListFilesRequest, ListFilesResponse>(to => to.Jobs.ListFilesAsync),
        ["JobsService.ReadFile"] = Stream<ReadFileRequest, ReadFileResponse>(to => to.Jobs.ReadFile),
        ["ResourcesService.GetResources"] =
            Unary<GetResourcesRequest, GetResourcesResponse>(to => to.Resources.GetResourcesAsync),
        ["ResourcesService.WatchResources"] =
            Stream<WatchResourcesRequest, WatchResourcesResponse>(to => to.Resources.WatchResources),
        ["ResourcesService.GetQueue"] = Unary<GetQueueRequest, GetQueueResponse>(to => to.Resources.GetQueueAsync),
        ["ResourcesService.PauseQueue"] =
            Unary<PauseQueueRequest, PauseQueueResponse>(to => to.Resources.PauseQueueAsync),
        ["ResourcesService.ResumeQueue"] =
            Unary<ResumeQueueRequest, ResumeQueueResponse>(to => to.Resources.ResumeQueueAsync),
        ["ResourcesService.GetLimits"] = Unary<GetLimitsRequest, GetLimitsResponse>(to => to.Resources.GetLimitsAsync),
        ["ResourcesService.UpdateLimits"] =
            Unary<UpdateLimitsRequest, UpdateLimitsResponse>(to => to.Resources.UpdateLimitsAsync),
        ["ResourcesService.ListLicenses"] =
            Unary<ListLicensesRequest, ListLicensesResponse>(to => to.Resources.ListLicensesAsync),
        ["ClusterService.GetSystemStatus"] =
            Unary<GetSystemStatusRequest, GetSystemStatusResponse>(to => to.Cluster.GetSystemStatusAsync),
        ["ClusterService.ListSolvers"] =
            Unary<ListSolversRequest, ListSolversResponse>(to => to.Cluster.ListSolversAsync),
        ["ClusterService.ListPartitions"] =
            Unary<ListPartitionsRequest, ListPartitionsResponse>(to => to.Cluster.ListPartitionsAsync),
        ["ClusterService.ListClusterJobs"] =
            Unary<ListClusterJobsRequest, ListClusterJobsResponse>(to => to.Cluster.ListClusterJobsAsync),
        ["watch"] = Watch,
    };

    private static async Task Watch(EdbJobsClient client, Call call, List<string> messages)
    {
        IAsyncEnumerator<WatchJobsResponse> changes =
            client.Watch(call.Parse<WatchJobsRequest>()).GetAsyncEnumerator();
        bool last = false;
        while (!last && await changes.MoveNextAsync())
        {
            foreach (string text in changes.Current.Events.Select(change => Formatter.Format(change)))
            {
                Console.WriteLine("{\"event\":" + Quoted(text) + "}");
                last = last || text.Contains(call.Until);
            }
        }
        await changes.DisposeAsync();
    }

    private static void Main()
    {
        Console.InputEncoding = Console.OutputEncoding = new UTF8Encoding(false);
        using (var usual = new EdbJobsClient())
        {
            string line;
            while ((line = Console.ReadLine()) != null)
            {
                Call call = Read(line);
                using (var another = new EdbJobsClient(new EdbJobsOptions { Token = call.Token }))
                {
                    Console.WriteLine(Answer(call.Token.Length > 0 ? another : usual, call).GetAwaiter().GetResult());
                }
            }
        }
    }

    private static async Task<string> Answer(EdbJobsClient client, Call call)
    {
        var messages = new List<string>();
        ServiceError error = null;
        try
        {
            await Methods[call.Rpc](client, call, messages);
        }
        catch (RpcException exception)
        {
            error = ServiceError.From(exception);
        }
        return "{\"code\":" + (error == null ? 0 : (int)error.Code)
            + ",\"message\":" + Quoted(error == null ? "" : error.Message)
            + ",\"reason\":" + Quoted(error == null ? "" : error.Reason)
            + ",\"errorReason\":" + (error == null ? 0 : (int)error.ErrorReason)
            + ",\"fields\":" + Joined(error?.Fields) + ",\"metadata\":" + Joined(error?.Metadata)
            + ",\"messages\":[" + string.Join(",", messages.Select(Quoted)) + "]}";
    }

    private static Call Read(string line)
    {
        var values = Struct.Parser.ParseJson(line).Fields;
        return new Call
        {
            Rpc = values["rpc"].StringValue,
            Request = values["request"].StringValue,
            Deadline = values["deadline"].NumberValue,
            Token = values["token"].StringValue,
            Until = values["until"].StringValue,
        };
    }

    private static string Quoted(string text)
    {
        return JsonFormatter.Default.Format(Value.ForString(text));
    }

    private static string Joined(IReadOnlyDictionary<string, string> values)
    {
        if (values == null) return "{}";
        return "{" + string.Join(",", values.Select(pair => Quoted(pair.Key) + ":" + Quoted(pair.Value))) + "}";
    }
}
