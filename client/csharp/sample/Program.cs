// Submits a project, shows its changes and its progress to the end, prints the solver's log.
//
//   edbjobs-csharp PROJECT [CORES]
//
// Finds this user's service. Ctrl+C cancels the job. Exit code: 0 the solve completed, 1 it did not or was refused, 2 wrong
// usage.
using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
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
            Config = new JobConfig { ProjectPath = project, Cores = cores },
        };
        return (await client.Jobs.SubmitJobAsync(request)).Job;
    }

    // With C# 8 or later: await foreach (WatchJobsResponse message in client.Watch(request).WithCancellation(stop)) { ... }
    private static async Task<Job> Watch(EdbJobsClient client, Job job, CancellationToken stop)
    {
        var request = new WatchJobsRequest
        {
            After = new Position { Revision = job.Revision },
            Filter = new JobFilter { Jobs = { Reference(job) } },
            IncludeUpdates = true,
        };
        string shown = "";
        IAsyncEnumerator<WatchJobsResponse> messages = client.Watch(request).GetAsyncEnumerator(stop);
        try
        {
            while (job.EndTime == null && await messages.MoveNextAsync())
            {
                foreach (WatchEvent change in messages.Current.Events)
                {
                    if (change.JobChange == null) continue; // of a newer service
                    job = change.JobChange.Job;
                    Console.WriteLine(change.Revision + " " + change.JobChange.Type + " " + job.Outcome?.Message);
                }
                foreach (string text in messages.Current.Updates.Select(Text))
                {
                    if (text.Length > 0 && text != shown) Console.WriteLine("  " + text);
                    shown = text;
                }
            }
            return job;
        }
        catch (OperationCanceledException)
        {
            await client.Jobs.CancelJobAsync(new CancelJobRequest { Job = Reference(job) });
            var wait = new WaitJobRequest { Job = Reference(job) };
            return (await client.Jobs.WaitJobAsync(wait, deadline: DateTime.UtcNow.AddMinutes(1))).Job;
        }
        finally
        {
            await messages.DisposeAsync();
        }
    }

    private static string Text(JobUpdate update)
    {
        if (update.Waiting != null) return "waiting: " + update.Waiting.Message;
        return update.Progress == null ? "" : Text(update.Progress);
    }

    // Numbers that the solver has not reported are absent: test for presence before reading one.
    private static string Text(JobProgress progress)
    {
        string text = progress.Phase + " " + progress.Setup;
        if (progress.HasCurrentPass) text += ", pass " + progress.CurrentPass;
        if (progress.HasCurrentPass && progress.HasMaxPasses) text += " of " + progress.MaxPasses;
        if (progress.LastPass != null && progress.LastPass.HasDelta) text += ", delta " + progress.LastPass.Delta;
        if (progress.HasFrequenciesSolved) text += ", frequencies " + progress.FrequenciesSolved;
        if (progress.HasFraction) text += ", " + Math.Round(100 * progress.Fraction) + " %";
        return text;
    }

    // The log has ended with the job. One that is followed also has empty pieces, which are no end.
    private static async Task PrintLog(EdbJobsClient client, Job job)
    {
        var request = new ReadLogRequest { Job = Reference(job) };
        using (Stream output = Console.OpenStandardOutput())
        using (AsyncServerStreamingCall<ReadLogResponse> pieces = client.Jobs.ReadLog(request))
        {
            while (await pieces.ResponseStream.MoveNext(CancellationToken.None))
            {
                pieces.ResponseStream.Current.Data.WriteTo(output);
            }
        }
    }

    private static JobRef Reference(Job job)
    {
        return new JobRef { Uid = job.Uid };
    }
}
