// mono keeps System.Runtime.CompilerServices.Unsafe to itself; this is the part of it that Google.Protobuf uses, for the
// types it uses it with.
using System;

namespace Google.Protobuf
{
    internal static unsafe class Unsafe
    {
        public static ref byte As<TFrom, TTo>(ref char source)
        {
            fixed (char* start = &source) return ref *(byte*)start;
        }

        public static ref byte Add(ref byte source, int count)
        {
            fixed (byte* start = &source) return ref *(start + count);
        }

        public static ref byte AddByteOffset(ref byte source, IntPtr count)
        {
            fixed (byte* start = &source) return ref *(start + count.ToInt64());
        }

        public static ref char AddByteOffset(ref char source, IntPtr count)
        {
            fixed (char* start = &source) return ref *(char*)((byte*)start + count.ToInt64());
        }

        public static T ReadUnaligned<T>(ref byte source)
        {
            fixed (byte* start = &source)
            {
                if (typeof(T) == typeof(float)) return (T)(object)*(float*)start;
                if (typeof(T) == typeof(double)) return (T)(object)*(double*)start;
                return (T)(object)*(ulong*)start;
            }
        }

        public static void WriteUnaligned(ref byte destination, float value)
        {
            fixed (byte* start = &destination) *(float*)start = value;
        }
    }
}
