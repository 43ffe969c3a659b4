using System;
using System.IO;
using System.Reflection;

namespace EdbJobs
{
    /// <summary>
    /// For an add-in inside a host program of .NET Framework. The packages of this client were built against different
    /// versions of shared assemblies; a program bridges that with binding redirects in its own .config file, which an
    /// add-in does not have. Instead, call <see cref="Resolve"/> once, before the first use of anything else here.
    /// </summary>
    public static class HostedAssemblies
    {
        private static readonly string Folder = Path.GetDirectoryName(typeof(HostedAssemblies).Assembly.Location);
        private static int registered;

        /// <summary>
        /// Answers what the host cannot find with the assembly of that name, whatever its version, that lies beside
        /// this one.
        /// </summary>
        public static void Resolve()
        {
            if (System.Threading.Interlocked.Exchange(ref registered, 1) == 0)
            {
                AppDomain.CurrentDomain.AssemblyResolve += Find;
            }
        }

        private static Assembly Find(object sender, ResolveEventArgs wanted)
        {
            string file = Path.Combine(Folder, new AssemblyName(wanted.Name).Name + ".dll");
            return File.Exists(file) ? Assembly.LoadFrom(file) : null;
        }
    }
}
