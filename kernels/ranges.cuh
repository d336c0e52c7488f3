// The range of an array, and whether it is finite, in a row of three integers that begin at 0.
namespace gpugrad {

// x as an integer above 0, in the order of the numbers.
__device__ inline unsigned long long ordered(double x) {
  unsigned long long bits;
  memcpy(&bits, &x, sizeof bits);
  return bits >> 63 ? ~bits : bits | 1ull << 63;
}

// Few threads find that they must write: the others only read.
__device__ inline void raise_to(unsigned long long *place, unsigned long long value) {
  if (*static_cast<volatile unsigned long long *>(place) < value) atomicMax(place, value);
}

// Notes the largest finite number, the largest negated one, and 1 for an infinity or 2 for a NaN.
template <class T> __device__ void note_range(T x, unsigned long long *row) {
  const double v = static_cast<double>(x);
  if (isnan(v)) {
    raise_to(row + 2, 2);
  } else if (isinf(v)) {
    raise_to(row + 2, 1);
  } else {
    raise_to(row, ordered(v));
    raise_to(row + 1, ordered(-v));
  }
}

}  // namespace gpugrad
