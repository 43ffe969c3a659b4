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
        ["Jobs.SubmitJob"] = Unary<SubmitJobRequest, SubmitJobResponse>(to => to.Jobs.SubmitJobAsync),
        ["Jobs.SubmitJobs"] = Unary<SubmitJobsRequest, SubmitJobsResponse>(to => to.Jobs.SubmitJobsAsync),
        ["Jobs.GetJob"] = Unary<GetJobRequest, GetJobResponse>(to => to.Jobs.GetJobAsync),
        ["Jobs.ListJobs"] = Unary<ListJobsRequest, ListJobsResponse>(to => to.Jobs.ListJobsAsync),
        ["Jobs.CancelJob"] = Unary<CancelJobRequest, CancelJobResponse>(to => to.Jobs.CancelJobAsync),
        ["Jobs.CancelJobs"] = Unary<CancelJobsRequest, CancelJobsResponse>(to => to.Jobs.CancelJobsAsync),
        ["Jobs.HoldJob"] = Unary<HoldJobRequest, HoldJobResponse>(to => to.Jobs.HoldJobAsync),
        ["Jobs.ReleaseJob"] = Unary<ReleaseJobRequest, ReleaseJobResponse>(to => to.Jobs.ReleaseJobAsync),
        ["Jobs.SetJobPriority"] = Unary<SetJobPriorityRequest, SetJobPriorityResponse>(to => to.Jobs.SetJobPriorityAsync),
        ["Jobs.RetryJob"] = Unary<RetryJobRequest, RetryJobResponse>(to => to.Jobs.RetryJobAsync),
        ["Jobs.DeleteJob"] = Unary<DeleteJobRequest, DeleteJobResponse>(to => to.Jobs.DeleteJobAsync),
        ["Jobs.WaitJob"] = Unary<WaitJobRequest, WaitJobResponse>(to => to.Jobs.WaitJobAsync),
        ["Jobs.PreviewJob"] = Unary<PreviewJobRequest, PreviewJobResponse>(to => to.Jobs.PreviewJobAsync),
        ["Jobs.WatchJobs"] = Stream<WatchJobsRequest, WatchJobsResponse>(to => to.Jobs.WatchJobs),
        ["Jobs.TailLog"] = Stream<TailLogRequest, TailLogResponse>(to => to.Jobs.TailLog),
        ["Resources.GetResources"] = Unary<GetResourcesRequest, GetResourcesResponse>(to => to.Resources.GetResourcesAsync),
        ["Resources.WatchResources"] =
            Stream<WatchResourcesRequest, WatchResourcesResponse>(to => to.Resources.WatchResources),
        ["Resources.GetQueue"] = Unary<GetQueueRequest, GetQueueResponse>(to => to.Resources.GetQueueAsync),
        ["Resources.GetLimits"] = Unary<GetLimitsRequest, GetLimitsResponse>(to => to.Resources.GetLimitsAsync),
        ["Resources.UpdateLimits"] = Unary<UpdateLimitsRequest, UpdateLimitsResponse>(to => to.Resources.UpdateLimitsAsync),
        ["Resources.PauseQueue"] = Unary<PauseQueueRequest, PauseQueueResponse>(to => to.Resources.PauseQueueAsync),
        ["Resources.ResumeQueue"] = Unary<ResumeQueueRequest, ResumeQueueResponse>(to => to.Resources.ResumeQueueAsync),
        ["Cluster.GetSystemStatus"] =
            Unary<GetSystemStatusRequest, GetSystemStatusResponse>(to => to.Cluster.GetSystemStatusAsync),
        ["Cluster.ListPartitions"] =
            Unary<ListPartitionsRequest, ListPartitionsResponse>(to => to.Cluster.ListPartitionsAsync),
        ["Cluster.ListClusterJobs"] =
            Unary<ListClusterJobsRequest, ListClusterJobsResponse>(to => to.Cluster.ListClusterJobsAsync),
        ["Cluster.ListSolvers"] = Unary<ListSolversRequest, ListSolversResponse>(to => to.Cluster.ListSolversAsync),
        ["watch"] = Watch,
    };

    private static async Task Watch(EdbJobsClient client, Call call, List<string> messages)
    {
        IAsyncEnumerator<Event> changes = client.Watch(call.Parse<WatchJobsRequest>()).GetAsyncEnumerator();
        while (await changes.MoveNextAsync())
        {
            string text = Formatter.Format(changes.Current);
            Console.WriteLine("{\"event\":" + Quoted(text) + "}");
            if (text.Contains(call.Until)) break;
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
