// A host program without a .config file that runs the sample as an add-in from another folder: host.exe FOLDER ARGUMENTS.
using System.IO;
using System.Linq;
using System.Reflection;

internal static class Host
{
    private static int Main(string[] arguments)
    {
        // As hosts load add-ins that must not meet each other: without looking for what stands beside them.
        Assembly client = Assembly.LoadFile(Path.Combine(arguments[0], "EdbJobs.Client.dll"));
        client.GetType("EdbJobs.HostedAssemblies").GetMethod("Resolve").Invoke(null, null);
        Assembly sample = Assembly.LoadFile(Path.Combine(arguments[0], "edbjobs-csharp.exe"));
        return (int)sample.EntryPoint.Invoke(null, new object[] { arguments.Skip(1).ToArray() });
    }
}
