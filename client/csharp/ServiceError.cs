using System;
using System.Collections.Generic;
using EdbJobs.V1;
using Google.Rpc;
using Grpc.Core;

namespace EdbJobs
{
    /// <summary>What the service says of an error, for programs.</summary>
    public sealed class ServiceError
    {
        private readonly Dictionary<string, string> fields = new Dictionary<string, string>();
        private readonly Dictionary<string, string> metadata = new Dictionary<string, string>();

        private ServiceError(StatusCode code, string message)
        {
            Code = code;
            Message = message;
        }

        public StatusCode Code { get; }

        /// <summary>A sentence for people.</summary>
        public string Message { get; }

        /// <summary>For example JOB_NOT_FOUND; empty: the service did not answer itself.</summary>
        public string Reason { get; private set; } = "";

        /// <summary>The same as a value of the contract; Unspecified: it has none, or a newer one has it.</summary>
        public ErrorReason ErrorReason
        {
            get
            {
                ErrorReason value;
                bool known = Enum.TryParse(Reason.Replace("_", ""), true, out value);
                return known ? value : ErrorReason.Unspecified;
            }
        }

        /// <summary>Path of each wrong field, and what is wrong with it.</summary>
        public IReadOnlyDictionary<string, string> Fields => fields;

        /// <summary>Values that belong to the reason, for example the uid of the job that exists.</summary>
        public IReadOnlyDictionary<string, string> Metadata => metadata;

        /// <summary>The service, or the way to it, is away for a while: the same call may work later.</summary>
        public bool MayPass
        {
            get
            {
                switch (Code)
                {
                    case StatusCode.Unavailable:
                    case StatusCode.ResourceExhausted:
                    case StatusCode.DeadlineExceeded:
                        return true;
                    case StatusCode.Cancelled:
                    case StatusCode.Internal:
                    case StatusCode.Unknown:
                        return Reason.Length == 0; // a stream that broke with its connection
                    default:
                        return false;
                }
            }
        }

        /// <summary>Reads the google.rpc details that the service sends with every error.</summary>
        public static ServiceError From(RpcException exception)
        {
            var error = new ServiceError(exception.StatusCode, exception.Status.Detail);
            foreach (Metadata.Entry entry in exception.Trailers)
            {
                if (entry.Key == "grpc-status-details-bin") error.Read(Google.Rpc.Status.Parser.ParseFrom(entry.ValueBytes));
            }
            return error;
        }

        /// <summary>Reads an error within an answer, such as JobResult.Error.</summary>
        public static ServiceError From(Google.Rpc.Status status)
        {
            var error = new ServiceError((StatusCode)status.Code, status.Message);
            error.Read(status);
            return error;
        }

        private void Read(Google.Rpc.Status status)
        {
            foreach (var detail in status.Details)
            {
                ErrorInfo info;
                BadRequest bad;
                if (detail.TryUnpack(out info))
                {
                    Reason = info.Reason;
                    foreach (var pair in info.Metadata) metadata[pair.Key] = pair.Value;
                }
                else if (detail.TryUnpack(out bad))
                {
                    foreach (var item in bad.FieldViolations) fields[item.Field] = item.Description;
                }
            }
        }
    }
}
