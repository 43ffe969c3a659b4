// Submits a project, watches the job to its end, prints the solver's log.
//
//   edbjobs-csharp PROJECT [CORES]
//
// Finds this user's service. Ctrl+C cancels the job. Exit code: 0 the solve completed, 1 it did not or was refused, 2 wrong
// usage.
using System;
using System.Collections.Generic;
using System.IO;
using System.Threading;
using System.Threading.Tasks;
using EdbJobs;
using EdbJobs.V1;
using Grpc.Core;

internal static class Program
{
    private static int Main(string[] arguments)
    {
        if (arguments.Length < 1 || arguments.Length > 2)
        {
            Console.Error.WriteLine("usage: edbjobs-csharp PROJECT [CORES]");
            return 2;
        }
        using (var stop = new CancellationTokenSource())
        {
            Console.CancelKeyPress += (sender, key) =>
            {
                key.Cancel = true;
                stop.Cancel();
            };
            int cores = arguments.Length == 2 ? int.Parse(arguments[1]) : 1;
            return Run(Path.GetFullPath(arguments[0]), cores, stop.Token).GetAwaiter().GetResult();
        }
    }

    private static async Task<int> Run(string project, int cores, CancellationToken stop)
    {
        using (var client = new EdbJobsClient())
        {
            try
            {
                Job job = await Submit(client, project, cores);
                Console.WriteLine("submitted " + job.Id + " to " + client.Address);
                job = await Watch(client, job, stop);
                await PrintLog(client, job);
                return job.State == JobState.Completed ? 0 : 1;
            }
            catch (RpcException exception)
            {
                ServiceError error = ServiceError.From(exception);
                Console.Error.WriteLine("edbjobs-csharp: " + error.Message);
                foreach (var field in error.Fields) Console.Error.WriteLine("  " + field.Key + ": " + field.Value);
                return 1;
            }
        }
    }

    private static async Task<Job> Submit(EdbJobsClient client, string project, int cores)
    {
        var request = new SubmitJobRequest
        {
            RequestId = Guid.NewGuid().ToString(), // repeating it never makes a second job
            Config = new JobConfig { ProjectPath = project, Cores = cores },
        };
        return (await client.Jobs.SubmitJobAsync(request)).Job;
    }

    // With C# 8 or later: await foreach (Event change in client.Watch(request).WithCancellation(stop)) { ... }
    private static async Task<Job> Watch(EdbJobsClient client, Job job, CancellationToken stop)
    {
        var request = new WatchJobsRequest { AfterRevision = job.Revision, Filter = new JobFilter { Names = { job.Uid } } };
        IAsyncEnumerator<Event> changes = client.Watch(request).GetAsyncEnumerator(stop);
        try
        {
            while (!HasEnded(job) && await changes.MoveNextAsync())
            {
                Event change = changes.Current;
                job = change.Job;
                Console.WriteLine(change.Revision + " " + change.Type + " " + job.Message);
            }
            return job;
        }
        catch (OperationCanceledException)
        {
            await client.Jobs.CancelJobAsync(new CancelJobRequest { Name = job.Uid });
            var wait = new WaitJobRequest { Name = job.Uid };
            return (await client.Jobs.WaitJobAsync(wait, deadline: DateTime.UtcNow.AddMinutes(1))).Job;
        }
        finally
        {
            await changes.DisposeAsync();
        }
    }

    private static async Task PrintLog(EdbJobsClient client, Job job)
    {
        var request = new TailLogRequest { Name = job.Uid, Stream = LogStream.Solver };
        using (Stream output = Console.OpenStandardOutput())
        using (AsyncServerStreamingCall<TailLogResponse> pieces = client.Jobs.TailLog(request))
        {
            while (await pieces.ResponseStream.MoveNext(CancellationToken.None))
            {
                pieces.ResponseStream.Current.Data.WriteTo(output);
            }
        }
    }

    private static bool HasEnded(Job job)
    {
        return job.State == JobState.Completed || job.State == JobState.Failed || job.State == JobState.Cancelled;
    }
}
