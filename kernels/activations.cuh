// Activation functions and their derivatives, each right in both tails. The derivatives take the
// cotangent g and the argument x, and return g * f'(x). NaN gives NaN, infinities give the limit.
namespace gpugrad {

// 1 / (1 + exp(-x)) without overflow
template <class T> __device__ T sigmoid(T x_) {
  using W = wide<T>;
  const W x = widen(x_), e = exp(-fabs(x));
  return static_cast<T>((x < 0 ? e : W(1)) / (W(1) + e));
}

// e / (1 + e)^2 with e = exp(-|x|): y (1 - y) would be 0 in float32 from x = 16.65 on. The square
// is 1 + e (2 + e), which is rounded once.
template <class T> __device__ T sigmoid_grad(T g, T x_) {
  using W = wide<T>;
  const W e = exp(-fabs(widen(x_)));
  return static_cast<T>(widen(g) * (e / (W(1) + e * (W(2) + e))));
}

// 1 - tanh(x)^2 = 4 e / (1 + e)^2 with e = exp(-2|x|)
template <class T> __device__ T tanh_grad(T g, T x_) {
  using W = wide<T>;
  const W e = exp(W(-2) * fabs(widen(x_)));
  return static_cast<T>(widen(g) * (W(4) * e / (W(1) + e * (W(2) + e))));
}

// log(1 + exp(x))
template <class T> __device__ T softplus(T x_) {
  using W = wide<T>;
  const W x = widen(x_);
  return static_cast<T>(fmax(x, W(0)) + log1p(exp(-fabs(x))));
}

// log(sigmoid(x)) = -softplus(-x)
template <class T> __device__ T log_sigmoid(T x_) {
  using W = wide<T>;
  const W x = widen(x_);
  return static_cast<T>(fmin(x, W(0)) - log1p(exp(-fabs(x))));
}

// x sigmoid(x)
template <class T> __device__ T silu(T x_) {
  using W = wide<T>;
  const W x = widen(x_), d = W(1) + exp(-x);
  return static_cast<T>(isinf(d) ? -W(0) : x / d);
}

// s(x) (1 + x s(-x)) with the sigmoid s
template <class T> __device__ T silu_grad(T g, T x_) {
  using W = wide<T>;
  const W x = widen(x_), e = exp(-fabs(x)), big = W(1) / (W(1) + e), small = e / (W(1) + e);
  const W bounded = fmin(fmax(x, W(-1e30)), W(1e30));  // infinity * 0 must be 0
  const W s = x < 0 ? small : big, rest = x < 0 ? big : small;
  return static_cast<T>(widen(g) * (s * (W(1) + bounded * rest)));
}

template <class T> __device__ T erf(T x) { return static_cast<T>(::erf(widen(x))); }

// Phi(x) = erfc(-x / sqrt(2)) / 2 for the working types. y lost dy in rounding, which in the tail
// matters: erfc(y + dy) = erfc(y) (1 - 2 y dy).
template <class W> __device__ W normal_cdf(W x) {
  const double c = 0.70710678118654752440, c_low = -4.8336466567264567e-17;
  const W c_head = W(c), c_tail = W((c - double(c_head)) + c_low);
  const W y = -x * c_head, dy = fma(-x, c_head, -y) - x * c_tail;
  const W p = W(0.5) * ::erfc(y);
  return y > 0 && p > 0 ? p - p * (W(2) * y * dy) : p;
}

// exp(-x^2 / 2) / sqrt(2 pi), with what x^2 lost in rounding
template <class W> __device__ W normal_pdf(W x) {
  const W square = x * x, lost = fma(x, x, -square);
  const W p = W(0.39894228040143267794) * exp(W(-0.5) * square);
  return p > 0 ? p - p * (W(0.5) * lost) : p;
}

// x Phi(x), not the tanh approximation
template <class T> __device__ T gelu(T x_) {
  using W = wide<T>;
  const W x = widen(x_), p = normal_cdf(x);
  return static_cast<T>(p == 0 ? -W(0) : x * p);
}

// Phi(x) + x phi(x)
template <class T> __device__ T gelu_grad(T g, T x_) {
  using W = wide<T>;
  const W x = widen(x_), density = normal_pdf(x);
  const W slope = normal_cdf(x) + (density == 0 ? W(0) : x * density);
  return static_cast<T>(widen(g) * slope);
}

template <class T> __device__ T relu(T x) { return x < T(0) ? T(0) : x; }

template <class T> __device__ T relu_grad(T g, T x) { return x <= T(0) ? T(0) : g; }

}  // namespace gpugrad
