using System;
using System.Collections.Generic;
using System.Linq;
using EdbJobs.V1;
using Google.Protobuf;
using Google.Protobuf.Reflection;
using Idempotency = Google.Protobuf.Reflection.MethodOptions.Types.IdempotencyLevel;

namespace EdbJobs
{
    /// <summary>
    /// Which calls are sent again when it is not known whether the service got them: those whose idempotency_level is
    /// NO_SIDE_EFFECTS or IDEMPOTENT (but deletes, whose second answer would be another one), and those whose request, or
    /// each item of it, has a request_id.
    /// </summary>
    internal static class Repeatable
    {
        private const string RequestId = "request_id";

        private static readonly ServiceDescriptor[] Services =
        {
            ClusterService.Descriptor, JobsService.Descriptor, ResourcesService.Descriptor,
        };

        private static readonly HashSet<MessageDescriptor> SafeRequests = new HashSet<MessageDescriptor>(
            Services.SelectMany(service => service.Methods).Where(IsSafe).Select(method => method.InputType));

        /// <summary>The unary calls that are sent again, once <see cref="WithRequestIds"/> prepared their request.</summary>
        internal static IEnumerable<MethodDescriptor> Calls => Services
            .SelectMany(service => service.Methods)
            .Where(method => !method.IsServerStreaming && (IsSafe(method) || HasRequestIds(method.InputType)));

        /// <summary>The request of a call that is safe to repeat, or a copy with a request_id where none is set.</summary>
        internal static TRequest WithRequestIds<TRequest>(TRequest request) where TRequest : class
        {
            var message = request as IMessage;
            if (message == null || SafeRequests.Contains(message.Descriptor) || !HasRequestIds(message.Descriptor))
            {
                return request;
            }
            TRequest copy = ((IDeepCloneable<TRequest>)request).Clone();
            foreach (IMessage carrier in Carriers((IMessage)copy))
            {
                IFieldAccessor id = carrier.Descriptor.FindFieldByName(RequestId).Accessor;
                if (((string)id.GetValue(carrier)).Length == 0) id.SetValue(carrier, Guid.NewGuid().ToString());
            }
            return copy;
        }

        private static bool IsSafe(MethodDescriptor method)
        {
            // Safe, but if the first try was obeyed, the second would answer NOT_FOUND.
            if (method.Name == "DeleteJob" || method.Name == "DeleteJobs") return false;
            MethodOptions options = method.GetOptions();
            return options != null && options.IdempotencyLevel != Idempotency.IdempotencyUnknown;
        }

        private static bool HasRequestIds(MessageDescriptor request)
        {
            return request.FindFieldByName(RequestId) != null || Items(request) != null;
        }

        // The field of a call on many whose items have a request_id each.
        private static FieldDescriptor Items(MessageDescriptor request)
        {
            return request.Fields.InDeclarationOrder().FirstOrDefault(field =>
                field.IsRepeated && !field.IsMap && field.FieldType == FieldType.Message
                && field.MessageType.FindFieldByName(RequestId) != null);
        }

        private static IEnumerable<IMessage> Carriers(IMessage request)
        {
            if (request.Descriptor.FindFieldByName(RequestId) != null) return new[] { request };
            return ((System.Collections.IEnumerable)Items(request.Descriptor).Accessor.GetValue(request)).Cast<IMessage>();
        }
    }
}
