// Python's // and % of floating-point numbers, as NumPy computes them: from the exact remainder of
// the truncated division. a - floor(a / b) b would be wrong for large quotients and infinities.
// Where an operand is infinite, a // b is a / b, as the array API standard has it.
namespace gpugrad {

template <class T> __device__ T remainder(T a_, T b_) {
  using W = wide<T>;
  const W a = widen(a_), b = widen(b_), rest = fmod(a, b);
  if (rest == 0) return static_cast<T>(copysign(W(0), b));
  return static_cast<T>((b < 0) != (rest < 0) ? rest + b : rest);
}

template <class T> __device__ T floor_divide(T a_, T b_) {
  using W = wide<T>;
  const W a = widen(a_), b = widen(b_), rest = fmod(a, b);
  if (b == 0 || isinf(a) || isinf(b)) return static_cast<T>(a / b);
  W quotient = (a - rest) / b;
  if (rest != 0 && (b < 0) != (rest < 0)) quotient -= W(1);
  if (quotient == 0) return static_cast<T>(copysign(W(0), a / b));
  const W whole = floor(quotient);
  return static_cast<T>(quotient - whole > W(0.5) ? whole + W(1) : whole);
}

}  // namespace gpugrad
