// The range of an array, and whether it is finite, in a row of three integers that begin at 0.
namespace gpugrad {

// x as an integer above 0, in the order of the numbers.
__device__ inline unsigned long long ordered(double x) {
  unsigned long long bits;
  memcpy(&bits, &x, sizeof bits);
  return bits >> 63 ? ~bits : bits | 1ull << 63;
}

__device__ inline void raise_to(unsigned long long &place, unsigned long long value) {
  if (place < value) place = value;
}

// Notes the largest finite number, the largest negated one, and 1 for an infinity or 2 for a NaN.
template <class T> __device__ void note_number(T x, unsigned long long *row) {
  const double v = static_cast<double>(x);
  if (isnan(v)) {
    raise_to(row[2], 2);
  } else if (isinf(v)) {
    raise_to(row[2], 1);
  } else {
    raise_to(row[0], ordered(v));
    raise_to(row[1], ordered(-v));
  }
}

// Notes x[first], x[first + step] and so on; whole warps call it. All write to one place, so of each
// warp one thread does, and only where it finds that it must.
template <class X>
__device__ void note_range(const X &x, long long first, long long step, unsigned long long *row) {
  unsigned long long found[3] = {0, 0, 0};
  for (long long i = first; i < x.size(); i += step) note_number(x[i], found);
  for (int k = 0; k < 3; ++k) {
    for (int lanes = 16; lanes; lanes /= 2)
      raise_to(found[k], __shfl_xor_sync(0xffffffff, found[k], lanes));
    const bool higher = *static_cast<volatile unsigned long long *>(row + k) < found[k];
    if (threadIdx.x % 32 == 0 && higher) atomicMax(row + k, found[k]);
  }
}

}  // namespace gpugrad
